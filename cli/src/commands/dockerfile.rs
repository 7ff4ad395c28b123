//! `dockerfile`: what an image was likely built from.

use super::Session;
use crate::error::Result;

/// Show the Dockerfile that an image was likely built from, by its history
#[derive(Debug, clap::Args)]
pub(crate) struct Dockerfile {
    #[arg(value_name = "IMAGE")]
    image: String,
}

impl Dockerfile {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        session.write(session.engine.dockerfile(&self.image)?)
    }
}
