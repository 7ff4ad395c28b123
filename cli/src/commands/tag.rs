//! The command `tag`: its options, and what it prints.

use super::Session;
use crate::error::Result;

/// Give an image another name
#[derive(Debug, clap::Args)]
pub(crate) struct Tag {
    /// Name, id, or beginning of an id
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

impl Tag {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        session.engine.tag(&self.source, &self.target)
    }
}
