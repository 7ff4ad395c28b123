//! What is known of the helpers of this machine: which ones work, and which ones only take time. Kept beside the store's
//! other files.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What is in the way of the directory's other files.
const NAME: &str = "network-helpers";
const WORKS: &str = "works";
const BROKEN: &str = "broken";

/// Which program it is, on which kernel: what was found out holds until one of them is another one.
#[derive(Debug)]
pub(super) struct State(String);

impl State {
    pub(super) fn of(path: &Path) -> Result<State> {
        let file = std::fs::metadata(path).map_err(Error::io("looking at", path))?;
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        Ok(State(format!("{} {} {} {release}", path.display(), file.size(), file.mtime())))
    }
}

#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    text: String,
}

impl Memory {
    /// What can't be read is found out again.
    pub(super) fn read(dir: &Path) -> Memory {
        let path = dir.join(NAME);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        Memory { path, text }
    }

    pub(super) fn works(&self, state: &State) -> bool {
        self.has(WORKS, state)
    }

    pub(super) fn is_broken(&self, state: &State) -> bool {
        self.has(BROKEN, state)
    }

    pub(super) fn remember_working(&self, state: &State) {
        if !self.works(state) {
            self.add(WORKS, state);
        }
    }

    pub(super) fn remember_broken(&self, state: &State) {
        self.add(BROKEN, state);
    }

    fn has(&self, what: &str, state: &State) -> bool {
        self.text.lines().any(|line| line.split_once(' ') == Some((what, &state.0)))
    }

    /// If it can't be kept, the next one finds out what we did.
    fn add(&self, what: &str, state: &State) {
        let file = File::options().append(true).create(true).open(&self.path);
        let _ = file.and_then(|mut file| file.write_all(format!("{what} {}\n", state.0).as_bytes()));
    }
}
