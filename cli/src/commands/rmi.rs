//! The command `rmi`: its options, and what it prints.

use super::Session;
use crate::args::platform;
use crate::engine::Removed;
use crate::error::{Error, Result};
use crate::report;

/// Remove names of images, and images that have no other name
#[derive(Debug, clap::Args)]
pub(crate) struct Rmi {
    /// Remove an image by its id although several names stand for it; only tell of images that are not there
    #[arg(short, long)]
    force: bool,
    /// Accepted for docker's sake: Boxwright has no untagged parents
    #[arg(long)]
    no_prune: bool,
    /// Of an index only the image for this platform
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Rmi {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let (platform, mut errors) = (platform::one(self.platform.as_deref())?, Vec::new());
        for name in &self.images {
            match session.engine.remove(name, self.force, platform.as_ref()) {
                Ok(removed) => print(session, &removed)?,
                Err(error @ Error::NoSuchImage(_)) if self.force => report::print(&error),
                Err(error) => errors.push(error),
            }
        }
        // Not fatal: what the images had in common with nothing else can be collected at any later time, too.
        session.engine.collect_garbage()?;
        if errors.is_empty() { Ok(()) } else { Err(Error::Several(errors)) }
    }
}

fn print(session: &mut Session<'_>, removed: &[Removed]) -> Result<()> {
    removed.iter().try_for_each(|r| match r {
        Removed::Name(name) => session.print(format_args!("Untagged: {name}")),
        Removed::Image(id) => session.print(format_args!("Deleted: {id}")),
    })
}
