//! A stack of layers copied into one directory, for a container on a file system where no overlay can be mounted. What
//! the container leaves there becomes what overlayfs would have left in its upper directory: see [`Copied::reduce`].

mod list;
mod reduce;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, fstat, futimens, openat, statat,
    utimensat,
};
use rustix::io::Errno;

use super::owner::OwnerView;
use super::tree::{Kind, Node};
use super::{Marks, Tree};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::names::Names;
use crate::layer::diff::open_dir;
use crate::layer::{DirSink, LayerSink as _, NodeKind};

/// What a part of a stack is called in its directory.
pub const PART: &str = "data";
const LIST: &str = "list";
/// How often it is looked whether the clock has moved: it does every 1 to 10 ms.
const TICKS: u32 = 50;

/// A copy that a container may change. Names of one file stay names of one file.
#[derive(Debug)]
pub struct Copied {
    dir: OwnedFd,
    base: Tree,
    marks: Marks,
    /// Every entry as it was when the copy was finished.
    list: File,
    /// The time then: what was changed before has another time once it is changed again.
    finished: (i64, u32),
    /// Of these it counts what they are, not whether somebody touched them.
    put_back: BTreeSet<PathBuf>,
}

impl Copied {
    /// Copies `layers`, bottom first, into `dir`, which has at most empty directories: those count as changed, and what
    /// else is to be remembered is kept in `work`. Once this returns, a change of a file can be told by its times, or, where
    /// the clock has been set back, by what is in it.
    ///
    /// # Errors
    /// When something can't be read or written, or `cancel` is raised.
    pub fn new(
        layers: Vec<OwnedFd>,
        dir: BorrowedFd<'_>,
        work: BorrowedFd<'_>,
        cancel: &Cancel,
    ) -> Result<Copied> {
        let marks = Marks::of(dir).map_err(Error::io("reading", "a new layer"))?;
        marks.take_off(dir).map_err(Error::io("preparing", "a new layer"))?;
        let dir = own(dir)?;
        let own_dirs = times_of_all(&dir).map_err(Error::io("reading", "a new layer"))?;
        cancel.begin_long();
        let base = Tree::merged(layers);
        let mut sink = DirSink::new(own(dir.as_fd())?, OwnerView::current());
        copy_all(&base, Path::new(""), &mut sink, Path::new(""), cancel)?;
        sink.finish()?;
        for (name, times) in &own_dirs {
            utimensat(&dir, name, times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Error::io("setting the time of", name))?;
        }
        let changed: Vec<&Path> = own_dirs.iter().map(|(name, _)| name.as_path()).collect();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let list = openat(work, LIST, flags, Mode::RUSR | Mode::WUSR);
        let list = File::from(list.map_err(Error::io("making", "the list of a copy"))?);
        let newest = list::write(&dir, &changed, &list, cancel)?;
        let finished = wait_until_after(newest, &list)
            .map_err(Error::io("reading the time of", "the list of a copy"))?;
        Ok(Copied { dir, base, marks, list, finished, put_back: BTreeSet::new() })
    }

    /// Says that `path`, a real path in the copy, was changed by others than the container and put back since, with all
    /// directories that it is in.
    pub fn put_back(&mut self, path: &str) {
        self.put_back.extend(Path::new(path).ancestors().map(Path::to_owned));
    }

    /// Leaves of the copy what was changed in it: what is as it was is removed, what is gone gets a whiteout, and a
    /// directory that was removed and made anew becomes opaque. To be called when nobody uses the copy any more.
    ///
    /// # Errors
    /// When something can't be read or written, or `cancel` is raised.
    pub fn reduce(self, cancel: &Cancel) -> Result<()> {
        reduce::reduce(&self, cancel)?;
        self.marks.declare(&self.dir).map_err(Error::io("finishing", "a new layer"))
    }
}

/// Copies what is at `path` of a stack into `dir`, as [`PART`]. False where nothing is.
///
/// # Errors
/// As [`Copied::new`].
pub fn copy_part(layers: Vec<OwnedFd>, path: &str, dir: BorrowedFd<'_>, cancel: &Cancel) -> Result<bool> {
    let tree = Tree::merged(layers);
    let Some(top) = tree.lookup(path, true)? else { return Ok(false) };
    cancel.begin_long();
    let mut sink = DirSink::new(own(dir)?, OwnerView::current());
    copy_all(&tree, &top.path, &mut sink, Path::new(PART), cancel)?;
    sink.finish().map(|_| true)
}

/// Whether the directory of a layer shows what the stack of that layer alone would: it marks nothing as deleted.
///
/// # Errors
/// When it can't be read.
pub fn shows_itself(layer: BorrowedFd<'_>, cancel: &Cancel) -> Result<bool> {
    let failed = |path: &Path| Error::io("reading", path.to_owned());
    let marks = Marks::of(layer).map_err(failed(Path::new("/")))?;
    cancel.begin_long();
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        cancel.check()?;
        let dir = open_dir(layer, &path).map_err(failed(&path))?;
        for entry in Dir::read_from(&dir).map_err(failed(&path))? {
            let entry = entry.map_err(failed(&path))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut kind = entry.file_type();
            if kind == FileType::Unknown || kind == marks.whiteout_type() {
                let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed(&path))?;
                if marks.is_whiteout_at(&dir, name, &stat).map_err(failed(&path))? {
                    return Ok(false);
                }
                kind = FileType::from_raw_mode(stat.st_mode);
            }
            if kind == FileType::Directory {
                use std::os::unix::ffi::OsStrExt as _;
                pending.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    Ok(true)
}

/// Copies `top`, a real path of the tree, and all below it to `at`.
fn copy_all(tree: &Tree, top: &Path, sink: &mut DirSink, at: &Path, cancel: &Cancel) -> Result<()> {
    each(tree, top, sink, at, cancel, |sink, node, place| match &node.kind {
        // The directory that is copied into is what it is.
        Kind::Dir if place.as_os_str().is_empty() => Ok(()),
        Kind::Node(kind) => sink.node(place, &node.meta, *kind),
        _ => put(sink, tree, node, place, cancel),
    })
}

/// As [`copy_all`], for who could not open a device there.
pub(crate) fn copy_without_devices(
    tree: &Tree,
    top: &Path,
    sink: &mut DirSink,
    at: &Path,
    cancel: &Cancel,
) -> Result<()> {
    each(tree, top, sink, at, cancel, |sink, node, place| match &node.kind {
        Kind::Node(NodeKind::Char { .. } | NodeKind::Block { .. }) => Ok(()),
        _ => put(sink, tree, node, place, cancel),
    })
}

fn each(
    tree: &Tree,
    top: &Path,
    sink: &mut DirSink,
    at: &Path,
    cancel: &Cancel,
    mut make: impl FnMut(&mut DirSink, &Node, &Path) -> Result<()>,
) -> Result<()> {
    let mut first: HashMap<(u64, u64), PathBuf> = HashMap::new();
    for node in tree.walk(top)? {
        cancel.check()?;
        let node = node?;
        let below = node.path.strip_prefix(top).unwrap_or(Path::new(""));
        let place = if below.as_os_str().is_empty() { at.to_owned() } else { at.join(below) };
        if let Some(first) = node.group.and_then(|group| first.get(&group)) {
            sink.hard_link(&place, first)?;
            continue;
        }
        make(sink, &node, &place)?;
        if let Some(group) = node.group {
            first.insert(group, place);
        }
    }
    Ok(())
}

/// A socket without the process that listens is nobody's.
fn put(sink: &mut DirSink, tree: &Tree, node: &Node, place: &Path, cancel: &Cancel) -> Result<()> {
    match &node.kind {
        Kind::Dir => sink.dir(place, &node.meta),
        Kind::File => sink.file_from(place, &node.meta, &tree.open(node)?.file, cancel),
        Kind::Symlink(target) => sink.symlink(place, &node.meta, target),
        Kind::Node(kind) => sink.node(place, &node.meta, *kind),
        Kind::Socket => Ok(()),
    }
}

fn times_of_all(dir: &OwnedFd) -> Result<Vec<(PathBuf, Timestamps)>, Errno> {
    let times = Names::read(dir)?.map(|(name, _)| {
        let stat = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((PathBuf::from(name), reduce::times(&stat)))
    });
    times.collect()
}

/// Times of files are those of the last tick of their file system's clock, which may be another machine's: a file that is
/// changed in the same one looks as before. Gives the time that `file` would now get, which is not later where the clock
/// was set back.
#[allow(clippy::unnecessary_cast, reason = "the field types differ between architectures")]
fn wait_until_after(newest: (i64, u32), file: &File) -> Result<(i64, u32), Errno> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let touch = Timestamps { last_access: now, last_modification: now };
    for tick in 1.. {
        futimens(file, &touch)?;
        let stat = fstat(file)?;
        let time = (stat.st_ctime as i64, stat.st_ctime_nsec as u32);
        if time > newest || tick == TICKS {
            return Ok(time);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(newest)
}

fn own(dir: BorrowedFd<'_>) -> Result<OwnedFd> {
    dir.try_clone_to_owned().map_err(Error::io("duplicating", "a directory"))
}

#[cfg(test)]
mod tests;
