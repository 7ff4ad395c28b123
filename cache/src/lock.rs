//! Single flight between processes: one locked file per key. A holder that dies frees it; a wait can be cancelled.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::store::Store;

/// How long a waiter sleeps between two tries, in nanoseconds; a cancellation wakes it at once.
const RETRY: i64 = 5_000_000;

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

pub(crate) fn wait(cancel: &Cancel) -> Result<()> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: RETRY };
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
