//! [`Ordered`]: values by keys, in the order of the keys' bytes, for what may be more than memory should hold. It is a database
//! of SQLite in a file without a name, which goes away with the process however that ends, and keeps 2 MiB of it in memory.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::error::{Error, Result};

const NAME: &str = "ordered";
const KEEPING: &str = "keeping what is to be written";
/// As many are forgotten between two looks at whether to go on: some ten milliseconds.
const AT_ONCE: usize = if cfg!(test) { 3 } else { 10_000 };
/// Nothing is ever taken back, nobody else reads it, and after a crash it is gone: it needs no journal, lock or sync.
const SETUP: &str = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -2048;
    PRAGMA locking_mode = EXCLUSIVE; BEGIN;
    CREATE TABLE kept (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID";

#[derive(Debug)]
pub struct Ordered(Connection);

impl Ordered {
    /// An empty one, on the file system of `dir`, a directory of which the caller has all names; none where no file can be
    /// made in there or opened as one.
    ///
    /// # Errors
    /// When there is no room, or no file descriptor left.
    pub fn new(dir: BorrowedFd<'_>) -> Result<Option<Ordered>> {
        // SQLite does not tell why it can't open a file.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, NAME, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::NOENT | Errno::ISDIR | Errno::ACCESS | Errno::PERM | Errno::ROFS) => return Ok(None),
            made => drop(made.map_err(Error::io(KEEPING, NAME))?),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let path = format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd());
        let db = Connection::open_with_flags_and_vfs(path, flags, c"unix-none");
        rustix::fs::unlinkat(dir, NAME, AtFlags::empty()).map_err(Error::io(KEEPING, NAME))?;
        let db = match db {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::CannotOpen) => return Ok(None),
            db => db.map_err(failed)?,
        };
        db.execute_batch(SETUP).map_err(failed)?;
        Ok(Some(Ordered(db)))
    }

    /// # Errors
    /// When the file can't be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let get = || {
            let mut get = self.0.prepare_cached("SELECT value FROM kept WHERE key = ?1")?;
            get.query_row([key], |row| row.get(0)).optional()
        };
        get().map_err(failed)
    }

    /// A value in the place of the one before it.
    ///
    /// # Errors
    /// When there is no room.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let put = || self.0.prepare_cached("REPLACE INTO kept VALUES (?1, ?2)")?.execute(params![key, value]);
        put().map(drop).map_err(failed)
    }

    /// Forgets all from the key `from` on, up to the one before `to`.
    ///
    /// # Errors
    /// When the file can't be written, and [`Error::Cancelled`] with a part of them forgotten.
    pub fn remove(&self, from: &[u8], to: &[u8], cancel: &Cancel) -> Result<()> {
        let some = "DELETE FROM kept WHERE key IN
                    (SELECT key FROM kept WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3)";
        let mut some = self.0.prepare_cached(some).map_err(failed)?;
        while some.execute(params![from, to, AT_ONCE]).map_err(failed)? == AT_ONCE {
            cancel.check()?;
        }
        Ok(())
    }

    /// Gives all, in the order of the keys.
    ///
    /// # Errors
    /// When the file can't be read, and those of `give`.
    pub fn each<E: From<Error>>(&self, mut give: impl FnMut(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut all = self.0.prepare("SELECT key, value FROM kept ORDER BY key").map_err(failed)?;
        let mut rows = all.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let column = |n| row.get_ref(n).and_then(|value| Ok(value.as_blob()?)).map_err(failed);
            give(column(0)?, column(1)?)?;
        }
        Ok(())
    }
}

fn failed(source: rusqlite::Error) -> Error {
    Error::Spool { doing: KEEPING, source }
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
        let new = || Ordered::new(open.as_fd()).unwrap().unwrap();
        let (ordered, other, cancel) = (new(), new(), Cancel::new().unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut model = BTreeMap::new();
        for n in 0..3000_u64 {
            let key = |n: u64| [&b"k\xff\0"[..], blake3::hash(&(n % 700).to_le_bytes()).as_bytes()].concat();
            ordered.put(&key(n), &n.to_le_bytes()).unwrap();
            model.insert(key(n), n.to_le_bytes().to_vec());
            if n % 50 == 49 {
                let (from, to) = (key(n).min(key(n + 300)), key(n).max(key(n + 300)));
                let to = [&to[..6], &from[6..]].concat().max(from.clone());
                ordered.remove(&from, &to, &cancel).unwrap();
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

    #[test]
    fn a_raised_token_stops_the_removal_of_many() {
        let dir = tempfile::tempdir().unwrap();
        let ordered = Ordered::new(File::open(dir.path()).unwrap().as_fd()).unwrap().unwrap();
        (0..10).for_each(|n| ordered.put(&[n], b"").unwrap());
        let cancel = Cancel::new().unwrap();
        cancel.raise();
        assert!(matches!(ordered.remove(&[0], &[9], &cancel), Err(Error::Cancelled)));
        assert!(ordered.get(&[8]).unwrap().is_some());
    }

    #[test]
    fn what_keeps_it_from_the_disk_is_told_but_that_no_file_can_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let proc = File::open("/proc").unwrap();
        assert!(Ordered::new(proc.as_fd()).unwrap().is_none());
        let file = File::create(dir.path().join("file")).unwrap();
        let error = Ordered::new(file.as_fd()).unwrap_err().to_string();
        assert!(error.contains("Not a directory"), "{error}");
        let ordered = Ordered::new(File::open(dir.path()).unwrap().as_fd()).unwrap().unwrap();
        ordered.0.execute_batch("PRAGMA max_page_count = 1").unwrap();
        let full = ordered.put(b"key", &[0; 1 << 20]).unwrap_err();
        assert_eq!(full.kind(), Some(std::io::ErrorKind::StorageFull));
        assert!(full.to_string().contains("in a temporary file of the store: "), "{full}");
    }
}
