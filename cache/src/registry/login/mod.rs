//! Who we are to registries: docker's `config.json`, and the programs that it names for keeping secrets. What was kept for
//! one registry is never found for another (R7).

mod file;
mod process;
mod program;

use std::fmt;
use std::path::PathBuf;

use super::file::without_login;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::oci::Reference;
use file::ConfigFile;
use program::Program;

/// What a registry knows us by. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// What a token server gave for a password, to be asked with from then on (OAuth2's refresh token).
    Identity {
        user: String,
        token: String,
    },
    /// What the registry itself takes as a bearer token.
    Bearer {
        token: String,
    },
}

impl Credentials {
    /// Empty where nobody said it.
    pub fn user(&self) -> &str {
        match self {
            Credentials::Password { user, .. } | Credentials::Identity { user, .. } => user,
            Credentials::Bearer { .. } => "",
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Where credentials are kept.
#[derive(Clone, Debug)]
pub struct Logins {
    /// The directory of `config.json`; docker's is `~/.docker`.
    pub dir: PathBuf,
    /// Where programs are looked for.
    pub programs: Vec<PathBuf>,
    /// Gets told, in a line each, what did not work but is no reason to give up; the same line more than once.
    pub remark: fn(&str),
}

/// Where a login was written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In this file, for everybody who may read it.
    File(PathBuf),
    Helper,
}

/// What docker calls its hub in `config.json`.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// The registry that somebody means by `server`: its name, or a URL of it.
///
/// # Errors
/// When it can't be the host of a registry.
pub fn registry_of(server: &str) -> Result<String> {
    let host = host_of(server);
    let name = format!("{host}/x").parse::<Reference>();
    let registry = name.ok().filter(|name| name.registry() == host).map(|name| name.registry().to_owned());
    let shown = without_login(server);
    registry.ok_or_else(|| Error::invalid("registry", shown, "not a host and port, and nothing else"))
}

/// The host of a name or URL, as images are named after it.
fn host_of(server: &str) -> &str {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    match rest.split('/').next().unwrap_or(rest) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// What the registry is called in `config.json`, and by the programs that it names.
pub fn key_of(registry: &str) -> &str {
    if registry == "docker.io" { HUB_KEY } else { registry }
}

impl Logins {
    /// What is kept for `registry` (`HOST[:PORT]`), if anything is.
    ///
    /// # Errors
    /// When the file or what a program answers can't be understood; [`Error::Cancelled`].
    pub fn find(&self, registry: &str, cancel: &Cancel) -> Result<Option<Credentials>> {
        let file = ConfigFile::read(&self.dir)?;
        match self.helper(&file, registry)? {
            Some(helper) => helper.get(key_of(registry), cancel),
            None => file.get(registry),
        }
    }

    /// The proxies that containers are to be told of, by upper-case names of variables (`HTTP_PROXY`): those that the file
    /// has for every host (`proxies.default`).
    ///
    /// # Errors
    /// When the file can't be understood.
    pub fn proxies(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(ConfigFile::read(&self.dir)?.proxies())
    }

    /// Whether credentials for `registry` could be kept, as far as that can be told before there are any.
    ///
    /// # Errors
    /// As [`Logins::keep`].
    pub fn check(&self, registry: &str) -> Result<()> {
        let file = ConfigFile::read(&self.dir)?;
        self.helper(&file, registry)?;
        file.check_writable()
    }

    /// Keeps the credentials for `registry`.
    ///
    /// # Errors
    /// As [`Logins::find`], and when the file can't be written.
    pub fn keep(&self, registry: &str, credentials: &Credentials, cancel: &Cancel) -> Result<Kept> {
        match self.helper(&ConfigFile::read(&self.dir)?, registry)? {
            Some(helper) => {
                helper.store(key_of(registry), credentials, cancel)?;
                // The file says that there is something to be asked for, as docker has it.
                ConfigFile::change(&self.dir, cancel, |file| file.put(registry, None))?;
                Ok(Kept::Helper)
            }
            None => {
                let put = |file: &mut ConfigFile| file.put(registry, Some(credentials));
                Ok(Kept::File(ConfigFile::change(&self.dir, cancel, put)?))
            }
        }
    }

    /// Forgets what is kept for `registry`. A program that does not is remarked upon.
    ///
    /// # Errors
    /// When the file can't be read or written; [`Error::Cancelled`].
    pub fn forget(&self, registry: &str, cancel: &Cancel) -> Result<()> {
        let file = ConfigFile::read(&self.dir)?;
        if file.has(registry) {
            ConfigFile::change(&self.dir, cancel, |file| file.remove(registry))?;
        }
        let erased = match self.helper(&file, registry) {
            Ok(Some(helper)) => helper.erase(key_of(registry), cancel),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match erased {
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                (self.remark)(&format!("WARNING: could not erase credentials: {error}"));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn helper(&self, file: &ConfigFile, registry: &str) -> Result<Option<Program>> {
        file.helper(registry).map(|name| Program::find(name, &self.programs)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_has_one_name() {
        for (text, expected) in [
            ("r.example", "r.example"),
            ("https://r.example:5000/v2/", "r.example:5000"),
            ("http://localhost", "localhost"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(registry_of(text).unwrap(), expected, "{text}");
        }
        for text in ["", "ftp://x", "a b", "r.example:x", "..", "user@r.example"] {
            assert!(registry_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn credentials_are_not_printed() {
        let credentials = Credentials::Password { user: "u".into(), password: "s3cret".into() };
        assert!(!format!("{credentials:?}").contains("s3cret"));
    }

    #[test]
    fn a_login_in_a_name_is_not_printed() {
        let error = registry_of("https://bob:hunter2@r.example").unwrap_err().to_string();
        assert!(error.contains("r.example") && !error.contains("hunter2"), "{error}");
    }

    fn password(password: &str) -> Credentials {
        Credentials::Password { user: "u".into(), password: password.into() }
    }

    fn logins(dir: &std::path::Path) -> Logins {
        Logins { dir: dir.to_owned(), programs: Vec::new(), remark: |_| {} }
    }

    #[test]
    fn logins_at_the_same_time_are_all_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (logins, cancel) = (logins(&dir.path().join("new")), Cancel::new().unwrap());
        std::thread::scope(|scope| {
            for n in 0..24 {
                let (logins, cancel) = (&logins, &cancel);
                scope.spawn(move || logins.keep(&format!("r{n}.example"), &password("p"), cancel).unwrap());
            }
        });
        for n in 0..24 {
            let found = logins.find(&format!("r{n}.example"), &cancel).unwrap();
            assert!(found == Some(password("p")), "{n}");
        }
    }

    #[test]
    fn a_logout_reaches_the_file_where_the_program_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let (logins, cancel) = (logins(dir.path()), Cancel::new().unwrap());
        let text = r#"{"auths":{"r.example":{"auth":"dTpw"}},"credsStore":"nosuch"}"#;
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        logins.forget("r.example", &cancel).unwrap();
        let left = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
        assert!(!left.contains("dTpw") && left.contains("nosuch"), "{left}");
        assert!(logins.check("r.example").is_err() && logins.find("r.example", &cancel).is_err());
    }
}
