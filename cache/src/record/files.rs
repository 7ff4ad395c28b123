//! Contents of host files by their stat data: an unchanged context is not read again, by this build or a later one.

use std::sync::Mutex;

use rusqlite::{OptionalExtension as _, params};

use crate::error::Result;
use crate::fs::walk::{FileHashCache, StatKey};
use crate::layer::Timestamp;
use crate::store::Store;

/// The store's memory of file contents. What is new is kept until [`FileHashes::save`].
#[derive(Debug)]
pub struct FileHashes<'a> {
    store: &'a Store,
    fresh: Mutex<Vec<(StatKey, [u8; 32])>>,
}

impl Store {
    pub fn file_hashes(&self) -> FileHashes<'_> {
        FileHashes { store: self, fresh: Mutex::default() }
    }
}

impl FileHashes<'_> {
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
    /// A memory that can't be read is no memory: the file is read instead.
    fn get(&self, key: &StatKey) -> Option<[u8; 32]> {
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
