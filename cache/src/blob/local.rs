//! Blob files below `blobs/ALGORITHM/HEX`. A file is there whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::lease::Lease;
use crate::store::{Store, unique_name};

impl Store {
    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path().join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Opens a blob file; none when it is not here.
    ///
    /// # Errors
    /// When it is here but can't be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("opening blob", path)(e)),
        }
    }

    /// Starts to write a blob that will be named by its digest of the given algorithm.
    ///
    /// # Errors
    /// When no file can be made.
    pub fn new_blob(&self, algorithm: Algorithm) -> Result<BlobWriter> {
        self.blob_writer(Name::Made(algorithm.hasher()))
    }

    /// The same for bytes that are verified on their way here, so that they are not hashed twice. It must not be committed
    /// before all of them have been.
    pub(crate) fn new_verified_blob(&self, digest: Digest) -> Result<BlobWriter> {
        self.blob_writer(Name::Known(digest))
    }

    fn blob_writer(&self, name: Name) -> Result<BlobWriter> {
        let lease = self.lease()?;
        let path = self.path().join("tmp").join(format!("{}-{}", lease.name(), unique_name()?));
        let file = File::create_new(&path).map_err(Error::io("making", &path))?;
        Ok(BlobWriter {
            store: self.clone(),
            path: Some(path),
            out: BufWriter::with_capacity(128 << 10, file),
            name,
            size: 0,
            _lease: lease,
        })
    }

    pub(crate) fn remove_blob(&self, digest: &Digest) -> Result<()> {
        crate::fs::remove_tree(self, &format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()))
    }
}

/// What a blob in the making will be called.
#[derive(Debug)]
enum Name {
    Made(Hasher),
    Known(Digest),
}

impl Name {
    fn digest(&self) -> Digest {
        match self {
            Name::Made(hasher) => hasher.clone().finish(),
            Name::Known(digest) => *digest,
        }
    }
}

/// A blob in the making: hashed as it is written, dropped without a trace unless it is committed.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    path: Option<PathBuf>,
    out: BufWriter<File>,
    name: Name,
    size: u64,
    _lease: Lease,
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(bytes)?;
        if let Name::Made(hasher) = &mut self.name {
            hasher.update(&bytes[..n]);
        }
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

impl BlobWriter {
    /// Gives the file its name. `expected` must be what was written.
    ///
    /// # Errors
    /// [`Error::Mismatch`], or when the file can't be written to its end.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let path = self.path.take().expect("a writer is committed once");
        let result = self.place(&path, expected);
        if result.is_err() {
            let _ = std::fs::remove_file(&path);
        }
        result
    }

    /// Ends the writing without giving the file a name in `blobs/` yet.
    ///
    /// # Errors
    /// When the file can't be written to its end.
    pub fn seal(mut self) -> Result<SealedBlob> {
        let path = self.path.as_ref().expect("a writer is sealed once");
        self.out.flush().map_err(Error::io("writing", path))?;
        let digest = self.name.digest();
        let path = std::sync::Mutex::new(self.path.take());
        Ok(SealedBlob {
            store: self.store.clone(),
            path,
            digest,
            size: self.size,
            _lease: self._lease.clone(),
        })
    }

    fn place(&mut self, path: &std::path::Path, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        self.out.flush().map_err(Error::io("writing", path))?;
        let digest = self.name.digest();
        if let Some(expected) = expected.filter(|e| **e != digest) {
            return Err(Error::Mismatch {
                what: "blob digest".to_owned(),
                expected: expected.to_string(),
                actual: digest.to_string(),
            });
        }
        name_blob(path, &self.store.blob_path(&digest))?;
        Ok((digest, self.size))
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A blob that is whole but not part of the store yet: it becomes one when it is kept, and dropped it leaves nothing.
#[derive(Debug)]
pub struct SealedBlob {
    store: Store,
    /// None once it is kept.
    path: std::sync::Mutex<Option<PathBuf>>,
    digest: Digest,
    size: u64,
    _lease: Lease,
}

impl SealedBlob {
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads it from its start.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(&self) -> Result<File> {
        let path = self.path.lock().unwrap_or_else(|e| e.into_inner());
        let path = path.clone().unwrap_or_else(|| self.store.blob_path(&self.digest));
        File::open(&path).map_err(Error::io("opening blob", path))
    }

    /// Gives the file its name in `blobs/`; a second time does nothing.
    ///
    /// # Errors
    /// When it can't be named.
    pub fn keep(&self) -> Result<()> {
        let mut slot = self.path.lock().unwrap_or_else(|e| e.into_inner());
        let Some(path) = slot.as_ref() else { return Ok(()) };
        name_blob(path, &self.store.blob_path(&self.digest))?;
        *slot = None;
        Ok(())
    }
}

impl Drop for SealedBlob {
    fn drop(&mut self) {
        if let Some(path) = self.path.get_mut().unwrap_or_else(|e| e.into_inner()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn name_blob(path: &std::path::Path, target: &std::path::Path) -> Result<()> {
    let parent = target.parent().expect("a blob path has a directory");
    std::fs::create_dir_all(parent).map_err(Error::io("making", parent))?;
    std::fs::rename(path, target).map_err(Error::io("naming blob", target))
}
