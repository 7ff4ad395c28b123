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
use crate::fs::pattern::{Filter, Judged, ParentMatch, Verdict};

/// Waking other threads costs more than reading this many directories.
const WIDE: usize = 8;

/// A directory to be read.
struct Pending {
    path: PathBuf,
    known: Option<Arc<Known>>,
}

/// What patterns said of a directory, for what is in it. None where a directory is not below another one.
struct Known {
    ignore: Option<ParentMatch>,
    filter: Option<Judged>,
}

/// A name that was read. A directory that is not to be there is, if something below it is.
struct Item {
    entry: Entry,
    droppable: bool,
    /// For a directory: what is needed to read it, and later its place in the list of those that were read.
    known: Option<Arc<Known>>,
    listing: usize,
}

/// A walk that is under way.
struct Walk<'a> {
    context: &'a Context,
    start: &'a Path,
    filter: &'a Filter,
}

impl Context {
    /// Whether `path` is ignored, and what that means for what is below it.
    pub(super) fn ignored(&self, path: &Path) -> (bool, Option<ParentMatch>) {
        if self.ignore.is_empty() {
            return (false, None);
        }
        let (mut ignored, mut matched) = (false, None::<ParentMatch>);
        let bytes = path.as_os_str().as_bytes();
        for end in
            (0..=bytes.len()).filter(|at| *at == bytes.len() && *at > 0 || bytes.get(*at) == Some(&b'/'))
        {
            let (now, below) = self.ignore.matches_below(OsStr::from_bytes(&bytes[..end]), matched.as_ref());
            (ignored, matched) = (now, Some(below));
        }
        (ignored, matched)
    }

    /// What `filter` leaves of what is below the directory `start`, without itself, parents first, names in the order
    /// of their bytes.
    ///
    /// # Errors
    /// When a directory can't be read, or `cancel` is raised.
    pub fn below(&self, start: &Path, filter: &Filter, cancel: &Cancel) -> Result<Vec<Entry>> {
        let walk = Walk { context: self, start, filter };
        let known =
            self.ignored(start).1.map(|ignore| Arc::new(Known { ignore: Some(ignore), filter: None }));
        let mut listings: Vec<Vec<Item>> = Vec::new();
        let mut level = vec![Pending { path: start.to_owned(), known }];
        while !level.is_empty() {
            cancel.check()?;
            let read: Vec<Vec<Item>> = if level.len() < WIDE {
                level.iter().map(|dir| walk.list(dir)).collect::<Result<_>>()?
            } else {
                level.par_iter().map(|dir| walk.list(dir)).collect::<Result<_>>()?
            };
            let mut next = Vec::new();
            let first = listings.len() + read.len();
            for mut items in read {
                for item in items.iter_mut().filter(|item| item.entry.kind == Kind::Dir) {
                    item.listing = first + next.len();
                    next.push(Pending { path: item.entry.path.clone(), known: item.known.take() });
                }
                listings.push(items);
            }
            level = next;
        }
        Ok(in_order(listings))
    }
}

impl Walk<'_> {
    fn list(&self, dir: &Pending) -> Result<Vec<Item>> {
        let failed = |e: Errno| Error::io("reading directory", &dir.path)(e);
        let fd = self.context.open_at(&dir.path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
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
            let (ignored, verdict, known) = self.judge(dir, &path);
            let may_be_dir = matches!(kind, FileType::Directory | FileType::Unknown);
            if !may_be_dir && (ignored || verdict != Verdict::Wanted)
                || ignored && !self.context.ignore.may_except_below(&path)
                || verdict == Verdict::Unwanted
            {
                continue;
            }
            let Some(mut entry) = entry_at(&fd, &name, path).map_err(failed)? else { continue };
            entry.implied = verdict != Verdict::Wanted;
            let droppable = ignored || entry.implied;
            if entry.kind == Kind::Socket || droppable && entry.kind != Kind::Dir {
                continue;
            }
            items.push(Item { entry, droppable, known, listing: 0 });
        }
        Ok(items)
    }

    /// Whether `path` in `dir` is ignored, and what the filter says of it.
    fn judge(&self, dir: &Pending, path: &Path) -> (bool, Verdict, Option<Arc<Known>>) {
        let (mut ignored, mut verdict) = (false, Verdict::Wanted);
        if self.context.ignore.is_empty() && self.filter.is_empty() {
            return (ignored, verdict, None);
        }
        let mut known = Known { ignore: None, filter: None };
        if !self.context.ignore.is_empty() {
            let parent = dir.known.as_ref().and_then(|known| known.ignore.as_ref());
            let (now, below) = self.context.ignore.matches_below(path, parent);
            (ignored, known.ignore) = (now, Some(below));
        }
        if !self.filter.is_empty() {
            let parent = dir.known.as_ref().and_then(|known| known.filter.as_ref());
            let (now, below) = self.filter.judge(path.strip_prefix(self.start).unwrap_or(path), parent);
            (verdict, known.filter) = (now, Some(below));
        }
        (ignored, verdict, Some(Arc::new(known)))
    }
}

/// Puts each directory's entries behind it, and drops directories that are only there for what is not in them.
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
            let droppable = item.droppable.then_some(out.len());
            open.push((std::mem::take(&mut listings[item.listing]).into_iter(), droppable));
        }
    }
    out
}
