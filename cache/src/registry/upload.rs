//! Pushing: a blob in one piece after a POST that opens the upload (distribution-spec, "POST then PUT"), and manifests.
//! The caller's thread reads the bytes, the network thread sends them; a broken transfer starts again.

use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method, StatusCode, Url};
use tokio::sync::mpsc;

use super::auth::Actions;
use super::runtime::Runtime;
use super::transport::{Ask, Transport, location, reason_of};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Reference};

/// Gives the bytes of a blob from their start.
#[expect(unreachable_pub, reason = "part of a public signature of the client")]
pub type Open<'a> = dyn FnMut() -> Result<Box<dyn Read + Send>> + 'a;

const MAX_TRIES: u32 = 4;
const CHUNK: usize = 256 << 10;
const QUEUE: usize = 4;

pub(super) fn push(
    runtime: &Runtime,
    transport: &Arc<Transport>,
    reference: &Reference,
    blob: &Descriptor,
    open: &mut Open<'_>,
    cancel: &Cancel,
) -> Result<()> {
    let (mut tries, mut pause) = (1, Duration::ZERO);
    loop {
        let source = open()?;
        let (chunks, queue) = mpsc::channel(QUEUE);
        let (transport, reference) = (Arc::clone(transport), reference.clone());
        let sent = Upload { transport, reference, blob: blob.clone(), pause };
        let failure = std::thread::scope(|scope| {
            let feeder = scope.spawn(move || feed(source, blob, &chunks));
            let outcome = runtime.call(cancel, async move { Ok(sent.run(queue).await) });
            let fed = feeder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // What is wrong with the source matters more than how its upload ended.
            fed.and(outcome)
        })?;
        match failure {
            None => return Ok(()),
            Some(failure) if !failure.passing || tries == MAX_TRIES => return Err(failure.error),
            Some(_) => (tries, pause) = (tries + 1, Duration::from_millis(200 << tries)),
        }
    }
}

/// Reads `source` into the queue, as long as somebody takes it, and verifies it on the way.
fn feed(mut source: Box<dyn Read + Send>, blob: &Descriptor, queue: &mpsc::Sender<Vec<u8>>) -> Result<()> {
    let mut hasher = blob.digest.algorithm().hasher();
    let mut left = blob.size;
    while left > 0 {
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut part = (&mut source).take(left.min(CHUNK as u64));
        part.read_to_end(&mut chunk).map_err(Error::io("reading blob", blob.digest.to_string()))?;
        if chunk.is_empty() {
            let actual = format!("{} bytes", blob.size - left);
            return Err(mismatch(blob, format!("{} bytes", blob.size), actual));
        }
        left -= chunk.len() as u64;
        hasher.update(&chunk);
        if queue.blocking_send(chunk).is_err() {
            return Ok(());
        }
    }
    let actual = hasher.finish();
    if actual == blob.digest {
        Ok(())
    } else {
        Err(mismatch(blob, blob.digest.to_string(), actual.to_string()))
    }
}

fn mismatch(blob: &Descriptor, expected: String, actual: String) -> Error {
    Error::Mismatch { what: format!("blob {} to be pushed", blob.digest), expected, actual }
}

struct Failed {
    error: Error,
    /// Whether another try makes sense.
    passing: bool,
}

struct Upload {
    transport: Arc<Transport>,
    reference: Reference,
    blob: Descriptor,
    /// Before it starts.
    pause: Duration,
}

impl Upload {
    async fn run(self, queue: mpsc::Receiver<Vec<u8>>) -> Option<Failed> {
        tokio::time::sleep(self.pause).await;
        let opened = self.open().await;
        let (ask, url) = match opened {
            Ok(opened) => opened,
            // The opening request has had its own tries.
            Err(error) => return Some(Failed { error, passing: false }),
        };
        self.put(&ask, url, queue).await.err()
    }

    /// Opens an upload; gives where to send the bytes to.
    async fn open(&self) -> Result<(Ask, Url)> {
        let doing = format!("pushing blob {}", self.blob.digest);
        let mut ask =
            self.transport.ask(&self.reference, Method::POST, Actions::Push, "blobs/uploads/", doing).await?;
        ask.thing = ("repository", self.reference.familiar_name());
        ask.headers.push((CONTENT_LENGTH, "0".to_owned()));
        let response = self.transport.send(&ask).await?;
        let mut url = location(&ask, &response)?;
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        Ok((ask, url))
    }

    async fn put(&self, ask: &Ask, url: Url, queue: mpsc::Receiver<Vec<u8>>) -> Result<(), Failed> {
        let fatal = |error| Failed { error, passing: false };
        let client = self.transport.upload_client(ask, &url).map_err(fatal)?;
        let mut request = client
            .put(url.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, self.blob.size);
        if let Some(value) = self.transport.authorization(ask, &url).map_err(fatal)? {
            request = request.header(AUTHORIZATION, value);
        }
        let (progress, moved) = tokio::sync::watch::channel(());
        let body = Body::wrap_stream(Queue { chunks: queue, progress });
        let response = match self.moving(moved, request.body(body).send()).await {
            Some(Ok(response)) => response,
            Some(Err(e)) => return Err(Failed { error: ask.error(reason_of(e)), passing: true }),
            None => {
                return Err(Failed { error: ask.error("the transfer stopped in the middle"), passing: true });
            }
        };
        let passing =
            response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS;
        self.transport.accept(ask, response).await.map(drop).map_err(|error| Failed { error, passing })
    }

    /// The result of `sending`, or nothing when neither a byte left nor the answer came for too long.
    async fn moving<T>(
        &self,
        mut moved: tokio::sync::watch::Receiver<()>,
        sending: impl Future<Output = T>,
    ) -> Option<T> {
        let idle: Duration = self.transport.idle_timeout();
        let mut sending = std::pin::pin!(sending);
        loop {
            match tokio::time::timeout(idle, sending.as_mut()).await {
                Ok(result) => return Some(result),
                Err(_) if moved.has_changed().unwrap_or(false) => moved.mark_unchanged(),
                Err(_) => return None,
            }
        }
    }
}

/// The queue as a request's body; tells when a part of it has left.
struct Queue {
    chunks: mpsc::Receiver<Vec<u8>>,
    progress: tokio::sync::watch::Sender<()>,
}

impl futures_core::Stream for Queue {
    type Item = Result<Vec<u8>, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.chunks.poll_recv(cx);
        if next.is_ready() {
            self.progress.send_replace(());
        }
        next.map(|chunk| chunk.map(Ok))
    }
}

pub(super) async fn put_manifest(
    transport: Arc<Transport>,
    reference: Reference,
    media_type: String,
    bytes: Vec<u8>,
    digest: Digest,
) -> Result<()> {
    let name = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
    let doing = format!("pushing the manifest of {}", reference.familiar());
    let path = format!("manifests/{name}");
    let mut ask = transport.ask(&reference, Method::PUT, Actions::Push, &path, doing).await?;
    ask.headers.push((CONTENT_TYPE, media_type));
    ask.body = bytes;
    transport.send(&ask).await.map(drop)
}
