//! Contents of host files by their stat data: an unchanged context is not read again, by this build or a later one.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use rusqlite::{OptionalExtension as _, params};

use crate::error::Result;
use crate::fs::walk::{FileHashCache, StatKey};
use crate::layer::Timestamp;
use crate::store::Store;

/// For more files than these, all that may be theirs is read at once: a question for each costs more.
const MANY: usize = 256;
/// How many times as many may be read with them.
const OTHERS: usize = 4;

/// The store's memory of file contents. What is new is kept until [`FileHashes::save`].
#[derive(Debug)]
pub struct FileHashes<'a> {
    store: &'a Store,
    /// What was read at once, by the columns of the key.
    known: OnceLock<HashMap<[i64; 5], [u8; 32]>>,
    fresh: Mutex<Vec<(StatKey, [u8; 32])>>,
}

impl Store {
    pub fn file_hashes(&self) -> FileHashes<'_> {
        FileHashes { store: self, known: OnceLock::new(), fresh: Mutex::default() }
    }
}

impl FileHashes<'_> {
    /// Everything known of inodes in the range of these keys; none where that is mostly about other files.
    fn read(&self, keys: &[StatKey]) -> rusqlite::Result<Option<HashMap<[i64; 5], [u8; 32]>>> {
        let mut ranges: HashMap<i64, (i64, i64)> = HashMap::new();
        for [dev, ino, ..] in keys.iter().map(columns) {
            let range = ranges.entry(dev).or_insert((ino, ino));
            *range = (range.0.min(ino), range.1.max(ino));
        }
        let db = self.store.db();
        let mut select = db.prepare_cached(
            "SELECT dev, ino, size, mtime, ctime, hash FROM files WHERE dev = ?1 AND ino BETWEEN ?2 AND ?3",
        )?;
        let mut known = HashMap::with_capacity(keys.len());
        for (dev, (first, last)) in ranges {
            let mut rows = select.query(params![dev, first, last])?;
            while let Some(row) = rows.next()? {
                let key = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
                known.insert(key, row.get(5)?);
                if known.len() > keys.len() * OTHERS {
                    return Ok(None);
                }
            }
        }
        Ok(Some(known))
    }

    /// Writes what was learned, in one transaction.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn save(self) -> Result<()> {
        let fresh = self.fresh.into_inner().unwrap_or_else(|e| e.into_inner());
        if fresh.is_empty() {
            return Ok(());
        }
        self.store.write("remembering the contents of files", |tx| {
            let mut insert = tx.prepare_cached(
                "INSERT OR REPLACE INTO files (dev, ino, size, mtime, ctime, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for (key, hash) in &fresh {
                let [dev, ino, size, mtime, ctime] = columns(key);
                insert.execute(params![dev, ino, size, mtime, ctime, hash])?;
            }
            Ok(())
        })
    }
}

/// As SQLite's integers: numbers above 2^63 wrap, which keeps them apart all the same.
fn columns(key: &StatKey) -> [i64; 5] {
    let nanos = |t: Timestamp| t.secs.wrapping_mul(1_000_000_000).wrapping_add(i64::from(t.nanos));
    [key.dev as i64, key.ino as i64, key.size as i64, nanos(key.mtime), nanos(key.ctime)]
}

impl FileHashCache for FileHashes<'_> {
    fn prepare(&self, keys: &mut dyn Iterator<Item = StatKey>) {
        let keys: Vec<StatKey> = keys.collect();
        if keys.len() > MANY
            && let Ok(Some(known)) = self.read(&keys)
        {
            let _ = self.known.set(known);
        }
    }

    /// A memory that can't be read is no memory: the file is read instead.
    fn get(&self, key: &StatKey) -> Option<[u8; 32]> {
        if let Some(known) = self.known.get() {
            return known.get(&columns(key)).copied();
        }
        let db = self.store.db();
        let mut select = db
            .prepare_cached(
                "SELECT hash FROM files WHERE dev = ?1 AND ino = ?2 AND size = ?3 AND mtime = ?4 AND ctime = ?5",
            )
            .ok()?;
        let [dev, ino, size, mtime, ctime] = columns(key);
        select.query_row(params![dev, ino, size, mtime, ctime], |row| row.get(0)).optional().ok()?
    }

    fn put(&self, key: &StatKey, hash: [u8; 32]) {
        self.fresh.lock().unwrap_or_else(|e| e.into_inner()).push((*key, hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ino: u64) -> StatKey {
        let time = Timestamp { secs: 1, nanos: 2 };
        StatKey { dev: 7, ino, size: ino, mtime: time, ctime: time }
    }

    fn remember(store: &Store, inodes: std::ops::Range<u64>) {
        let hashes = store.file_hashes();
        inodes.for_each(|ino| hashes.put(&key(ino), [ino as u8; 32]));
        hashes.save().unwrap();
    }

    #[test]
    fn what_was_learned_is_known_one_by_one_and_all_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        remember(&store, 0..1000);
        for count in [10, 500] {
            let known = store.file_hashes();
            known.prepare(&mut (0..count).map(key));
            assert_eq!(known.known.get().is_some(), count == 500);
            assert_eq!(known.get(&key(3)), Some([3; 32]));
            assert_eq!(known.get(&StatKey { size: 9, ..key(3) }), None, "it has changed since");
            assert_eq!(known.get(&key(5000)), None);
        }
        // Few files that lie far apart are asked for one by one.
        let far = store.file_hashes();
        remember(&store, 1000..5000);
        far.prepare(&mut (0..300).chain([4999]).map(key));
        assert!(far.known.get().is_none());
        assert_eq!(far.get(&key(4999)), Some([4999u64 as u8; 32]));
    }
}
