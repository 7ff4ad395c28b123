//! The digest of a selection: paths, types, modes, link targets, and of files bytes and kept attributes; neither
//! owners nor times.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::prelude::*;

use super::{Context, Entry, Kind, StatKey};
use crate::cancel::Cancel;
use crate::digest::ContentDigest;
use crate::error::{Error, Result};
use crate::fs::pattern::Filter;
use crate::layer::sink::{NodeKind, Timestamp};
use crate::snapshot::owner::OwnerView;

/// Waking other threads costs more than hashing this many small files.
const MANY: usize = 32;
/// How many entries are held at a time.
const CHUNK: usize = 8192;
const BUFFER: usize = 128 * 1024;
/// A file that changed this recently could change again without its times telling.
const RACY: Duration = Duration::from_secs(2);

/// Remembers the BLAKE3 digests of files' bytes and attributes.
pub trait FileHashCache: Sync {
    /// What is known of each.
    fn get(&self, keys: &[StatKey]) -> Vec<Option<[u8; 32]>>;

    /// # Errors
    /// When they can't be kept.
    fn put(&self, fresh: &[(StatKey, [u8; 32])]) -> Result<()>;
}

/// Remembers nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoCache;

impl FileHashCache for NoCache {
    fn get(&self, keys: &[StatKey]) -> Vec<Option<[u8; 32]>> {
        vec![None; keys.len()]
    }

    fn put(&self, _: &[(StatKey, [u8; 32])]) -> Result<()> {
        Ok(())
    }
}

/// The digest of everything that counts of one entry.
pub type Mark = [u8; 32];

/// Tells the contents of files, by reading those that are not known.
struct Contents<'a> {
    context: &'a Context,
    cache: &'a dyn FileHashCache,
    cancel: &'a Cancel,
    now: SystemTime,
}

impl Context {
    /// The digest of what [`Context::select`] gives for `patterns` and `filter`. Each entry is shown to `seen`, in
    /// order.
    ///
    /// # Errors
    /// As [`Context::select`]; when a file can't be read, or what was learned can't be kept.
    pub fn digest_selection(
        &self,
        patterns: &[String],
        filter: &Filter,
        cache: &dyn FileHashCache,
        cancel: &Cancel,
        seen: &mut dyn FnMut(&Entry, &Mark),
    ) -> Result<ContentDigest> {
        let contents = Contents { context: self, cache, cancel, now: SystemTime::now() };
        let mut digest = blake3::Hasher::new_derive_key("boxwright selection v2");
        let mut see = |entry: &Entry, mark: &Mark| {
            digest.update(mark);
            seen(entry, mark);
        };
        let mut waiting = Vec::new();
        self.select(patterns, filter, cancel, &mut |entry| {
            waiting.push(entry);
            if waiting.len() == CHUNK { contents.mark(&mut waiting, &mut see) } else { Ok(()) }
        })?;
        contents.mark(&mut waiting, &mut see)?;
        Ok(ContentDigest(*digest.finalize().as_bytes()))
    }
}

impl Contents<'_> {
    fn mark(&self, entries: &mut Vec<Entry>, see: &mut dyn FnMut(&Entry, &Mark)) -> Result<()> {
        let files: Vec<&Entry> = entries.iter().filter(|entry| entry.kind == Kind::File).collect();
        let mut hashes = self.of(&files)?.into_iter();
        let mut text = Vec::new();
        for entry in entries.drain(..) {
            text.clear();
            let hash = if entry.kind == Kind::File { hashes.next() } else { None };
            describe(&mut text, &entry, hash.as_ref());
            see(&entry, blake3::hash(&text).as_bytes());
        }
        Ok(())
    }

    fn of(&self, files: &[&Entry]) -> Result<Vec<[u8; 32]>> {
        let keys: Vec<StatKey> = files.iter().map(|entry| entry.key).collect();
        let known = self.cache.get(&keys);
        let unknown: Vec<&Entry> =
            files.iter().zip(&known).filter(|(_, hash)| hash.is_none()).map(|(entry, _)| *entry).collect();
        let read: Vec<([u8; 32], bool)> = if unknown.len() < MANY {
            unknown.iter().map(|entry| self.read(entry)).collect::<Result<_>>()?
        } else {
            unknown.par_iter().map(|entry| self.read(entry)).collect::<Result<_>>()?
        };
        let settled = unknown.iter().zip(&read).filter(|(_, (_, settled))| *settled);
        let fresh: Vec<(StatKey, [u8; 32])> = settled.map(|(entry, (hash, _))| (entry.key, *hash)).collect();
        if !fresh.is_empty() {
            self.cache.put(&fresh)?;
        }
        let mut read = read.into_iter().map(|(hash, _)| hash);
        Ok(known.into_iter().filter_map(|hash| hash.or_else(|| read.next())).collect())
    }

    /// The hash of a file, and whether its key will tell when it changes.
    fn read(&self, entry: &Entry) -> Result<([u8; 32], bool)> {
        self.cancel.check()?;
        let file = self.context.open(&entry.path)?;
        let key = || {
            rustix::fs::fstat(&file).map(|stat| StatKey::of(&stat)).map_err(Error::io("reading", &entry.path))
        };
        let before = key()?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; usize::try_from(before.size + 1).unwrap_or(BUFFER).min(BUFFER)];
        loop {
            match (&file).read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::io("reading", &entry.path)(e)),
            };
            self.cancel.check()?;
        }
        // Attributes such as capabilities are copied as well; a change of them moves the file's change time.
        let xattrs = OwnerView::Real.xattrs(&file).map_err(Error::io("reading", &entry.path))?;
        let hash = with_xattrs(*hasher.finalize().as_bytes(), &xattrs);
        let unchanged = before == entry.key && key()? == before;
        Ok((hash, unchanged && !is_racy(&before, self.now)))
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
