//! Leases: what a living process holds is not collected. A process that dies, however it dies, holds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fs::remove_tree;
use crate::snapshot::LayerId;
use crate::store::{Store, unique_name};

/// A lease file is locked before it gets its final name, so a file without a lock belongs to a process that is gone.
const UNNAMED: &str = ".new";

/// A share of this process' lease. Handles to layers carry one; the last one gone gives everything back.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
pub(crate) struct Held {
    /// Locked; closing it ends the lease. It has the numbers of the layers that are held, eight bytes each. None where
    /// nobody can collect anything, since the file system is read-only.
    file: Option<File>,
    name: String,
    leases: OwnedFd,
    layers: Mutex<Layers>,
}

/// The leases, until dropped.
#[derive(Debug)]
pub(crate) struct Locked<'a>(BorrowedFd<'a>);

#[derive(Debug, Default)]
struct Layers {
    written: BTreeSet<i64>,
    /// Not in the file yet.
    new: BTreeSet<i64>,
}

impl Lease {
    pub(crate) fn of(held: Arc<Held>) -> Lease {
        Lease(held)
    }

    pub(crate) fn downgrade(&self) -> Weak<Held> {
        Arc::downgrade(&self.0)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn acquire(store: &Store) -> Result<Lease> {
        let leases = open_leases(store)?;
        let name = unique_name()?;
        let unnamed = format!("{name}{UNNAMED}");
        let io = |doing| Error::io(doing, store.path().join("leases").join(&name));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let lock = match rustix::fs::openat(&leases, &unnamed, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::ROFS) => {
                return Ok(Lease(Arc::new(Held { file: None, name, leases, layers: Mutex::default() })));
            }
            other => other.map_err(io("making lease"))?,
        };
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(io("locking lease"))?;
        rustix::fs::renameat(&leases, &unnamed, &leases, &name).map_err(io("naming lease"))?;
        let lease = Lease(Arc::new(Held { file: Some(lock.into()), name, leases, layers: Mutex::default() }));
        // What can't be removed is told by those who collect; it keeps nobody from working.
        let _ = bury(store);
        Ok(lease)
    }

    /// Locks what those share who take layers, and who collects them has alone. For the thread that uses the database:
    /// the lock is this process'.
    pub(crate) fn lock(&self, how: FlockOperation) -> Result<Locked<'_>> {
        let leases = self.0.leases.as_fd();
        rustix::io::retry_on_intr(|| rustix::fs::flock(leases, how))
            .map_err(Error::io("locking", "the leases"))?;
        Ok(Locked(leases))
    }

    /// Adds `layers` to what this lease holds, once the caller's transaction ends.
    pub(crate) fn hold(&self, layers: &[LayerId]) {
        let mut own = self.0.layers();
        let new = layers.iter().map(|layer| layer.0).filter(|layer| !own.written.contains(layer));
        let new: Vec<i64> = new.collect();
        own.new.extend(new);
    }
}

impl Held {
    fn layers(&self) -> std::sync::MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what is to be held. For the end of a transaction in which nobody could collect it.
    pub(crate) fn write(&self) -> Result<()> {
        let mut layers = self.layers();
        let Some(file) = self.file.as_ref().filter(|_| !layers.new.is_empty()) else { return Ok(()) };
        let bytes: Vec<u8> = layers.new.iter().flat_map(|layer| layer.to_le_bytes()).collect();
        let end = layers.written.len() as u64 * 8;
        file.write_all_at(&bytes, end).map_err(Error::io("writing lease", &self.name))?;
        let new = std::mem::take(&mut layers.new);
        layers.written.extend(new);
        Ok(())
    }
}

impl Drop for Locked<'_> {
    /// Not left to the last descriptor: a process that was just cloned may have another one.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(self.0, FlockOperation::Unlock);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.leases, &self.name, AtFlags::empty());
    }
}

/// The names of all leases whose process lives, with the layers that it holds; files of dead ones are removed.
pub(crate) fn living(store: &Store) -> Result<BTreeMap<String, Vec<i64>>> {
    let leases = open_leases(store)?;
    let io = |doing| Error::io(doing, store.path().join("leases"));
    let mut living = BTreeMap::new();
    for entry in rustix::fs::Dir::read_from(&leases).map_err(io("listing"))? {
        let entry = entry.map_err(Error::io("listing", store.path().join("leases")))?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.starts_with('.') || name.ends_with(UNNAMED) {
            continue;
        }
        match rustix::fs::openat(&leases, name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let _ = rustix::fs::unlinkat(&leases, name, AtFlags::empty());
                }
                Err(_) => {
                    let mut bytes = Vec::new();
                    File::from(file).read_to_end(&mut bytes).map_err(Error::io("reading lease", name))?;
                    let layers = bytes
                        .chunks_exact(8)
                        .map(|layer| i64::from_le_bytes(layer.try_into().expect("eight")));
                    living.insert(name.to_owned(), layers.collect());
                }
            },
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(Error::io("opening lease", store.path().join("leases").join(name))(e)),
        }
    }
    Ok(living)
}

/// Forgets what the dead left: their leases, and what they were making in `tmp/`.
///
/// The candidates are read first and the living second: whoever has a directory took its lease before, so one that is
/// not among the living by then is dead. The other way round, a process that starts in between would be.
pub(crate) fn bury(store: &Store) -> Result<()> {
    let unfinished = unfinished(store)?;
    let living = living(store)?;
    for (maker, path) in unfinished {
        if maker.is_none_or(|maker| !living.contains_key(&maker)) {
            remove_tree(store, &path)?;
        }
    }
    Ok(())
}

/// Everything in `tmp/`, and the lease of its maker, after which it is named.
fn unfinished(store: &Store) -> Result<Vec<(Option<String>, String)>> {
    let names = store.names_in("tmp")?.into_iter();
    let path =
        |name: String| (name.split_once('-').map(|(maker, _)| maker.to_owned()), format!("tmp/{name}"));
    Ok(names.map(path).collect())
}

fn open_leases(store: &Store) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(store.dir(), "leases", flags, Mode::empty())
        .map_err(Error::io("opening", store.path().join("leases")))
}
