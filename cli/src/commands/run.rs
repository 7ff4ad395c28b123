//! The command `run`: its options, and what it prints.

use std::path::PathBuf;

use boxwright_cache::record::ImageRecord;
use boxwright_executor::Network;

use super::{Session, pull};
use crate::engine::{PullPolicy, RunRequest, Volume, clean, helped, reference};
use crate::error::{Error, Result};
use crate::{config, exit, interrupt, report};

/// Run a command in a new container
///
/// The container is removed when the command ends, with or without --rm: there is nothing yet that could start it
/// again.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Run {
    /// Remove the container when it ends, as is done anyway so far
    #[arg(long)]
    pub(crate) rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the container a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set a variable; without `=`, to the value it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Name or id of the user, and optionally of the group
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Show a directory or file of the host in the container
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]")]
    volume: Vec<String>,
    /// Program to run instead of the image's
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// host (the default so far) or none
    #[arg(long, alias = "net", value_name = "MODE", default_value = "default")]
    network: String,
    /// Nothing of the image can be written
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// When to ask the registry: missing, always or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: String,
    /// Don't show the progress of a pull
    #[arg(short, long)]
    quiet: bool,
    /// Show this
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[arg(value_name = "IMAGE [COMMAND [ARG]...]", required = true, trailing_var_arg = true)]
    pub(crate) image_and_command: Vec<String>,
}

impl Run {
    /// Gives the exit code of the container.
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<u8> {
        let failed = |error| exit::before_start(helped(error, session.engine.store().path()));
        self.run(session).map_err(failed)
    }

    fn run(self, session: &Session<'_>) -> Result<u8> {
        let request = self.request()?;
        let signals = session.signals.as_ref().expect("held for every command that runs something");
        let image = interrupt::watched(signals, session.engine.cancel(), || self.image(session))?;
        session.engine.run(&image, &request, signals)
    }

    fn image(&self, session: &Session<'_>) -> Result<ImageRecord> {
        let engine = &session.engine;
        let (word, policy) = (&self.image_and_command[0], self.policy()?);
        if policy != PullPolicy::Always
            && let Some(found) = engine.look_up(word)?
        {
            return Ok(found.image);
        }
        let name = reference(word)?;
        if policy == PullPolicy::Never {
            return Err(Error::NoSuchImage(name.familiar()));
        }
        if policy == PullPolicy::Missing {
            report::remark(&format!("Unable to find image '{}' locally", name.familiar()));
        }
        Ok(pull::fetch_aside(engine, &name, self.quiet)?.image)
    }

    fn policy(&self) -> Result<PullPolicy> {
        match self.pull.as_str() {
            "missing" | "" => Ok(PullPolicy::Missing),
            "always" => Ok(PullPolicy::Always),
            "never" => Ok(PullPolicy::Never),
            other => Err(Error::invalid(format!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            ))),
        }
    }

    fn request(&self) -> Result<RunRequest> {
        Ok(RunRequest {
            command: self.image_and_command[1..].to_vec(),
            entrypoint: self.entrypoint.clone(),
            env: self.env.iter().filter_map(|e| variable(e)).collect(),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            groups: Vec::new(),
            volumes: self.volume.iter().map(|v| parse_volume(v)).collect::<Result<_>>()?,
            name: self.name.clone(),
            hostname: self.hostname.clone(),
            network: match self.network.as_str() {
                "default" | "host" | "" => Network::Host,
                "none" => Network::None,
                other => return Err(Error::Later(format!("the network {other:?}"))),
            },
            read_only: self.read_only,
            interactive: self.interactive,
            tty: self.tty,
        })
    }
}

/// A variable that is named alone and not set here is not set there either.
fn variable(text: &str) -> Option<String> {
    if text.contains('=') {
        return Some(text.to_owned());
    }
    config::variable(text).map(|value| format!("{text}={value}"))
}

/// `HOST:CONTAINER[:OPTIONS]`.
fn parse_volume(text: &str) -> Result<Volume> {
    let invalid = |reason: &str| Error::invalid(format!("invalid volume specification: '{text}': {reason}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, target, options) = match parts.as_slice() {
        [_] => return Err(Error::Later(format!("the anonymous volume {text:?}"))),
        [host, target] => (*host, *target, ""),
        [host, target, options] => (*host, *target, *options),
        _ => return Err(invalid("too many colons")),
    };
    if host.is_empty() || target.is_empty() {
        return Err(invalid("empty section between colons"));
    }
    if !target.starts_with('/') {
        return Err(invalid("mount path must be absolute"));
    }
    let target = clean(target);
    if target == "/" {
        return Err(invalid("destination can't be '/'"));
    }
    let read_only = volume_options(options).ok_or_else(|| invalid("invalid mode"))?;
    Ok(Volume { host: host_path(host)?, target, read_only })
}

/// Whether it is read-only; none for an option that we don't know. Labels for SELinux and hints for file sharing
/// change nothing where there is neither.
fn volume_options(options: &str) -> Option<bool> {
    let mut read_only = false;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" | "cached" | "delegated" | "consistent" | "rprivate" => {}
            "z" | "Z" if !std::path::Path::new("/sys/fs/selinux/enforce").exists() => {}
            _ => return None,
        }
    }
    Some(read_only)
}

/// A word without a slash would be the name of a volume.
fn host_path(text: &str) -> Result<PathBuf> {
    if text.starts_with('/') {
        return Ok(PathBuf::from(text));
    }
    if text == "." || text == ".." || text.starts_with("./") || text.starts_with("../") {
        return std::path::absolute(text).map_err(Error::io("finding", text));
    }
    Err(Error::Later(format!("the named volume {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_or_refused() {
        let volume = |host: &str, target: &str, read_only| Volume {
            host: host.into(),
            target: target.into(),
            read_only,
        };
        assert_eq!(parse_volume("/a:/b").unwrap(), volume("/a", "/b", false));
        assert_eq!(parse_volume("/a:/b//c/../d/:ro").unwrap(), volume("/a", "/b/d", true));
        assert_eq!(parse_volume("/a:/b:rw,cached").unwrap(), volume("/a", "/b", false));
        assert!(parse_volume("./a:/b").unwrap().host.is_absolute());
        for (text, words) in [
            ("/a:.", "mount path must be absolute"),
            ("/:/", "destination can't be '/'"),
            ("/a:/b/..", "destination can't be '/'"),
            ("/a:/b:maybe", "invalid mode"),
            ("/a:", "empty section"),
            ("/a:/b:ro:x", "too many colons"),
            ("data:/b", "named volume \"data\" is not supported yet"),
            ("/b", "anonymous volume \"/b\" is not supported yet"),
        ] {
            let error = parse_volume(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_variable_named_alone_is_taken_from_here() {
        assert_eq!(variable("A=b"), Some("A=b".into()));
        assert_eq!(variable("PATH"), config::variable("PATH").map(|p| format!("PATH={p}")));
        assert_eq!(variable("NO_SUCH_VARIABLE_HERE"), None);
    }
}
