//! A copy that was changed becomes the difference to what was copied, in place.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Stat, Timespec, Timestamps, fstat, futimens, unlinkat};

use super::list::{Listed, Looks, Reader, is_dir, look, names_left};
use super::{Copied, Kind, Names, Tree, open_dir, own};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::snapshot::owner::OwnerView;

const BUFFER: usize = 64 * 1024;

/// What the copy is now, beside the list of what it was.
struct Reduction<'a> {
    copied: &'a Copied,
    /// The copy as a layer shows it.
    now: Tree,
    list: Reader<'a>,
    /// Whether a file with several names is as it was, by its number: to remove one of them changes the others' time.
    same: HashMap<u64, bool>,
    /// See [`names_left`]: counted when it is first asked for.
    names_left: Option<HashMap<u64, u32>>,
    cancel: &'a Cancel,
}

/// A directory that is still the one that was copied.
struct Level {
    path: PathBuf,
    rest: std::iter::Peekable<Names>,
    /// As the container left them: what is removed here is not the container's doing.
    times: Timestamps,
    /// Whether the directory belongs to the difference.
    kept: bool,
}

enum Step {
    Enter(Level),
    Next,
    Done,
}

pub(super) fn reduce(copied: &Copied, cancel: &Cancel) -> Result<()> {
    let mut reduction = Reduction {
        copied,
        now: Tree::merged(vec![own(copied.dir.as_fd())?]),
        list: Reader::new(&copied.list)?,
        same: HashMap::new(),
        names_left: None,
        cancel,
    };
    let mut dir = reduction.open(Path::new(""))?;
    let mut levels = vec![Level::new(&dir, PathBuf::new(), true)?];
    while let Some(level) = levels.last_mut() {
        cancel.check()?;
        let depth = u32::try_from(level.depth()).unwrap_or(u32::MAX);
        match reduction.step(level, &dir, depth)? {
            Step::Next => {}
            Step::Enter(below) => {
                dir = reduction.open(&below.path)?;
                levels.push(below);
            }
            Step::Done => {
                let level = levels.pop().expect("it is the last one");
                if level.kept {
                    futimens(&dir, &level.times).map_err(Error::io("setting the time of", &level.path))?;
                }
                let Some(parent) = levels.last_mut() else { break };
                parent.kept |= level.kept;
                dir = reduction.open(&parent.path)?;
                if !level.kept {
                    let name = level.path.file_name().unwrap_or_default();
                    unlinkat(&dir, name, AtFlags::REMOVEDIR).map_err(Error::io("removing", &level.path))?;
                }
            }
        }
    }
    Ok(())
}

impl Level {
    fn new(dir: &OwnedFd, path: PathBuf, kept: bool) -> Result<Level> {
        let failed = |errno| Error::io("reading directory", &path)(errno);
        let times = times(&fstat(dir).map_err(failed)?);
        let rest = Names::read(dir).map_err(failed)?.peekable();
        Ok(Level { rest, times, kept, path })
    }

    /// Of what is in it.
    fn depth(&self) -> usize {
        self.path.components().count() + 1
    }
}

impl Reduction<'_> {
    fn open(&self, path: &Path) -> Result<OwnedFd> {
        open_dir(self.copied.dir.as_fd(), path).map_err(Error::io("opening", path))
    }

    /// Looks at the next name that the directory has or had.
    fn step(&mut self, level: &mut Level, dir: &OwnedFd, depth: u32) -> Result<Step> {
        let is = level.rest.peek().map(|(name, _)| name.as_bytes());
        let was = self.list.peek(depth).map(|listed| listed.name.as_bytes());
        let order = match (is, was) {
            (None, None) => return Ok(Step::Done),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(is), Some(was)) => is.cmp(was),
        };
        if order == Ordering::Less {
            // It is new, with all that is in it.
            level.kept = true;
            level.rest.next();
            return Ok(Step::Next);
        }
        let listed = self.list.take()?.expect("it was there to be looked at");
        let path = level.path.join(&listed.name);
        if order == Ordering::Greater {
            self.list.skip_below(depth)?;
            level.kept = true;
            let made = self.copied.marks.make_whiteout(dir, listed.name.as_os_str());
            return made.map(|()| Step::Next).map_err(Error::io("creating whiteout", path));
        }
        level.rest.next();
        let stat = look(dir, &listed.name).map_err(Error::io("reading", &path))?;
        let looks = Looks::of(&stat);
        if is_dir(&stat) {
            return self.directory(level, path, &listed, &looks, depth);
        }
        self.list.skip_below(depth)?;
        if !listed.is_dir && self.is_same(&path, &listed, &looks, stat.stx_nlink)? {
            unlinkat(dir, &listed.name, AtFlags::empty()).map_err(Error::io("removing", path))?;
        } else {
            level.kept = true;
        }
        Ok(Step::Next)
    }

    fn directory(
        &mut self,
        above: &mut Level,
        path: PathBuf,
        was: &Listed,
        looks: &Looks,
        depth: u32,
    ) -> Result<Step> {
        let dir = self.open(&path)?;
        if was.is_dir && looks.is_same_dir(&was.looks) {
            // Its number may be another one without anybody's doing.
            let renumbered = looks.is_renumbered(&was.looks) && self.is_equal(&path)?;
            let kept = !renumbered && !self.is_untouched(&path, &was.looks, looks)?;
            return Level::new(&dir, path, kept).map(Step::Enter);
        }
        // Whatever was there must not show through.
        self.list.skip_below(depth)?;
        above.kept = true;
        let times = times(&fstat(&dir).map_err(Error::io("reading", &path))?);
        let made = self.copied.marks.set_opaque(OwnerView::current(), &dir);
        made.and_then(|()| futimens(&dir, &times)).map_err(Error::io("making opaque", path))?;
        Ok(Step::Next)
    }

    /// Whether something that is no directory is as it was copied, now that its file has so many names.
    fn is_same(&mut self, path: &Path, was: &Listed, looks: &Looks, names: u32) -> Result<bool> {
        if was.names < 2 || !looks.is_same_inode(&was.looks) {
            return self.is_untouched(path, &was.looks, looks);
        }
        if let Some(known) = self.same.get(&looks.inode()) {
            return Ok(*known);
        }
        let same = if *looks == was.looks {
            self.is_untouched(path, &was.looks, looks)?
        } else {
            // To remove a name changes the time of those that are left. Where there is a new one, all are names of one
            // file only as long as they are in one layer.
            names == self.names_left(looks.inode())? && self.is_equal(path)?
        };
        self.same.insert(looks.inode(), same);
        Ok(same)
    }

    fn names_left(&mut self, inode: u64) -> Result<u32> {
        if self.names_left.is_none() {
            self.names_left = Some(names_left(&self.copied.dir, &self.copied.list, self.cancel)?);
        }
        Ok(self.names_left.as_ref().and_then(|left| left.get(&inode)).copied().unwrap_or(0))
    }

    /// Whether an entry was not changed by the container, as its times tell, or else what is in it.
    fn is_untouched(&self, path: &Path, was: &Looks, is: &Looks) -> Result<bool> {
        if is == was {
            return Ok(was.changed < self.copied.finished || self.is_equal(path)?);
        }
        Ok(self.copied.put_back.contains(path) && self.is_equal(path)?)
    }

    /// Compares an entry with what it is a copy of, to the byte.
    fn is_equal(&self, path: &Path) -> Result<bool> {
        let (Some(was), Some(is)) = (self.copied.base.lookup(path, false)?, self.now.lookup(path, false)?)
        else {
            return Ok(false);
        };
        if (&was.kind, &was.meta, was.size) != (&is.kind, &is.meta, is.size) {
            return Ok(false);
        }
        if is.kind != Kind::File {
            return Ok(true);
        }
        let (was, is) = (self.copied.base.open(&was)?, self.now.open(&is)?);
        let (mut before, mut after) = (vec![0; BUFFER], vec![0; BUFFER]);
        let mut left = is.len;
        let (mut was, mut is) = (was.reader(), is.reader());
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let failed = Error::io("comparing", path);
            let read =
                was.read_exact(&mut before[..length]).and_then(|()| is.read_exact(&mut after[..length]));
            read.map_err(failed)?;
            if before[..length] != after[..length] {
                return Ok(false);
            }
            left -= length as u64;
        }
        Ok(true)
    }
}

#[allow(clippy::unnecessary_cast, reason = "the field types differ between architectures")]
pub(super) fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as i64, tv_nsec: stat.st_atime_nsec as i64 },
        last_modification: Timespec { tv_sec: stat.st_mtime as i64, tv_nsec: stat.st_mtime_nsec as i64 },
    }
}
