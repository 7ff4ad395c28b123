//! The command `login`: its options, what it asks, and what it prints.

use std::io::Read as _;

use boxwright_cache::registry::{Credentials, Kept, registry_of};
use boxwright_cache::{self as cache, Cancel};

use super::Session;
use crate::error::{Error, Result};
use crate::stdin::Stdin;
use crate::{prompt, report};

/// The registry of names without one.
pub(super) const HUB: &str = "docker.io";
/// More than any password or token.
const MAX_PASSWORD: u64 = 1 << 20;

/// Log in to a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Login {
    /// Who to be
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// The password or token; others can see it in the list of processes
    #[arg(short, long, value_name = "PASSWORD")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The registry, HOST[:PORT]; docker.io if none is named
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Login {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let registry = registry_of(self.server.as_deref().unwrap_or(HUB))?;
        let asked = self.username.is_none() && self.password.is_none();
        if asked && self.log_in_again(session, &registry)? {
            return session.print("Login Succeeded");
        }
        let credentials = self.credentials(session, &registry)?;
        if let Kept::File(path) = session.engine.log_in(&registry, credentials)? {
            report::remark(&format!(
                "\nWARNING! Your credentials are stored unencrypted in '{}'.\n\
                 Configure a credential helper to remove this warning.\n",
                path.display()
            ));
        }
        session.print("Login Succeeded")
    }

    /// With what is kept already, if anything is and the registry still takes it.
    fn log_in_again(&self, session: &mut Session<'_>, registry: &str) -> Result<bool> {
        if self.password_stdin {
            return Ok(false);
        }
        let Some(known) = session.engine.known_login(registry)? else { return Ok(false) };
        report::remark("Authenticating with existing credentials...");
        match session.engine.log_in(registry, known) {
            Ok(_) => Ok(true),
            Err(Error::Cache(cache::Error::Cancelled)) => Err(Error::Cache(cache::Error::Cancelled)),
            Err(error) => {
                report::remark(&format!("Login did not succeed, error: {error}"));
                Ok(false)
            }
        }
    }

    fn credentials(self, session: &Session<'_>, registry: &str) -> Result<Credentials> {
        let stdin = self.password_stdin;
        if stdin && self.password.is_some() {
            return Err(Error::invalid("--password and --password-stdin are mutually exclusive"));
        }
        if stdin && self.username.as_deref().unwrap_or_default().is_empty() {
            return Err(Error::invalid("Must provide --username with --password-stdin"));
        }
        if self.password.is_some() {
            report::remark("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
        }
        let user = match self.username {
            Some(user) => user,
            None => {
                let known = session.engine.known_login(registry)?.map(|c| c.user().to_owned());
                let known = known.unwrap_or_default();
                let hint = if known.is_empty() { String::new() } else { format!(" ({known})") };
                let user = prompt::line(&format!("Username{hint}: "), session.engine.cancel())?;
                if user.is_empty() { known } else { user }
            }
        };
        if user.is_empty() {
            return Err(Error::invalid("username is required"));
        }
        let password = match self.password {
            Some(password) => password,
            None if stdin => from_stdin(session.engine.cancel())?,
            None => prompt::secret("Password: ", session.engine.cancel())?,
        };
        if password.is_empty() {
            return Err(Error::invalid("password is required"));
        }
        Ok(Credentials::Password { user, password })
    }
}

/// All of standard input without the end of its last line.
fn from_stdin(cancel: &Cancel) -> Result<String> {
    let mut text = String::new();
    let read = Stdin(cancel).take(MAX_PASSWORD + 1).read_to_string(&mut text);
    cancel.check().map_err(Error::Cache)?;
    read.map_err(Error::io("reading", "standard input"))?;
    if text.len() as u64 > MAX_PASSWORD {
        return Err(Error::invalid(format!("a password of more than {MAX_PASSWORD} bytes")));
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
