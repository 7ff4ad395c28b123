//! The body of an upload, as it comes out of a queue, and a watch over it: a transfer may take long, but not stand still.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use reqwest::Body;
use tokio::sync::{mpsc, watch};

/// So much of it waits at most to be sent.
pub(super) const CHUNK: usize = 256 << 10;

/// A body, and what tells when a part of it has left.
pub(super) fn streamed(chunks: mpsc::Receiver<Vec<u8>>) -> (Body, watch::Receiver<()>) {
    let (progress, moved) = watch::channel(());
    (Body::wrap_stream(Queue { chunks, progress }), moved)
}

/// The same for bytes that are all there.
pub(super) fn whole(bytes: &[u8]) -> (Body, watch::Receiver<()>) {
    let (sender, chunks) = mpsc::channel(bytes.len().div_ceil(CHUNK).max(1));
    for chunk in bytes.chunks(CHUNK) {
        sender.try_send(chunk.to_vec()).expect("there is room for all");
    }
    streamed(chunks)
}

/// The result of `sending`, or nothing when neither a byte left nor the answer came for `idle`.
pub(super) async fn moving<T>(
    idle: Duration,
    mut moved: watch::Receiver<()>,
    sending: impl Future<Output = T>,
) -> Option<T> {
    let mut sending = pin!(sending);
    loop {
        match tokio::time::timeout(idle, sending.as_mut()).await {
            Ok(result) => return Some(result),
            Err(_) if moved.has_changed().unwrap_or(false) => moved.mark_unchanged(),
            Err(_) => return None,
        }
    }
}

/// Tells when a part of it has left.
struct Queue {
    chunks: mpsc::Receiver<Vec<u8>>,
    progress: watch::Sender<()>,
}

impl futures_core::Stream for Queue {
    type Item = Result<Vec<u8>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.chunks.poll_recv(cx);
        if next.is_ready() {
            self.progress.send_replace(());
        }
        next.map(|chunk| chunk.map(Ok))
    }
}
