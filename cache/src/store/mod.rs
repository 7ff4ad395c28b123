//! The store: one directory with blobs and layers as files and everything that is said of them in SQLite.
//! Several processes use it at once; what one of them holds is leased, what two would make is made once.
//!
//! ```text
//! ROOT/db            the database          ROOT/leases/   one locked file per process
//! ROOT/blobs/        compressed layers     ROOT/locks/    one file per key being made
//! ROOT/layers/       unpacked layers       ROOT/tmp/      what is being made; renamed away when whole
//! ROOT/stubs/        mount points          ROOT/containers/
//! ROOT/caches/       cache mounts          ROOT/builds/   what each build printed
//! ROOT/volumes/      volumes               ROOT/reserve/  given up when the disk is full
//! ```

mod reserve;
mod schema;
mod sync;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::blob::BlobFetch;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::lease::{Lease, living, without_readers};
use crate::lock::Locked;
use crate::snapshot::Marks;

pub use crate::snapshot::ActiveLayer;
pub(crate) use schema::{forget_lost, list};

/// How long a statement waits for another process' transaction, and anybody for a lock that others have for a moment.
pub(crate) const BUSY: Duration = Duration::from_secs(30);

/// A handle to an open store; clones share it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    dir: OwnedFd,
    db: Mutex<Connection>,
    boot: String,
    lease: Mutex<std::sync::Weak<crate::lease::Held>>,
    remote: OnceLock<Arc<dyn BlobFetch>>,
    marks: OnceLock<Marks>,
    cancel: Cancel,
}

const SUBDIRECTORIES: [&str; 8] =
    ["blobs", "layers", "leases", "locks", "tmp", "stubs", "containers", "builds"];

impl Store {
    /// Opens the store at `path`, making it (mode 0700) if there is none.
    ///
    /// # Errors
    /// When the directory can't be made or written, or holds a store of another version.
    pub fn open(path: &Path) -> Result<Store> {
        // Where there is no procfs, as in an empty chroot, a process counts as in a boot without a name.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Store::open_in_boot(path, boot.trim())
    }

    /// As [`Store::open`], in a boot of the given name: lets a test see what a power cut leaves.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_in_boot(path: &Path, boot: &str) -> Result<Store> {
        let dir = open_directory(path)?;
        // The change to write-ahead logging does not wait for another process that does the same at that moment.
        let cancel = Cancel::new()?;
        let lock = Locked::soon(&dir, FlockOperation::NonBlockingLockExclusive, path, &cancel)?;
        let mut db = connect(&path.join("db"))?;
        match schema::prepare(&mut db, boot) {
            // The first command of a boot has something to forget, which may be one that is to remove something.
            Err(full) if full.kind() == Some(std::io::ErrorKind::StorageFull) => {
                reserve::give(&dir, path)?;
                schema::prepare(&mut db, boot)?;
            }
            other => other?,
        }
        drop(lock);
        Ok(Store(Arc::new(Inner {
            path: path.to_owned(),
            dir,
            db: Mutex::new(db),
            boot: boot.to_owned(),
            lease: Mutex::default(),
            remote: OnceLock::new(),
            marks: OnceLock::new(),
            cancel,
        })))
    }

    /// The store's own directory, for messages.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Ends what this store waits for, or does for long without being told of another token.
    pub fn cancel(&self) -> &Cancel {
        &self.0.cancel
    }

    /// Where layers that are not here are fetched from. Only the first call counts.
    pub fn set_remote(&self, remote: Arc<dyn BlobFetch>) {
        let _ = self.0.remote.set(remote);
    }

    pub(crate) fn remote(&self) -> Option<&Arc<dyn BlobFetch>> {
        self.0.remote.get()
    }

    /// The marks that new layers get, found out once by making one in `empty`.
    pub(crate) fn marks(&self, empty: BorrowedFd<'_>) -> Marks {
        let known = self.0.marks.get().copied();
        known
            .or_else(|| Marks::possible(empty).map(|marks| *self.0.marks.get_or_init(|| marks)))
            .unwrap_or(Marks::Overlay)
    }

    /// The directory that sub-paths (`layers/x`) are relative to.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.0.dir.as_fd()
    }

    /// The boot this store was opened in: the mark of rows that are not durable yet.
    pub(crate) fn boot(&self) -> &str {
        &self.0.boot
    }

    pub(crate) fn db(&self) -> MutexGuard<'_, Connection> {
        self.0.db.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Runs `work` in one write transaction; an error undoes it. The layers that it takes are held from then on.
    pub(crate) fn write<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.transact(&mut self.db(), TransactionBehavior::Immediate, doing, work)
    }

    /// The same for `work` that only reads, and takes what it finds: no layer is collected meanwhile, and nothing is
    /// written to the database, of which every later command would have to read the log.
    pub(crate) fn take<T>(
        &self,
        doing: &'static str,
        lease: &Lease,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut db = self.db();
        let _shared = lease.lock(FlockOperation::NonBlockingLockShared, self)?;
        self.transact(&mut db, TransactionBehavior::Deferred, doing, work)
    }

    /// As [`Store::write`], for `work` that removes layers, but for those that living processes hold, which it is told;
    /// with `all`, this process counts.
    pub(crate) fn forget<T>(
        &self,
        doing: &'static str,
        all: bool,
        work: impl FnOnce(&Transaction<'_>, &BTreeSet<i64>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let lease = self.lease()?;
        let mut db = self.db();
        // Before the transaction begins: who takes layers may wait for its end.
        let _alone = lease.lock(FlockOperation::NonBlockingLockExclusive, self)?;
        let without_readers = without_readers(self)?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(Error::db(doing))?;
        let holders = living(self)?.into_iter().filter(|(holder, _)| all || holder != lease.name());
        let mut held: BTreeSet<i64> = holders.flat_map(|(_, layers)| layers).collect();
        if without_readers.is_none() {
            held.extend(schema::all_layers(&tx).map_err(Error::db(doing))?);
        }
        let result = work(&tx, &held).map_err(Error::db(doing))?;
        tx.commit().map_err(Error::db(doing))?;
        Ok(result)
    }

    fn transact<T>(
        &self,
        db: &mut Connection,
        behavior: TransactionBehavior,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let tx = db.transaction_with_behavior(behavior).map_err(Error::db(doing))?;
        let result = work(&tx).map_err(Error::db(doing))?;
        let held = self.0.lease.lock().unwrap_or_else(|e| e.into_inner()).upgrade();
        held.map_or(Ok(()), |held| held.write())?;
        tx.commit().map_err(Error::db(doing))?;
        Ok(result)
    }

    /// What is in a directory of the store; none of ours has a name that is no text.
    pub(crate) fn names_in(&self, directory: &str) -> Result<Vec<String>> {
        let io = |errno| Error::io("listing", self.path().join(directory))(errno);
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let open = rustix::fs::openat(self.dir(), directory, flags, Mode::empty()).map_err(io)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(open).map_err(io)? {
            let entry = entry.map_err(io)?;
            names.extend(
                entry.file_name().to_str().ok().filter(|n| !matches!(*n, "." | "..")).map(str::to_owned),
            );
        }
        Ok(names)
    }

    /// This process' lease, made when it is first needed and given back when nothing holds it any more.
    pub(crate) fn lease(&self) -> Result<Lease> {
        let mut slot = self.0.lease.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(held) = slot.upgrade() {
            return Ok(Lease::of(held));
        }
        let lease = Lease::acquire(self)?;
        *slot = lease.downgrade();
        Ok(lease)
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

/// A name that no other process uses: 16 hexadecimal digits from the kernel.
///
/// # Errors
/// When the kernel has no random bytes.
pub fn unique_name() -> Result<String> {
    let mut bytes = [0u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(Error::io("reading random bytes from", "getrandom"))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let doing = "opening the store";
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(dir)
            if SUBDIRECTORIES.iter().all(|s| {
                rustix::fs::accessat(&dir, *s, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty())
                    .is_ok()
            }) =>
        {
            return Ok(dir);
        }
        Ok(_) | Err(rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(Error::io(doing, path)(e)),
    }
    use std::os::unix::fs::DirBuilderExt as _;
    // Files of images keep their set-user-id bits: no other user may reach them (R5).
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(Error::io("making the store", path))?;
    let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io(doing, path))?;
    for name in SUBDIRECTORIES {
        match rustix::fs::mkdirat(&dir, name, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(Error::io("making", path.join(name))(e)),
        }
    }
    Ok(dir)
}

fn connect(path: &Path) -> Result<Connection> {
    let doing = "opening";
    // Each handle stays behind one mutex, so SQLite's own is not needed.
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(Error::db(doing))?;
    db.busy_timeout(BUSY).map_err(Error::db(doing))?;
    // Write-ahead logging needs shared memory, which network file systems lack: SQLite then stays with its old journal.
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")
        .map_err(Error::db(doing))?;
    // A checkpoint writes and syncs: not something each short command should do on its way out.
    db.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(Error::db(doing))?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(db)
}
