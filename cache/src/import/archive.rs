//! The files of an archive, in whatever order they came: spooled to the store's temporary directory, hashed on the way.
//! Names in the archive are keys of a table here and never paths on disk.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::local::SealedBlob;
use crate::cancel::Cancel;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::layer::tar::{EntryKind, Limits, Reader, clean_path};
use crate::oci::manifest::MAX_DOCUMENT;
use crate::store::Store;

/// An archive of images has a few entries per layer, of which one or two matter.
const MAX_ENTRIES: u64 = 200_000;
const MAX_MEMBERS: usize = 20_000;
/// Bytes of their names, and of where links lead.
const MAX_NAMES: usize = 4 << 20;
const MAX_BYTES: u64 = 1 << 42;
/// Bytes of documents that are read, each as often as the archive names it.
const MAX_DOCUMENTS: u64 = 32 << 20;
/// How many links may lead from a name to a file.
const MAX_LINKS: u32 = 8;
const CHUNK: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Archive {
    files: HashMap<PathBuf, Member>,
    /// In bytes.
    names: usize,
    documents: Cell<u64>,
}

#[derive(Clone, Debug)]
enum Member {
    File(Arc<SealedBlob>),
    Link(PathBuf),
}

impl Archive {
    /// Reads the uncompressed archive to the end of its stream.
    pub(super) fn read(store: &Store, tar: &mut (dyn Read + Send), cancel: &Cancel) -> Result<Archive> {
        let mut reader = Reader::new(tar, Limits { entries: MAX_ENTRIES, bytes: MAX_BYTES });
        let mut archive = Archive { files: HashMap::new(), names: 0, documents: Cell::new(0) };
        while let Some(entry) = reader.next_entry().map_err(of_archive)? {
            cancel.check()?;
            let path = entry.path;
            let member = match entry.kind {
                EntryKind::Dir => continue,
                EntryKind::File { .. } if is_ballast(&path) => continue,
                EntryKind::File { .. } => {
                    Member::File(Arc::new(spool(store, &path, &mut reader.data(), cancel)?))
                }
                EntryKind::Symlink(target) => Member::Link(link_target(&path, target.as_bytes())?),
                EntryKind::HardLink(target) => Member::Link(target),
                EntryKind::Node(_) => return Err(malformed(&path, "a special file has no place there")),
            };
            archive.insert(path, member)?;
        }
        // What writes into a pipe wants its last bytes read, and a compressed stream has a checksum at its end.
        std::io::copy(&mut reader.into_inner(), &mut std::io::sink())
            .map_err(Error::io("reading", "the end of the image archive"))?;
        Ok(archive)
    }

    /// Two members of one name would be a question of who reads them.
    fn insert(&mut self, path: PathBuf, member: Member) -> Result<()> {
        let same = |old: &Member| match (old, &member) {
            (Member::File(a), Member::File(b)) => a.digest() == b.digest(),
            (Member::Link(a), Member::Link(b)) => a == b,
            _ => false,
        };
        match self.files.get(&path) {
            Some(old) if !same(old) => Err(malformed(&path, "two different entries of this name")),
            Some(_) => Ok(()),
            None => {
                let target = if let Member::Link(target) = &member { target.as_os_str().len() } else { 0 };
                self.names += path.as_os_str().len() + target;
                if self.files.len() >= MAX_MEMBERS || self.names > MAX_NAMES {
                    return Err(Error::malformed(
                        "image archive",
                        "more files than an archive of images has",
                    ));
                }
                self.files.insert(path, member);
                Ok(())
            }
        }
    }

    /// The file that a name in a document stands for, through links.
    pub(super) fn file(&self, name: &str) -> Result<Option<Arc<SealedBlob>>> {
        let mut path = clean_path(name.as_bytes()).map_err(|reason| malformed(Path::new(name), reason))?;
        for _ in 0..MAX_LINKS {
            match self.files.get(&path) {
                Some(Member::File(blob)) => return Ok(Some(Arc::clone(blob))),
                Some(Member::Link(target)) => path.clone_from(target),
                None => return Ok(None),
            }
        }
        Err(malformed(Path::new(name), "too many links"))
    }

    /// Counts bytes of a document that is about to be read and kept.
    ///
    /// # Errors
    /// When an archive has so many, or names them so often, that they would take too much time and memory.
    pub(super) fn spend(&self, bytes: u64) -> Result<()> {
        self.documents.set(self.documents.get().saturating_add(bytes));
        if self.documents.get() <= MAX_DOCUMENTS {
            return Ok(());
        }
        let reason = format!("it names more than {MAX_DOCUMENTS} bytes of configs and manifests");
        Err(Error::malformed("image archive", reason))
    }

    /// The content of a small file.
    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.file(name)?.map(|blob| read_document(&blob, name, MAX_DOCUMENT)).transpose()
    }

    /// A blob of the OCI layout in the archive.
    pub(super) fn blob(&self, digest: &Digest) -> Result<Option<Arc<SealedBlob>>> {
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let found = self.file(&name)?;
        match found.as_ref().filter(|blob| blob.digest() != *digest) {
            None => Ok(found),
            Some(blob) => Err(Error::Mismatch {
                what: format!("{name} in the image archive"),
                expected: digest.to_string(),
                actual: blob.digest().to_string(),
            }),
        }
    }
}

/// What old archives have beside each layer, and nobody reads any more.
fn is_ballast(path: &Path) -> bool {
    path.components().count() == 2 && (path.ends_with("VERSION") || path.ends_with("json"))
}

/// The whole content of a blob that is known to be small.
pub(super) fn read_document(blob: &SealedBlob, name: &str, limit: u64) -> Result<Vec<u8>> {
    if blob.size() > limit {
        return Err(malformed(Path::new(name), format!("{} bytes, more than {limit}", blob.size())));
    }
    let mut bytes = Vec::new();
    blob.open()?.take(limit).read_to_end(&mut bytes).map_err(Error::io("reading", name))?;
    Ok(bytes)
}

/// Copies a file out of its archive or directory, hashing it with the algorithm that its name speaks of.
pub(super) fn spool(store: &Store, path: &Path, data: &mut dyn Read, cancel: &Cancel) -> Result<SealedBlob> {
    let sha512 = path.starts_with("blobs/sha512");
    let mut blob = store.new_blob(if sha512 { Algorithm::Sha512 } else { Algorithm::Sha256 })?;
    let mut chunk = vec![0; CHUNK];
    loop {
        cancel.check()?;
        let n = data.read(&mut chunk).map_err(Error::io("reading from the image archive", path))?;
        if n == 0 {
            return blob.seal();
        }
        blob.write_all(&chunk[..n]).map_err(Error::io("writing to the store", path))?;
    }
}

/// Links lead to other members: relative to their own directory, and never out of the archive.
fn link_target(path: &Path, target: &[u8]) -> Result<PathBuf> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let joined = match target {
        [b'/', ..] => target.to_vec(),
        _ => [parent.as_os_str().as_bytes(), b"/", target].concat(),
    };
    clean_path(&joined).map_err(|reason| malformed(path, reason))
}

fn malformed(path: &Path, reason: impl Into<String>) -> Error {
    Error::malformed(format!("{:?} in the image archive", path.display().to_string()), reason)
}

/// The tar reader speaks of layers; here the archive around them is meant.
fn of_archive(error: Error) -> Error {
    match error {
        Error::Malformed { what, reason } if what == "layer archive" => {
            Error::malformed("image archive", reason)
        }
        other => other,
    }
}
