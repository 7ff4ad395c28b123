//! The command `save`: its options, and what it prints.

use std::path::{Path, PathBuf};

use super::Session;
use crate::args::platform;
use crate::engine::{Named, STDOUT, write_file};
use crate::error::{Error, Result};

/// Write images to an archive that docker, podman and skopeo read
#[derive(Debug, clap::Args)]
pub(crate) struct Save {
    /// The archive [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Of an index only the image for this platform [default: the index with all images]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

impl Save {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        if self.output.is_none() && rustix::termios::isatty(std::io::stdout()) {
            return Err(Error::invalid(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect",
            ));
        }
        let images =
            session.engine.to_save(&self.images, platform::one(self.platform.as_deref())?.as_ref())?;
        match &self.output {
            Some(path) => write_file(path, |out| session.engine.save(&images, out)),
            None => {
                let mut out = Named { path: Path::new(STDOUT), out: &mut *session.out };
                session.engine.save(&images, &mut out)?;
                session.out.flush().map_err(Error::Output)
            }
        }
    }
}
