//! The file system as it will be: `base` under what the actions of this vertex have planned so far. Planning an entry
//! also plans the directories it lies in, with the metadata they have in `base`, so that a layer of the planned
//! entries changes nothing else.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use boxwright_cache::Cancel;
use boxwright_cache::Error as CacheError;
use boxwright_cache::layer::{Metadata, NodeKind, Timestamp};
use boxwright_cache::snapshot::tree::{Kind, Node, Tree};

use super::FileError;
use super::kept::Kept;
use super::planned::Planned;
use super::resolve::{Seen, resolve, shown};
use super::source::Content;

/// The mode of directories that nobody asked for.
const IMPLIED_MODE: u32 = 0o755;

/// What will be at a path.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Dir { meta: Metadata, opaque: bool },
    File { meta: Metadata, data: Data, group: Option<Group> },
    Symlink { meta: Metadata, target: OsString },
    Node { meta: Metadata, kind: NodeKind },
}

/// Files of one group are one file with several names. None is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group(pub(super) u32);

impl Group {
    pub(super) fn key(self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }
}

/// Where the bytes of a file are until they are written.
#[derive(Clone, Debug)]
pub(super) enum Data {
    Bytes(Arc<Vec<u8>>),
    /// A part of an archive.
    Part {
        file: Arc<File>,
        offset: u64,
        size: u64,
    },
    /// A file of a source, or of `base` itself.
    Source(Content),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

#[derive(Debug)]
pub(super) struct View {
    base: Arc<Tree>,
    planned: Planned,
    groups: u32,
    /// What the files of a group have become after they were planned.
    regrouped: Kept<Metadata>,
    /// The time of whatever has none of its own.
    now: Timestamp,
    any_opaque: bool,
    /// Where what is more than memory should hold may wait.
    spool: Rc<OwnedFd>,
    cancel: Cancel,
}

impl View {
    /// # Errors
    /// When the directory `spool` can't be opened once more.
    pub(super) fn new(
        base: Arc<Tree>,
        now: Timestamp,
        spool: BorrowedFd<'_>,
        cancel: &Cancel,
    ) -> Result<View, FileError> {
        let spool = spool.try_clone_to_owned().map_err(CacheError::io("opening", "a directory of the store"));
        let spool = Rc::new(spool?);
        Ok(View {
            base,
            planned: Planned::new(&spool),
            groups: 0,
            regrouped: Kept::new(&spool),
            now,
            any_opaque: false,
            spool,
            cancel: cancel.clone(),
        })
    }

    pub(super) fn base(&self) -> &Arc<Tree> {
        &self.base
    }

    /// Changes the time of what is planned from here on; gives the one before.
    pub(super) fn set_now(&mut self, now: Timestamp) -> Timestamp {
        std::mem::replace(&mut self.now, now)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn spool(&self) -> &Rc<OwnedFd> {
        &self.spool
    }

    /// Gives what was planned, in the order of an archive: parents first, names by their bytes.
    pub(super) fn take_planned(
        &mut self,
        mut give: impl FnMut(&Path, &Entry) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let View { planned, regrouped, .. } = self;
        planned.drain(|path, mut entry| {
            if let Entry::File { meta, group: Some(group), .. } = &mut entry
                && let Some(other) = regrouped.get(&group.key())?
            {
                meta.clone_from(&other);
            }
            give(path, &entry)
        })
    }

    /// Sets the metadata of all names of a file.
    pub(super) fn set_group(&mut self, group: Group, meta: Metadata) -> Result<(), FileError> {
        self.regrouped.put(group.key(), meta)
    }

    pub(super) fn new_group(&mut self) -> Group {
        self.groups += 1;
        Group(self.groups)
    }

    /// What is at `path`, whose parents hold no links; a link there is not followed.
    pub(super) fn look(&mut self, path: &Path) -> Result<Option<Seen>, FileError> {
        Ok(match self.planned.get(path)?.as_deref() {
            Some(Entry::Dir { .. }) => Some(Seen::Dir),
            Some(Entry::Symlink { target, .. }) => Some(Seen::Symlink(target.clone())),
            Some(_) => Some(Seen::Other),
            None => self.base_node(path)?.map(|node| seen(&node)),
        })
    }

    /// Where `path` leads: every link is followed, inside the root.
    pub(super) fn resolve(&mut self, path: &Path) -> Result<PathBuf, FileError> {
        resolve(path, true, |p| self.look(p))
    }

    /// The file of `base` that shows at `path`, unless something planned is there or hides it.
    pub(super) fn base_node(&mut self, path: &Path) -> Result<Option<Node>, FileError> {
        if self.is_hidden(path)? { Ok(None) } else { Ok(self.base.lookup(path, false)?) }
    }

    fn is_hidden(&mut self, path: &Path) -> Result<bool, FileError> {
        let above: Vec<_> = path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        // All parents of what is planned are planned, so the deepest of them is found by halves; mostly it is the first.
        let (mut deepest, mut end, mut middle) = (0, above.len(), 0);
        while deepest < end {
            if self.planned.get(above[middle])?.is_some() {
                end = middle;
            } else {
                deepest = middle + 1;
            }
            middle = usize::midpoint(deepest, end);
        }
        for path in &above[deepest..] {
            match self.planned.get(path)?.as_deref() {
                // They are only directories but for the deepest: without opaque ones, that tells.
                Some(Entry::Dir { opaque: false, .. }) if !self.any_opaque => return Ok(false),
                Some(Entry::Dir { opaque: false, .. }) | None => {}
                Some(_) => return Ok(true),
            }
        }
        Ok(false)
    }

    pub(super) fn planned(&mut self, path: &Path) -> Result<Option<Rc<Entry>>, FileError> {
        self.planned.get(path)
    }

    /// Makes the directory `path`, which holds no links, and its missing parents.
    pub(super) fn make_dirs(&mut self, path: &Path, mode: u32, owner: Owner) -> Result<(), FileError> {
        let mut missing = Vec::new();
        for path in path.ancestors() {
            match self.look(path)? {
                Some(Seen::Dir) => break,
                Some(_) => return Err(FileError::NotADirectory { path: shown(path) }),
                // The root is there even where nothing else is.
                None if path.as_os_str().is_empty() => break,
                None => missing.push(path),
            }
        }
        missing.into_iter().rev().try_for_each(|path| {
            let (uid, gid) = (owner.uid, owner.gid);
            let meta = Metadata { mode, uid, gid, mtime: self.now, xattrs: Vec::new() };
            self.put(path, Entry::Dir { meta, opaque: false })
        })
    }

    /// As [`View::make_dirs`], for directories that are only on the way to something.
    pub(super) fn make_implied(&mut self, path: &Path, owner: Owner) -> Result<(), FileError> {
        self.make_dirs(path, IMPLIED_MODE, owner)
    }

    /// Plans an entry in the place of whatever is there; its parent must be a directory by now. A directory over a
    /// directory keeps what is in it.
    pub(super) fn put(&mut self, path: &Path, mut entry: Entry) -> Result<(), FileError> {
        if path.as_os_str().is_empty() {
            // The root's metadata is that of `base`, whatever is copied over it.
            return Ok(());
        }
        self.plan_parents(path)?;
        let before = self.planned.get(path)?;
        if let Entry::Dir { opaque, .. } = &mut entry {
            *opaque = match before.as_deref() {
                Some(Entry::Dir { opaque, .. }) => *opaque,
                // What hid a directory of `base` goes away, and the directory must not come back with its files.
                Some(_) => self.base_node(path)?.is_some_and(|node| node.kind == Kind::Dir),
                None => false,
            };
            self.any_opaque |= *opaque;
        } else if matches!(before.as_deref(), Some(Entry::Dir { .. })) {
            self.planned.forget_below(path, &self.cancel)?;
        }
        self.planned.insert(path, entry)
    }

    /// The metadata that the directory `path` has, or gets if it is only on the way to something.
    pub(super) fn dir_meta(&mut self, path: &Path) -> Result<Metadata, FileError> {
        if let Some(Entry::Dir { meta, .. }) = self.planned.get(path)?.as_deref() {
            return Ok(meta.clone());
        }
        let node = self.base_node(path)?.filter(|node| node.kind == Kind::Dir);
        let implied = || Metadata { mode: IMPLIED_MODE, mtime: self.now, ..Metadata::default() };
        Ok(node.map_or_else(implied, |node| node.meta))
    }

    /// Whether nothing is planned but the directory `path` and those it lies in.
    pub(super) fn is_way_to(&self, path: &Path) -> bool {
        self.planned.is_way_to(path)
    }

    /// Plans the directories that `path` lies in, as they are.
    pub(super) fn plan_parents(&mut self, path: &Path) -> Result<(), FileError> {
        let mut new = Vec::new();
        for path in path.ancestors().skip(1).take_while(|path| !path.as_os_str().is_empty()) {
            if self.planned.get(path)?.is_some() {
                break;
            }
            new.push(path);
        }
        new.into_iter().rev().try_for_each(|path| {
            let meta = self.dir_meta(path)?;
            self.planned.insert(path, Entry::Dir { meta, opaque: false })
        })
    }
}

fn seen(node: &Node) -> Seen {
    match &node.kind {
        Kind::Dir => Seen::Dir,
        Kind::Symlink(target) => Seen::Symlink(target.clone()),
        _ => Seen::Other,
    }
}
