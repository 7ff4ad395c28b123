//! From a layer archive to a [`LayerSink`]: whiteouts are understood, and the diff id is computed over every byte of
//! the stream while the entries are made. Compressed bytes and their digests are the caller's business.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Builder;

use super::sink::LayerSink;
use super::tar::{Entry, EntryKind, Limits, Reader};
use crate::cancel::Cancel;
use crate::digest::{Algorithm, DiffId, Hasher};
use crate::error::{Error, Result};
use crate::fs::whiteout::{Marker, PREFIX, marker};

/// The stream is read and hashed in pieces of this size, this many ahead of what is written.
const CHUNK: usize = 256 * 1024;
const AHEAD: usize = 6;

/// What an archive turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    pub diff_id: DiffId,
    /// Of the uncompressed archive, with everything after its end marker.
    pub size: u64,
}

/// [`apply_with`] the default limits; the diff id is one of SHA-256.
///
/// # Errors
/// As [`apply_with`].
pub fn apply(tar: &mut (dyn Read + Send), sink: &mut dyn LayerSink, cancel: &Cancel) -> Result<Applied> {
    apply_with(tar, sink, cancel, Limits::default(), Algorithm::Sha256)
}

/// Makes the entries of the uncompressed archive `tar` (OCI image-spec, layer). Reading and hashing run on a thread
/// of their own, ahead of the writing. The diff id is one of `algorithm`.
///
/// # Errors
/// When the source fails, the archive is malformed or too large, an entry can't be made, or `cancel` is raised. The
/// sink then holds some of the entries.
pub fn apply_with(
    tar: &mut (dyn Read + Send),
    sink: &mut dyn LayerSink,
    cancel: &Cancel,
    limits: Limits,
    algorithm: Algorithm,
) -> Result<Applied> {
    let (full, chunks) = sync_channel(AHEAD);
    let (used, free) = channel();
    std::thread::scope(|scope| {
        let pump = move || pump(tar, &full, &free, cancel, limits.bytes, algorithm.hasher());
        let started = Builder::new().spawn_scoped(scope, pump);
        let pump = started.map_err(Error::io("starting", "the thread that reads the layer archive"))?;
        let mut ahead = ReadAhead { chunks, used, current: Vec::new(), at: 0 };
        let made = make_entries(&mut Reader::new(&mut ahead, limits), sink, cancel);
        if made.is_ok() {
            ahead.drain();
        }
        // Without its receiver the pump ends, even in the middle of the stream.
        drop(ahead);
        let pumped = pump.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A source that failed looks like an archive that ends too early; its own error says more.
        let applied = pumped?;
        made.map(|()| applied)
    })
}

fn make_entries(reader: &mut Reader<impl Read>, sink: &mut dyn LayerSink, cancel: &Cancel) -> Result<()> {
    while let Some(entry) = reader.next_entry()? {
        cancel.check()?;
        make_entry(&entry, reader, sink)?;
    }
    Ok(())
}

fn make_entry(entry: &Entry, reader: &mut Reader<impl Read>, sink: &mut dyn LayerSink) -> Result<()> {
    let path = entry.path.as_path();
    let parent = path.parent().unwrap_or(Path::new(""));
    match place(path)? {
        Marker::None => {}
        Marker::Whiteout(name) => return sink.whiteout(&parent.join(name)),
        Marker::Opaque => return sink.opaque(parent),
        Marker::Reserved => return Ok(()),
        Marker::Bad => return Err(bad_whiteout(path)),
    }
    match &entry.kind {
        EntryKind::Dir => sink.dir(path, &entry.meta),
        EntryKind::File { size } => sink.file(path, &entry.meta, *size, &mut reader.data()),
        EntryKind::Symlink(target) => sink.symlink(path, &entry.meta, target),
        EntryKind::HardLink(target) if place(target)? != Marker::None => Err(bad_whiteout(target)),
        EntryKind::HardLink(target) => sink.hard_link(path, target),
        EntryKind::Node(kind) => sink.node(path, &entry.meta, *kind),
    }
}

/// What the last component means, when all before it are ordinary. What lies in a bookkeeping directory is
/// bookkeeping as well; nothing can lie in a whiteout.
fn place(path: &Path) -> Result<Marker<'_>> {
    let mut names = path.iter().peekable();
    while let Some(name) = names.next() {
        if !name.as_encoded_bytes().starts_with(PREFIX) {
            continue;
        }
        match marker(name) {
            Marker::Reserved => return Ok(Marker::Reserved),
            last if names.peek().is_none() => return Ok(last),
            _ => return Err(bad_whiteout(path)),
        }
    }
    Ok(Marker::None)
}

fn bad_whiteout(path: &Path) -> Error {
    Error::malformed(
        format!("archive entry {:?}", path.display().to_string()),
        "not a whiteout that means anything",
    )
}

fn pump(
    tar: &mut (dyn Read + Send),
    full: &SyncSender<Vec<u8>>,
    free: &Receiver<Vec<u8>>,
    cancel: &Cancel,
    limit: u64,
    mut hasher: Hasher,
) -> Result<Applied> {
    let mut size = 0;
    loop {
        cancel.check()?;
        let mut chunk = free.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let n = fill(tar, &mut chunk)?;
        size += n as u64;
        if size > limit {
            return Err(Error::malformed("layer archive", format!("larger than the limit of {limit} bytes")));
        }
        chunk.truncate(n);
        hasher.update(&chunk);
        if n == 0 || full.send(chunk).is_err() {
            return Ok(Applied { diff_id: DiffId(hasher.finish()), size });
        }
    }
}

/// Reads until the buffer is full or the stream ends.
fn fill(source: &mut (dyn Read + Send), buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("reading", "the layer archive")(e)),
        }
    }
    Ok(filled)
}

/// The reading end of the pump.
struct ReadAhead {
    chunks: Receiver<Vec<u8>>,
    used: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl ReadAhead {
    /// Lets the pump reach the end of the stream.
    fn drain(&mut self) {
        while self.next() {}
    }

    fn next(&mut self) -> bool {
        let Ok(chunk) = self.chunks.recv() else { return false };
        // The pump may have ended already; then the buffer is simply dropped.
        let _ = self.used.send(std::mem::replace(&mut self.current, chunk));
        self.at = 0;
        true
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.current.len() && !self.next() {
            return Ok(0);
        }
        let n = buffer.len().min(self.current.len() - self.at);
        buffer[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
