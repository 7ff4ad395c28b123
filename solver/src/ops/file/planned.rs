//! What is planned, by paths: all of it is in memory until it is written, so there is a bound.

use std::collections::BTreeMap;
use std::collections::btree_map::IntoIter;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use boxwright_cache::Error as CacheError;

use super::FileError;
use super::view::Entry;

/// Three million entries with names of the usual length.
const MOST: usize = 1 << 30;
/// What keeping an entry takes besides its names and attributes, and an attribute besides its name and value.
const KEEPING: usize = 256;
const ATTRIBUTE: usize = 64;

#[derive(Debug)]
pub(super) struct Planned {
    entries: BTreeMap<PathBuf, Entry>,
    /// Bytes that they take.
    held: usize,
    most: usize,
}

impl Default for Planned {
    fn default() -> Planned {
        Planned { entries: BTreeMap::new(), held: 0, most: MOST }
    }
}

impl Planned {
    pub(super) fn get(&self, path: &Path) -> Option<&Entry> {
        self.entries.get(path)
    }

    pub(super) fn get_mut(&mut self, path: &Path) -> Option<&mut Entry> {
        self.entries.get_mut(path)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.entries.keys().map(PathBuf::as_path)
    }

    /// # Errors
    /// When there are more than memory should hold.
    pub(super) fn insert(&mut self, path: &Path, entry: Entry) -> Result<(), FileError> {
        self.held += weight(path, &entry);
        if let Some(before) = self.entries.insert(path.to_owned(), entry) {
            self.held = self.held.saturating_sub(weight(path, &before));
        }
        if self.held <= self.most {
            return Ok(());
        }
        let reason = format!(
            "names and attributes of the {} entries up to here take more than {} MiB of memory",
            self.entries.len(),
            self.most >> 20
        );
        Err(CacheError::malformed(path.display().to_string(), reason).into())
    }

    /// Forgets all that is in the directory `path`.
    pub(super) fn forget_below(&mut self, path: &Path) {
        let behind = (Bound::Excluded(path), Bound::Unbounded);
        let below = self.entries.range::<Path, _>(behind).map(|(p, _)| p).take_while(|p| p.starts_with(path));
        for path in below.cloned().collect::<Vec<_>>() {
            if let Some(entry) = self.entries.remove(&path) {
                self.held = self.held.saturating_sub(weight(&path, &entry));
            }
        }
    }

    /// In the order of an archive: parents first, names by their bytes.
    pub(super) fn take(&mut self) -> IntoIter<PathBuf, Entry> {
        self.held = 0;
        std::mem::take(&mut self.entries).into_iter()
    }
}

fn weight(path: &Path, entry: &Entry) -> usize {
    let (meta, target) = match entry {
        Entry::Symlink { meta, target } => (meta, target.len()),
        Entry::Dir { meta, .. } | Entry::File { meta, .. } | Entry::Node { meta, .. } => (meta, 0),
    };
    let attributes: usize =
        meta.xattrs.iter().map(|(name, value)| ATTRIBUTE + name.len() + value.len()).sum();
    KEEPING + path.as_os_str().len() + target + attributes
}

#[cfg(test)]
mod tests {
    use boxwright_cache::layer::Metadata;

    use super::*;

    fn planned() -> Planned {
        Planned { most: 1 << 20, ..Planned::default() }
    }

    fn dir(attributes: usize) -> Entry {
        let xattrs = (0..attributes).map(|n| (format!("user.{n}").into_bytes(), vec![0; 1000])).collect();
        Entry::Dir { meta: Metadata { xattrs, ..Metadata::default() }, opaque: false }
    }

    #[test]
    fn more_than_memory_should_hold_is_refused() {
        let mut many = planned();
        let refused = (0..5000).find_map(|n| many.insert(Path::new(&n.to_string()), dir(0)).err());
        let message = refused.unwrap().to_string();
        assert!(message.contains("entries up to here take more than 1 MiB of memory"), "{message}");
        assert!(many.paths().count() > 1000);
        let (name, mut long) = ("n/".repeat(2000), planned());
        assert!((0..300).any(|n| long.insert(&Path::new(&name).join(n.to_string()), dir(0)).is_err()));
        assert!(planned().insert(Path::new("attributes"), dir(1100)).is_err());
    }

    #[test]
    fn what_is_replaced_or_forgotten_takes_nothing() {
        let mut planned = planned();
        for n in 0..100 {
            planned.insert(Path::new("same"), dir((n + 1) % 2 * 900)).unwrap();
        }
        for n in 0..50 {
            for below in 0..500 {
                planned.insert(Path::new(&format!("d/{below}")), dir(0)).unwrap();
            }
            planned.insert(Path::new(&format!("e{n}")), dir(0)).unwrap();
            planned.forget_below(Path::new("d"));
        }
        assert_eq!(planned.take().count(), 51);
    }
}
