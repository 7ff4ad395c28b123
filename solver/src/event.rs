//! What happens during a solve, for progress and reports. Closed, ordered, only ever consumed; what steps print waits for
//! that.

use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use boxwright_cache::Cancel;
use boxwright_cache::record::{CacheKey, FileChanges};

use crate::How;
use crate::ir::VertexId;
use crate::key::KeyFields;
use crate::ops::file::Ballast;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
    /// No output of the step: what whoever runs it has to say of how it ran.
    Notice,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// The vertices that the outputs need, in the order they are shown.
    Planned {
        vertices: Vec<VertexId>,
    },
    /// All sources are pinned: this is the key of one of the vertices that were planned.
    Keyed {
        vertex: VertexId,
        key: CacheKey,
        fields: KeyFields,
        /// Of a directory of the host: what differs from the build before.
        files: Option<FileChanges>,
    },
    Started {
        vertex: VertexId,
        at: SystemTime,
    },
    /// A directory of the host is large because of something that need not be read.
    Ballast {
        vertex: VertexId,
        ballast: Ballast,
    },
    /// Found in the cache, or here anyway; nothing ran.
    Cached {
        vertex: VertexId,
        how: How,
        /// The cache of another machine that had it.
        origin: Option<String>,
    },
    /// What another machine promised can't be had: the build goes on without that.
    Lost {
        message: String,
    },
    /// Output of the step's process; whole, in order, not split at line ends.
    Log {
        vertex: VertexId,
        stream: LogStream,
        bytes: Vec<u8>,
    },
    Finished {
        vertex: VertexId,
        took: Duration,
        how: How,
    },
    /// The step failed; `message` is the error's own text.
    Failed {
        vertex: VertexId,
        took: Duration,
        message: String,
    },
    /// Stopped because another step failed or the user gave up.
    Canceled {
        vertex: VertexId,
    },
}

/// How much of what steps print may wait to be shown.
const BACKLOG: usize = 1 << 20;
/// How long a step that is held goes on without a look at its cancellation, which a condition variable can't wait for.
const LOOK: Duration = Duration::from_millis(50);

/// Where events go. A receiver that is gone is not an error.
#[derive(Clone, Debug)]
pub struct Events {
    sender: Sender<Event>,
    backlog: Arc<Backlog>,
}

/// What was sent, in that order. What a step printed counts as shown when the event after it is asked for.
#[derive(Debug)]
pub struct Received {
    receiver: Receiver<Event>,
    backlog: Arc<Backlog>,
    shown: usize,
}

#[derive(Debug, Default)]
struct Backlog {
    waiting: Mutex<Waiting>,
    less: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: usize,
    /// There is nobody to wait for.
    unheard: bool,
}

pub fn channel() -> (Events, Received) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let backlog = Arc::<Backlog>::default();
    (Events { sender, backlog: Arc::clone(&backlog) }, Received { receiver, backlog, shown: 0 })
}

impl Events {
    /// Never blocks: these events are few and small.
    pub(crate) fn send(&self, event: Event) {
        let _ = self.sender.send(event);
    }

    /// Holds a step that prints faster than that is shown, or what waits would fill the memory. What a step prints that
    /// is being stopped is little, and goes on.
    pub(crate) fn log(&self, vertex: VertexId, stream: LogStream, bytes: &[u8], cancel: &Cancel) {
        self.backlog.add(cost(bytes), cancel);
        self.send(Event::Log { vertex, stream, bytes: bytes.to_vec() });
    }
}

impl Iterator for Received {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.backlog.remove(std::mem::take(&mut self.shown));
        let event = self.receiver.recv().ok()?;
        if let Event::Log { bytes, .. } = &event {
            self.shown = cost(bytes);
        }
        Some(event)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.backlog.lock().unheard = true;
        self.backlog.less.notify_all();
    }
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, bytes: usize, cancel: &Cancel) {
        let mut waiting = self.lock();
        while waiting.bytes >= BACKLOG && !waiting.unheard && !cancel.is_raised() {
            waiting = self.less.wait_timeout(waiting, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.bytes += bytes;
    }

    fn remove(&self, bytes: usize) {
        if bytes > 0 {
            self.lock().bytes -= bytes;
            self.less.notify_all();
        }
    }
}

/// Many short pieces take more memory than their bytes.
fn cost(bytes: &[u8]) -> usize {
    size_of::<Event>() + bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{About, Definition, LocalSource, Op, SourceOp};

    static CHUNK: [u8; 64 << 10] = [b'y'; 64 << 10];

    fn vertex() -> VertexId {
        let op = Op::Source(SourceOp::Local(LocalSource::default()));
        Definition::default().add(op, About::default())
    }

    #[test]
    fn what_a_step_prints_waits_for_who_shows_it_and_other_events_do_not() {
        let (events, mut received) = channel();
        let (vertex, cancel) = (vertex(), Cancel::new().unwrap());
        std::thread::scope(|scope| {
            let (log, cancel) = (events.clone(), &cancel);
            let step = scope.spawn(move || {
                (0..100).for_each(|_| log.log(vertex, LogStream::Stdout, &CHUNK, cancel));
            });
            while events.backlog.lock().bytes < BACKLOG {
                std::thread::yield_now();
            }
            events.send(Event::Canceled { vertex });
            drop(events);
            let mut printed = 0;
            while let Some(event) = received.next() {
                let waiting = received.backlog.lock().bytes;
                assert!(waiting < BACKLOG + 2 * CHUNK.len(), "{waiting}");
                printed += usize::from(matches!(event, Event::Log { .. }));
            }
            assert_eq!(printed, 100, "nothing is lost");
            step.join().unwrap();
        });
    }

    #[test]
    fn a_step_that_is_stopped_or_that_nobody_hears_waits_no_longer() {
        let vertex = vertex();
        for stopped in [true, false] {
            let ((events, received), cancel) = (channel(), Cancel::new().unwrap());
            std::thread::scope(|scope| {
                let (log, cancel) = (events.clone(), &cancel);
                scope.spawn(move || {
                    (0..100).for_each(|_| log.log(vertex, LogStream::Stderr, &CHUNK, cancel));
                });
                while events.backlog.lock().bytes < BACKLOG {
                    std::thread::yield_now();
                }
                if stopped { cancel.raise() } else { drop(received) }
            });
        }
    }
}
