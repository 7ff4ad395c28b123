//! COPY, ADD of what is no archive, and heredocs: where sources go, and what becomes of what is there already.
//! The rules are those of BuildKit's copy of local files.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxwright_cache::Cancel;
use boxwright_cache::fs::pattern::Filter;
use boxwright_cache::layer::Metadata;

use super::FileError;
use super::resolve::{Seen, clean, shown};
use super::since::Since;
use super::source::{Item, Match, Source, What};
use super::view::{Data, Entry, Group, Owner, View};
use crate::ir::Chmod;

/// What is set on everything that is copied.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Override<'a> {
    pub(super) owner: Option<Owner>,
    pub(super) mode: Option<&'a Chmod>,
}

impl Override<'_> {
    fn apply(self, meta: &mut Metadata, is_dir: bool) {
        if let Some(owner) = self.owner {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
        }
        if let Some(mode) = self.mode {
            meta.mode = mode.apply(meta.mode, is_dir);
        }
    }

    /// Makes directories on the way to what is copied; they get what it gets, but for changes of a mode.
    fn make_dirs(self, view: &mut View, path: &Path) -> Result<(), FileError> {
        let owner = self.owner.unwrap_or_default();
        match self.mode.and_then(Chmod::of_parents) {
            Some(mode) => view.make_dirs(path, mode, owner),
            None => view.make_implied(path, owner),
        }
    }
}

/// Takes an entry: where it is in the source, where it goes, and what it is there.
pub(super) type Give<'g> = dyn FnMut(&mut View, &Path, &Path, Entry) -> Result<(), FileError> + 'g;

/// A source whose place in the image is settled.
#[derive(Debug)]
pub(super) struct Copying<'a> {
    source: Source,
    item: Item,
    /// What it leaves of what is below the item is copied.
    filter: Arc<Filter>,
    set: Override<'a>,
    target: PathBuf,
}

impl<'a> Copying<'a> {
    /// `dest` is a path in the image as the instruction has it; the directory that `from` goes into is planned.
    pub(super) fn new(
        view: &mut View,
        source: &Source,
        from: Match,
        filter: Arc<Filter>,
        dest: &str,
        set: Override<'a>,
    ) -> Result<Copying<'a>, FileError> {
        let is_dir = matches!(from.item.what, What::Dir);
        let target = prepare(view, dest, &from.name, is_dir, set)?;
        Ok(Copying { source: source.clone(), item: from.item, filter, set, target })
    }

    /// The directory that becomes `target`'s content; none for a file.
    pub(super) fn dir(&self) -> Option<&Path> {
        matches!(self.item.what, What::Dir).then_some(&self.target)
    }

    pub(super) fn plan(self, view: &mut View, cancel: &Cancel) -> Result<(), FileError> {
        self.each(view, cancel, &mut |view, _, path, entry| view.put(path, entry))
    }

    /// What is known of the source, and where in it and to where is copied.
    pub(super) fn since(&self) -> Option<(Since, PathBuf, PathBuf)> {
        self.source.since().map(|since| (since.clone(), self.item.path.clone(), self.target.clone()))
    }

    /// Gives everything that the copy changes: parents first, names in the order of their bytes.
    pub(super) fn each(self, view: &mut View, cancel: &Cancel, give: &mut Give<'_>) -> Result<(), FileError> {
        let Copying { source, item, filter, set, target } = self;
        let top = item.path.clone();
        let mut groups = HashMap::new();
        source.visit(item, &filter, cancel, &mut |item| {
            let below = item.path.strip_prefix(&top).unwrap_or(Path::new(""));
            let path = if below.as_os_str().is_empty() { target.clone() } else { target.join(below) };
            let from = item.path.clone();
            match change(view, item, &path, path == target, set, &mut groups)? {
                Some(entry) => give(view, &from, &path, entry),
                None => Ok(()),
            }
        })
    }
}

/// Plans a file with these bytes, as if it were copied from a source in which it is called `name`.
pub(super) fn write(
    view: &mut View,
    dest: &str,
    name: &str,
    data: &[u8],
    meta: Metadata,
    set: Override<'_>,
) -> Result<(), FileError> {
    // The name is whatever the user called the document, slashes and dots included.
    let name = Path::new(name).file_name().unwrap_or_default();
    let target = prepare(view, dest, name, false, set)?;
    refuse_directory(view, &target)?;
    view.put(&target, Entry::File { meta, data: Data::Bytes(Arc::new(data.to_vec())), group: None })
}

/// Where a source called `name` goes; the directory it goes into exists afterwards. A directory's content goes into
/// `dest`, a file becomes `dest`, or goes into it if it is a directory.
fn prepare(
    view: &mut View,
    dest: &str,
    name: &OsStr,
    is_dir: bool,
    set: Override<'_>,
) -> Result<PathBuf, FileError> {
    let path = clean(dest);
    let needed = if names_directory(dest) { path.as_path() } else { path.parent().unwrap_or(Path::new("")) };
    let needed = view.resolve(needed)?;
    set.make_dirs(view, &needed)?;
    let mut target = view.resolve(&path)?;
    let there = look(view, &target)?;
    if !is_dir && there == Some(Seen::Dir) {
        target.push(name);
    }
    match target.parent() {
        _ if is_dir && there.is_none() => set.make_dirs(view, &target)?,
        Some(parent) => set.make_dirs(view, parent)?,
        None => {}
    }
    Ok(target)
}

/// Whether the path as written can only be a directory.
fn names_directory(dest: &str) -> bool {
    dest.is_empty() || dest.ends_with('/') || dest.ends_with("/.") || dest == "."
}

/// As [`View::look`], for which the root of an empty tree is not there.
fn look(view: &mut View, path: &Path) -> Result<Option<Seen>, FileError> {
    if path.as_os_str().is_empty() { Ok(Some(Seen::Dir)) } else { view.look(path) }
}

fn refuse_directory(view: &mut View, path: &Path) -> Result<(), FileError> {
    if look(view, path)? == Some(Seen::Dir) {
        return Err(FileError::FileOverDirectory { path: shown(path) });
    }
    Ok(())
}

/// What is to be at `path` after `item` was copied there; none if that stays as it is.
fn change(
    view: &mut View,
    mut item: Item,
    path: &Path,
    is_top: bool,
    set: Override<'_>,
    groups: &mut HashMap<(u64, u64), Group>,
) -> Result<Option<Entry>, FileError> {
    let (is_dir, own_mode) = (matches!(item.what, What::Dir), item.meta.mode);
    set.apply(&mut item.meta, is_dir);
    let Item { what, meta, group, implied, .. } = item;
    if !is_dir {
        refuse_directory(view, path)?;
    }
    Ok(Some(match what {
        What::Dir => match look(view, path)? {
            // The directory that was asked for as the destination stays as it is; those below become the source's.
            Some(Seen::Dir) if is_top => return Ok(None),
            // One that is only on the way keeps its owner, but not its mode.
            Some(Seen::Dir) if implied => {
                let meta = Metadata { mode: own_mode, ..view.dir_meta(path)? };
                Entry::Dir { meta, opaque: false }
            }
            Some(Seen::Dir) | None => Entry::Dir { meta, opaque: false },
            Some(_) => return Err(FileError::DirectoryOverFile { path: shown(path) }),
        },
        What::File(content) => {
            let group = group.map(|id| *groups.entry(id).or_insert_with(|| view.new_group()));
            Entry::File { meta, data: Data::Source(content), group }
        }
        What::Symlink(target) => Entry::Symlink { meta, target },
        What::Node(kind) => Entry::Node { meta, kind },
    }))
}
