//! The first name of each file of a layer that has several. In a layer that shares its files with an earlier one those are all,
//! so of each only a number is in memory.

use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead, Read, Result};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::layer::spill::Spill;

/// Device and inode.
pub(super) type File = (u64, u64);

/// A record is device, inode, the length of the path, and the path.
const HEAD: usize = 20;
const FIRST_SLOTS: usize = 1 << 10;
/// A slot has in these bits where its record begins, plus one, and above them a part of the hash; none is 0.
const PLACE: u32 = 40;

#[derive(Debug, Default)]
pub(super) struct FirstNames {
    records: Spill,
    /// Open addressing, at most three quarters full.
    slots: Vec<u64>,
    count: usize,
    hashes: RandomState,
}

impl FirstNames {
    /// The name that `file` had first; none if that is `path`. `root` is a directory in whose file system there may be room.
    ///
    /// # Errors
    /// When what was kept can't be read.
    pub(super) fn first(&mut self, root: impl AsFd, file: File, path: &Path) -> Result<Option<PathBuf>> {
        if self.count * 4 >= self.slots.len() * 3 {
            self.grow()?;
        }
        let hash = self.hashes.hash_one(file);
        let mut at = self.start(hash);
        while self.slots[at] != 0 {
            if self.slots[at] >> PLACE == hash >> PLACE
                && let Some(path) = self.name(file, (self.slots[at] & ((1 << PLACE) - 1)) - 1)?
            {
                return Ok(Some(path));
            }
            at = (at + 1) % self.slots.len();
        }
        let path = path.as_os_str().as_bytes();
        let length = u32::try_from(path.len()).map_err(std::io::Error::other)?;
        let (device, inode) = file;
        let head = [&device.to_le_bytes()[..], &inode.to_le_bytes(), &length.to_le_bytes()].concat();
        let place = self.records.push(root, &[&head, path].concat());
        self.slots[at] = slot(hash, place)?;
        self.count += 1;
        Ok(None)
    }

    /// The path of the record at `place`, if it is that of `file`.
    fn name(&self, file: File, place: u64) -> Result<Option<PathBuf>> {
        let mut head = [0; HEAD];
        self.records.read_at(place, &mut head)?;
        let (found, length) = parse(&head);
        if found != file {
            return Ok(None);
        }
        let mut path = vec![0; length];
        self.records.read_at(place + HEAD as u64, &mut path)?;
        Ok(Some(OsString::from_vec(path).into()))
    }

    fn start(&self, hash: u64) -> usize {
        usize::try_from(hash % self.slots.len() as u64).expect("below the number of slots")
    }

    fn grow(&mut self) -> Result<()> {
        self.slots = vec![0; (self.slots.len() * 2).max(FIRST_SLOTS)];
        let records = std::mem::take(&mut self.records);
        let (mut rest, mut place) = (records.reader()?, 0);
        while !rest.fill_buf()?.is_empty() {
            let mut head = [0; HEAD];
            rest.read_exact(&mut head)?;
            let (file, length) = parse(&head);
            std::io::copy(&mut rest.by_ref().take(length as u64), &mut std::io::sink())?;
            let hash = self.hashes.hash_one(file);
            let mut at = self.start(hash);
            while self.slots[at] != 0 {
                at = (at + 1) % self.slots.len();
            }
            self.slots[at] = slot(hash, place)?;
            place += (HEAD + length) as u64;
        }
        drop(rest);
        self.records = records;
        Ok(())
    }
}

fn slot(hash: u64, place: u64) -> Result<u64> {
    if place + 1 < 1 << PLACE {
        return Ok(hash >> PLACE << PLACE | (place + 1));
    }
    Err(std::io::Error::other("more names than can be kept"))
}

fn parse(head: &[u8; HEAD]) -> (File, usize) {
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let length = u32::from_le_bytes(head[16..].try_into().expect("four bytes"));
    ((number(0), number(8)), length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_names_take_little_memory_and_come_back() {
        let (dir, mut names) = (tempfile::tempdir().unwrap(), FirstNames::default());
        let root = std::fs::File::open(dir.path()).unwrap();
        let file = |n: u64| (n % 3, n / 3 * 7);
        let path = |n: u64| PathBuf::from(format!("usr/share/some/where/d{}/e{n}", n / 1000));
        for n in 0..1_000_000 {
            assert_eq!(names.first(&root, file(n), &path(n)).unwrap(), None);
        }
        for n in (0..1_000_000).step_by(997).chain(999_990..1_000_000) {
            assert_eq!(names.first(&root, file(n), Path::new("other")).unwrap(), Some(path(n)), "{n}");
        }
        let memory = names.records.memory() + names.slots.capacity() * size_of::<u64>();
        assert!(memory < 20 << 20, "{memory}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing has a name");
    }

    #[test]
    fn a_file_system_without_files_that_have_no_name_is_no_obstacle() {
        let (proc, mut names) = (std::fs::File::open("/proc").unwrap(), FirstNames::default());
        let path = |n: u64| PathBuf::from(format!("{n}/{}", "d/".repeat(1000)));
        (0..2000).for_each(|n| assert_eq!(names.first(&proc, (1, n), &path(n)).unwrap(), None));
        (0..2000).for_each(|n| assert_eq!(names.first(&proc, (1, n), &path(0)).unwrap(), Some(path(n))));
    }
}
