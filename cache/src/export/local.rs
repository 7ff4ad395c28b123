//! Root file systems as files in a directory (`-o type=local`). They belong to whoever builds, so they keep no right
//! that an image gave them: no set-id bits, no capabilities, and no devices. Nothing outside of the directory is
//! written, whatever links are in it (R1).

use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{getegid, geteuid};

use super::nodes::{Entry, Root, each};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::layer::sink::{DirSink, LayerSink as _, Metadata, NodeKind};
use crate::layer::tar::EntryKind;
use crate::snapshot::owner::OwnerView;

const SET_ID: u32 = 0o6000;
const CAPABILITIES: &[u8] = b"security.capability";

/// Writes everything in `roots` but the roots themselves into `dest`, which is made if it is absent. What is there already
/// stays, except where a tree has something of the same name; directories of one name become one. With an `epoch`
/// (seconds since 1970) that is the time of all of it.
///
/// # Errors
/// When a tree can't be read, two in one place have the same file, `dest` can't be written, or `cancel` is raised. What
/// was written by then stays.
pub fn local(roots: &[Root], epoch: Option<i64>, dest: &Path, cancel: &Cancel) -> Result<()> {
    std::fs::create_dir_all(dest).map_err(Error::io("making directory", dest))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dest, flags, Mode::empty()).map_err(Error::io("opening directory", dest))?;
    // Ids are what they are: those of this process.
    let mut sink = DirSink::new(dir, OwnerView::Real);
    each(roots, epoch, cancel, &mut |entry| write(entry, &mut sink).map_err(|e| below(dest, e)))?;
    sink.finish().map(drop).map_err(|e| below(dest, e))
}

/// With the whole path of what could not be written, if that is why: what is read lies elsewhere.
fn below(dest: &Path, error: Error) -> Error {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error {
        Error::Io { doing, path, source }
            if matches!(source.kind(), StorageFull | ReadOnlyFilesystem | QuotaExceeded) =>
        {
            // An absolute path stays what it is.
            Error::Io { doing, path: dest.join(path), source }
        }
        error => error,
    }
}

fn write(entry: &Entry<'_>, sink: &mut DirSink) -> Result<()> {
    let Entry { path, meta, kind, .. } = entry;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    // A program of an image that is root's must not run as root for everybody who reaches the directory.
    let mode = meta.mode & !SET_ID;
    let xattrs = meta.xattrs.iter().filter(|(name, _)| name != CAPABILITIES).cloned().collect();
    let meta = Metadata { mode, uid, gid, mtime: meta.mtime, xattrs };
    match kind {
        EntryKind::Dir => sink.dir(path, &meta),
        EntryKind::File { size } => sink.file(path, &meta, *size, &mut entry.open()?.reader()),
        EntryKind::HardLink(first) => sink.hard_link(path, first),
        EntryKind::Symlink(target) => sink.symlink(path, &meta, target),
        EntryKind::Node(NodeKind::Char { .. } | NodeKind::Block { .. }) => Ok(()),
        EntryKind::Node(kind) => sink.node(path, &meta, *kind),
    }
}
