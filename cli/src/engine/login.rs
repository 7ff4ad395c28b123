//! Logins: what a registry takes is kept, and forgotten again.

use boxwright_cache::registry::{Credentials, Kept, Logins};

use super::Engine;
use crate::error::{Error, Result};

impl Engine {
    /// What is kept for a registry.
    ///
    /// # Errors
    /// When what is kept can't be read.
    pub fn known_login(&self, registry: &str) -> Result<Option<Credentials>> {
        Ok(self.logins()?.find(registry, &self.cancel)?)
    }

    /// Keeps the credentials if the registry takes them.
    ///
    /// # Errors
    /// When it does not, or they can't be kept.
    pub fn log_in(&self, registry: &str, credentials: Credentials) -> Result<Kept> {
        let logins = self.logins()?;
        logins.check(registry)?;
        let credentials = self.client.log_in(registry, credentials, &self.cancel)?;
        Ok(logins.keep(registry, &credentials, &self.cancel)?)
    }

    /// Forgets what is kept for a registry.
    ///
    /// # Errors
    /// When what is kept can't be written.
    pub fn log_out(&self, registry: &str) -> Result<()> {
        Ok(self.logins()?.forget(registry, &self.cancel)?)
    }

    fn logins(&self) -> Result<&Logins> {
        let nowhere = || Error::invalid("logins have no place: neither HOME nor DOCKER_CONFIG is set");
        self.logins.as_ref().ok_or_else(nowhere)
    }
}
