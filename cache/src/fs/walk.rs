//! [`Context`]: a directory of the host that a build reads: what an ignore file leaves of it, what patterns select of
//! that, and a digest of the selection that reads unchanged files only once. Nothing outside of it is ever read.

mod digest;
mod list;
mod select;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::fs::open_resolved;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

pub use digest::{FileHashCache, Mark, NoCache};
pub use select::Match;

use super::pattern::Matcher;
use crate::error::{Error, Result};
use crate::ids::with_ids;
use crate::layer::sink::{NodeKind, Timestamp, Xattrs};
use crate::snapshot::owner::{OwnerView, mtime_of};
pub use crate::snapshot::tree::Kind;

const XATTRS: &str = "reading the attributes of";

/// A directory and what is ignored in it.
#[derive(Debug)]
pub struct Context {
    root: OwnedFd,
    ignore: Matcher,
}

/// One file, directory or link of a context. Sockets are in no context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root, with no link in it (but the entry itself may be one).
    pub path: PathBuf,
    pub kind: Kind,
    /// Permission bits, with set-id bits and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// More than one name may have the content; they have the same device and inode in `key`.
    pub links: u64,
    pub key: StatKey,
    /// A directory that a filter does not want itself: it is there for what is in it.
    pub implied: bool,
}

/// What tells that a file has not changed: if all of it is equal, so are the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatKey {
    pub dev: u64,
    pub ino: u64,
    pub size: u64,
    pub mtime: Timestamp,
    pub ctime: Timestamp,
}

impl StatKey {
    #[allow(clippy::unnecessary_cast, reason = "the field types differ between architectures")]
    fn of(stat: &Stat) -> StatKey {
        StatKey {
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: mtime_of(stat),
            ctime: Timestamp { secs: stat.st_ctime as i64, nanos: stat.st_ctime_nsec as u32 },
        }
    }
}

impl Context {
    /// `root` must have been opened for reading. `ignore` are the patterns of an ignore file, cleaned.
    ///
    /// # Errors
    /// When a pattern is malformed.
    pub fn new(root: OwnedFd, ignore: &[String]) -> Result<Context> {
        Ok(Context { root, ignore: Matcher::new(ignore)? })
    }

    /// The regular file at the real path `path` (of an [`Entry`] or a [`Match`]); no link is followed.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub fn open(&self, path: &Path) -> Result<File> {
        let opening = || Error::io("opening", path);
        // Without blocking, because a pipe could have taken the file's place.
        let fd = self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(opening())?;
        let stat = rustix::fs::fstat(&fd).map_err(opening())?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::malformed(path.display().to_string(), "no regular file any more"));
        }
        Ok(fd.into())
    }

    /// The attributes that an image keeps of the directory at the real path `path`, sorted by name.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub fn xattrs(&self, path: &Path) -> Result<Xattrs> {
        let dir = self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY);
        self.xattrs_of(dir.map_err(Error::io(XATTRS, path))?, path)
    }

    /// The same of what is open.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn xattrs_of(&self, open: impl AsFd, path: &Path) -> Result<Xattrs> {
        OwnerView::Real.xattrs(open).map_err(Error::io(XATTRS, path))
    }

    /// What is at the real path `path`, ignored or not; none if there is nothing.
    ///
    /// # Errors
    /// When it can't be looked at.
    pub fn stat(&self, path: &Path) -> Result<Option<Entry>> {
        let found = self.open_at(path, OFlags::PATH).and_then(|fd| {
            let stat = rustix::fs::fstat(&fd)?;
            let target = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes(),
                _ => Vec::new(),
            };
            Ok(entry(path.to_owned(), &stat, target))
        });
        match found {
            Ok(entry) => Ok(Some(entry)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(Error::io("looking at", path)(e)),
        }
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        open_resolved(&self.root, path, flags, Mode::empty(), resolve)
    }
}

/// The entry of `name` in an open directory; none if it vanished since the directory was read.
fn entry_at(dir: impl AsFd, name: &std::ffi::OsStr, path: PathBuf) -> Result<Option<Entry>, Errno> {
    let stat = match with_ids(|| rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let target = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => with_ids(|| rustix::fs::readlinkat(&dir, name, Vec::new()))?.into_bytes(),
        _ => Vec::new(),
    };
    Ok(Some(entry(path, &stat, target)))
}

#[allow(clippy::unnecessary_cast, reason = "the field types differ between architectures")]
fn entry(path: PathBuf, stat: &Stat, target: Vec<u8>) -> Entry {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Dir,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Symlink(OsString::from_vec(target)),
        FileType::CharacterDevice => Kind::Node(NodeKind::Char { major, minor }),
        FileType::BlockDevice => Kind::Node(NodeKind::Block { major, minor }),
        FileType::Fifo => Kind::Node(NodeKind::Fifo),
        _ => Kind::Socket,
    };
    Entry {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        links: stat.st_nlink as u64,
        key: StatKey::of(stat),
        implied: false,
    }
}

#[cfg(test)]
mod tests;
