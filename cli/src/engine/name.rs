//! Names of containers: each belongs to one running container. A process that dies, however it dies, has none.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use boxwright_cache::Store;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

use crate::error::{Error, Result};

/// Held until dropped: a locked file below `containers/`.
#[derive(Debug)]
pub(super) struct ContainerName {
    store: Store,
    path: String,
    _file: std::fs::File,
}

impl ContainerName {
    /// Takes `name` for the container `id`.
    ///
    /// # Errors
    /// When the name is none, or another container has it.
    pub(super) fn take(store: &Store, name: &str, id: &str) -> Result<ContainerName> {
        if !is_name(name) {
            return Err(Error::invalid(format!(
                "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        let path = format!("containers/{name}");
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        loop {
            let file = rustix::fs::openat(store.dir(), &path, flags, Mode::RUSR | Mode::WUSR)
                .map_err(Error::io("making", store.path().join(&path)))?;
            let mut file = std::fs::File::from(file);
            match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(taken(name, &mut file)),
                Err(e) => return Err(Error::io("locking", store.path().join(&path))(e)),
            }
            // The container before may have removed the file between our opening and locking it.
            let links = rustix::fs::fstat(&file)
                .map_err(Error::io("reading the state of", store.path().join(&path)))?;
            if links.st_nlink > 0 {
                file.set_len(0)
                    .and_then(|()| file.write_all(id.as_bytes()))
                    .map_err(Error::io("writing", store.path().join(&path)))?;
                return Ok(ContainerName { store: store.clone(), path, _file: file });
            }
        }
    }
}

fn taken(name: &str, file: &mut std::fs::File) -> Error {
    let mut id = String::new();
    // The id only helps to find the other one.
    let _ = file.read_to_string(&mut id);
    Error::invalid(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    ))
}

fn is_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric();
    name.len() > 1
        && name.len() <= 255
        && name.bytes().next().is_some_and(word)
        && name.bytes().all(|b| word(b) || matches!(b, b'_' | b'.' | b'-'))
}

impl Drop for ContainerName {
    /// Removes the file while it is still locked, so that a waiter who opened it sees that it is nameless.
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(self.store.dir(), &self.path, AtFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_belongs_to_one_container_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let first = ContainerName::take(&store, "web", "1234").unwrap();
        let conflict = ContainerName::take(&store, "web", "5678").unwrap_err().to_string();
        assert!(conflict.contains("already in use by container \"1234\""), "{conflict}");
        ContainerName::take(&store, "other", "9").unwrap();
        drop(first);
        ContainerName::take(&store, "web", "5678").unwrap();
    }

    #[test]
    fn names_are_no_paths() {
        for bad in ["", "a", "../x", "a/b", "-a", ".hidden", "a b"] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_name("web_1.x-y"));
    }
}
