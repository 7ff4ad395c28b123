//! The digest of a selection: paths, types, modes, link targets, and of files bytes and kept attributes; neither
//! owners nor times.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use super::{Context, Entry, Kind, StatKey};
use crate::cancel::Cancel;
use crate::digest::ContentDigest;
use crate::error::{Error, Result};
use crate::layer::sink::{NodeKind, Timestamp};
use crate::snapshot::owner::OwnerView;

/// Waking other threads costs more than hashing this many small files.
const MANY: usize = 32;
const BUFFER: usize = 128 * 1024;
/// A file that changed this recently could change again without its times telling.
const RACY: Duration = Duration::from_secs(2);

/// Remembers the BLAKE3 digests of files' bytes and attributes. It is asked from several threads.
pub trait FileHashCache: Sync {
    /// These are the files that it will be asked for.
    fn prepare(&self, _keys: &mut dyn Iterator<Item = StatKey>) {}
    fn get(&self, key: &StatKey) -> Option<[u8; 32]>;
    fn put(&self, key: &StatKey, hash: [u8; 32]);
}

/// Remembers nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoCache;

impl FileHashCache for NoCache {
    fn get(&self, _: &StatKey) -> Option<[u8; 32]> {
        None
    }

    fn put(&self, _: &StatKey, _: [u8; 32]) {}
}

/// A selection's digest, and what of it tells one file from another.
#[derive(Debug)]
pub struct Digested {
    pub content: ContentDigest,
    hashes: Vec<Option<[u8; 32]>>,
}

impl Digested {
    /// For each entry everything that the digest tells of it, as the beginning of a hash.
    pub fn marks<'a>(&'a self, entries: &'a [Entry]) -> impl Iterator<Item = (&'a Path, [u8; 8])> {
        let mut text = Vec::new();
        entries.iter().zip(&self.hashes).map(move |(entry, hash)| {
            text.clear();
            describe(&mut text, entry, hash.as_ref());
            let hash = blake3::hash(&text);
            (entry.path.as_path(), *hash.as_bytes().first_chunk().expect("a hash is longer"))
        })
    }
}

impl Context {
    /// The digest of `entries`, as [`Context::select`] gave them.
    ///
    /// # Errors
    /// When a file can't be read, or `cancel` is raised.
    pub fn digest_selection(
        &self,
        entries: &[Entry],
        cache: &dyn FileHashCache,
        cancel: &Cancel,
    ) -> Result<Digested> {
        let now = SystemTime::now();
        let files = entries.iter().filter(|entry| entry.kind == Kind::File);
        cache.prepare(&mut files.map(|entry| entry.key));
        let hash = |entry: &Entry| match entry.kind {
            Kind::File => self.file_hash(entry, cache, now, cancel).map(Some),
            _ => Ok(None),
        };
        let hashes: Vec<Option<[u8; 32]>> = if entries.len() < MANY {
            entries.iter().map(hash).collect::<Result<_>>()?
        } else {
            entries.par_iter().map(hash).collect::<Result<_>>()?
        };
        let mut digest = blake3::Hasher::new_derive_key("boxwright selection v1");
        let mut text = Vec::new();
        for (entry, hash) in entries.iter().zip(&hashes) {
            text.clear();
            describe(&mut text, entry, hash.as_ref());
            digest.update(&text);
        }
        Ok(Digested { content: ContentDigest(*digest.finalize().as_bytes()), hashes })
    }

    fn file_hash(
        &self,
        entry: &Entry,
        cache: &dyn FileHashCache,
        now: SystemTime,
        cancel: &Cancel,
    ) -> Result<[u8; 32]> {
        if let Some(hash) = cache.get(&entry.key) {
            return Ok(hash);
        }
        cancel.check()?;
        let file = self.open(&entry.path)?;
        let key = |file: &File| {
            rustix::fs::fstat(file).map(|stat| StatKey::of(&stat)).map_err(Error::io("reading", &entry.path))
        };
        let before = key(&file)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; usize::try_from(before.size + 1).unwrap_or(BUFFER).min(BUFFER)];
        loop {
            match (&file).read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("reading", &entry.path)(e)),
            };
            cancel.check()?;
        }
        // Attributes such as capabilities are copied as well; a change of them moves the file's change time.
        let xattrs = OwnerView::Real.xattrs(&file).map_err(Error::io("reading", &entry.path))?;
        let hash = with_xattrs(*hasher.finalize().as_bytes(), &xattrs);
        let unchanged = before == entry.key && key(&file)? == before;
        if unchanged && !is_racy(&before, now) {
            cache.put(&before, hash);
        }
        Ok(hash)
    }
}

/// The hash of the bytes alone for a file without attributes, as almost all are.
fn with_xattrs(bytes: [u8; 32], xattrs: &[(Vec<u8>, Vec<u8>)]) -> [u8; 32] {
    if xattrs.is_empty() {
        return bytes;
    }
    let mut hasher = blake3::Hasher::new_derive_key("boxwright file with attributes v1");
    hasher.update(&bytes);
    for part in xattrs.iter().flat_map(|(name, value)| [name, value]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    *hasher.finalize().as_bytes()
}

fn is_racy(key: &StatKey, now: SystemTime) -> bool {
    let settled = now.checked_sub(RACY).and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let settled = Timestamp {
        secs: i64::try_from(settled.as_secs()).unwrap_or(i64::MAX),
        nanos: settled.subsec_nanos(),
    };
    // The time of the last change is the kernel's; that of the last modification can be anything.
    key.ctime >= settled || key.mtime >= settled
}

/// Each part with its length before it, so that no two selections give the same bytes.
fn describe(text: &mut Vec<u8>, entry: &Entry, hash: Option<&[u8; 32]>) {
    let mut part = |bytes: &[u8]| {
        text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        text.extend_from_slice(bytes);
    };
    part(entry.path.as_os_str().as_bytes());
    match &entry.kind {
        Kind::Dir => part(b"dir"),
        Kind::File => part(b"file"),
        Kind::Socket => part(b"socket"),
        Kind::Node(NodeKind::Fifo) => part(b"fifo"),
        Kind::Node(NodeKind::Char { major, minor }) => part(format!("char {major} {minor}").as_bytes()),
        Kind::Node(NodeKind::Block { major, minor }) => part(format!("block {major} {minor}").as_bytes()),
        // A link has no mode of its own.
        Kind::Symlink(target) => {
            part(b"link");
            return part(target.as_bytes());
        }
    }
    part(&entry.mode.to_le_bytes());
    if let Some(hash) = hash {
        part(hash);
    }
}
