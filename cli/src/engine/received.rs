//! An archive that came in on standard input: it waits in the store until the build has read it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::PathBuf;

use boxwright_cache::snapshot::ActiveLayer;
use boxwright_frontend::Origin;
use boxwright_solver::LocalContext;
use rustix::fs::{Mode, OFlags};

use super::Engine;
use super::context::DOWNLOADED as NAME;
use crate::error::{Error, Result};

/// The directory that holds it.
const DIR: &str = "standard input";
/// The largest archive, in bytes: far above what is built from, and below what fills most disks.
const LIMIT: u64 = 64 << 30;
const BUFFER: usize = 256 << 10;

/// Gone with this value.
#[derive(Debug)]
pub struct Received(ActiveLayer);

impl Engine {
    /// Reads an archive to its end.
    ///
    /// # Errors
    /// When it can't be read or written, or is too large.
    pub fn receive(&self, input: &mut dyn Read) -> Result<Received> {
        let layer = self.store.new_layer()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(layer.fs(), NAME, flags, Mode::RUSR | Mode::WUSR)
            .map_err(Error::io("making", "a file for standard input"))?;
        let (mut file, mut total, mut buffer) = (File::from(file), 0, vec![0; BUFFER]);
        loop {
            let read = input.read(&mut buffer);
            self.cancel.check()?;
            let n = match read.map_err(Error::io("reading", "standard input"))? {
                0 => return Ok(Received(layer)),
                n => n,
            };
            total += n as u64;
            if total > LIMIT {
                return Err(Error::invalid(format!("standard input is larger than {LIMIT} bytes")));
            }
            file.write_all(&buffer[..n]).map_err(Error::io("writing", "standard input into the store"))?;
        }
    }
}

impl Received {
    /// What it holds.
    pub(super) fn origin() -> Origin {
        Origin::Archive(Box::new(Origin::Local(DIR.to_owned())), NAME.to_owned())
    }

    /// Where that is to be found.
    pub(super) fn locals(&self) -> Result<HashMap<String, LocalContext>> {
        let dir = self.0.fs().try_clone_to_owned().map_err(Error::io("opening", "standard input"))?;
        let path = PathBuf::from("standard input");
        Ok(HashMap::from([(DIR.to_owned(), LocalContext { dir, path, ignore: Vec::new() })]))
    }
}
