//! A directory to try things in, on the file system of the store.

use std::path::{Path, PathBuf};

use super::{Answer, existing};

#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// In the directory of the store, or the one in which that would be made.
    pub(super) fn below(store: &Path) -> Answer<Scratch> {
        let temporary = store.join("tmp");
        let parent = if temporary.is_dir() { &temporary } else { existing(store)? };
        let dir = parent.join(format!(".boxwright-doctor-{}", rustix::process::getpid()));
        std::fs::create_dir(&dir).map_err(|e| format!("making {}: {e}", dir.display()))?;
        Ok(Scratch(dir))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(super) fn dir(&self, name: &str) -> Answer<PathBuf> {
        let path = self.path(name);
        std::fs::create_dir_all(&path).map_err(|e| format!("making {}: {e}", path.display()))?;
        Ok(path)
    }

    pub(super) fn file(&self, name: &str, content: &[u8]) -> Answer<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, content).map_err(|e| format!("writing {}: {e}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
