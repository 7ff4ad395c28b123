//! The command `logout`: its options, and what it prints.

use boxwright_cache::registry::{key_of, registry_of};

use super::Session;
use super::login::HUB;
use crate::error::Result;

/// Forget the login to a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Logout {
    /// The registry, HOST[:PORT]; docker.io if none is named
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Logout {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let registry = registry_of(self.server.as_deref().unwrap_or(HUB))?;
        // Docker says so whether there was one or not.
        session.print(format!("Removing login credentials for {}", key_of(&registry)))?;
        session.engine.log_out(&registry)
    }
}
