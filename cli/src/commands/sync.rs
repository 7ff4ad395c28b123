//! The hidden command that tidies up after the command that wrote something has ended: it makes rows durable, and keeps
//! the build cache within its limits.

use super::Session;
use crate::error::Result;

/// Write what the store holds to the disk
#[derive(Debug, clap::Args)]
pub(crate) struct Sync {}

impl Sync {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        crate::durability::detach();
        session.engine.store().sync()?;
        // Layers of an ordinary user can only be removed from inside their user namespace, where builds are.
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        session.engine.make_room(crate::config::keep_storage()?)
    }
}
