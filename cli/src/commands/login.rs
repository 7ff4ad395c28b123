//! The command `login`: its options, what it asks, and what it prints.

use std::io::Read as _;

use boxwright_cache::registry::{Credentials, Kept, registry_of};

use super::Session;
use crate::error::{Error, Result};
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
                let user = prompt::line(&format!("Username{hint}: "))?;
                if user.is_empty() { known } else { user }
            }
        };
        if user.is_empty() {
            return Err(Error::invalid("username is required"));
        }
        let password = match self.password {
            Some(password) => password,
            None if stdin => from_stdin()?,
            None => prompt::secret("Password: ")?,
        };
        if password.is_empty() {
            return Err(Error::invalid("password is required"));
        }
        Ok(Credentials::Password { user, password })
    }
}

/// All of standard input without the end of its last line.
fn from_stdin() -> Result<String> {
    let mut text = String::new();
    let input = std::io::stdin().lock();
    input.take(MAX_PASSWORD).read_to_string(&mut text).map_err(Error::io("reading", "standard input"))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}
