//! OCI layout directories (OCI image-spec, "Image Layout"). Files are opened below one descriptor of the directory; what
//! they hold is verified by whoever reads it, and when it is written.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::manifest::MAX_DOCUMENT;
use crate::oci::{Descriptor, Document, Index};
use crate::store::unique_name;

/// The tag of an entry in the index (OCI image-spec, "Pre-Defined Annotation Keys").
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Debug)]
pub struct Layout {
    dir: OwnedFd,
    path: PathBuf,
}

impl Layout {
    /// # Errors
    /// When the directory can't be opened or its `oci-layout` file is not one of version 1.
    pub fn open(path: &Path) -> Result<Layout> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let dir =
            rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("opening OCI layout", path))?;
        let layout = Layout { dir, path: path.to_owned() };
        let mark: serde_json::Value = serde_json::from_slice(&layout.document("oci-layout")?)
            .map_err(|e| Error::malformed(layout.name(), format!("oci-layout: {e}")))?;
        let version = mark["imageLayoutVersion"].as_str().unwrap_or_default();
        if !version.starts_with("1.") {
            return Err(Error::malformed(layout.name(), format!("layout version {version:?}")));
        }
        Ok(layout)
    }

    /// How errors call it.
    pub fn name(&self) -> String {
        format!("OCI layout {}", self.path.display())
    }

    /// The bytes of `index.json`.
    ///
    /// # Errors
    /// When there is none, or it is too large.
    pub fn index(&self) -> Result<Vec<u8>> {
        self.document("index.json")
    }

    /// The file that should hold the blob; none if there is none.
    ///
    /// # Errors
    /// When it is there but no regular file, or can't be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<Option<File>> {
        self.file(&format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()))
    }

    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let missing = || Error::NotFound { what: "file", name: self.path.join(name).display().to_string() };
        let file = self.file(name)?.ok_or_else(missing)?;
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io("reading", self.path.join(name)))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(Error::malformed(self.name(), format!("{name} is larger than {MAX_DOCUMENT} bytes")));
        }
        Ok(bytes)
    }

    /// Symbolic links are followed within the layout only: blobs of a layout may link to each other.
    fn file(&self, name: &str) -> Result<Option<File>> {
        // A FIFO must not stop us before we see what it is.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = match rustix::fs::openat2(&self.dir, name, flags, Mode::empty(), resolve) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(Error::io("opening", self.path.join(name))(e)),
        };
        let metadata = file.metadata().map_err(Error::io("reading the state of", self.path.join(name)))?;
        if !metadata.is_file() {
            return Err(Error::malformed(self.name(), format!("{name} is no regular file")));
        }
        Ok(Some(file))
    }
}

/// A layout that is written: a blob is there whole or not at all, and the index is replaced at once.
#[derive(Debug)]
pub struct LayoutWriter {
    dir: OwnedFd,
    path: PathBuf,
}

impl LayoutWriter {
    /// Makes the layout if there is none.
    ///
    /// # Errors
    /// When the directory can't be made or written.
    pub fn open(path: &Path) -> Result<LayoutWriter> {
        std::fs::create_dir_all(path).map_err(Error::io("making OCI layout", path))?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir =
            rustix::fs::open(path, flags, Mode::empty()).map_err(Error::io("opening OCI layout", path))?;
        let layout = LayoutWriter { dir, path: path.to_owned() };
        layout.replace("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(layout)
    }

    /// Writes a blob, unless there is a file of that name and size.
    ///
    /// # Errors
    /// When it can't be written, or is not what the descriptor says.
    pub fn put(
        &self,
        blob: &Descriptor,
        open: &mut dyn FnMut() -> Result<Box<dyn Read + Send>>,
        cancel: &Cancel,
    ) -> Result<()> {
        let (digest, algorithm) = (&blob.digest, blob.digest.algorithm().name());
        let name = format!("blobs/{algorithm}/{}", digest.hex());
        let failed = |e: Errno| Error::io("writing", self.path.join(&name))(e);
        match statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if u64::try_from(stat.st_size) == Ok(blob.size) => return Ok(()),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(e) => return Err(failed(e)),
        }
        for dir in ["blobs", &format!("blobs/{algorithm}")] {
            match mkdirat(&self.dir, dir, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        self.place(&name, &mut |file| {
            let (mut bytes, mut hasher) = (open()?.take(blob.size + 1), digest.algorithm().hasher());
            let (mut buffer, mut size) = (vec![0; 128 << 10], 0);
            loop {
                cancel.check()?;
                let n = bytes.read(&mut buffer).map_err(Error::io("reading blob", digest.to_string()))?;
                if n == 0 {
                    break;
                }
                hasher.update(&buffer[..n]);
                size += n as u64;
                file.write_all(&buffer[..n]).map_err(Error::io("writing", self.path.join(&name)))?;
            }
            let actual = hasher.finish();
            if size == blob.size && actual == *digest {
                return Ok(());
            }
            let what = format!("blob for {}", self.path.display());
            Err(Error::Mismatch { what, expected: digest.to_string(), actual: actual.to_string() })
        })
    }

    /// Enters a document in the index, in the place of the one that had the tag.
    ///
    /// # Errors
    /// When the index can't be read or written.
    pub fn name(&self, document: Descriptor, tag: &str) -> Result<()> {
        let layout = Layout::open(&self.path)?;
        let mut entries = match layout.index() {
            Ok(bytes) => match Document::parse(&bytes, None)? {
                Document::Index(index) => index.manifests,
                Document::Manifest(_) => Vec::new(),
            },
            Err(Error::NotFound { .. }) => Vec::new(),
            Err(e) => return Err(e),
        };
        entries.retain(|entry| entry.annotations.get(REF_NAME).is_none_or(|name| name != tag));
        entries.push(document);
        let index = serde_json::to_vec(&Index::oci(entries)).expect("maps with string keys always serialise");
        self.replace("index.json", &index)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.place(name, &mut |file| {
            file.write_all(bytes).map_err(Error::io("writing", self.path.join(name)))
        })
    }

    /// Writes a file aside and gives it its name.
    fn place(&self, name: &str, write: &mut dyn FnMut(&mut File) -> Result<()>) -> Result<()> {
        let aside = format!(".{}", unique_name()?);
        let failed = |e: Errno| Error::io("writing", self.path.join(name))(e);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.dir, &aside, flags, Mode::from_raw_mode(0o644)).map_err(failed)?;
        let written = write(&mut file.into())
            .and_then(|()| renameat(&self.dir, &aside, &self.dir, name).map_err(failed));
        if written.is_err() {
            let _ = unlinkat(&self.dir, &aside, AtFlags::empty());
        }
        written
    }
}
