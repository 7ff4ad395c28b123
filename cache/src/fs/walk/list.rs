//! The entries below a directory that are not ignored, one after the other: a large directory is looked at in parts,
//! and neighbouring ones are read ahead in parallel, so that memory does not grow with the number of entries.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::{Context, Entry, Kind, entry_at};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::names::Names;
use crate::fs::pattern::{Filter, Judged, ParentMatch, Verdict};

/// How many names of a directory are looked at together.
const PART: usize = 1024;
/// How many directories are read ahead.
const AHEAD: usize = 32;
/// Waking other threads costs more than reading this many directories, or looking at so many names.
const WIDE: usize = 4;
const MANY: usize = 256;

/// What patterns said of a directory, for what is in it. None where a directory is not below another one.
struct Known {
    ignore: Option<ParentMatch>,
    filter: Option<Judged>,
}

/// A directory on the way to what is given next.
struct Listing {
    path: PathBuf,
    known: Option<Arc<Known>>,
    /// Not looked at yet.
    names: Names,
    items: VecDeque<Item>,
    /// The first directories among the items.
    ahead: VecDeque<Listing>,
    /// The directory's own entry, if it is only given before something in it.
    held: Option<Entry>,
}

/// A name that was looked at.
struct Item {
    entry: Entry,
    /// A directory that is not to be there unless something below it is.
    droppable: bool,
    /// For a directory: what is needed to read it.
    known: Option<Arc<Known>>,
}

/// A walk that is under way.
struct Walk<'a> {
    context: &'a Context,
    start: &'a Path,
    filter: &'a Filter,
    cancel: &'a Cancel,
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

    /// Gives `each` what `filter` leaves of what is below the directory `start`, without itself: parents first, names
    /// in the order of their bytes.
    ///
    /// # Errors
    /// When a directory can't be read, or `cancel` is raised; and those of `each`.
    pub fn walk<E: From<Error>>(
        &self,
        start: &Path,
        filter: &Filter,
        cancel: &Cancel,
        each: &mut dyn FnMut(Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let walk = Walk { context: self, start, filter, cancel };
        let known =
            self.ignored(start).1.map(|ignore| Arc::new(Known { ignore: Some(ignore), filter: None }));
        let mut open = vec![walk.read(start.to_owned(), known)?];
        while let Some(listing) = open.last_mut() {
            let Some(item) = walk.next(listing)? else {
                open.pop();
                continue;
            };
            let mut below = match item.entry.kind {
                Kind::Dir => Some(walk.enter(listing, &item)?),
                _ => None,
            };
            match &mut below {
                Some(below) if item.droppable => below.held = Some(item.entry),
                _ => {
                    open.iter_mut().filter_map(|dir| dir.held.take()).try_for_each(&mut *each)?;
                    each(item.entry)?;
                }
            }
            open.extend(below);
        }
        Ok(())
    }
}

impl Walk<'_> {
    fn open(&self, path: &Path) -> Result<OwnedFd> {
        self.cancel.check()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.context.open_at(path, flags).map_err(Error::io("reading directory", path))
    }

    fn read(&self, path: PathBuf, known: Option<Arc<Known>>) -> Result<Listing> {
        let fd = self.open(&path)?;
        let names = Names::read(&fd).map_err(Error::io("reading directory", &path))?;
        let (items, ahead) = (VecDeque::new(), VecDeque::new());
        let mut listing = Listing { path, known, names, items, ahead, held: None };
        self.look(&mut listing, &fd)?;
        Ok(listing)
    }

    fn next(&self, listing: &mut Listing) -> Result<Option<Item>> {
        while listing.items.is_empty() && listing.names.len() > 0 {
            let fd = self.open(&listing.path)?;
            self.look(listing, &fd)?;
        }
        Ok(listing.items.pop_front())
    }

    /// Reads the directory `item`, which was the next of `listing`, and with it those that follow if they are many.
    fn enter(&self, listing: &mut Listing, item: &Item) -> Result<Listing> {
        if let Some(below) = listing.ahead.pop_front() {
            return Ok(below);
        }
        let dirs = listing.items.iter().filter(|item| item.entry.kind == Kind::Dir).take(AHEAD - 1);
        let dirs: Vec<&Item> = std::iter::once(item).chain(dirs).collect();
        let read = |item: &Item| self.read(item.entry.path.clone(), item.known.clone());
        if dirs.len() < WIDE {
            return read(item);
        }
        let mut ahead: VecDeque<Listing> = dirs.into_par_iter().map(read).collect::<Result<_>>()?;
        let first = ahead.pop_front().expect("there is one for each directory");
        listing.ahead = ahead;
        Ok(first)
    }

    /// Looks at the next names of `listing`, whose directory is open.
    fn look(&self, listing: &mut Listing, dir: &OwnedFd) -> Result<()> {
        let Listing { path, known, names, items, .. } = listing;
        let names = names.take_part(PART);
        let look = |(name, kind): (&OsStr, FileType)| {
            // Only what may be a directory is treated in another way.
            let may_be_dir = matches!(kind, FileType::Directory | FileType::Unknown);
            let item = self.item(path, known.as_deref(), dir, name, may_be_dir);
            item.map_err(Error::io("reading directory", &*path)).transpose()
        };
        *items = if names.len() < MANY {
            names.into_iter().filter_map(look).collect::<Result<_>>()?
        } else {
            names.into_par_iter().with_min_len(MANY / 4).filter_map(look).collect::<Result<_>>()?
        };
        Ok(())
    }

    /// What `name` in `dir` is, if it counts.
    fn item(
        &self,
        parent: &Path,
        known: Option<&Known>,
        dir: &OwnedFd,
        name: &OsStr,
        may_be_dir: bool,
    ) -> Result<Option<Item>, Errno> {
        let path = parent.join(name);
        let (ignored, verdict, known) = self.judge(known, &path);
        if !may_be_dir && (ignored || verdict != Verdict::Wanted)
            || ignored && !self.context.ignore.may_except_below(&path)
            || verdict == Verdict::Unwanted
        {
            return Ok(None);
        }
        let Some(mut entry) = entry_at(dir, name, path)? else { return Ok(None) };
        entry.implied = verdict != Verdict::Wanted;
        let droppable = ignored || entry.implied;
        if entry.kind == Kind::Socket || droppable && entry.kind != Kind::Dir {
            return Ok(None);
        }
        Ok(Some(Item { entry, droppable, known }))
    }

    /// Whether `path` is ignored, and what the filter says of it; `known` is what was said of its directory.
    fn judge(&self, known: Option<&Known>, path: &Path) -> (bool, Verdict, Option<Arc<Known>>) {
        let (mut ignored, mut verdict) = (false, Verdict::Wanted);
        if self.context.ignore.is_empty() && self.filter.is_empty() {
            return (ignored, verdict, None);
        }
        let mut of_path = Known { ignore: None, filter: None };
        if !self.context.ignore.is_empty() {
            let parent = known.and_then(|known| known.ignore.as_ref());
            let (now, below) = self.context.ignore.matches_below(path, parent);
            (ignored, of_path.ignore) = (now, Some(below));
        }
        if !self.filter.is_empty() {
            let parent = known.and_then(|known| known.filter.as_ref());
            let (now, below) = self.filter.judge(path.strip_prefix(self.start).unwrap_or(path), parent);
            (verdict, of_path.filter) = (now, Some(below));
        }
        (ignored, verdict, Some(Arc::new(of_path)))
    }
}
