//! `system check`.

use super::Session;
use crate::error::{Error, Result};

/// Read everything in the store and tell what is not as it was written
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// Forget what is wrong, so that it is made or fetched again; give up images that can't be whole any more
    #[arg(long)]
    repair: bool,
}

impl Check {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let checked = session.engine.store().check(self.repair, session.engine.cancel())?;
        let (layers, blobs, images, records) =
            (checked.layers, checked.blobs, checked.images, checked.records);
        for problem in &checked.problems {
            session.print(problem)?;
        }
        for name in &checked.lost {
            session.print(format_args!("gave up image {name}"))?;
        }
        session.print(format_args!(
            "checked {layers} layers, {blobs} archives, {images} images and {records} results: {} wrong",
            checked.problems.len()
        ))?;
        match checked.repairable() {
            _ if checked.problems.is_empty() => Ok(()),
            true if self.repair => Ok(()),
            true => Err(Error::invalid("the store is damaged; --repair forgets what is wrong")),
            false => Err(Error::invalid("the database is damaged and can't be repaired; remove the store")),
        }
    }
}
