//! The entries below a directory that are not ignored: read level by level, in parallel where a level is wide.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use rustix::fs::{Dir, FileType, OFlags};
use rustix::io::Errno;

use super::{Context, Entry, Kind, entry_at};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::pattern::ParentMatch;

/// Waking other threads costs more than reading this many directories.
const WIDE: usize = 8;

/// A directory to be read.
struct Pending {
    path: PathBuf,
    matched: Option<Arc<ParentMatch>>,
}

/// A name that was read. An ignored directory is there only if something below it is not ignored.
struct Item {
    entry: Entry,
    ignored: bool,
    /// For a directory: what is needed to read it, and later its place in the list of those that were read.
    matched: Option<Arc<ParentMatch>>,
    listing: usize,
}

impl Context {
    /// Whether `path` is ignored, and what that means for what is below it.
    pub(super) fn ignored(&self, path: &Path) -> (bool, Option<Arc<ParentMatch>>) {
        if self.ignore.is_empty() {
            return (false, None);
        }
        let (mut ignored, mut matched) = (false, None);
        let bytes = path.as_os_str().as_bytes();
        for end in
            (0..=bytes.len()).filter(|at| *at == bytes.len() && *at > 0 || bytes.get(*at) == Some(&b'/'))
        {
            let (now, below) =
                self.ignore.matches_below(OsStr::from_bytes(&bytes[..end]), matched.as_deref());
            (ignored, matched) = (now, Some(Arc::new(below)));
        }
        (ignored, matched)
    }

    /// What is below the directory `start`, without itself, parents first, names in the order of their bytes.
    ///
    /// # Errors
    /// When a directory can't be read, or `cancel` is raised.
    pub fn below(&self, start: &Path, cancel: &Cancel) -> Result<Vec<Entry>> {
        let (_, matched) = self.ignored(start);
        let mut listings: Vec<Vec<Item>> = Vec::new();
        let mut level = vec![Pending { path: start.to_owned(), matched }];
        while !level.is_empty() {
            cancel.check()?;
            let read: Vec<Vec<Item>> = if level.len() < WIDE {
                level.iter().map(|dir| self.list(dir)).collect::<Result<_>>()?
            } else {
                level.par_iter().map(|dir| self.list(dir)).collect::<Result<_>>()?
            };
            let mut next = Vec::new();
            let first = listings.len() + read.len();
            for mut items in read {
                for item in items.iter_mut().filter(|item| item.entry.kind == Kind::Dir) {
                    item.listing = first + next.len();
                    next.push(Pending { path: item.entry.path.clone(), matched: item.matched.take() });
                }
                listings.push(items);
            }
            level = next;
        }
        Ok(in_order(listings))
    }

    fn list(&self, dir: &Pending) -> Result<Vec<Item>> {
        let failed = |e: Errno| Error::io("reading directory", &dir.path)(e);
        let fd = self.open_at(&dir.path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
        let mut names: Vec<(OsString, FileType)> = Vec::new();
        for entry in Dir::read_from(&fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push((OsString::from_vec(name.to_vec()), entry.file_type()));
            }
        }
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut items = Vec::with_capacity(names.len());
        for (name, kind) in names {
            let path = dir.path.join(&name);
            let (ignored, matched) = self.ignored_below(dir, &path);
            let may_hold = matches!(kind, FileType::Directory | FileType::Unknown);
            if ignored && !(may_hold && self.ignore.may_except_below(&path)) {
                continue;
            }
            let Some(entry) = entry_at(&fd, &name, path).map_err(failed)? else { continue };
            if entry.kind == Kind::Socket || ignored && entry.kind != Kind::Dir {
                continue;
            }
            items.push(Item { entry, ignored, matched, listing: 0 });
        }
        Ok(items)
    }

    fn ignored_below(&self, dir: &Pending, path: &Path) -> (bool, Option<Arc<ParentMatch>>) {
        if self.ignore.is_empty() {
            return (false, None);
        }
        let (ignored, below) = self.ignore.matches_below(path, dir.matched.as_deref());
        (ignored, Some(Arc::new(below)))
    }
}

/// Puts each directory's entries behind it, and drops ignored directories in which nothing is left.
fn in_order(mut listings: Vec<Vec<Item>>) -> Vec<Entry> {
    let mut out = Vec::with_capacity(listings.iter().map(Vec::len).sum());
    // What is left of each open directory, and where it is in the output if it goes should it stay empty.
    let mut open = vec![(std::mem::take(&mut listings[0]).into_iter(), None)];
    while let Some((rest, droppable)) = open.last_mut() {
        let Some(item) = rest.next() else {
            if *droppable == Some(out.len()) {
                out.pop();
            }
            open.pop();
            continue;
        };
        let is_dir = item.entry.kind == Kind::Dir;
        out.push(item.entry);
        if is_dir {
            let droppable = item.ignored.then_some(out.len());
            open.push((std::mem::take(&mut listings[item.listing]).into_iter(), droppable));
        }
    }
    out
}
