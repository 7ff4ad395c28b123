//! OCI layout directories (OCI image-spec, "Image Layout"), read only. Files are opened below one descriptor of the
//! directory; what they hold is verified by whoever reads it.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::manifest::MAX_DOCUMENT;

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
