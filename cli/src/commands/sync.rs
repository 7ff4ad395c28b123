//! The hidden command that makes rows durable after the command that wrote them has ended.

use super::Session;
use crate::error::Result;

/// Write what the store holds to the disk
#[derive(Debug, clap::Args)]
pub(crate) struct Sync {}

impl Sync {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        crate::durability::detach();
        session.engine.store().sync()?;
        Ok(())
    }
}
