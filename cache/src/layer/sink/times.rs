//! The times of directories, which are set when all entries are there. There may be a million of them, in several layers at
//! once, so each is kept as what differs from the path before it.

use std::ffi::OsStr;
use std::io::{BufRead, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Timestamp;
use crate::error::{Error, Result};
use crate::layer::spill::Spill;

/// Two million directories with names of the usual length.
const MOST: u64 = 40 << 20;
const KEEPING: &str = "keeping the times of directories in";

#[derive(Debug, Default)]
pub(super) struct Times {
    /// For each: how many bytes of the path before it stay, how many come, those, and the time.
    packed: Spill,
    last: Vec<u8>,
}

impl Times {
    /// `root` is a directory in whose file system there may be room.
    ///
    /// # Errors
    /// When there are more than any image has, or the path is longer than any.
    pub(super) fn push(&mut self, root: impl AsFd, path: &Path, time: Timestamp) -> Result<()> {
        if self.packed.len() >= MOST {
            return Err(Error::malformed(
                path.display().to_string(),
                "more directories than a layer may have",
            ));
        }
        let bytes = path.as_os_str().as_bytes();
        let same = bytes.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        let new = &bytes[same..];
        let mut record = Vec::with_capacity(16 + new.len());
        for length in [same, new.len()] {
            let length = u16::try_from(length)
                .map_err(|_| Error::malformed("layer", "a directory deeper than any path"))?;
            record.extend(length.to_le_bytes());
        }
        record.extend(new);
        record.extend(time.secs.to_le_bytes());
        record.extend(time.nanos.to_le_bytes());
        self.packed.push(root, &record);
        self.last.truncate(same);
        self.last.extend(new);
        Ok(())
    }

    /// In the order in which they came.
    ///
    /// # Errors
    /// When they can't be read; and so each of them.
    pub(super) fn into_iter(self) -> Result<impl Iterator<Item = Result<(PathBuf, Timestamp)>>> {
        let mut rest = self.packed.into_reader().map_err(Error::io(KEEPING, "a file"))?;
        let mut path = Vec::new();
        Ok(std::iter::from_fn(move || {
            next(&mut rest, &mut path).map_err(Error::io(KEEPING, "a file")).transpose()
        }))
    }
}

fn next(rest: &mut impl BufRead, path: &mut Vec<u8>) -> std::io::Result<Option<(PathBuf, Timestamp)>> {
    if rest.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let (same, new) = (u16::from_le_bytes(take(rest)?), u16::from_le_bytes(take(rest)?));
    path.truncate(same.into());
    rest.by_ref().take(new.into()).read_to_end(path)?;
    let (secs, nanos) = (i64::from_le_bytes(take(rest)?), u32::from_le_bytes(take(rest)?));
    Ok(Some((OsStr::from_bytes(path).into(), Timestamp { secs, nanos })))
}

fn take<const N: usize>(rest: &mut impl Read) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    rest.read_exact(&mut bytes).map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn root() -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        (dir, root)
    }

    fn all(times: Times) -> Vec<(PathBuf, Timestamp)> {
        times.into_iter().unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn all_come_back_in_order() {
        let (mut times, (_dir, root)) = (Times::default(), root());
        let long = "d/".repeat(2000);
        let given = ["", "a", "a/b", "a/bc/d", "a", "b", long.as_str(), ""].map(PathBuf::from);
        let time = |n: usize| Timestamp { secs: n as i64 - 3, nanos: n as u32 };
        given.iter().enumerate().for_each(|(n, path)| times.push(&root, path, time(n)).unwrap());
        let expected: Vec<_> = given.into_iter().enumerate().map(|(n, path)| (path, time(n))).collect();
        assert_eq!(all(times), expected);
    }

    #[test]
    fn a_million_directories_take_no_memory() {
        let (mut times, (_dir, root)) = (Times::default(), root());
        let path = |n: usize| PathBuf::from(format!("usr/share/some/where/d{}/e{}", n / 1000, n % 1000));
        for n in 0..1_000_000 {
            times.push(&root, &path(n), Timestamp { secs: n as i64, nanos: 0 }).unwrap();
        }
        assert!(times.packed.memory() < 4 << 20, "{}", times.packed.memory());
        assert!(times.packed.len() < 20_000_000, "{}", times.packed.len());
        let mut count = 0;
        for (n, time) in times.into_iter().unwrap().enumerate() {
            assert_eq!(time.unwrap(), (path(n), Timestamp { secs: n as i64, nanos: 0 }));
            count += 1;
        }
        assert_eq!(count, 1_000_000);
    }

    #[test]
    fn a_file_system_without_files_that_have_no_name_is_no_obstacle() {
        let (mut times, proc) = (Times::default(), File::open("/proc").unwrap());
        let long = "d/".repeat(2000);
        let given: Vec<_> = (0..600).map(|n| PathBuf::from(format!("{n}/{long}"))).collect();
        given.iter().for_each(|path| times.push(&proc, path, Timestamp::default()).unwrap());
        assert!(times.packed.memory() > 1 << 20, "it is all in memory");
        assert!(all(times).into_iter().map(|(path, _)| path).eq(given));
    }

    #[test]
    fn what_would_take_all_memory_is_refused() {
        let (mut times, (_dir, root)) = (Times::default(), root());
        let names = ["a", "b"].map(|name| format!("{name}{}", "/n".repeat(2000)));
        let pushed = names
            .iter()
            .cycle()
            .take(20_000)
            .try_for_each(|n| times.push(&root, Path::new(n), Timestamp::default()));
        assert!(pushed.unwrap_err().to_string().contains("more directories than a layer may have"));
        assert!(times.packed.len() < MOST + 5000);
    }
}
