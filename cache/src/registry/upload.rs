//! Pushing: a blob in one piece after a POST that opens the upload (distribution-spec, "POST then PUT"), or in several where
//! that breaks; and manifests. The caller's thread reads the bytes, the network thread sends them.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use tokio::sync::mpsc;

use super::auth::Actions;
use super::body::{CHUNK, streamed};
use super::pieces;
use super::runtime::Runtime;
use super::session::{Failed, Opened, Session};
use super::transport::Transport;
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::manifest::MAX_DOCUMENT;
use crate::oci::{Descriptor, Reference};

/// Gives the bytes of a blob from their start.
#[expect(unreachable_pub, reason = "part of a public signature of the client")]
pub type Open<'a> = dyn FnMut() -> Result<Box<dyn Read + Send>> + 'a;

/// How a blob got to its repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It was there.
    Present,
    /// The registry took it from this repository of its own.
    Mounted(String),
    Uploaded,
}

const MAX_TRIES: u32 = 5;
const QUEUE: usize = 4;

/// A blob on its way.
pub(super) struct Job<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) transport: &'a Arc<Transport>,
    pub(super) reference: &'a Reference,
    pub(super) blob: &'a Descriptor,
    pub(super) cancel: &'a Cancel,
}

/// Sends the blob, or has it mounted from the repository `from` of the same registry.
pub(super) fn push(job: &Job<'_>, from: Option<&str>, open: &mut Open<'_>) -> Result<Sent> {
    let (mut from, mut pieces) = (from, job.blob.size > pieces::LEAST_PIECE as u64);
    for tries in 1.. {
        let session = match job.open(from)? {
            Opened::Mounted => return Ok(Sent::Mounted(from.unwrap_or_default().to_owned())),
            Opened::Session(session) => session,
        };
        from = None;
        let failed = match send_whole(job, session, open)? {
            Ok(()) => return Ok(Sent::Uploaded),
            Err(failed) => failed,
        };
        let broken = matches!(
            failed,
            Failed::Broken(_) | Failed::Refused { status: StatusCode::PAYLOAD_TOO_LARGE, .. }
        );
        if pieces && broken {
            if pieces::push(job, open)? {
                return Ok(Sent::Uploaded);
            }
            pieces = false;
        }
        let pause = match failed {
            Failed::Refused { again: Some(pause), .. } if tries < MAX_TRIES => pause,
            Failed::Broken(_) if tries < MAX_TRIES => None,
            failed => return Err(failed.into_error()),
        };
        let pause = pause.unwrap_or(Duration::from_millis(200 << tries));
        job.runtime.call(job.cancel, async move {
            tokio::time::sleep(pause).await;
            Ok(())
        })?;
    }
    unreachable!("the last try returns")
}

impl Job<'_> {
    pub(super) fn open(&self, from: Option<&str>) -> Result<Opened> {
        let (transport, from) = (Arc::clone(self.transport), from.map(str::to_owned));
        let (reference, blob) = (self.reference.clone(), self.blob.clone());
        self.runtime.call(self.cancel, async move { Session::open(transport, &reference, &blob, from).await })
    }

    /// Whether the repository has the blob.
    pub(super) fn is_there(&self) -> Result<bool> {
        let (transport, reference) = (Arc::clone(self.transport), self.reference.clone());
        let digest = self.blob.digest;
        let found = self.runtime.call(self.cancel, async move {
            let doing = format!("looking for blob {digest} of {}", reference.familiar_name());
            let path = format!("blobs/{digest}");
            // Asked for by whoever is about to push, so that one token serves it all.
            transport.send(&transport.ask(&reference, Method::HEAD, Actions::Push, &path, doing).await?).await
        });
        match found {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    pub(super) fn expect_digest(&self, actual: Digest) -> Result<()> {
        let expected = self.blob.digest;
        if actual == expected {
            Ok(())
        } else {
            Err(mismatch(self.blob, expected.to_string(), actual.to_string()))
        }
    }
}

/// The error is one of ours, or of the source; the inner one is the server's.
fn send_whole(job: &Job<'_>, session: Session, open: &mut Open<'_>) -> Result<Result<(), Failed>> {
    let source = open()?;
    let (chunks, queue) = mpsc::channel(QUEUE);
    std::thread::scope(|scope| {
        let feeder = scope.spawn(move || feed(job, source, &chunks));
        let outcome = job.runtime.call(job.cancel, async move { Ok(session.put(streamed(queue)).await) });
        let fed = feeder.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // What is wrong with the source matters more than how its upload ended.
        fed.and(outcome)
    })
}

/// Reads `source` into the queue, as long as somebody takes it, and verifies it on the way.
fn feed(job: &Job<'_>, mut source: Box<dyn Read + Send>, queue: &mpsc::Sender<Vec<u8>>) -> Result<()> {
    let mut hasher = job.blob.digest.algorithm().hasher();
    let mut read = 0;
    while read < job.blob.size {
        let chunk = read_part(&mut source, job.blob, read, CHUNK)?;
        read += chunk.len() as u64;
        hasher.update(&chunk);
        if queue.blocking_send(chunk).is_err() {
            return Ok(());
        }
    }
    job.expect_digest(hasher.finish())
}

/// The next `most` bytes of a blob of which `before` were read, or what is left of it.
pub(super) fn read_part(
    source: &mut dyn Read,
    blob: &Descriptor,
    before: u64,
    most: usize,
) -> Result<Vec<u8>> {
    let wanted = (blob.size - before).min(most as u64);
    let mut part = Vec::with_capacity(usize::try_from(wanted).unwrap_or(most));
    source.take(wanted).read_to_end(&mut part).map_err(Error::io("reading blob", blob.digest.to_string()))?;
    if part.len() as u64 == wanted {
        return Ok(part);
    }
    let actual = before + part.len() as u64;
    Err(mismatch(blob, format!("{} bytes", blob.size), format!("{actual} bytes")))
}

fn mismatch(blob: &Descriptor, expected: String, actual: String) -> Error {
    Error::Mismatch { what: format!("blob {} to be pushed", blob.digest), expected, actual }
}

/// Says whether the registry took note of what the manifest refers to.
pub(super) async fn put_manifest(
    transport: Arc<Transport>,
    reference: Reference,
    media_type: String,
    bytes: Vec<u8>,
    digest: Digest,
) -> Result<bool> {
    let name = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
    let doing = format!("pushing the manifest of {}", reference.familiar());
    let path = format!("manifests/{name}");
    let mut ask = transport.ask(&reference, Method::PUT, Actions::Push, &path, doing).await?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        let size = bytes.len();
        return Err(ask.error(format!("it has {size} bytes, and registries take {MAX_DOCUMENT} at most")));
    }
    ask.headers.push((CONTENT_TYPE, media_type));
    ask.body = bytes;
    Ok(transport.send(&ask).await?.headers().contains_key("oci-subject"))
}
