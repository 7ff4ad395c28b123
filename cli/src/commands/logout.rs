//! The command `logout`: its options, and what it prints.

use boxwright_cache::registry::{key_of, registry_of};

use super::Session;
use super::login::HUB;
use crate::error::Result;

/// Forget the login to a registry
#[derive(Debug, clap::Args)]
pub(crate) struct Logout {
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

impl Logout {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let registry = registry_of(self.server.as_deref().unwrap_or(HUB))?;
        let (known, key) = (session.engine.log_out(&registry)?, key_of(&registry));
        session.print(if known {
            format!("Removing login credentials for {key}")
        } else {
            format!("Not logged in to {key}")
        })
    }
}
