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
        let lease = self.lease()?;
        let path = self.path().join("tmp").join(format!("{}-{}", lease.name(), unique_name()?));
        let file = File::create_new(&path).map_err(Error::io("making", &path))?;
        let hasher = algorithm.hasher();
        Ok(BlobWriter {
            store: self.clone(),
            path: Some(path),
            out: BufWriter::with_capacity(128 << 10, file),
            hasher,
            size: 0,
            _lease: lease,
        })
    }

    pub(crate) fn remove_blob(&self, digest: &Digest) -> Result<()> {
        crate::lease::remove_tree(&self.blob_path(digest))
    }
}

/// A blob in the making: hashed as it is written, dropped without a trace unless it is committed.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    path: Option<PathBuf>,
    out: BufWriter<File>,
    hasher: Hasher,
    size: u64,
    _lease: Lease,
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hasher.update(&bytes[..n]);
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

    fn place(&mut self, path: &std::path::Path, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        self.out.flush().map_err(Error::io("writing", path))?;
        let digest = self.hasher.clone().finish();
        if let Some(expected) = expected.filter(|e| **e != digest) {
            return Err(Error::Mismatch {
                what: "blob digest".to_owned(),
                expected: expected.to_string(),
                actual: digest.to_string(),
            });
        }
        let target = self.store.blob_path(&digest);
        let parent = target.parent().expect("a blob path has a directory");
        std::fs::create_dir_all(parent).map_err(Error::io("making", parent))?;
        std::fs::rename(path, &target).map_err(Error::io("naming blob", &target))?;
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
