//! The command `load`: its options, and what it prints.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use super::Session;
use crate::args::platform;
use crate::error::{Error, Result};

/// Take the images of an archive into the store
#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// The archive [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Accepted for docker's sake: loading shows nothing on the way
    #[arg(short, long)]
    quiet: bool,
    /// Of each index only the image for this platform [default: all that are in the archive]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

impl Load {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let input: Box<dyn Read + Send> = match &self.input {
            Some(path) => Box::new(File::open(path).map_err(Error::io("opening", path))?),
            None if rustix::termios::isatty(std::io::stdin()) => {
                return Err(Error::invalid("requested load from stdin, but stdin is empty"));
            }
            None => Box::new(std::io::stdin()),
        };
        for loaded in session.engine.load(input, platform::one(self.platform.as_deref())?.as_ref())? {
            if loaded.names.is_empty() {
                session.print(format_args!("Loaded image ID: {}", loaded.id))?;
            }
            for name in &loaded.names {
                session.print(format_args!("Loaded image: {}", name.familiar()))?;
            }
        }
        Ok(())
    }
}
