//! What is planned, by paths, and how it waits on the disk.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use boxwright_cache::Cancel;
use boxwright_cache::Error as CacheError;

use super::FileError;
use super::kept::{Aside, Keep, Kept};
use super::packed::{Packed, Unpacked};
use super::source::Content;
use super::view::{Data, Entry, Group};

/// What keeping a source takes besides its path.
const KEEPING: usize = 192;

#[derive(Debug)]
pub(super) struct Planned(Kept<Entry>);

impl Planned {
    pub(super) fn new(spool: &Rc<OwnedFd>) -> Planned {
        Planned(Kept::new(spool))
    }

    /// # Errors
    /// As [`Kept::get`], and when it is no path.
    pub(super) fn get(&mut self, path: &Path) -> Result<Option<Rc<Entry>>, FileError> {
        self.0.get(&key(path)?)
    }

    /// Whether nothing is planned but the directory `path` and those it lies in.
    pub(super) fn is_way_to(&self, path: &Path) -> bool {
        let is_on_the_way = |planned: &[u8]| path.starts_with(path_of(planned));
        self.0.keys().is_some_and(|mut keys| keys.all(is_on_the_way))
    }

    /// # Errors
    /// As [`Kept::put`].
    pub(super) fn insert(&mut self, path: &Path, entry: Entry) -> Result<(), FileError> {
        self.0.put(key(path)?, entry)
    }

    /// Forgets all that is in the directory `path`.
    ///
    /// # Errors
    /// As [`Kept::forget`].
    pub(super) fn forget_below(&mut self, path: &Path, cancel: &Cancel) -> Result<(), FileError> {
        let key = key(path)?;
        self.0.forget(&[&key[..], &[0]].concat(), &[&key[..], &[1]].concat(), cancel)
    }

    /// Gives all in the order of an archive: parents first, names by their bytes.
    ///
    /// # Errors
    /// As [`Kept::drain`].
    pub(super) fn drain(
        &mut self,
        mut give: impl FnMut(&Path, Entry) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        self.0.drain(|key, entry| give(&path_of(key), entry))
    }
}

/// Bytes that have the order of an archive, and are the same for all ways to write a path. No name has the byte in it that is
/// between names here.
fn key(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut key = Vec::with_capacity(path.as_os_str().len());
    for name in path {
        if name.as_bytes().contains(&0) {
            return Err(CacheError::invalid("path", path.to_string_lossy(), "there is a NUL in it").into());
        }
        if !key.is_empty() {
            key.push(0);
        }
        key.extend_from_slice(name.as_bytes());
    }
    Ok(key)
}

fn path_of(key: &[u8]) -> PathBuf {
    let mut path = key.to_vec();
    path.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'/');
    OsString::from_vec(path).into()
}

/// Where the bytes of files are, of which a number is on the disk.
#[derive(Debug, Default)]
pub(super) struct Sources {
    archives: Vec<Arc<File>>,
    /// Of files that are in no archive.
    others: Vec<Data>,
    held: usize,
}

impl Aside for Sources {
    fn weight(&self) -> usize {
        self.held
    }
}

impl Sources {
    fn archive(&mut self, file: &Arc<File>) -> u64 {
        let known = self.archives.iter().position(|archive| Arc::ptr_eq(archive, file));
        let at = known.unwrap_or(self.archives.len());
        if known.is_none() {
            self.archives.push(file.clone());
        }
        at as u64
    }

    fn other(&mut self, data: &Data) -> u64 {
        self.held += KEEPING
            + match data {
                Data::Bytes(bytes) => bytes.len(),
                Data::Part { .. } => 0,
                Data::Source(Content::Host { path, .. }) => path.as_os_str().len(),
                Data::Source(Content::Snapshot { node, .. }) => node.path.as_os_str().len(),
            };
        self.others.push(data.clone());
        self.others.len() as u64 - 1
    }

    fn pack(&mut self, data: &Data, to: &mut Packed) {
        let numbers = match data {
            Data::Part { file, offset, size } => [0, self.archive(file), *offset, *size],
            other => [1, self.other(other), 0, 0],
        };
        numbers.into_iter().for_each(|n| to.number(n));
    }

    fn unpack(&self, from: &mut Unpacked<'_>) -> Option<Data> {
        let (is_other, at) = (from.number()? == 1, usize::try_from(from.number()?).ok()?);
        let (offset, size) = (from.number()?, from.number()?);
        if is_other {
            return self.others.get(at).cloned();
        }
        Some(Data::Part { file: self.archives.get(at)?.clone(), offset, size })
    }
}

impl Keep for Entry {
    type Aside = Sources;

    fn weight(&self) -> usize {
        match self {
            Entry::Symlink { meta, target } => meta.weight() + target.len(),
            Entry::Dir { meta, .. } | Entry::File { meta, .. } | Entry::Node { meta, .. } => meta.weight(),
        }
    }

    fn pack(&self, to: &mut Packed, sources: &mut Sources) {
        let (Entry::Dir { meta, .. }
        | Entry::File { meta, .. }
        | Entry::Symlink { meta, .. }
        | Entry::Node { meta, .. }) = self;
        to.metadata(meta);
        match self {
            Entry::Dir { opaque, .. } => to.number(u64::from(*opaque)),
            Entry::File { data, group, .. } => {
                to.number(2_u64);
                to.number(group.map_or(0, |Group(n)| n));
                sources.pack(data, to);
            }
            Entry::Symlink { target, .. } => {
                to.number(3_u64);
                to.string(target.as_bytes());
            }
            Entry::Node { kind, .. } => {
                to.number(4_u64);
                to.node(*kind);
            }
        }
    }

    fn unpack(from: &mut Unpacked<'_>, sources: &Sources) -> Option<Entry> {
        let meta = from.metadata()?;
        Some(match from.number()? {
            opaque @ (0 | 1) => Entry::Dir { meta, opaque: opaque == 1 },
            2 => {
                let group = from.small()?;
                Entry::File { meta, data: sources.unpack(from)?, group: (group != 0).then_some(Group(group)) }
            }
            3 => Entry::Symlink { meta, target: OsStr::from_bytes(from.string()?).to_owned() },
            4 => Entry::Node { meta, kind: from.node()? },
            _ => return None,
        })
    }
}
