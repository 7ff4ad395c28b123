//! The names in a directory, in the order of their bytes: one piece of memory for all, as there may be a million.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Dir, FileType};
use rustix::io::Errno;

/// Gives each with its type, where the file system tells it.
pub(crate) struct Names {
    /// Of each a byte for its type, the name, and a NUL.
    bytes: Vec<u8>,
    /// Where each begins.
    order: std::vec::IntoIter<usize>,
}

impl Names {
    pub(crate) fn read(dir: impl AsFd) -> Result<Names, Errno> {
        let (mut bytes, mut order) = (Vec::new(), Vec::new());
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                order.push(bytes.len());
                bytes.push((entry.file_type().as_raw_mode() >> TYPE) as u8);
                bytes.extend_from_slice(name.to_bytes_with_nul());
            }
        }
        order.sort_unstable_by_key(|at| name_at(&bytes, *at));
        Ok(Names { bytes, order: order.into_iter() })
    }

    /// Those that are not taken yet.
    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// The next ones.
    pub(crate) fn take_part(&mut self, most: usize) -> Vec<(&OsStr, FileType)> {
        let Names { bytes, order } = self;
        order.take(most).map(|at| entry_at(bytes, at)).collect()
    }
}

impl Iterator for Names {
    type Item = (OsString, FileType);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, kind) = entry_at(&self.bytes, self.order.next()?);
        Some((name.to_owned(), kind))
    }
}

/// The bits of a mode that tell the type are the last four from this one on.
const TYPE: u32 = 12;

fn entry_at(bytes: &[u8], at: usize) -> (&OsStr, FileType) {
    (OsStr::from_bytes(name_at(bytes, at)), FileType::from_raw_mode(u32::from(bytes[at]) << TYPE))
}

fn name_at(bytes: &[u8], at: usize) -> &[u8] {
    bytes[at + 1..].split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn names_come_in_order_with_their_types_and_take_little_more_than_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let names = (0..2000).map(|n| format!("name {n}")).chain(["-".into(), "\u{ff}".into()]);
        let mut sorted: Vec<_> = names.collect();
        for name in &sorted {
            File::create(dir.path().join(name)).unwrap();
        }
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        std::os::unix::fs::symlink("x", dir.path().join("link")).unwrap();
        sorted.extend(["dir", "link"].map(str::to_owned));
        sorted.sort_unstable();
        let read = || Names::read(File::open(dir.path()).unwrap()).unwrap();
        let types = [("dir", FileType::Directory), ("link", FileType::Symlink), ("-", FileType::RegularFile)];
        for (name, kind) in types {
            assert!(
                read().any(|given| given == (name.into(), kind) || given == (name.into(), FileType::Unknown))
            );
        }
        let mut parts = read();
        assert!(parts.take_part(5).into_iter().map(|(name, _)| name).eq(sorted[..5].iter().map(OsStr::new)));
        assert_eq!(parts.len(), sorted.len() - 5);
        assert!(parts.map(|(name, _)| name).eq(sorted[5..].iter().map(OsString::from)));
        let (all, bytes) = (read(), sorted.iter().map(String::len).sum::<usize>());
        assert_eq!(all.bytes.len(), bytes + 2 * sorted.len());
    }
}
