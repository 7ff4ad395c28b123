//! Blob files below `blobs/ALGORITHM/HEX`. A file is there whole or not at all.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use rustix::fs::AtFlags;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::fs::remove_tree;
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

    /// The same for bytes that are verified on their way here, so that they are not hashed twice. It must not be sealed
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

    /// Removes the files that no row says are here: what a collection or a repair has just given up, and what the dead
    /// and power cuts left. How many bytes that were.
    pub(crate) fn remove_stray_blobs(&self) -> Result<u64> {
        // Nobody can name one meanwhile (see [`crate::snapshot::Layer::keep_blob`]), and afterwards these are out of sight.
        let stray = self.write("looking for blobs that nothing needs", |tx| {
            let mut select = tx.prepare("SELECT DISTINCT digest FROM layer_blobs WHERE present")?;
            let known = select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            Ok(self.move_blobs_away(&known))
        })??;
        for (path, _) in &stray {
            remove_tree(self, path)?;
        }
        Ok(stray.iter().map(|(_, size)| size).sum())
    }

    /// Where those are now that are not `known`, and how large.
    fn move_blobs_away(&self, known: &BTreeSet<String>) -> Result<Vec<(String, u64)>> {
        let mut moved = Vec::new();
        for algorithm in self.names_in("blobs")? {
            let parent = format!("blobs/{algorithm}");
            for hex in self.names_in(&parent)? {
                if known.contains(&format!("{algorithm}:{hex}")) {
                    continue;
                }
                let size =
                    rustix::fs::statat(self.dir(), format!("{parent}/{hex}"), AtFlags::SYMLINK_NOFOLLOW)
                        .map_or(0, |stat| stat.st_size.unsigned_abs());
                if moved.is_empty() {
                    self.flush_rows()?;
                }
                moved.extend(self.move_away(&parent, &hex)?.map(|path| (path, size)));
            }
        }
        Ok(moved)
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

/// A blob in the making: hashed as it is written, dropped without a trace unless it is sealed and kept.
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
    /// Ends the writing. The file has no name in `blobs/` yet: that it gets with its row.
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

    /// Gives the file its name in `blobs/`; a second time does nothing. For the transaction that writes its row.
    pub(crate) fn place(&self) -> Result<()> {
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
