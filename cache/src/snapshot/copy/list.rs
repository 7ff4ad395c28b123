//! The list of a copy: every entry of a directory with what tells whether it is still the same, parents first, names in
//! the order of their bytes. It is a file, as there may be more entries than should be in memory.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, statx};
use rustix::io::Errno;

use super::{Names, open_dir};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// What changes with any change of an entry, or of which entry it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looks {
    inode: u64,
    pub(super) changed: (i64, u32),
    /// None where the file system does not tell.
    born: Option<(i64, u32)>,
}

#[derive(Debug)]
pub(super) struct Listed {
    /// 1 for what is in the directory itself.
    pub(super) depth: u32,
    pub(super) name: OsString,
    pub(super) is_dir: bool,
    /// How many names the file has; a directory counts as having one.
    pub(super) names: u32,
    pub(super) looks: Looks,
}

/// No entry has this time.
const NEVER: (i64, u32) = (i64::MIN, 0);

impl Looks {
    pub(super) fn of(stat: &Statx) -> Looks {
        let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Looks {
            inode: stat.stx_ino,
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
            born: has_birth.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)),
        }
    }

    /// Whether it is the same directory, changed or not. The number of one that was removed is soon another's, so that when it was
    /// made has to agree; some overlays number directories anew, so that the number need not, if nothing was changed: to move one
    /// to the place of another changes it. Where no time of birth is known, one that was changed counts as another.
    pub(super) fn is_same_dir(&self, before: &Looks) -> bool {
        self == before
            || self.born.is_some()
                && self.born == before.born
                && (self.inode == before.inode || self.changed == before.changed)
    }

    /// Whether nothing but the number tells them apart.
    pub(super) fn is_renumbered(&self, before: &Looks) -> bool {
        self.born.is_some() && Looks { inode: before.inode, ..*self } == *before
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    pub(super) fn is_same_inode(&self, before: &Looks) -> bool {
        self.inode == before.inode && self.born == before.born
    }
}

pub(super) fn look(dir: &OwnedFd, name: &OsStr) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

pub(super) fn is_dir(stat: &Statx) -> bool {
    FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory
}

/// Lists what is in `root`. The entries `changed` of `root` are listed so that they don't look the same any more. Gives
/// the time of the last change.
pub(super) fn write(root: &OwnedFd, changed: &[&Path], list: &File, cancel: &Cancel) -> Result<(i64, u32)> {
    let mut out = BufWriter::new(list);
    let mut newest = NEVER;
    let mut dir = open(root, Path::new(""))?;
    let mut levels = vec![Level::new(&dir, PathBuf::new())?];
    while let Some(level) = levels.last_mut() {
        let Some((name, _)) = level.rest.next() else {
            levels.pop();
            if let Some(above) = levels.last() {
                dir = open(root, &above.path)?;
            }
            continue;
        };
        cancel.check()?;
        let path = level.path.join(&name);
        let stat = look(&dir, &name).map_err(Error::io("reading", &path))?;
        let mut looks = Looks::of(&stat);
        newest = newest.max(looks.changed);
        if changed.contains(&path.as_path()) {
            looks.changed = NEVER;
        }
        let (depth, is_dir) = (u32::try_from(levels.len()).unwrap_or(u32::MAX), is_dir(&stat));
        let names = if is_dir { 1 } else { stat.stx_nlink };
        let listed = Listed { depth, name, is_dir, names, looks };
        listed.write(&mut out).map_err(Error::io("writing", "the list of a copy"))?;
        if is_dir {
            dir = open(root, &path)?;
            levels.push(Level::new(&dir, path)?);
        }
    }
    out.flush().map_err(Error::io("writing", "the list of a copy"))?;
    Ok(newest)
}

/// One directory is open at a time, however deep the tree is.
fn open(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    open_dir(root.as_fd(), path).map_err(Error::io("opening", path))
}

struct Level {
    path: PathBuf,
    rest: Names,
}

impl Level {
    fn new(dir: &OwnedFd, path: PathBuf) -> Result<Level> {
        let rest = Names::read(dir).map_err(Error::io("reading directory", &path))?;
        Ok(Level { rest, path })
    }
}

const DIR: u8 = 1;
const BORN: u8 = 2;
const HEAD: usize = 8 + 12 + 12 + 4 + 4 + 1 + 2;

impl Listed {
    fn write(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        let flags = [(self.is_dir, DIR), (self.looks.born.is_some(), BORN)];
        let flags = flags.iter().filter(|(set, _)| *set).fold(0, |all, (_, flag)| all | flag);
        let name = self.name.as_bytes();
        let length = u16::try_from(name.len()).map_err(|_| ErrorKind::InvalidData)?;
        let mut head = Vec::with_capacity(HEAD);
        head.extend(self.looks.inode.to_le_bytes());
        for (secs, nanos) in [self.looks.changed, self.looks.born.unwrap_or_default()] {
            head.extend(secs.to_le_bytes());
            head.extend(nanos.to_le_bytes());
        }
        head.extend(self.depth.to_le_bytes());
        head.extend(self.names.to_le_bytes());
        head.push(flags);
        head.extend(length.to_le_bytes());
        out.write_all(&head)?;
        out.write_all(name)
    }

    fn read(from: &mut impl std::io::Read) -> std::io::Result<Listed> {
        let inode = u64::from_le_bytes(bytes(from)?);
        let changed = (i64::from_le_bytes(bytes(from)?), u32::from_le_bytes(bytes(from)?));
        let born = (i64::from_le_bytes(bytes(from)?), u32::from_le_bytes(bytes(from)?));
        let depth = u32::from_le_bytes(bytes(from)?);
        let names = u32::from_le_bytes(bytes(from)?);
        let [flags] = bytes(from)?;
        let mut name = vec![0; usize::from(u16::from_le_bytes(bytes(from)?))];
        from.read_exact(&mut name)?;
        let looks = Looks { inode, changed, born: (flags & BORN != 0).then_some(born) };
        let name = OsString::from_vec(name);
        Ok(Listed { depth, name, is_dir: flags & DIR != 0, names, looks })
    }
}

fn bytes<const N: usize>(from: &mut impl std::io::Read) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// How many of the names that each file with several had are still its names, by the file's number.
pub(super) fn names_left(root: &OwnedFd, list: &File, cancel: &Cancel) -> Result<HashMap<u64, u32>> {
    let mut left = HashMap::new();
    let mut reader = Reader::new(list)?;
    let mut parent = PathBuf::new();
    while let Some(listed) = reader.take()? {
        cancel.check()?;
        let above = usize::try_from(listed.depth).unwrap_or(usize::MAX) - 1;
        while parent.components().count() > above {
            parent.pop();
        }
        if listed.is_dir {
            parent.push(&listed.name);
        } else if listed.names > 1 {
            // Its directory may have gone, or be something else.
            let Ok(dir) = open_dir(root.as_fd(), &parent) else { continue };
            if look(&dir, &listed.name).is_ok_and(|stat| Looks::of(&stat).is_same_inode(&listed.looks)) {
                *left.entry(listed.looks.inode).or_default() += 1;
            }
        }
    }
    Ok(left)
}

/// Reads a list from its beginning; several can do so at once.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    from: BufReader<Positioned<'a>>,
    next: Option<Listed>,
}

#[derive(Debug)]
struct Positioned<'a> {
    list: &'a File,
    at: u64,
}

impl std::io::Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.list.read_at(buffer, self.at)?;
        self.at += length as u64;
        Ok(length)
    }
}

impl Reader<'_> {
    pub(super) fn new(list: &File) -> Result<Reader<'_>> {
        let mut reader = Reader { from: BufReader::new(Positioned { list, at: 0 }), next: None };
        reader.advance()?;
        Ok(reader)
    }

    /// The next one, if it is in a directory of this depth.
    pub(super) fn peek(&self, depth: u32) -> Option<&Listed> {
        self.next.as_ref().filter(|next| next.depth == depth)
    }

    pub(super) fn take(&mut self) -> Result<Option<Listed>> {
        let taken = self.next.take();
        self.advance()?;
        Ok(taken)
    }

    /// Leaves out what is deeper than `depth`.
    pub(super) fn skip_below(&mut self, depth: u32) -> Result<()> {
        while self.next.as_ref().is_some_and(|next| next.depth > depth) {
            self.advance()?;
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<()> {
        let failed = Error::io("reading", "the list of a copy");
        let at_end = {
            use std::io::BufRead as _;
            match self.from.fill_buf() {
                Ok(left) => left.is_empty(),
                Err(error) => return Err(failed(error)),
            }
        };
        self.next = if at_end { None } else { Some(Listed::read(&mut self.from).map_err(failed)?) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_has_another_number_and_no_change_is_the_same() {
        let was = Looks { inode: 5, changed: (10, 0), born: Some((9, 0)) };
        let renumbered = Looks { inode: 6, ..was };
        let changed = Looks { changed: (11, 0), ..was };
        let moved_here = Looks { changed: (11, 0), ..renumbered };
        let made_anew = Looks { changed: (11, 0), born: Some((11, 0)), ..was };
        assert!(renumbered.is_same_dir(&was) && renumbered.is_renumbered(&was));
        assert!(changed.is_same_dir(&was) && !changed.is_renumbered(&was));
        assert!(!moved_here.is_same_dir(&was) && !made_anew.is_same_dir(&was));
        // Without one there are the number and the time of change.
        let old = Looks { born: None, ..was };
        assert!(old.is_same_dir(&old) && !Looks { inode: 6, ..old }.is_same_dir(&old));
        assert!(!Looks { changed: (11, 0), ..old }.is_same_dir(&old));
        assert!(!Looks { inode: 6, ..old }.is_renumbered(&old));
    }
}
