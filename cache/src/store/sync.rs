//! Durability: what is written carries the boot it was written in, until one flush of the file system takes that mark off.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rusqlite::Params;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::schema::{self, MARKS};
use super::{BUSY, Store, unique_name};
use crate::error::{Error, Result};

/// The database's write-ahead log.
const LOG: &str = "db-wal";
/// From so many bytes on, reading the write-ahead log takes a process longer than starting one that empties it.
const LONG_LOG: i64 = 512 << 10;
/// Whose marks call for a sync. What is lost of the others is made again, and looking through them would take time at the
/// end of each command.
const WANTED: [(&str, &str); 5] =
    [("names", "boot"), ("images", "boot"), ("records", "boot"), ("layers", "boot"), ("layers", "dir_boot")];
/// The mark is of this boot, and not the one of what could not be written.
const OF_BOOT: &str = "substr({}, 1, length(?1)) = ?1 AND {} <> ?2";

impl Store {
    /// Makes all rows written so far durable: one `syncfs`, then the marks of those rows are taken off.
    ///
    /// # Errors
    /// When the file system reports that it could not write something.
    pub fn sync(&self) -> Result<()> {
        let _living = self.lock_syncs(FlockOperation::NonBlockingLockShared);
        // Rows written while the sync runs keep the plain mark, and wait for the next one. Those of a sync that was cut
        // off are this one's, which is no harm to one that still runs: they get on the disk either way.
        let (boot, mark) = (self.boot(), format!("{} {}", self.boot(), unique_name()?));
        let unwritten = self.unwritten();
        self.mark("?1", "substr({}, 1, length(?2)) = ?2 AND {} <> ?3", (&mark, boot, &unwritten))?;
        if let Err(errno) = rustix::fs::syncfs(self.dir()) {
            // The kernel tells of it once, and counts as written what it gave up: no later sync may say that it is there.
            self.mark("?1", "{} = ?2", (&unwritten, &mark))?;
            return Err(Error::io("writing to disk", self.path())(errno));
        }
        self.mark("NULL", "{} = ?1", (&mark,))?;
        self.write("forgetting where names stood", schema::settle)?;
        self.empty_log()?;
        self.keep_reserve();
        Ok(())
    }

    /// Waits for the disk to have the rows that are there so far: a power cut must not bring one back whose files are about to be
    /// removed.
    pub(crate) fn flush_rows(&self) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(self.dir(), LOG, flags, Mode::empty()) {
            // All of it is in the database, which was flushed for that.
            Err(Errno::NOENT) => Ok(()),
            log => log
                .and_then(|log| rustix::fs::fdatasync(&log))
                .map_err(Error::io("writing to disk", self.path().join(LOG))),
        }
    }

    /// The mark of what could not be written: it is forgotten in the next boot.
    fn unwritten(&self) -> String {
        format!("{} unwritten", self.boot())
    }

    fn mark(&self, value: &str, which: &str, values: impl Params + Clone) -> Result<()> {
        self.write("marking rows durable", |tx| {
            MARKS.iter().try_for_each(|(table, column)| {
                let which = which.replace("{}", column);
                let sql = format!("UPDATE {table} SET {column} = {value} WHERE {which}");
                tx.execute(&sql, values.clone()).map(drop)
            })
        })
    }

    /// Moves the write-ahead log into the database: the first process of those that use a store at the same time reads
    /// the whole log. Where somebody else uses it at this moment, that waits for the next sync.
    fn empty_log(&self) -> Result<()> {
        let db = self.db();
        let doing = "emptying the log of the store";
        db.busy_timeout(Duration::ZERO).map_err(Error::db(doing))?;
        let done = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        db.busy_timeout(BUSY).map_err(Error::db(doing))?;
        match done {
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => Ok(()),
            other => other.map_err(Error::db(doing)),
        }
    }

    /// Whether rows of this boot wait for a [`Store::sync`], or the write-ahead log has become long.
    ///
    /// # Errors
    /// When the database can't be read.
    pub fn needs_sync(&self) -> Result<bool> {
        let (boot, unwritten) = (self.boot(), self.unwritten());
        let undurable = self.is_any(OF_BOOT, (boot, &unwritten))?;
        if undurable && (self.is_any("{} = ?1", (boot,))? || !self.is_synced_now()) {
            return Ok(true);
        }
        let log = rustix::fs::statat(self.dir(), LOG, AtFlags::SYMLINK_NOFOLLOW);
        Ok(log.is_ok_and(|log| log.st_size > LONG_LOG))
    }

    fn is_any(&self, which: &str, values: impl Params) -> Result<bool> {
        let found = self.db().query_row(&any(which), values, |row| row.get(0));
        found.map_err(Error::db("looking for unsynced rows"))
    }

    /// Whether a process is in [`Store::sync`]: one is enough for what it has begun with.
    fn is_synced_now(&self) -> bool {
        self.lock_syncs(FlockOperation::NonBlockingLockExclusive)
            .is_err_and(|errno| errno == Errno::WOULDBLOCK)
    }

    /// Syncs share this lock, which nobody else takes, until it is closed. Where there are no locks of directories, a sync too
    /// many is started.
    fn lock_syncs(&self, how: FlockOperation) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let blobs = rustix::fs::openat(self.dir(), "blobs", flags, Mode::empty())?;
        rustix::fs::flock(&blobs, how).map(|()| blobs)
    }
}

/// Asks the indexes of the marks.
fn any(which: &str) -> String {
    let exists = WANTED.iter().map(|(table, column)| {
        let which = which.replace("{}", column);
        format!("EXISTS (SELECT 1 FROM {table} WHERE {column} IS NOT NULL AND {which})")
    });
    format!("SELECT {}", exists.collect::<Vec<_>>().join(" OR "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_to_sync_costs_the_same_in_a_store_of_any_size() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for which in [OF_BOOT, "{} = ?1"] {
            let db = store.db();
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {}", any(which))).unwrap();
            let steps = plan.raw_query().mapped(|row| row.get(3));
            let steps: Vec<String> = steps.map(Result::unwrap).collect();
            let reads = |step: &&String| step.starts_with("SCAN ") || step.starts_with("SEARCH ");
            let reads: Vec<_> =
                steps.iter().filter(reads).filter(|step| !step.contains("CONSTANT")).collect();
            assert_eq!(reads.len(), WANTED.len(), "{steps:?}");
            assert!(reads.iter().all(|step| step.contains("INDEX") && step.contains("boot")), "{steps:?}");
        }
    }
}
