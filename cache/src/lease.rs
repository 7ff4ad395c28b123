//! Leases: what a living process holds is not collected. A process that dies, however it dies, holds nothing.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};

use crate::error::{Error, Result};
use crate::snapshot::LayerId;
use crate::store::{Store, unique_name};

/// A lease file is locked before it gets its final name, so a file without a lock belongs to a process that is gone.
const UNNAMED: &str = ".new";

/// A share of this process' lease. Handles to layers carry one; the last one gone gives everything back.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
pub(crate) struct Held {
    /// The locked file; closing it ends the lease.
    _lock: OwnedFd,
    name: String,
    leases: OwnedFd,
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
        let lock = rustix::fs::openat(&leases, &unnamed, flags, Mode::RUSR | Mode::WUSR)
            .map_err(io("making lease"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(io("locking lease"))?;
        rustix::fs::renameat(&leases, &unnamed, &leases, &name).map_err(io("naming lease"))?;
        let lease = Lease(Arc::new(Held { _lock: lock, name, leases }));
        bury(store)?;
        Ok(lease)
    }

    /// Adds `layers` to what this lease holds, within the caller's transaction.
    pub(crate) fn hold(&self, db: &rusqlite::Connection, layers: &[LayerId]) -> rusqlite::Result<()> {
        let mut insert = db.prepare_cached("INSERT OR IGNORE INTO leases (holder, layer) VALUES (?1, ?2)")?;
        for layer in layers {
            insert.execute(rusqlite::params![self.0.name, layer.0])?;
        }
        Ok(())
    }
}

impl Drop for Held {
    /// The rows stay: without the file they hold nothing, and the next lease sweeps them away.
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.leases, &self.name, AtFlags::empty());
    }
}

/// The names of all leases whose process lives; files of dead ones are removed.
pub(crate) fn living(store: &Store) -> Result<BTreeSet<String>> {
    let leases = open_leases(store)?;
    let io = |doing| Error::io(doing, store.path().join("leases"));
    let mut living = BTreeSet::new();
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
                    living.insert(name.to_owned());
                }
            },
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(Error::io("opening lease", store.path().join("leases").join(name))(e)),
        }
    }
    Ok(living)
}

/// Forgets what the dead held: their rows, and what they were making in `tmp/`.
///
/// The candidates are read first and the living second: whoever has a row or a directory took its lease before, so
/// one that is not among the living by then is dead. The other way round, a process that starts in between would be.
pub(crate) fn bury(store: &Store) -> Result<()> {
    let doing = "forgetting leases of processes that are gone";
    let holders: Vec<String> = {
        let db = store.db();
        let mut select = db.prepare_cached("SELECT DISTINCT holder FROM leases").map_err(Error::db(doing))?;
        let rows = select.query_map([], |row| row.get(0)).map_err(Error::db(doing))?;
        rows.collect::<Result<_, _>>().map_err(Error::db(doing))?
    };
    let unfinished = unfinished(store)?;
    let living = living(store)?;
    let dead: Vec<&String> = holders.iter().filter(|holder| !living.contains(*holder)).collect();
    if !dead.is_empty() {
        store.write(doing, |tx| {
            dead.iter().try_for_each(|d| tx.execute("DELETE FROM leases WHERE holder = ?1", [d]).map(drop))
        })?;
    }
    for (maker, path) in unfinished {
        if maker.is_none_or(|maker| !living.contains(&maker)) {
            remove_tree(&path)?;
        }
    }
    Ok(())
}

/// Everything in `tmp/`, and the lease of its maker, after which it is named.
fn unfinished(store: &Store) -> Result<Vec<(Option<String>, PathBuf)>> {
    let tmp = store.path().join("tmp");
    std::fs::read_dir(&tmp)
        .map_err(Error::io("listing", &tmp))?
        .map(|entry| {
            let path = entry.map_err(Error::io("listing", &tmp))?.path();
            let name = path.file_name().and_then(|n| n.to_str());
            let maker = name.and_then(|n| n.split_once('-')).map(|(maker, _)| maker.to_owned());
            Ok((maker, path))
        })
        .collect()
}

/// Removes a tree of ours, whatever permissions were given to what is in it. Another process may be removing it, too.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let is_dir = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("removing", path)(e)),
    };
    let removed = if is_dir { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", path)(e)),
        _ => Ok(()),
    }
}

fn open_leases(store: &Store) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(store.dir(), "leases", flags, Mode::empty())
        .map_err(Error::io("opening", store.path().join("leases")))
}
