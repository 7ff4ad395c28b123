//! Contents of host files by their stat data: an unchanged context is not read again, by this build or a later one.

use std::collections::HashMap;

use rusqlite::params;

use crate::error::Result;
use crate::fs::walk::{FileHashCache, StatKey};
use crate::layer::Timestamp;
use crate::store::Store;

/// Inodes that are this close to each other are asked for together: those between them cost less than a question.
const CLOSE: i64 = 16;

/// The store's memory of file contents.
#[derive(Debug)]
pub struct FileHashes<'a> {
    store: &'a Store,
}

impl Store {
    pub fn file_hashes(&self) -> FileHashes<'_> {
        FileHashes { store: self }
    }
}

impl FileHashes<'_> {
    /// What is known of the inodes of these keys and of some beside them, by the columns of the key.
    fn read(&self, keys: &[[i64; 5]]) -> rusqlite::Result<HashMap<[i64; 5], [u8; 32]>> {
        let mut inodes: Vec<(i64, i64)> = keys.iter().map(|[dev, ino, ..]| (*dev, *ino)).collect();
        inodes.sort_unstable();
        let db = self.store.db();
        let mut select = db.prepare_cached(
            "SELECT dev, ino, size, mtime, ctime, hash FROM files WHERE dev = ?1 AND ino BETWEEN ?2 AND ?3",
        )?;
        let mut known = HashMap::with_capacity(keys.len());
        for close in inodes.chunk_by(|a, b| a.0 == b.0 && a.1.saturating_add(CLOSE) >= b.1) {
            let mut rows = select.query(params![close[0].0, close[0].1, close[close.len() - 1].1])?;
            while let Some(row) = rows.next()? {
                let key = [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?];
                known.insert(key, row.get(5)?);
            }
        }
        Ok(known)
    }
}

/// As SQLite's integers: numbers above 2^63 wrap, which keeps them apart all the same.
fn columns(key: &StatKey) -> [i64; 5] {
    let nanos = |t: Timestamp| t.secs.wrapping_mul(1_000_000_000).wrapping_add(i64::from(t.nanos));
    [key.dev as i64, key.ino as i64, key.size as i64, nanos(key.mtime), nanos(key.ctime)]
}

impl FileHashCache for FileHashes<'_> {
    /// A memory that can't be read is no memory: the files are read instead.
    fn get(&self, keys: &[StatKey]) -> Vec<Option<[u8; 32]>> {
        let keys: Vec<[i64; 5]> = keys.iter().map(columns).collect();
        let known = self.read(&keys).unwrap_or_default();
        keys.iter().map(|key| known.get(key).copied()).collect()
    }

    /// In one transaction.
    fn put(&self, fresh: &[(StatKey, [u8; 32])]) -> Result<()> {
        self.store.write("remembering the contents of files", |tx| {
            let mut insert = tx.prepare_cached(
                "INSERT OR REPLACE INTO files (dev, ino, size, mtime, ctime, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for (key, hash) in fresh {
                let [dev, ino, size, mtime, ctime] = columns(key);
                insert.execute(params![dev, ino, size, mtime, ctime, hash])?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(ino: u64) -> StatKey {
        let time = Timestamp { secs: 1, nanos: 2 };
        StatKey { dev: 7, ino, size: ino, mtime: time, ctime: time }
    }

    #[test]
    fn what_was_learned_is_known_of_inodes_close_and_far() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let hashes = store.file_hashes();
        let inodes = [3, 4, 9, 400, 5000, u64::MAX - 1, u64::MAX];
        let fresh: Vec<(StatKey, [u8; 32])> =
            inodes.iter().map(|ino| (key(*ino), [*ino as u8; 32])).collect();
        hashes.put(&fresh).unwrap();
        let keys: Vec<StatKey> = inodes.iter().rev().map(|ino| key(*ino)).collect();
        let expected: Vec<_> = inodes.iter().rev().map(|ino| Some([*ino as u8; 32])).collect();
        assert_eq!(store.file_hashes().get(&keys), expected);
        let others = [key(5), StatKey { size: 9, ..key(3) }, StatKey { dev: 8, ..key(4) }, key(9)];
        assert_eq!(hashes.get(&others), [None, None, None, Some([9; 32])]);
    }
}
