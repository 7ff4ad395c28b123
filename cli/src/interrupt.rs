//! Ctrl-C and its like raise the engine's [`Cancel`]: whatever is being done ends in order, and leaves nothing half done.

use std::sync::atomic::{AtomicI32, Ordering};

use boxwright_cache::Cancel;
use boxwright_executor::Signals;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::error::Result;

/// The last of them that came; zero is none.
static CAME: AtomicI32 = AtomicI32::new(0);

/// Those that ask for an end.
const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// Does `work` while a thread waits for signals.
pub(crate) fn watched<T>(signals: &Signals, cancel: &Cancel, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = Cancel::new()?;
    std::thread::scope(|scope| {
        scope.spawn(|| watch(signals, cancel, &done));
        // Also when `work` panics, or the scope would wait for ever.
        let _end = RaiseAtEnd(&done);
        work()
    })
}

struct RaiseAtEnd<'a>(&'a Cancel);

impl Drop for RaiseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.raise();
    }
}

fn watch(signals: &Signals, cancel: &Cancel, done: &Cancel) {
    while !done.is_raised() {
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(done, PollFlags::IN)];
        // An interrupted wait is repeated; there is no other way in which this one fails.
        let _ = poll(&mut fds, None);
        if is_asked_to_end(signals) {
            cancel.raise();
        }
    }
}

/// Whether such a signal has come since the last time.
pub(crate) fn is_asked_to_end(signals: &Signals) -> bool {
    let asked = signals.take().into_iter().find(|n| ENDING.iter().any(|signal| signal.as_raw() == *n));
    if let Some(number) = asked {
        CAME.store(number, Ordering::Relaxed);
    }
    asked.is_some()
}

/// The number of the signal that this process was asked to end by.
pub(crate) fn cause() -> Option<u8> {
    u8::try_from(CAME.load(Ordering::Relaxed)).ok().filter(|number| *number > 0)
}
