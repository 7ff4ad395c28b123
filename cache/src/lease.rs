//! Leases: what a living process holds is not collected. A process that dies, however it dies, holds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fs::remove_tree;
use crate::lock::Locked;
use crate::snapshot::LayerId;
use crate::store::{Store, unique_name};

const LEASES: &str = "leases";
const LOCKS: &str = "locks";
/// A lease file is locked before it gets its final name, so a file without a lock belongs to a process that is gone.
const UNNAMED: &str = ".new";

/// A share of this process' lease. Handles to layers carry one; the last one gone gives everything back.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
pub(crate) struct Held {
    claim: Claim,
    name: String,
    leases: OwnedFd,
    layers: Mutex<Layers>,
}

/// What others see of a lease.
#[derive(Debug)]
enum Claim {
    /// A locked file: closing it ends the lease. It has the numbers of the layers that are held, eight bytes each.
    Layers(File),
    /// Whoever can't write to the store, as it is mounted read-only, shares this lock: they hold everything, for elsewhere it
    /// may be mounted otherwise.
    Everything { _shared: Locked<OwnedFd> },
}

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
        loop {
            let name = unique_name()?;
            let claim = match claim(store, &leases, &name)? {
                Claimed::Here(claim) => claim,
                Claimed::Removed => continue,
            };
            let lease = Lease(Arc::new(Held { claim, name, leases, layers: Mutex::default() }));
            if matches!(lease.0.claim, Claim::Layers(_)) {
                // What can't be removed is told by those who collect; it keeps nobody from working.
                let _ = bury(store);
            }
            return Ok(lease);
        }
    }

    /// Locks what those share who take layers, and who collects them has alone. For the thread that uses the database:
    /// the lock is this process'.
    pub(crate) fn lock(&self, how: FlockOperation, store: &Store) -> Result<Locked<BorrowedFd<'_>>> {
        Locked::soon(self.0.leases.as_fd(), how, &store.path().join(LEASES), store.cancel())
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
        let Claim::Layers(file) = &self.claim else { return Ok(()) };
        if layers.new.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = layers.new.iter().flat_map(|layer| layer.to_le_bytes()).collect();
        let end = layers.written.len() as u64 * 8;
        file.write_all_at(&bytes, end).map_err(Error::io("writing lease", &self.name))?;
        let new = std::mem::take(&mut layers.new);
        layers.written.extend(new);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.leases, &self.name, AtFlags::empty());
    }
}

enum Claimed {
    Here(Claim),
    /// By somebody who took it for that of a dead process, before it was locked.
    Removed,
}

fn claim(store: &Store, leases: &OwnedFd, name: &str) -> Result<Claimed> {
    let unnamed = format!("{name}{UNNAMED}");
    let io = |doing| Error::io(doing, store.path().join(LEASES).join(name));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(leases, &unnamed, flags, Mode::RUSR | Mode::WUSR) {
        Err(Errno::ROFS) => {
            let shared = FlockOperation::NonBlockingLockShared;
            let lock = Locked::soon(open(store, LOCKS)?, shared, &store.path().join(LOCKS), store.cancel())?;
            return Ok(Claimed::Here(Claim::Everything { _shared: lock }));
        }
        other => other.map_err(io("making lease"))?,
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(Claimed::Removed),
        other => other.map_err(io("locking lease"))?,
    }
    match rustix::fs::renameat(leases, &unnamed, leases, name) {
        Err(Errno::NOENT) => Ok(Claimed::Removed),
        other => other.map_err(io("naming lease")).map(|()| Claimed::Here(Claim::Layers(file.into()))),
    }
}

/// Keeps those out who hold everything, while it is held; none where there are some.
pub(crate) fn without_readers(store: &Store) -> Result<Option<Locked<OwnedFd>>> {
    let alone = FlockOperation::NonBlockingLockExclusive;
    Locked::now(open(store, LOCKS)?, alone, &store.path().join(LOCKS))
}

/// The names of all leases whose process lives, with the layers that it holds; files of dead ones are removed.
pub(crate) fn living(store: &Store) -> Result<BTreeMap<String, Vec<i64>>> {
    let leases = open_leases(store)?;
    let io = |doing| Error::io(doing, store.path().join(LEASES));
    let mut living = BTreeMap::new();
    for entry in rustix::fs::Dir::read_from(&leases).map_err(io("listing"))? {
        let entry = entry.map_err(io("listing"))?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        let file = match open_to_lock(&leases, name) {
            Err(Errno::NOENT) => continue,
            other => other.map_err(Error::io("opening lease", store.path().join(LEASES).join(name)))?,
        };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = rustix::fs::unlinkat(&leases, name, AtFlags::empty());
        } else if !name.ends_with(UNNAMED) {
            let mut bytes = Vec::new();
            File::from(file).read_to_end(&mut bytes).map_err(Error::io("reading lease", name))?;
            let layers =
                bytes.chunks_exact(8).map(|layer| i64::from_le_bytes(layer.try_into().expect("eight")));
            living.insert(name.to_owned(), layers.collect());
        }
    }
    Ok(living)
}

/// Network file systems give a lock to nobody else alone but who may write; where nothing can be written, nobody minds.
pub(crate) fn open_to_lock(dir: impl AsFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let open =
        |flags| rustix::fs::openat(&dir, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    match open(OFlags::RDWR) {
        Err(Errno::ROFS) => open(OFlags::RDONLY),
        other => other,
    }
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
    open(store, LEASES)
}

fn open(store: &Store, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(store.dir(), name, flags, Mode::empty())
        .map_err(Error::io("opening", store.path().join(name)))
}
