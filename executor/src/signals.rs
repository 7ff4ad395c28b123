//! Signals that are to reach the container instead of us.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};
use crate::sys::signal::{SIGNAL_RECORD, Set, block, set_mask, signal_of, signalfd};

/// Holds the usual signals back from this process, and hands them to [`crate::Container::wait`].
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    before: Set,
}

const PASSED_ON: &[i32] = &[
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCONT,
    libc::SIGWINCH,
    libc::SIGALRM,
];

impl Signals {
    /// To be called before any other thread is started: a thread that does not block them would still get them.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn hold() -> Result<Signals> {
        let set = Set::of(PASSED_ON);
        let before = block(set).map_err(Error::io("blocking", "signals"))?;
        let fd = signalfd(set).map_err(Error::io("opening", "signalfd"))?;
        Ok(Signals { fd, before })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The numbers of those that came since the last time. The descriptor is readable while there are some.
    pub fn take(&self) -> Vec<i32> {
        let mut record = [0; SIGNAL_RECORD];
        let mut taken = Vec::new();
        while rustix::io::read(&self.fd, &mut record) == Ok(SIGNAL_RECORD) {
            taken.push(signal_of(&record));
        }
        taken
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = set_mask(self.before);
    }
}
