//! What the environment says, and the configuration file. Nothing else in the program reads it, but for the values that `-e NAME`, `--build-arg
//! NAME` and `--secret` ask for by name.

mod registries;

use std::env;
use std::path::{Path, PathBuf};

use boxwright_cache::registry::{Hosts, Logins, Options, Proxies};
use boxwright_executor::git::Git;

use crate::error::{Error, Result};
use crate::report::remark_once;

/// The configuration of the machine, for users without one of their own.
const SYSTEM_CONFIG: &str = "/etc/boxwright/config.toml";
/// Where docker keeps certificates for and of registries.
const SYSTEM_CERTS: &str = "/etc/docker/certs.d";

/// The store of root.
const SYSTEM_STORE: &str = "/var/lib/boxwright";

/// Where the store is when neither `--root` nor `BOXWRIGHT_ROOT` says so.
pub(crate) fn default_root() -> Result<PathBuf> {
    let set = path_variable;
    root_for(rustix::process::geteuid().is_root(), set("XDG_DATA_HOME"), set("HOME"))
}

fn path_variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}

fn root_for(root: bool, data_home: Option<PathBuf>, home: Option<PathBuf>) -> Result<PathBuf> {
    if root {
        return Ok(PathBuf::from(SYSTEM_STORE));
    }
    // The XDG specification says to ignore relative paths.
    let data_home = data_home.filter(|d| d.is_absolute()).or_else(|| home.map(|h| h.join(".local/share")));
    let no_home = || Error::invalid("neither HOME nor XDG_DATA_HOME is set: say --root DIR");
    Ok(data_home.ok_or_else(no_home)?.join("boxwright"))
}

/// How many bytes the build cache may keep, if `BOXWRIGHT_KEEP_STORAGE` says so.
pub(crate) fn keep_storage() -> Result<Option<u64>> {
    let name = "BOXWRIGHT_KEEP_STORAGE";
    let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    let size = boxwright_frontend::size::parse(&text);
    size.map(Some).ok_or_else(|| Error::invalid(format!("invalid size: {text:?} in {name}")))
}

/// Whether colours are unwelcome (no-color.org), or the terminal is one that has none.
pub(crate) fn no_color() -> bool {
    let set = env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    set || is_dumb_terminal()
}

/// Whether the terminal can only write on.
pub(crate) fn is_dumb_terminal() -> bool {
    env::var_os("TERM").is_some_and(|v| v == "dumb")
}

/// How a build is shown on a terminal.
pub(crate) struct TerminalLook {
    /// What BuildKit's variable chooses; none where colours are unwelcome.
    pub(crate) colours: Option<String>,
    pub(crate) log_lines: usize,
}

pub(crate) fn terminal_look() -> TerminalLook {
    let colours = (!no_color()).then(|| variable("BUILDKIT_COLORS").unwrap_or_default());
    let log_lines = variable("BUILDKIT_TTY_LOG_LINES").and_then(|text| text.parse().ok());
    TerminalLook { colours, log_lines: log_lines.filter(|lines| *lines > 0).unwrap_or(6) }
}

/// How registries are reached: what the environment, the configuration file and docker's directories of certificates say.
pub(crate) fn registries() -> Result<Options> {
    // The XDG specification says to ignore relative paths.
    let config_home = path_variable("XDG_CONFIG_HOME").filter(|dir| dir.is_absolute());
    let own = config_home.or_else(|| path_variable("HOME").map(|home| home.join(".config")));
    let mut files = vec![PathBuf::from(SYSTEM_CONFIG)];
    let mut certs = Vec::new();
    if let Some(own) = own.filter(|own| !is_hidden(own)) {
        files.insert(0, own.join("boxwright/config.toml"));
        certs.push(own.join("docker/certs.d"));
    }
    let hosts = Hosts {
        known: registries::read(&files)?,
        certs,
        system_certs: Some(SYSTEM_CERTS.into()),
        remark: Some(remark_once),
    };
    Ok(Options { proxies: proxies(), hosts, ..no_registries() })
}

/// HOME may be another user's, as sudo can leave it: then not even what is in there can be told.
fn is_hidden(dir: &Path) -> bool {
    let within = std::fs::metadata(dir.join("."));
    let hidden = within.is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied);
    if hidden {
        remark_once(&format!("{} is not looked into: it is another user's", dir.display()));
    }
    hidden
}

/// For what asks no registry, and so must not fail where the configuration of one is wrong.
pub(crate) fn no_registries() -> Options {
    Options { logins: logins(), ..Options::default() }
}

/// Docker's directory of logins, if there is a place for one.
fn logins() -> Option<Logins> {
    let home = || path_variable("HOME").map(|home| home.join(".docker"));
    let dir = path_variable("DOCKER_CONFIG").or_else(home)?;
    Some(Logins { dir, programs: programs(), remark: remark_once })
}

/// What docker's `config.json` has containers told of proxies, by both spellings of each variable. Nothing fails because of it.
pub(crate) fn proxies_of_containers() -> Vec<(String, String)> {
    let told = logins().map_or(Ok(Vec::new()), |logins| logins.proxies());
    let told = told.unwrap_or_else(|error| {
        remark_once(&format!("containers are told of no proxy: {error}"));
        Vec::new()
    });
    told.into_iter()
        .flat_map(|(name, value)| [(name.to_owned(), value.clone()), (name.to_lowercase(), value)])
        .collect()
}

/// Where helpers are looked for: a program in the current directory is nobody's.
pub(crate) fn programs() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    env::split_paths(&path).filter(|dir| dir.is_absolute()).collect()
}

/// Proxies, by the variables that other programs read for this; the upper-case spelling wins.
fn proxies() -> Proxies {
    let set = |name: &str| {
        let value = env::var(name).or_else(|_| env::var(name.to_ascii_lowercase())).ok();
        value.filter(|v| !v.is_empty())
    };
    Proxies {
        http: set("HTTP_PROXY"),
        https: set("HTTPS_PROXY"),
        none_for: set("NO_PROXY").unwrap_or_default(),
    }
}

/// What git is given of the environment.
pub(crate) fn git() -> Git {
    let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty());
    let names = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"];
    let names = names.into_iter().flat_map(|name| [name.to_uppercase(), name.to_owned()]);
    let proxies = names.filter_map(|name| env::var(&name).ok().map(|value| (name, value)));
    Git {
        path: set("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
        ssh_agent: set("SSH_AUTH_SOCK"),
        proxies: proxies.collect(),
    }
}

/// The value of a variable that the user named.
pub(crate) fn variable(name: &str) -> Option<String> {
    env::var(name).ok()
}

/// The same for a secret, which may be any bytes.
pub(crate) fn variable_bytes(name: &str) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    env::var_os(name).map(OsStringExt::into_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_of_a_user_is_in_their_data_directory() {
        let path = |root, data: Option<&str>, home: Option<&str>| {
            root_for(root, data.map(PathBuf::from), home.map(PathBuf::from)).map(|p| p.display().to_string())
        };
        assert_eq!(path(true, Some("/d"), Some("/h")).unwrap(), SYSTEM_STORE);
        assert_eq!(path(false, Some("/d"), Some("/h")).unwrap(), "/d/boxwright");
        assert_eq!(path(false, Some("relative"), Some("/h")).unwrap(), "/h/.local/share/boxwright");
        assert!(path(false, None, None).is_err());
    }
}
