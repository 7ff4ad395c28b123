//! Bodies on their way, uploads and answers, and a watch over both: a transfer may take long, but not stand still.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use reqwest::{Body, Response};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::reason::reason_of;

/// So much of it waits at most to be sent.
pub(super) const CHUNK: usize = 256 << 10;
/// A transfer that brings less in the time that a server may be silent has all but stopped.
pub(super) const PROGRESS: u64 = 64 << 10;

/// When a part of a body last left, or its end.
#[derive(Clone)]
pub(super) struct Moved(Arc<Mutex<Instant>>);

impl Moved {
    pub(super) fn now() -> Moved {
        Moved(Arc::new(Mutex::new(Instant::now())))
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A body of what comes out of a queue.
pub(super) fn streamed(chunks: mpsc::Receiver<Vec<u8>>) -> (Body, Moved) {
    let moved = Moved::now();
    (Body::wrap_stream(Queue { chunks, moved: moved.clone() }), moved)
}

/// A body of the bytes from `start` on, which are all there. Only what is just being sent is copied.
pub(super) fn rest(bytes: &Arc<Vec<u8>>, start: usize) -> (Body, Moved) {
    let moved = Moved::now();
    (Body::wrap_stream(Rest { bytes: Arc::clone(bytes), start, moved: moved.clone() }), moved)
}

/// The result of `sending`, or nothing when neither a byte left nor the answer came for `idle`.
pub(super) async fn moving<T>(idle: Duration, moved: Moved, sending: impl Future<Output = T>) -> Option<T> {
    let mut sending = pin!(sending);
    loop {
        let last = moved.last();
        match timeout_at(last + idle, sending.as_mut()).await {
            Ok(result) => return Some(result),
            Err(_) if moved.last() > last => {}
            Err(_) => return None,
        }
    }
}

struct Queue {
    chunks: mpsc::Receiver<Vec<u8>>,
    moved: Moved,
}

impl futures_core::Stream for Queue {
    type Item = Result<Vec<u8>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = ready!(self.chunks.poll_recv(cx));
        self.moved.note();
        Poll::Ready(chunk.map(Ok))
    }
}

struct Rest {
    bytes: Arc<Vec<u8>>,
    start: usize,
    moved: Moved,
}

impl futures_core::Stream for Rest {
    type Item = Result<Vec<u8>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.moved.note();
        let chunk = self.bytes[self.start..].chunks(CHUNK).next().map(<[u8]>::to_vec);
        self.start += chunk.as_ref().map_or(0, Vec::len);
        Poll::Ready(chunk.map(Ok))
    }
}

/// The body of an answer, as it comes.
pub(super) struct Incoming {
    response: Response,
    idle: Duration,
    /// Since it last moved on: how long the server was waited for, and what it brought.
    waited: Duration,
    brought: u64,
}

impl Incoming {
    pub(super) fn new(response: Response, idle: Duration) -> Incoming {
        Incoming { response, idle, waited: Duration::ZERO, brought: 0 }
    }

    /// What comes next, nothing at the end, or why no more will come.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        let asked = Instant::now();
        let chunk = match timeout(self.idle, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) => Vec::from(chunk),
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(e)) => return Err(reason_of(e)),
            Err(_) => return Err("the transfer stopped in the middle".to_owned()),
        };
        self.waited += asked.elapsed();
        self.brought += chunk.len() as u64;
        if self.brought >= PROGRESS {
            (self.waited, self.brought) = (Duration::ZERO, 0);
        } else if self.waited > self.idle {
            return Err("the transfer has all but stopped".to_owned());
        }
        Ok(Some(chunk))
    }
}
