//! Directories that outlive commands: cache mounts and volumes. Each has a file that whoever uses it keeps locked (a
//! holder that dies, however it dies, frees it), and `data`, which is what is mounted.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FlockOperation, Mode, OFlags, RenameFlags, fstat, mkdirat, openat, renameat_with, statat,
};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::remove_tree;
use crate::layer::{DirSink, Metadata};
use crate::lease::open_to_lock;
use crate::snapshot::ActiveLayer;
use crate::snapshot::Tree;
use crate::snapshot::copy::copy_without_devices;
use crate::snapshot::owner::OwnerView;
use crate::store::{Store, unique_name};

pub(crate) const LOCK: &str = "lock";
pub(crate) const DATA: &str = "data";

/// What came of an attempt to lock one.
pub(crate) enum Held {
    Here(OwnedFd),
    InUse,
    Missing,
}

/// The store's directory of this `kind` (`caches`), made where it is missing.
pub(crate) fn open(store: &Store, kind: &str) -> Result<OwnedFd> {
    let io = |doing| Error::io(doing, store.path().join(kind));
    if let Some(known) = find(store, kind)? {
        return Ok(known);
    }
    match mkdirat(store.dir(), kind, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(io("making")(errno)),
    }
    find(store, kind)?.ok_or_else(|| io("opening")(Errno::NOENT))
}

/// The same for those that only look: a store that can't be written may have none.
pub(crate) fn find(store: &Store, kind: &str) -> Result<Option<OwnedFd>> {
    match open_at(store.dir(), kind, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(Errno::NOENT) => Ok(None),
        result => result.map(Some).map_err(Error::io("opening", store.path().join(kind))),
    }
}

pub(crate) fn open_at(dir: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(dir, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Locks one, if there is one of that name and it is free.
pub(crate) fn hold(dir: &OwnedFd, name: &str, how: FlockOperation) -> Result<Held> {
    let path = format!("{name}/{LOCK}");
    let io = |doing| Error::io(doing, name);
    loop {
        let lock = match open_to_lock(dir, &path) {
            Err(Errno::NOENT) => return Ok(Held::Missing),
            result => result.map_err(io("opening"))?,
        };
        match rustix::fs::flock(&lock, how) {
            Err(Errno::WOULDBLOCK) => return Ok(Held::InUse),
            Err(Errno::INTR) => continue,
            result => result.map_err(io("locking"))?,
        }
        // It may have been thrown away between its opening and its locking.
        let own = fstat(&lock).map_err(io("locking"))?;
        match statat(dir, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) if (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino) => {
                return Ok(Held::Here(lock));
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(io("locking")(errno)),
        }
    }
}

/// Moves it out of sight first: a kill leaves litter, but never half of it. The caller holds its lock.
pub(crate) fn discard(store: &Store, kind: &str, name: &str) -> Result<()> {
    let away = format!("tmp/{}-{}", store.lease()?.name(), unique_name()?);
    let path = store.path().join(kind).join(name);
    rustix::fs::renameat(store.dir(), format!("{kind}/{name}"), store.dir(), &away)
        .map_err(Error::io("removing", &path))?;
    remove_tree(store, &away)
}

/// An empty `data`, root's and 0755.
pub(crate) fn make_data(new: &ActiveLayer) -> Result<()> {
    mkdirat(new.fs(), DATA, Mode::RWXU).map_err(Error::io("making", "a directory"))?;
    set_top(new, &Metadata { mode: 0o755, ..Metadata::default() })
}

pub(crate) fn set_top(new: &ActiveLayer, meta: &Metadata) -> Result<()> {
    let top = open_at(new.fs(), DATA, OFlags::RDONLY).map_err(Error::io("opening", "a new directory"))?;
    set_meta(&top, meta)
}

pub(crate) fn set_meta(dir: &OwnedFd, meta: &Metadata) -> Result<()> {
    let written = OwnerView::current().write(dir.as_fd(), meta);
    written.map_err(|(doing, errno)| Error::io(doing, "a new directory")(errno))
}

/// A file beside `data`.
pub(crate) fn write(own: impl AsFd, name: &str, content: &str) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(own, name, flags, Mode::RUSR | Mode::WUSR).map_err(Error::io("making", name))?;
    rustix::io::write(&file, content.as_bytes()).map_err(Error::io("writing", name)).map(drop)
}

/// Copies what is at `path` of the tree, with all below it, to be `data`. False where nothing is.
pub(crate) fn copy_in(tree: &Tree, path: &str, new: &ActiveLayer, cancel: &Cancel) -> Result<bool> {
    let Some(top) = tree.lookup(path, true)?.map(|node| node.path) else { return Ok(false) };
    let fs = new.fs().try_clone_to_owned().map_err(Error::io("opening", "a new directory"))?;
    let mut sink = DirSink::new(fs, OwnerView::current());
    cancel.begin_long();
    copy_without_devices(tree, &top, &mut sink, Path::new(DATA), cancel)?;
    sink.finish()?;
    Ok(true)
}

/// What is in a directory.
pub(crate) fn names(dir: &OwnedFd) -> Result<Vec<CString>> {
    let io = || Error::io("reading", "a volume");
    let entries = Dir::read_from(dir).map_err(io())?.collect::<Result<Vec<_>, _>>().map_err(io())?;
    let names = entries.iter().map(|entry| entry.file_name().to_owned());
    Ok(names.filter(|name| !matches!(name.as_bytes(), b"." | b"..")).collect())
}

/// Moves what is in one directory to another. A name that is there already stays what it is.
pub(crate) fn move_all(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    for name in names(from)? {
        match renameat_with(from, &name, to, &name, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(Error::io("filling", "a volume")(errno)),
        }
    }
    Ok(())
}
