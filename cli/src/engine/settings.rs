//! What a container gets: the image's config, and what the command line changes of it, by docker's rules.

use std::collections::BTreeMap;

use boxwright_cache::record::ImageRecord;
use boxwright_executor as executor;
use boxwright_executor::network::{NameFiles, Names};

use super::network::Joined;
use super::run::RunRequest;
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct Settings {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: String,
    pub(super) user: String,
    /// None is the host's own.
    pub(super) hostname: Option<String>,
    pub(super) names: NameFiles,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of a container's id is its host name.
const SHORT_ID: usize = 12;
/// The kernel keeps no longer ones.
const MAX_NAME: usize = 64;

impl Settings {
    pub(super) fn of(
        image: &ImageRecord,
        request: &RunRequest,
        joined: &Joined,
        id: &str,
    ) -> Result<Settings> {
        if image.config.os == "windows" {
            return Err(Error::invalid("image operating system \"windows\" cannot be used on this platform"));
        }
        let config = &image.config.config;
        let cwd =
            request.workdir.clone().filter(|w| !w.is_empty()).unwrap_or_else(|| config.working_dir.clone());
        let cwd = if cwd.is_empty() { "/".to_owned() } else { cwd };
        if !cwd.starts_with('/') {
            return Err(Error::invalid(format!(
                "the working directory {cwd:?} is invalid, it needs to be an absolute path"
            )));
        }
        if request.hostname.is_some() && request.confinement.host_uts {
            return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
        }
        if domain(request).is_some() && request.confinement.host_uts {
            return Err(Error::invalid("conflicting options: domainname and the UTS mode"));
        }
        let hostname = match (&request.hostname, joined) {
            _ if request.confinement.host_uts => None,
            (_, Joined::Another { names, .. }) => Some(names.hostname.clone()),
            (Some(name), _) => Some(name.clone()),
            (None, Joined::Host) => None,
            (None, _) => Some(id[..SHORT_ID].to_owned()),
        };
        let name = hostname.clone().unwrap_or_else(host_name);
        let names = names(request, joined, &name)?;
        for (what, name) in [("host", Some(&name)), ("domain", names.domain.as_ref())] {
            if let Some(name) = name.filter(|name| name.len() > MAX_NAME) {
                return Err(Error::invalid(format!(
                    "the {what} name {name:?} is too long: it may have {MAX_NAME} bytes"
                )));
            }
        }
        Ok(Settings {
            args: args(config.entrypoint.as_deref(), config.cmd.as_deref(), request)?,
            env: env(&config.env, &request.env, &name, request.tty),
            cwd,
            user: request.user.clone().unwrap_or_else(|| config.user.clone()),
            names,
            hostname,
        })
    }
}

/// Another entrypoint takes the image's arguments away with the image's entrypoint.
fn args(entrypoint: Option<&[String]>, cmd: Option<&[String]>, request: &RunRequest) -> Result<Vec<String>> {
    let (mut args, cmd) = match request.entrypoint.as_deref() {
        None => (entrypoint.unwrap_or_default().to_vec(), cmd.unwrap_or_default()),
        Some("") => (Vec::new(), &[][..]),
        Some(program) => (vec![program.to_owned()], &[][..]),
    };
    args.extend_from_slice(if request.command.is_empty() { cmd } else { &request.command });
    if args.is_empty() {
        return Err(Error::invalid("no command specified"));
    }
    Ok(args)
}

/// One value for each name, in the order in which names first appear. A name alone in the request takes away what is not
/// the request's own.
fn env(image: &[String], request: &[String], hostname: &str, tty: bool) -> Vec<String> {
    let own = [PATH.to_owned(), format!("HOSTNAME={hostname}")];
    let terminal = tty.then(|| "TERM=xterm".to_owned());
    let (set, removed): (Vec<&String>, Vec<&String>) = request.iter().partition(|entry| entry.contains('='));
    let is_removed = |entry: &String| removed.iter().any(|name| entry.split('=').next() == Some(name));
    let given = own.into_iter().chain(terminal).chain(image.iter().cloned()).filter(|e| !is_removed(e));
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut env: Vec<String> = Vec::new();
    for entry in given.chain(set.into_iter().cloned()) {
        let name = entry.split('=').next().unwrap_or_default().to_owned();
        match names.get(&name) {
            Some(&at) => env[at] = entry,
            None => {
                names.insert(name, env.len());
                env.push(entry);
            }
        }
    }
    // An empty HOME is as good as none, and that comes from the passwd file.
    env.retain(|entry| entry != "HOME=");
    env
}

fn domain(request: &RunRequest) -> Option<String> {
    request.domain.clone().filter(|domain| !domain.is_empty())
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// An absolute path without `.`, `..` and doubled slashes.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// What is in the three files that every container gets from us.
fn names(request: &RunRequest, joined: &Joined, hostname: &str) -> Result<NameFiles> {
    if let Joined::Another { names, .. } = joined {
        return Ok(names.clone());
    }
    let names = Names {
        hostname: hostname.to_owned(),
        domain: domain(request),
        hosts: request.hosts.clone(),
        resolver: request.resolver.clone(),
    };
    names.files(&joined.network(), joined.connection()).map_err(not_started)
}

/// What kept a container from starting, with docker's code for it.
pub(super) fn not_started(error: executor::Error) -> Error {
    let error = match error {
        executor::Error::Cancelled => return Error::Cache(boxwright_cache::Error::Cancelled),
        executor::Error::Cache(error) => return Error::Cache(error),
        error => error,
    };
    let code = u8::try_from(error.exit_code()).unwrap_or(125);
    Error::Container { code, message: format!("failed to start the container: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_entrypoint_of_the_command_line_takes_the_images_arguments_away() {
        let request = |entrypoint: Option<&str>, command: &str| RunRequest {
            entrypoint: entrypoint.map(str::to_owned),
            command: words(command),
            ..RunRequest::default()
        };
        let (entry, cmd) = (words("/e x"), words("c d"));
        for (flag, command, expected) in [
            (None, "", "/e x c d"),
            (None, "y", "/e x y"),
            (Some("/f"), "", "/f"),
            (Some("/f"), "y", "/f y"),
            (Some(""), "y", "y"),
        ] {
            let args = args(Some(&entry), Some(&cmd), &request(flag, command)).unwrap();
            assert_eq!(args, words(expected), "{flag:?} {command}");
        }
        let none = args(Some(&entry), Some(&cmd), &request(Some(""), "")).unwrap_err();
        assert_eq!(none.to_string(), "no command specified");
    }

    #[test]
    fn the_command_lines_variables_win_and_an_empty_home_is_none() {
        let image = words("PATH=/bin A=1 B=2");
        let env = env(&image, &words("A=3 HOME= C=4"), "box", true);
        assert_eq!(env, words("PATH=/bin HOSTNAME=box TERM=xterm A=3 B=2 C=4"));
    }

    #[test]
    fn a_name_alone_takes_away_what_the_image_sets() {
        let env = env(&words("PATH=/bin A=1 AB=2"), &words("A TERM B=3 B NONE"), "box", true);
        assert_eq!(env, words("PATH=/bin HOSTNAME=box AB=2 B=3"));
    }
}
