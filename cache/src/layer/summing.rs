//! [`Summing`]: a sink that passes entries on to another and sums them up on the way, so that a layer which is written
//! in the order of an archive need not be read again to be named.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use super::diff::{LayerSummary, Sum};
use super::sink::{LayerSink, Metadata, NodeKind};
use super::tar::EntryKind;
use crate::error::{Error, Result};
use crate::fs::whiteout::{OPAQUE, PREFIX};
use crate::snapshot::owner::OwnerView;

/// From this size on, hashing takes longer than starting a thread for it.
const LARGE: u64 = 1 << 20;
/// How much of a file is read at a time.
const BUFFER: usize = 128 << 10;
/// How many pieces may wait to be hashed.
const AHEAD: usize = 8;

/// Sums up a new layer. The caller gives every entry once: parents first, names in the order of their bytes, the
/// first name of a file before its links, and the mark of an opaque directory right after it.
pub struct Summing<'a> {
    inner: &'a mut dyn LayerSink,
    sum: Sum<std::io::Sink>,
    buffer: Vec<u8>,
    view: OwnerView,
    /// What the other sink keeps may not be all that it was given.
    is_sure: bool,
}

impl std::fmt::Debug for Summing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Summing").field("is_sure", &self.is_sure).finish_non_exhaustive()
    }
}

impl<'a> Summing<'a> {
    pub fn new(inner: &'a mut dyn LayerSink) -> Summing<'a> {
        let (sum, view) = (Sum::new(std::io::sink(), None), OwnerView::current());
        Summing { inner, sum, buffer: Vec::new(), view, is_sure: true }
    }

    /// What [`super::diff::scan`] would find in the layer's directory. None if only that can tell: which attributes
    /// are kept depends on the file system, owners of links are lost where owners are recorded in attributes, and a
    /// hard link's metadata is that of a file that passed long ago.
    ///
    /// # Errors
    /// When the content of the last file was incomplete.
    pub fn finish(self) -> Result<Option<LayerSummary>> {
        let summary = self.sum.finish()?;
        Ok(self.is_sure.then_some(summary))
    }

    fn entry(&mut self, path: &Path, meta: &Metadata, kind: &EntryKind) -> Result<()> {
        self.is_sure &= meta.xattrs.is_empty();
        let plain = matches!(kind, EntryKind::Symlink(_) | EntryKind::Node(_));
        self.is_sure &= !plain || self.view != OwnerView::Recorded;
        self.sum.entry(path, meta, kind)
    }
}

impl LayerSink for Summing<'_> {
    fn dir(&mut self, path: &Path, meta: &Metadata) -> Result<()> {
        // The root is no entry of an archive.
        if !path.as_os_str().is_empty() {
            self.entry(path, meta, &EntryKind::Dir)?;
        }
        self.inner.dir(path, meta)
    }

    fn file(&mut self, path: &Path, meta: &Metadata, size: u64, data: &mut dyn Read) -> Result<()> {
        self.entry(path, meta, &EntryKind::File { size })?;
        if size >= LARGE {
            return self.large_file(path, meta, size, data);
        }
        let mut tee = Tee { data, sum: &mut self.sum, failed: None };
        let result = self.inner.file(path, meta, size, &mut tee);
        match tee.failed {
            Some(error) => Err(error),
            None => result,
        }
    }

    fn file_as_before(&mut self, path: &Path, meta: &Metadata, size: u64) -> Result<Option<File>> {
        let Some(file) = self.inner.file_as_before(path, meta, size)? else { return Ok(None) };
        self.entry(path, meta, &EntryKind::File { size })?;
        self.buffer.resize(BUFFER, 0);
        loop {
            match (&file).read(&mut self.buffer) {
                Ok(0) => return Ok(Some(file)),
                Ok(n) => self.sum.data(&self.buffer[..n])?,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("reading the content of", path)(e)),
            }
        }
    }

    fn symlink(&mut self, path: &Path, meta: &Metadata, target: &OsStr) -> Result<()> {
        let plain = Metadata { mode: 0o777, xattrs: Vec::new(), ..meta.clone() };
        self.entry(path, &plain, &EntryKind::Symlink(target.to_owned()))?;
        self.inner.symlink(path, meta, target)
    }

    fn hard_link(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.is_sure = false;
        self.inner.hard_link(path, target)
    }

    fn node(&mut self, path: &Path, meta: &Metadata, kind: NodeKind) -> Result<()> {
        // This device is no entry but a deletion.
        self.is_sure &= kind != NodeKind::Char { major: 0, minor: 0 };
        let plain = Metadata { xattrs: Vec::new(), ..meta.clone() };
        self.entry(path, &plain, &EntryKind::Node(kind))?;
        self.inner.node(path, meta, kind)
    }

    fn whiteout(&mut self, path: &Path) -> Result<()> {
        let name = path.file_name().unwrap_or_default();
        self.sum.marker(&path.with_file_name(OsStr::from_bytes(&[PREFIX, name.as_bytes()].concat())))?;
        self.inner.whiteout(path)
    }

    fn opaque(&mut self, path: &Path) -> Result<()> {
        self.sum.marker(&path.join(OsStr::from_bytes(OPAQUE)))?;
        self.inner.opaque(path)
    }
}

impl Summing<'_> {
    /// Hashes on another thread while this one reads and writes.
    fn large_file(&mut self, path: &Path, meta: &Metadata, size: u64, data: &mut dyn Read) -> Result<()> {
        let (full, chunks) = sync_channel::<Vec<u8>>(AHEAD);
        let (used, free) = channel();
        let (inner, sum) = (&mut self.inner, &mut self.sum);
        std::thread::scope(|scope| {
            let hashing = scope.spawn(move || {
                chunks.into_iter().try_for_each(|chunk| {
                    sum.data(&chunk)?;
                    // Nobody takes the buffer back once all has been read.
                    let _ = used.send(chunk);
                    Ok(())
                })
            });
            let mut feed = Feed { data, full, free };
            let written = inner.file(path, meta, size, &mut feed);
            drop(feed);
            let hashed = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            written.and(hashed)
        })
    }
}

/// Hands copies of what is read through it to the hashing thread.
struct Feed<'a> {
    data: &'a mut dyn Read,
    full: SyncSender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
}

impl Read for Feed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.data.read(buffer)?;
        let mut chunk = self.free.try_recv().unwrap_or_default();
        chunk.clear();
        chunk.extend_from_slice(&buffer[..n]);
        // A hashing thread that has ended has failed, and says so itself.
        let _ = self.full.send(chunk);
        Ok(n)
    }
}

/// Sums up what is read through it.
struct Tee<'a> {
    data: &'a mut dyn Read,
    sum: &'a mut Sum<std::io::Sink>,
    failed: Option<Error>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.data.read(buffer)?;
        self.sum.data(&buffer[..n]).map_err(|error| {
            self.failed = Some(error);
            std::io::Error::other("the file is not of its size")
        })?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cancel::Cancel;
    use crate::layer::diff::scan;
    use crate::layer::sink::{DirSink, Timestamp};
    use std::os::fd::AsFd;

    fn meta(mode: u32) -> Metadata {
        Metadata {
            mode,
            uid: 7,
            gid: 8,
            mtime: Timestamp { secs: 1_600_000_000, nanos: 5 },
            xattrs: Vec::new(),
        }
    }

    /// Writes with `fill` and gives what was summed up, and what a second reading finds.
    fn both(fill: impl Fn(&mut dyn LayerSink) -> Result<()>) -> (Option<LayerSummary>, LayerSummary) {
        let dir = tempfile::tempdir().unwrap();
        let fd: std::os::fd::OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        let mut sink = DirSink::new(fd.try_clone().unwrap(), OwnerView::current());
        let mut summing = Summing::new(&mut sink);
        fill(&mut summing).unwrap();
        let summed = summing.finish().unwrap();
        sink.finish().unwrap();
        (summed, scan(fd.as_fd(), None, &Cancel::new().unwrap()).unwrap())
    }

    #[test]
    fn the_sum_is_what_a_scan_finds() {
        let (summed, scanned) = both(|sink| {
            sink.dir(Path::new(""), &meta(0o700))?;
            sink.dir(Path::new("a"), &meta(0o1777))?;
            sink.opaque(Path::new("a"))?;
            sink.file(Path::new("a/empty"), &meta(0o4755), 0, &mut &b""[..])?;
            sink.file(Path::new("a/f"), &meta(0o644), 3, &mut &b"abc"[..])?;
            sink.node(Path::new("a/pipe"), &meta(0o600), NodeKind::Fifo)?;
            sink.symlink(Path::new("b"), &meta(0), OsStr::new("a/f"))?;
            sink.file(Path::new("big"), &meta(0o644), 300_000, &mut vec![7; 300_000].as_slice())?;
            let large: Vec<u8> = (0..3_000_001u32).map(|i| (i % 251) as u8).collect();
            sink.file(Path::new("large"), &meta(0o644), large.len() as u64, &mut large.as_slice())
        });
        assert_eq!(summed, Some(scanned));
    }

    #[test]
    fn what_the_directory_may_not_keep_is_left_to_a_scan() {
        let (summed, _) = both(|sink| {
            let labelled = Metadata { xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())], ..meta(0o644) };
            sink.file(Path::new("f"), &labelled, 0, &mut &b""[..])
        });
        assert_eq!(summed, None);
        let (summed, _) = both(|sink| {
            sink.file(Path::new("f"), &meta(0o644), 0, &mut &b""[..])?;
            sink.hard_link(Path::new("g"), Path::new("f"))
        });
        assert_eq!(summed, None);
    }
}
