//! [`Ordered`]: values by keys, in the order of the keys' bytes, for what may be more than memory should hold. It is a database
//! of SQLite in a file without a name, which goes away with the process however that ends, and keeps 2 MiB of it in memory.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use rustix::fs::AtFlags;

use crate::error::{Error, Result};

const NAME: &str = "ordered";
const KEEPING: &str = "keeping what is to be written";
/// Nothing is ever taken back, nobody else reads it, and after a crash it is gone: it needs no journal, lock or sync.
const SETUP: &str = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -2048;
    PRAGMA locking_mode = EXCLUSIVE; BEGIN;
    CREATE TABLE kept (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID";

#[derive(Debug)]
pub struct Ordered(Connection);

impl Ordered {
    /// An empty one, on the file system of `dir`, a directory of which the caller has all names.
    ///
    /// # Errors
    /// When the file can't be made.
    pub fn new(dir: BorrowedFd<'_>) -> Result<Ordered> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let path = format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd());
        let db =
            Connection::open_with_flags_and_vfs(path, flags, c"unix-none").map_err(Error::db(KEEPING))?;
        rustix::fs::unlinkat(dir, NAME, AtFlags::empty()).map_err(Error::io(KEEPING, NAME))?;
        db.execute_batch(SETUP).map_err(Error::db(KEEPING))?;
        Ok(Ordered(db))
    }

    /// # Errors
    /// When the file can't be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let get = || {
            let mut get = self.0.prepare_cached("SELECT value FROM kept WHERE key = ?1")?;
            get.query_row([key], |row| row.get(0)).optional()
        };
        get().map_err(Error::db(KEEPING))
    }

    /// A value in the place of the one before it.
    ///
    /// # Errors
    /// When there is no room.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let put = || self.0.prepare_cached("REPLACE INTO kept VALUES (?1, ?2)")?.execute(params![key, value]);
        put().map(drop).map_err(Error::db(KEEPING))
    }

    /// Forgets all from the key `from` on, up to the one before `to`.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn remove(&self, from: &[u8], to: &[u8]) -> Result<()> {
        let remove = || {
            let mut remove = self.0.prepare_cached("DELETE FROM kept WHERE key >= ?1 AND key < ?2")?;
            remove.execute([from, to])
        };
        remove().map(drop).map_err(Error::db(KEEPING))
    }

    /// Gives all, in the order of the keys.
    ///
    /// # Errors
    /// When the file can't be read, and those of `give`.
    pub fn each<E: From<Error>>(&self, mut give: impl FnMut(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        let failed = || Error::db(KEEPING);
        let mut all = self.0.prepare("SELECT key, value FROM kept ORDER BY key").map_err(failed())?;
        let mut rows = all.query([]).map_err(failed())?;
        while let Some(row) = rows.next().map_err(failed())? {
            let column = |n| row.get_ref(n).and_then(|value| Ok(value.as_blob()?)).map_err(failed());
            give(column(0)?, column(1)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn it_is_a_map_without_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let open = File::open(dir.path()).unwrap();
        let (ordered, other) = (Ordered::new(open.as_fd()).unwrap(), Ordered::new(open.as_fd()).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut model = BTreeMap::new();
        for n in 0..3000_u64 {
            let key = |n: u64| [&b"k\xff\0"[..], blake3::hash(&(n % 700).to_le_bytes()).as_bytes()].concat();
            ordered.put(&key(n), &n.to_le_bytes()).unwrap();
            model.insert(key(n), n.to_le_bytes().to_vec());
            if n % 50 == 49 {
                let (from, to) = (key(n).min(key(n + 300)), key(n).max(key(n + 300)));
                let to = [&to[..6], &from[6..]].concat().max(from.clone());
                ordered.remove(&from, &to).unwrap();
                model.retain(|key, _| *key < from || *key >= to);
            }
            assert_eq!(ordered.get(&key(n * 7)).unwrap().as_ref(), model.get(&key(n * 7)));
        }
        let mut all = Vec::new();
        let each = ordered.each(|key, value| {
            all.push((key.to_vec(), value.to_vec()));
            Ok::<(), Error>(())
        });
        each.unwrap();
        assert!(!all.is_empty() && all == model.into_iter().collect::<Vec<_>>());
        assert_eq!(other.get(&all[0].0).unwrap(), None);
    }
}
