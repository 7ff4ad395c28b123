//! Who we are to registries: docker's `config.json`, and the programs that it names for keeping secrets. What was kept for
//! one registry is never found for another (R7).

mod file;
mod program;

use std::fmt;
use std::path::PathBuf;

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
}

impl Credentials {
    pub fn user(&self) -> &str {
        match self {
            Credentials::Password { user, .. } | Credentials::Identity { user, .. } => user,
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
    registry.ok_or_else(|| Error::invalid("registry", server, "not a host and port"))
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
    /// When the file or what a program answers can't be understood.
    pub fn find(&self, registry: &str) -> Result<Option<Credentials>> {
        let file = self.file()?;
        match self.helper(&file, registry)? {
            Some(helper) => helper.get(key_of(registry)),
            None => file.get(registry),
        }
    }

    /// Keeps the credentials for `registry`.
    ///
    /// # Errors
    /// As [`Logins::find`], and when the file can't be written, or is only a link to one.
    pub fn keep(&self, registry: &str, credentials: &Credentials) -> Result<Kept> {
        let mut file = self.file()?;
        let helper = self.helper(&file, registry)?;
        match helper {
            Some(helper) => {
                // The file says that there is something to be asked for, as docker has it.
                file.put(registry, None);
                file.check_writable()?;
                helper.store(key_of(registry), credentials)?;
                file.write()?;
                Ok(Kept::Helper)
            }
            None => {
                file.put(registry, Some(credentials));
                Ok(Kept::File(file.write()?))
            }
        }
    }

    /// Forgets what is kept for `registry`; says whether the file knew of it.
    ///
    /// # Errors
    /// As [`Logins::keep`].
    pub fn forget(&self, registry: &str) -> Result<bool> {
        let mut file = self.file()?;
        if let Some(helper) = self.helper(&file, registry)? {
            helper.erase(key_of(registry))?;
        }
        let known = file.remove(registry);
        if known {
            file.write()?;
        }
        Ok(known)
    }

    fn file(&self) -> Result<ConfigFile> {
        ConfigFile::read(&self.dir)
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
}
