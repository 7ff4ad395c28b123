//! [`LayerSink`]: where the entries of a layer go, whoever makes them (an archive, COPY, WORKDIR). [`DirSink`]
//! writes them into a directory that overlayfs can use as it is.

mod content;
mod dir;
mod like;
mod parents;
mod times;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use dir::{DirSink, Implied};

use crate::error::Result;

/// A point in time, possibly before 1970: `secs` is rounded down, `nanos` is below 1,000,000,000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    pub secs: i64,
    pub nanos: u32,
}

impl Timestamp {
    /// This time, or `epoch` (seconds since 1970) if that is earlier.
    #[must_use]
    pub fn until(self, epoch: Option<i64>) -> Timestamp {
        epoch.map_or(self, |secs| self.min(Timestamp { secs, nanos: 0 }))
    }
}

/// What an entry has besides its name and content, as the image means it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, including set-user-id, set-group-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timestamp,
    /// A sink keeps those that images keep and ignores the others.
    pub xattrs: Xattrs,
}

/// Raw names and values of extended attributes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A special file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    Fifo,
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
}

/// Takes the entries of one layer, in the order of an archive.
///
/// Paths are relative to the root of the layer, without `.` and `..`; the empty path is the root, which can only be
/// a directory. A later entry replaces an earlier one of the same path, except that a directory stays where another
/// directory comes. A parent that was not given is implied. Each method fails when the entry can't be made.
pub trait LayerSink {
    fn dir(&mut self, path: &Path, meta: &Metadata) -> Result<()>;
    /// `data` is read for exactly `size` bytes; it is an error if it ends earlier.
    fn file(&mut self, path: &Path, meta: &Metadata, size: u64, data: &mut dyn Read) -> Result<()>;
    /// A file with the bytes that an earlier layer, which the sink may know, has at `path`; the caller answers for
    /// that. Gives the file, to be read; none if it has to be given whole.
    fn file_as_before(&mut self, _path: &Path, _meta: &Metadata, _size: u64) -> Result<Option<File>> {
        Ok(None)
    }
    /// The mode and the attributes of `meta` are not used.
    fn symlink(&mut self, path: &Path, meta: &Metadata, target: &OsStr) -> Result<()>;
    /// `target` is a path in the layer, or in a lower layer.
    fn hard_link(&mut self, path: &Path, target: &Path) -> Result<()>;
    fn node(&mut self, path: &Path, meta: &Metadata, kind: NodeKind) -> Result<()>;
    /// Hides `path` of lower layers; what this layer has there stays.
    fn whiteout(&mut self, path: &Path) -> Result<()>;
    /// Hides everything lower layers have in the directory `path`.
    fn opaque(&mut self, path: &Path) -> Result<()>;
}
