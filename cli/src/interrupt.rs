//! Ctrl-C and its like raise the engine's [`Cancel`]: whatever is being done ends in order, and leaves nothing half done.

use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use boxwright_cache::Cancel;
use boxwright_executor::{Pending, Signals};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::error::Result;

/// The last of them that came; zero is none.
static CAME: AtomicI32 = AtomicI32::new(0);

/// What they raise while a command's work is watched.
static TOKEN: OnceLock<Cancel> = OnceLock::new();

/// Those that ask for an end.
const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// Does `work` while a thread waits for signals.
pub(crate) fn watched<T>(signals: &Signals, cancel: &Cancel, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = Cancel::new()?;
    TOKEN.get_or_init(|| cancel.clone());
    std::thread::scope(|scope| {
        scope.spawn(|| watch(signals.pending(), cancel, &done));
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

/// Looks for signals from when something begins that may take long, until this ends: what is never long costs no thread.
pub(crate) struct Watch(Arc<Mutex<Watching>>);

enum Watching {
    NotYet,
    By { thread: JoinHandle<()>, done: Cancel },
    NoMore,
}

impl Watch {
    pub(crate) fn when_long(signals: &Signals, cancel: &Cancel) -> Watch {
        let (state, pending) = (Arc::new(Mutex::new(Watching::NotYet)), signals.pending().clone());
        let watching = Arc::clone(&state);
        cancel.when_long(move |cancel| begin(&mut lock(&watching), &pending, cancel));
        Watch(state)
    }

    /// From now on signals are somebody else's. What came before has raised the token by then.
    pub(crate) fn end(&self) {
        let watching = std::mem::replace(&mut *lock(&self.0), Watching::NoMore);
        if let Watching::By { thread, done } = watching {
            done.raise();
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Without a thread, or a descriptor for it, what is long goes on to its end.
fn begin(state: &mut Watching, pending: &Pending, cancel: &Cancel) {
    let Watching::NotYet = &*state else { return };
    let Ok(done) = Cancel::new() else { return };
    let (pending, cancel, ended) = (pending.clone(), cancel.clone(), done.clone());
    let thread = std::thread::Builder::new().name("signals".to_owned());
    if let Ok(thread) = thread.spawn(move || watch(&pending, &cancel, &ended)) {
        *state = Watching::By { thread, done };
    }
}

fn lock(state: &Mutex<Watching>) -> MutexGuard<'_, Watching> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn watch(signals: &Pending, cancel: &Cancel, done: &Cancel) {
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
pub(crate) fn is_asked_to_end(signals: &Pending) -> bool {
    let asked = signals.take().into_iter().find(|n| ENDING.iter().any(|signal| signal.as_raw() == *n));
    if let Some(number) = asked {
        CAME.store(number, Ordering::Relaxed);
    }
    asked.is_some()
}

/// What is raised when this process is asked to end; none if that ends it at once.
pub(crate) fn token() -> Option<&'static Cancel> {
    TOKEN.get()
}

/// The number of the signal that this process was asked to end by.
pub(crate) fn cause() -> Option<u8> {
    u8::try_from(CAME.load(Ordering::Relaxed)).ok().filter(|number| *number > 0)
}
