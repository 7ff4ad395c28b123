//! Containers that run, each by a locked file of its name (or else its id). A process that dies, however it dies, has
//! none; its file says nothing any more.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use boxwright_cache::record::ImageRecord;
use boxwright_cache::{Digest, Store};
use boxwright_executor::network::{NameFiles, Reached};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How often, and how long after each other, it is looked at what a locked file says.
const LOOKS: u32 = 100;
const LOOK: Duration = Duration::from_millis(2);

/// Held until dropped: a locked file below `containers/`.
#[derive(Debug)]
pub(super) struct ContainerName {
    store: Store,
    path: String,
    file: std::fs::File,
}

/// What others may know of a container that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunningContainer {
    pub id: String,
    /// Of its first process, once there is one.
    pub process: Option<FirstProcess>,
    pub names: NameFiles,
    pub ports: Vec<Reached>,
    /// The id of its image, where an index has several the one that runs; none from an earlier release.
    pub image: Option<Digest>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct FirstProcess {
    pub id: i32,
    /// The inode of its network namespace, by which it is known from a later process of that number.
    pub network: u64,
}

impl ContainerName {
    /// Takes `name` for the container `id` of `image`.
    ///
    /// # Errors
    /// When the name is none, or another container has it.
    pub(super) fn take(store: &Store, name: &str, id: &str, image: &Digest) -> Result<ContainerName> {
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
                Err(rustix::io::Errno::WOULDBLOCK) if is_only_read(&file) => {
                    std::thread::yield_now();
                    continue;
                }
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(taken(name, &mut file)),
                Err(e) => return Err(Error::io("locking", store.path().join(&path))(e)),
            }
            // The container before may have removed the file between our opening and locking it.
            let links = rustix::fs::fstat(&file)
                .map_err(Error::io("reading the state of", store.path().join(&path)))?;
            if links.st_nlink > 0 {
                let name = ContainerName { store: store.clone(), path, file };
                name.describe(&RunningContainer {
                    id: id.to_owned(),
                    process: None,
                    names: NameFiles::default(),
                    ports: Vec::new(),
                    image: Some(*image),
                })?;
                return Ok(name);
            }
        }
    }

    /// Says what the container is.
    ///
    /// # Errors
    /// When it can't be written.
    pub(super) fn describe(&self, container: &RunningContainer) -> Result<()> {
        let text = serde_json::to_vec(container).expect("plain data");
        // At no time is there nothing, and what follows the new text is not read.
        let written = self.file.write_all_at(&text, 0).and_then(|()| self.file.set_len(text.len() as u64));
        written.map_err(Error::io("writing", self.store.path().join(&self.path)))
    }
}

impl RunningContainer {
    /// The container of this name, this id, or an id that begins so.
    ///
    /// # Errors
    /// When no such container runs.
    pub fn find(store: &std::path::Path, word: &str) -> Result<RunningContainer> {
        let dir = store.join("containers");
        if is_name(word)
            && let Some(found) = read(&dir.join(word))
        {
            return Ok(found);
        }
        let running = RunningContainer::all(store)?.into_iter();
        let mut found = running.filter(|container| container.id.starts_with(word));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            _ => Err(Error::invalid(format!("No such container: {word}"))),
        }
    }

    /// # Errors
    /// When the directory of their names can't be read.
    pub(super) fn all(store: &std::path::Path) -> Result<Vec<RunningContainer>> {
        let dir = store.join("containers");
        let entries = std::fs::read_dir(&dir).map_err(Error::io("listing", &dir))?;
        Ok(entries.filter_map(|entry| read(&entry.ok()?.path())).collect())
    }

    /// Whether its image is one of these.
    pub(super) fn uses(&self, images: &[&ImageRecord]) -> bool {
        images.iter().any(|image| self.image == Some(image.id))
    }
}

/// None for what is not, or not any more, about a container. Who has just taken the name is about to say more.
fn read(path: &std::path::Path) -> Option<RunningContainer> {
    for _ in 0..LOOKS {
        let mut file = std::fs::File::open(path).ok()?;
        // Whoever runs the container keeps the file locked.
        if rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        if let Some(container) = first(&text) {
            return Some(container);
        }
        std::thread::sleep(LOOK);
    }
    None
}

/// The first value of a text, in which the end of a longer one may follow.
fn first(text: &str) -> Option<RunningContainer> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

/// Whether those who lock the file only look whether a container does: for a moment, and together.
fn is_only_read(file: &std::fs::File) -> bool {
    rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockShared).is_ok()
}

fn taken(name: &str, file: &mut std::fs::File) -> Error {
    let mut text = String::new();
    // The id only helps to find the other one.
    let _ = file.read_to_string(&mut text);
    let id = first(&text).map(|other| other.id).unwrap_or_default();
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

    fn image() -> Digest {
        Digest::of(b"image")
    }

    #[test]
    fn a_name_belongs_to_one_container_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let first = ContainerName::take(&store, "web", "1234", &image()).unwrap();
        let conflict = ContainerName::take(&store, "web", "5678", &image()).unwrap_err().to_string();
        assert!(conflict.contains("already in use by container \"1234\""), "{conflict}");
        ContainerName::take(&store, "other", "9", &image()).unwrap();
        let find = |word: &str| RunningContainer::find(store.path(), word).map(|found| found.id);
        assert_eq!((find("web").unwrap(), find("12").unwrap()), ("1234".to_owned(), "1234".to_owned()));
        drop(first);
        for gone in ["web", "12", "../web"] {
            assert_eq!(find(gone).unwrap_err().to_string(), format!("No such container: {gone}"));
        }
        ContainerName::take(&store, "web", "5678", &image()).unwrap();
    }

    #[test]
    fn what_is_said_of_a_container_is_there_at_any_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let name = ContainerName::take(&store, "web", "1234", &image()).unwrap();
        let path = store.path().join("containers/web");
        let long = std::fs::read_to_string(&path).unwrap();
        // As the next, shorter text leaves it for a moment.
        let short = long.replace("1234", "5");
        std::fs::write(&path, format!("{short}{}", &long[short.len()..])).unwrap();
        assert_eq!(RunningContainer::find(store.path(), "web").unwrap().id, "5");
        // Who has the name says later what it is for.
        std::fs::write(&path, "").unwrap();
        std::thread::scope(|scope| {
            let found = scope.spawn(|| RunningContainer::find(store.path(), "web"));
            name.describe(&RunningContainer {
                id: "77".to_owned(),
                process: None,
                names: NameFiles::default(),
                ports: Vec::new(),
                image: Some(image()),
            })
            .unwrap();
            assert_eq!(found.join().unwrap().unwrap().id, "77");
        });
    }

    #[test]
    fn who_asks_for_a_name_does_not_take_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let _ = RunningContainer::find(store.path(), "web");
                    }
                });
            }
            let taken: Vec<_> =
                (0..200).map(|_| ContainerName::take(&store, "web", "1", &image()).map(drop)).collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(taken.iter().all(Result::is_ok), "{:?}", taken.iter().find(|t| t.is_err()));
        });
    }

    #[test]
    fn names_are_no_paths() {
        for bad in ["", "a", "../x", "a/b", "-a", ".hidden", "a b"] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_name("web_1.x-y"));
    }
}
