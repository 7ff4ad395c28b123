//! Single flight between processes: one locked file per key. A holder that dies frees it; a wait can be cancelled. And locks
//! of directories that others have for a moment only, so that nobody waits for one without end.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::{BUSY, Store};

/// How long a waiter sleeps between two tries, in nanoseconds; a cancellation wakes it at once.
const RETRY: i64 = 5_000_000;
/// The same where the holder is about to let go.
const RETRY_SOON: i64 = 500_000;

/// Held until dropped.
#[derive(Debug)]
pub struct KeyLock {
    file: OwnedFd,
    locks: OwnedFd,
    name: String,
}

impl Store {
    /// Waits until this process alone makes `key` (any text; it never becomes a path). `kind` keeps keys of
    /// different things apart. The lock is of the open file: two threads exclude each other as well.
    ///
    /// # Errors
    /// [`Error::Cancelled`], or when the lock file can't be made.
    pub fn lock(&self, kind: &str, key: &str, cancel: &Cancel) -> Result<KeyLock> {
        let name = format!("{kind}-{}", &Digest::of(key.as_bytes()).hex()[..32]);
        let path = self.path().join("locks").join(&name);
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let locks = rustix::fs::openat(self.dir(), "locks", flags, Mode::empty())
            .map_err(Error::io("opening", self.path().join("locks")))?;
        loop {
            cancel.check()?;
            let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&locks, &name, flags, Mode::RUSR | Mode::WUSR)
                .map_err(Error::io("making lock", &path))?;
            match rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
                // The holder before may have removed the file between our opening and locking it.
                Ok(()) if is_named(&file)? => return Ok(KeyLock { file, locks, name }),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => wait(cancel)?,
                Err(e) => return Err(Error::io("locking", &path)(e)),
            }
        }
    }
}

/// A lock of an open file or directory, until dropped.
#[derive(Debug)]
pub(crate) struct Locked<F: AsFd>(F);

impl<F: AsFd> Locked<F> {
    /// What nobody holds for long. `path` is what it is called in messages.
    pub(crate) fn soon(file: F, how: FlockOperation, path: &Path, cancel: &Cancel) -> Result<Locked<F>> {
        Locked::within(BUSY, file, how, path, cancel)
    }

    /// `how` is one of the operations that do not block.
    fn within(
        limit: Duration,
        file: F,
        how: FlockOperation,
        path: &Path,
        cancel: &Cancel,
    ) -> Result<Locked<F>> {
        let until = Instant::now() + limit;
        loop {
            if try_lock(&file, how, path)? {
                return Ok(Locked(file));
            }
            if Instant::now() >= until {
                let (path, limit) = (path.display(), limit.as_secs());
                let holder = format!("another process has held the lock of {path} for {limit} seconds");
                return Err(Error::InUse(format!("{holder}; 'fuser -v {path}' names it")));
            }
            pause(RETRY_SOON, cancel)?;
        }
    }

    /// None where somebody else has it.
    pub(crate) fn now(file: F, how: FlockOperation, path: &Path) -> Result<Option<Locked<F>>> {
        Ok(try_lock(&file, how, path)?.then_some(Locked(file)))
    }
}

impl<F: AsFd> Drop for Locked<F> {
    /// Not left to the last descriptor: a process that was just cloned may have another one.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

fn try_lock(file: impl AsFd, how: FlockOperation, path: &Path) -> Result<bool> {
    match rustix::io::retry_on_intr(|| rustix::fs::flock(&file, how)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(Error::io("locking", path)(errno)),
    }
}

pub(crate) fn wait(cancel: &Cancel) -> Result<()> {
    pause(RETRY, cancel)
}

fn pause(nanoseconds: i64, cancel: &Cancel) -> Result<()> {
    cancel.begin_long();
    let timeout = Timespec { tv_sec: 0, tv_nsec: nanoseconds };
    match poll(&mut [PollFd::new(cancel, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => cancel.check(),
        Err(e) => Err(Error::io("waiting for", "a lock")(e)),
    }
}

fn is_named(file: &OwnedFd) -> Result<bool> {
    let stat = rustix::fs::fstat(file).map_err(Error::io("reading the state of", "a lock"))?;
    Ok(stat.st_nlink > 0)
}

impl Drop for KeyLock {
    /// Removes the name while the lock is still held, so that a waiter who gets the old file sees that it is nameless.
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.locks, &self.name, AtFlags::empty());
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_without_end_or_when_it_is_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let open = || std::fs::File::open(dir.path()).unwrap();
        let (how, cancel) = (FlockOperation::NonBlockingLockExclusive, Cancel::new().unwrap());
        let held = Locked::soon(open(), how, dir.path(), &cancel).unwrap();
        let second = || Locked::within(Duration::from_millis(5), open(), how, dir.path(), &cancel);
        let error = second().unwrap_err().to_string();
        assert!(error.contains(dir.path().to_str().unwrap()) && error.contains("another process"), "{error}");
        cancel.raise();
        let waiting = Locked::soon(open(), how, dir.path(), &cancel);
        assert!(matches!(waiting, Err(Error::Cancelled)), "{waiting:?}");
        drop(held);
        second().unwrap();
    }
}
