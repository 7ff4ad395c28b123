//! [`Kept`]: a map that may have more in it than memory should hold. What is over a few mebibytes waits in a file without a
//! name, on the store's file system; what comes from there is in memory again until there is too much once more.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

use boxwright_cache::Cancel;
use boxwright_cache::Error as CacheError;
use boxwright_cache::ordered::Ordered;

use super::FileError;
use super::packed::{Packed, Unpacked};

/// Bytes that are in memory. Few in tests, so that all of them try both places.
const USUAL: usize = if cfg!(test) { 600 } else { 8 << 20 };
/// Bytes that are in memory where nothing can wait on the disk: three million entries with names of the usual length.
const MOST: usize = 1 << 30;
/// What keeping a value takes besides the bytes of its own.
const KEEPING: usize = 256;

/// What can be put into bytes.
pub(super) trait Keep: Clone {
    /// What can't, and stays in memory.
    type Aside: Aside;

    /// Bytes that it takes besides those of its type.
    fn weight(&self) -> usize;
    fn pack(&self, to: &mut Packed, aside: &mut Self::Aside);
    /// None of bytes that [`Keep::pack`] did not give.
    fn unpack(from: &mut Unpacked<'_>, aside: &Self::Aside) -> Option<Self>;
}

pub(super) trait Aside: Default {
    /// Bytes that it takes.
    fn weight(&self) -> usize;
}

impl Aside for () {
    fn weight(&self) -> usize {
        0
    }
}

#[derive(Debug)]
pub(super) struct Kept<V: Keep> {
    /// A directory on a file system where there may be room.
    spool: Rc<OwnedFd>,
    /// The values that are in memory, and whether the disk has something else or nothing there.
    memory: BTreeMap<Vec<u8>, (Rc<V>, bool)>,
    held: usize,
    disk: Option<Ordered>,
    aside: V::Aside,
    /// How much may be in memory before more is put on the disk, and at most.
    usual: usize,
    most: usize,
}

impl<V: Keep> Kept<V> {
    pub(super) fn new(spool: &Rc<OwnedFd>) -> Kept<V> {
        Kept {
            spool: spool.clone(),
            memory: BTreeMap::new(),
            held: 0,
            disk: None,
            aside: V::Aside::default(),
            usual: USUAL,
            most: MOST,
        }
    }

    /// # Errors
    /// When the file can't be read.
    pub(super) fn get(&mut self, key: &[u8]) -> Result<Option<Rc<V>>, FileError> {
        if let Some((value, _)) = self.memory.get(key) {
            return Ok(Some(value.clone()));
        }
        let Some(disk) = &self.disk else { return Ok(None) };
        let Some(packed) = disk.get(key)? else { return Ok(None) };
        let value = Rc::new(unpack::<V>(&packed, &self.aside)?);
        self.hold(key.to_vec(), value.clone(), false)?;
        Ok(Some(value))
    }

    /// # Errors
    /// When there are more than the disk or memory should hold.
    pub(super) fn put(&mut self, key: Vec<u8>, value: V) -> Result<(), FileError> {
        self.hold(key, Rc::new(value), true)
    }

    /// Forgets all from the key `from` on, up to the one before `to`.
    ///
    /// # Errors
    /// When the file can't be written, or it is cancelled.
    pub(super) fn forget(&mut self, from: &[u8], to: &[u8], cancel: &Cancel) -> Result<(), FileError> {
        if let Some(disk) = &self.disk {
            disk.remove(from, to, cancel)?;
        }
        let between = (Bound::Included(from), Bound::Excluded(to));
        let keys: Vec<_> = self.memory.range::<[u8], _>(between).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some((value, _)) = self.memory.remove(&key) {
                self.held -= weight(&key, &*value);
            }
        }
        Ok(())
    }

    /// Those in memory, or none if they are not all.
    pub(super) fn keys(&self) -> Option<impl Iterator<Item = &[u8]>> {
        self.disk.is_none().then(|| self.memory.keys().map(Vec::as_slice))
    }

    /// Gives all, in the order of the keys' bytes, and keeps none.
    ///
    /// # Errors
    /// When the file can't be read, and those of `give`.
    pub(super) fn drain(
        &mut self,
        mut give: impl FnMut(&[u8], V) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        if self.disk.is_some() {
            self.spill()?;
        }
        self.held = 0;
        let aside = std::mem::take(&mut self.aside);
        match self.disk.take() {
            Some(disk) => disk.each(|key, packed| give(key, unpack(packed, &aside)?)),
            None => {
                let mut all = std::mem::take(&mut self.memory).into_iter();
                all.try_for_each(|(key, (value, _))| give(&key, Rc::unwrap_or_clone(value)))
            }
        }
    }

    fn hold(&mut self, key: Vec<u8>, value: Rc<V>, is_new: bool) -> Result<(), FileError> {
        let new = weight(&key, &*value);
        let old = self.memory.get(&key).map_or(0, |(value, _)| weight(&key, &**value));
        self.memory.insert(key, (value, is_new));
        self.held = self.held + new - old;
        if self.held > self.usual {
            self.spill()?;
        }
        let held = self.held + self.aside.weight();
        if held <= self.most {
            return Ok(());
        }
        let reason = format!("more entries than {} MiB of memory can hold", self.most >> 20);
        Err(CacheError::malformed("what is to be written", reason).into())
    }

    /// Puts what is in memory on the disk.
    fn spill(&mut self) -> Result<(), FileError> {
        if self.disk.is_none() {
            self.disk = Ordered::new(self.spool.as_fd())?;
        }
        let Some(disk) = &self.disk else {
            self.usual = self.most;
            return Ok(());
        };
        for (key, (value, is_new)) in std::mem::take(&mut self.memory) {
            if is_new {
                let mut packed = Packed::default();
                value.pack(&mut packed, &mut self.aside);
                disk.put(&key, packed.bytes())?;
            }
        }
        self.held = 0;
        Ok(())
    }
}

fn unpack<V: Keep>(packed: &[u8], aside: &V::Aside) -> Result<V, FileError> {
    let broken =
        || CacheError::malformed("what is to be written", "it did not come back from the disk whole");
    Ok(V::unpack(&mut Unpacked::new(packed), aside).ok_or_else(broken)?)
}

fn weight<V: Keep>(key: &[u8], value: &V) -> usize {
    KEEPING + key.len() + value.weight()
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::{Path, PathBuf};

    use super::*;

    fn kept(spool: &Path, usual: usize) -> Kept<PathBuf> {
        let spool = Rc::new(OwnedFd::from(File::open(spool).unwrap()));
        Kept { usual, most: 1 << 20, ..Kept::new(&spool) }
    }

    fn all(mut kept: Kept<PathBuf>) -> Vec<(Vec<u8>, PathBuf)> {
        let mut all = Vec::new();
        let drained = kept.drain(|key, value| {
            all.push((key.to_vec(), value));
            Ok(())
        });
        drained.unwrap();
        all
    }

    /// Numbers that look like chance and are always the same.
    fn numbers() -> impl FnMut(u64) -> u64 {
        let mut state = 1_u64;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        }
    }

    #[test]
    fn it_is_a_map_wherever_the_values_are() {
        let (dir, mut number) = (tempfile::tempdir().unwrap(), numbers());
        let cancel = Cancel::new().unwrap();
        for usual in [0, 3000, 1 << 20] {
            let (mut kept, mut model) = (kept(dir.path(), usual), BTreeMap::new());
            for n in 0..4000 {
                let place = number(500);
                let key = place.to_be_bytes().to_vec();
                match number(20) {
                    0 => {
                        let to = (place + 20).to_be_bytes().to_vec();
                        kept.forget(&key, &to, &cancel).unwrap();
                        model.retain(|other, _| *other < key || *other >= to);
                    }
                    1..10 => assert_eq!(kept.get(&key).unwrap().as_deref(), model.get(&key)),
                    _ => {
                        let value = PathBuf::from(format!("value {n}"));
                        kept.put(key.clone(), value.clone()).unwrap();
                        model.insert(key, value);
                    }
                }
                assert!(kept.held <= usual, "what it takes in memory is bounded");
                assert_eq!(kept.held, kept.memory.iter().map(|(k, (v, _))| weight(k, &**v)).sum::<usize>());
            }
            assert_eq!(kept.disk.is_some(), usual < 1 << 20);
            assert_eq!(all(kept), model.into_iter().collect::<Vec<_>>());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing has a name");
    }

    #[test]
    fn where_the_disk_takes_nothing_it_is_in_memory_up_to_a_bound() {
        let mut kept = kept(Path::new("/proc"), 1000);
        let key = |n: u32| n.to_be_bytes().to_vec();
        for n in (0..1000).chain(0..1000) {
            kept.put(key(n), "v".into()).unwrap();
        }
        assert_eq!(kept.get(&key(7)).unwrap(), Some(Rc::new("v".into())));
        kept.forget(&key(0), &key(990), &Cancel::new().unwrap()).unwrap();
        assert_eq!((kept.keys().unwrap().count(), kept.memory.len()), (10, 10));
        let refused = (0..5000).find_map(|n| kept.put(key(n), "v".into()).err()).unwrap().to_string();
        assert_eq!(refused, "what is to be written: more entries than 1 MiB of memory can hold");
    }

    #[test]
    fn what_the_disk_fails_with_is_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let mut kept = kept(&dir.path().join("file"), 1000);
        let error = (0..100_u32).find_map(|n| kept.put(n.to_be_bytes().to_vec(), "v".into()).err()).unwrap();
        assert!(error.to_string().contains("Not a directory"), "{error}");
    }
}
