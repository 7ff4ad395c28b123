//! Signals that are to reach the container instead of us.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sys::signal::{SIGNAL_RECORD, Set, block, is_ignored, pass_on, set_mask, signal_of, signalfd};

/// Holds the usual signals back from this process, and hands them to [`crate::Container::wait`].
#[derive(Debug)]
pub struct Signals {
    pending: Pending,
    before: Set,
}

/// Those that came and were not taken, for whoever looks at them while the container is not there yet.
#[derive(Clone, Debug)]
pub struct Pending(Arc<OwnedFd>);

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
        boxwright_cache::programs::prepare_by(|command| {
            pass_on(command);
        });
        // What is blocked comes although it is ignored: under nohup the end of a session is to end nothing.
        let heeded =
            PASSED_ON.iter().copied().filter(|signal| *signal != libc::SIGHUP || !is_ignored(libc::SIGHUP));
        let set = Set::of(&heeded.collect::<Vec<_>>());
        let before = block(set).map_err(Error::io("blocking", "signals"))?;
        let fd = signalfd(set).map_err(Error::io("opening", "signalfd"))?;
        Ok(Signals { pending: Pending(Arc::new(fd)), before })
    }

    pub fn pending(&self) -> &Pending {
        &self.pending
    }
}

impl Pending {
    /// The numbers of those that came since the last time. The descriptor is readable while there are some.
    pub fn take(&self) -> Vec<i32> {
        let mut record = [0; SIGNAL_RECORD];
        let mut taken = Vec::new();
        while rustix::io::read(&self.0, &mut record) == Ok(SIGNAL_RECORD) {
            taken.push(signal_of(&record));
        }
        taken
    }
}

impl AsFd for Pending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = set_mask(self.before);
    }
}
