//! The times of directories, which are set when all entries are there. There may be a million of them, so each is kept
//! as what differs from the path before it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Timestamp;
use crate::error::{Error, Result};

/// Two million directories with names of the usual length.
const MOST: usize = 40 << 20;

#[derive(Debug, Default)]
pub(super) struct Times {
    /// For each: how many bytes of the path before it stay, how many come, those, and the time.
    packed: Vec<u8>,
    last: Vec<u8>,
}

impl Times {
    /// `path` has no more bytes than the kernel takes.
    ///
    /// # Errors
    /// When there are more than any image has: who unpacks them would run out of memory.
    pub(super) fn push(&mut self, path: &Path, time: Timestamp) -> Result<()> {
        if self.packed.len() >= MOST {
            return Err(Error::malformed(
                path.display().to_string(),
                "more directories than a layer may have",
            ));
        }
        let path = path.as_os_str().as_bytes();
        let same = path.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        let new = &path[same..];
        for length in [same, new.len()] {
            self.packed.extend(u16::try_from(length).expect("paths are shorter").to_le_bytes());
        }
        self.packed.extend(new);
        self.packed.extend(time.secs.to_le_bytes());
        self.packed.extend(time.nanos.to_le_bytes());
        self.last.truncate(same);
        self.last.extend(new);
        Ok(())
    }

    /// In the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PathBuf, Timestamp)> + '_ {
        let (mut rest, mut path) = (&self.packed[..], Vec::new());
        std::iter::from_fn(move || {
            let (same, new) =
                (take(&mut rest).map(u16::from_le_bytes)?, take(&mut rest).map(u16::from_le_bytes)?);
            path.truncate(same.into());
            path.extend(rest.split_off(..usize::from(new))?);
            let (secs, nanos) = (take(&mut rest)?, take(&mut rest)?);
            let time = Timestamp { secs: i64::from_le_bytes(secs), nanos: u32::from_le_bytes(nanos) };
            Some((OsStr::from_bytes(&path).into(), time))
        })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_back_in_order() {
        let mut times = Times::default();
        let long = "d/".repeat(2000);
        let given = ["", "a", "a/b", "a/bc/d", "a", "b", long.as_str(), ""].map(PathBuf::from);
        let time = |n: usize| Timestamp { secs: n as i64 - 3, nanos: n as u32 };
        given.iter().enumerate().for_each(|(n, path)| times.push(path, time(n)).unwrap());
        let expected: Vec<_> = given.into_iter().enumerate().map(|(n, path)| (path, time(n))).collect();
        assert_eq!(times.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_million_directories_take_no_more_than_a_name_and_a_time_each() {
        let mut times = Times::default();
        for n in 0..1_000_000 {
            let path = format!("usr/share/some/where/d{}/e{}", n / 1000, n % 1000);
            times.push(Path::new(&path), Timestamp::default()).unwrap();
        }
        assert!(times.packed.len() < 20_000_000, "{}", times.packed.len());
        assert_eq!(times.iter().count(), 1_000_000);
    }

    #[test]
    fn what_would_take_all_memory_is_refused() {
        let mut times = Times::default();
        let names = ["a", "b"].map(|name| format!("{name}{}", "/n".repeat(2000)));
        let pushed = names
            .iter()
            .cycle()
            .take(20_000)
            .try_for_each(|n| times.push(Path::new(n), Timestamp::default()));
        assert!(pushed.unwrap_err().to_string().contains("more directories than a layer may have"));
        assert!(times.packed.len() < MOST + 5000);
    }
}
