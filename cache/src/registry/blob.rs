//! A blob as a reader: fetched by the network thread, resumed by range when the transfer breaks, verified while it
//! is read. Memory is bounded by the queue between the two.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;

use super::auth::Actions;
use super::body::{Incoming, PROGRESS};
use super::runtime::cancellable;
use super::transport::{Ask, Transport};
use super::{Client, Inner};
use crate::blob::{Verified, wrong_size};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::oci::{Descriptor, Reference};

/// Chunks that wait between the network and the reader, each of at most a few hundred KiB.
const QUEUE: usize = 8;
/// How often in a row a transfer may break without having moved on by `PROGRESS` bytes.
const MAX_BREAKS: u32 = 5;

/// Reads a blob; at its end, and only there, it is known to have had the right size and digest. Errors are
/// [`crate::Error`] inside an [`io::Error`].
#[derive(Debug)]
pub struct BlobReader(Verified<Chunks>);

/// What the network thread brings.
struct Chunks {
    queue: mpsc::Receiver<Result<Vec<u8>>>,
    chunk: io::Cursor<Vec<u8>>,
    /// The network thread ends with the last client.
    _client: Client,
}

pub(super) fn open(
    client: &Client,
    reference: &Reference,
    descriptor: &Descriptor,
    cancel: &Cancel,
) -> Result<BlobReader> {
    let Inner { transport, runtime } = client.0.as_ref();
    let (shared, reference, blob) = (Arc::clone(transport), reference.clone(), descriptor.clone());
    let (ask, response) = runtime.call(cancel, async move {
        let doing = format!("fetching blob {}", blob.digest);
        let path = format!("blobs/{}", blob.digest);
        let mut ask = shared.ask(&reference, Method::GET, Actions::Pull, &path, doing).await?;
        ask.thing = ("blob", format!("{} in {}", blob.digest, reference.familiar_name()));
        let response = shared.send(&ask).await?;
        match response.content_length().filter(|n| *n != blob.size) {
            Some(actual) => Err(wrong_size(&blob, actual)),
            None => Ok((ask, response)),
        }
    })?;
    let (sender, queue) = mpsc::channel(QUEUE);
    let fetch = Fetch { transport: Arc::clone(transport), ask, blob: descriptor.clone(), sender, offset: 0 };
    let cancel = cancel.clone();
    runtime.spawn(async move {
        let sender = fetch.sender.clone();
        if let Err(e) = cancellable(&cancel, fetch.run(response)).await {
            // A reader that is gone needs no error.
            let _ = sender.send(Err(e)).await;
        }
    })?;
    let chunks = Chunks { queue, chunk: io::Cursor::default(), _client: client.clone() };
    Ok(BlobReader(Verified::new(chunks, descriptor)))
}

struct Fetch {
    transport: Arc<Transport>,
    ask: Ask,
    blob: Descriptor,
    sender: mpsc::Sender<Result<Vec<u8>>>,
    /// Bytes handed to the reader so far.
    offset: u64,
}

impl Fetch {
    async fn run(mut self, first: Response) -> Result<()> {
        let mut response = Some(first);
        let (mut breaks, mut reached) = (0, 0);
        loop {
            let result = match response.take() {
                Some(response) => self.copy(response, 0).await,
                None => self.resume().await,
            };
            let error = match result {
                Ok(()) if self.offset == self.blob.size => return Ok(()),
                Ok(()) => wrong_size(&self.blob, self.offset),
                Err(e @ Error::Registry { .. }) => e,
                Err(e) => return Err(e),
            };
            if self.offset >= reached + PROGRESS {
                (breaks, reached) = (0, self.offset);
            }
            breaks += 1;
            if breaks > MAX_BREAKS {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(100 << breaks)).await;
        }
    }

    /// Asks for the rest, and skips what is known when the server sends everything again.
    async fn resume(&mut self) -> Result<()> {
        let mut ask = self.ask.clone();
        ask.headers.push((RANGE, format!("bytes={}-", self.offset)));
        let response = self.transport.send(&ask).await?;
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|r| r.to_str().ok());
                let start = range
                    .and_then(|r| r.trim().strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
                if start.is_some_and(|s| s != self.offset) {
                    return Err(Error::malformed(
                        &self.ask.doing,
                        "the registry sent another range than asked for",
                    ));
                }
                0
            }
            _ => self.offset,
        };
        self.copy(response, skip).await
    }

    async fn copy(&mut self, response: Response, mut skip: u64) -> Result<()> {
        let mut incoming = Incoming::new(response, self.transport.idle_timeout());
        while let Some(mut chunk) = incoming.next().await.map_err(|reason| self.ask.error(reason))? {
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= known as u64;
            chunk.drain(..known);
            self.offset += chunk.len() as u64;
            if self.offset > self.blob.size {
                return Err(wrong_size(&self.blob, self.offset));
            }
            if !chunk.is_empty() && self.sender.send(Ok(chunk)).await.is_err() {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.chunk.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            match self.queue.blocking_recv() {
                Some(Ok(chunk)) => self.chunk = io::Cursor::new(chunk),
                Some(Err(e)) => return Err(io::Error::other(e)),
                None => return Ok(0),
            }
        }
    }
}
