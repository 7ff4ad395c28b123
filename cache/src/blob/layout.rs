//! OCI layout directories (OCI image-spec, "Image Layout"). Files are opened below one descriptor of the directory; what
//! they hold is verified by whoever reads it, and when it is written.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::fs::open_resolved;
use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, ResolveFlags, flock, mkdirat, openat, renameat, statat,
    unlinkat,
};
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::lock;
use crate::oci::manifest::MAX_DOCUMENT;
use crate::oci::{Descriptor, Document, Index};
use crate::store::unique_name;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::CLOEXEC);

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
        Layout::in_dir(dir, path)
    }

    fn in_dir(dir: OwnedFd, path: &Path) -> Result<Layout> {
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
        let file = match open_resolved(&self.dir, name, flags, Mode::empty(), resolve) {
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

/// A layout that is written: a blob is there whole or not at all, and the index is replaced at once. Others may write
/// to the directory as well: no symbolic link below it is followed, and an index is changed by one of us at a time.
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
        let dir = rustix::fs::open(path, DIRECTORY, Mode::empty())
            .map_err(Error::io("opening OCI layout", path))?;
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
        let (digest, algorithm, hex) = (&blob.digest, blob.digest.algorithm().name(), blob.digest.hex());
        let path = self.path.join("blobs").join(algorithm).join(&hex);
        let blobs = self.directory(&self.dir, "blobs", &self.path)?;
        let blobs = self.directory(&blobs, algorithm, &self.path.join("blobs"))?;
        match statat(&blobs, &hex, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat)
                if FileType::from_raw_mode(stat.st_mode).is_file()
                    && u64::try_from(stat.st_size) == Ok(blob.size) =>
            {
                return Ok(());
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(e) => return Err(Error::io("writing", path)(e)),
        }
        self.place(&blobs, &hex, &path, &mut |file| {
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
                file.write_all(&buffer[..n]).map_err(Error::io("writing", &path))?;
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
    pub fn name(&self, document: Descriptor, tag: &str, cancel: &Cancel) -> Result<()> {
        let layout = Layout::in_dir(self.lock(cancel)?, &self.path)?;
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

    /// The directory, locked until it is closed; a descriptor of its own, as locks belong to those.
    fn lock(&self, cancel: &Cancel) -> Result<OwnedFd> {
        let dir = openat(&self.dir, ".", DIRECTORY, Mode::empty())
            .map_err(Error::io("opening OCI layout", &self.path))?;
        loop {
            match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(dir),
                // Network file systems may have no locks of directories.
                Err(Errno::BADF | Errno::NOLCK | Errno::OPNOTSUPP) => return Ok(dir),
                Err(Errno::WOULDBLOCK) => lock::wait(cancel)?,
                Err(e) => return Err(Error::io("locking OCI layout", &self.path)(e)),
            }
        }
    }

    /// A directory of `parent`, which is made if it is absent.
    fn directory(&self, parent: &OwnedFd, name: &str, parent_path: &Path) -> Result<OwnedFd> {
        let path = parent_path.join(name);
        match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::io("making", path)(e)),
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        open_resolved(parent, name, DIRECTORY, Mode::empty(), resolve).map_err(|e| match e {
            Errno::LOOP => {
                let reason = format!("{} is a symbolic link, and no link is followed here", path.display());
                Error::malformed(format!("OCI layout {}", self.path.display()), reason)
            }
            e => Error::io("opening", path)(e),
        })
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        self.place(&self.dir, name, &path, &mut |file| {
            file.write_all(bytes).map_err(Error::io("writing", &path))
        })
    }

    /// Writes a file aside and gives it its name in `dir`; `path` is what errors call it.
    fn place(
        &self,
        dir: &OwnedFd,
        name: &str,
        path: &Path,
        write: &mut dyn FnMut(&mut File) -> Result<()>,
    ) -> Result<()> {
        let aside = format!(".{}", unique_name()?);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.dir, &aside, flags, Mode::from_raw_mode(0o644))
            .map_err(Error::io("writing", path))?;
        let written = write(&mut file.into())
            .and_then(|()| renameat(&self.dir, &aside, dir, name).map_err(Error::io("writing", path)));
        if written.is_err() {
            let _ = unlinkat(&self.dir, &aside, AtFlags::empty());
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Fixture {
        dir: tempfile::TempDir,
        cancel: Cancel,
    }

    impl Fixture {
        fn new() -> Fixture {
            Fixture { dir: tempfile::tempdir().unwrap(), cancel: Cancel::new().unwrap() }
        }

        fn layout(&self) -> PathBuf {
            self.dir.path().join("layout")
        }

        /// A directory beside the layout, of somebody else.
        fn outside(&self) -> PathBuf {
            let outside = self.dir.path().join("outside");
            std::fs::create_dir_all(&outside).unwrap();
            outside
        }

        fn put(&self, bytes: &'static [u8]) -> Result<()> {
            let writer = LayoutWriter::open(&self.layout())?;
            writer.put(&descriptor(bytes), &mut || Ok(Box::new(Cursor::new(bytes))), &self.cancel)
        }

        fn name(&self, tag: &str) -> Result<()> {
            let mut document = descriptor(tag.as_bytes());
            document.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
            LayoutWriter::open(&self.layout())?.name(document, tag, &self.cancel)
        }

        fn tags(&self) -> Vec<String> {
            let bytes = Layout::open(&self.layout()).unwrap().index().unwrap();
            let Document::Index(index) = Document::parse(&bytes, None).unwrap() else { panic!("an index") };
            let mut tags: Vec<String> =
                index.manifests.into_iter().map(|entry| entry.annotations[REF_NAME].clone()).collect();
            tags.sort_unstable();
            tags
        }
    }

    fn descriptor(bytes: &[u8]) -> Descriptor {
        Descriptor::new(crate::oci::descriptor::OCI_MANIFEST, Digest::of(bytes), bytes.len() as u64)
    }

    fn blob(bytes: &[u8]) -> String {
        format!("blobs/sha256/{}", Digest::of(bytes).hex())
    }

    fn names_in(dir: &Path) -> Vec<std::ffi::OsString> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn a_blob_is_written_once_and_only_as_it_was_announced() {
        let fixture = Fixture::new();
        fixture.put(b"whole").unwrap();
        assert_eq!(std::fs::read(fixture.layout().join(blob(b"whole"))).unwrap(), b"whole");
        let writer = LayoutWriter::open(&fixture.layout()).unwrap();
        writer
            .put(&descriptor(b"whole"), &mut || panic!("it is there"), &fixture.cancel)
            .expect("nothing is left to do");
        let other =
            writer.put(&descriptor(b"other"), &mut || Ok(Box::new(Cursor::new(b"wrong"))), &fixture.cancel);
        assert!(matches!(other, Err(Error::Mismatch { .. })), "{other:?}");
        assert_eq!(names_in(&fixture.layout().join("blobs/sha256")).len(), 1);
        assert_eq!(names_in(&fixture.layout()).len(), 2, "nothing is left aside");
    }

    #[test]
    fn a_link_in_the_place_of_a_directory_is_refused_and_nothing_is_written_behind_it() {
        for (link, before) in [("blobs", None), ("blobs/sha256", Some("blobs"))] {
            let fixture = Fixture::new();
            let outside = fixture.outside();
            std::fs::create_dir_all(fixture.layout().join(before.unwrap_or_default())).unwrap();
            std::fs::create_dir(outside.join("sha256")).unwrap();
            for target in [outside.as_path(), Path::new("../outside"), Path::new("../../outside")] {
                let path = fixture.layout().join(link);
                symlink(target, &path).unwrap();
                let refused = fixture.put(b"x").unwrap_err().to_string();
                assert!(refused.contains(&format!("{} is a symbolic link", path.display())), "{refused}");
                std::fs::remove_file(path).unwrap();
            }
            assert_eq!(names_in(&outside), ["sha256"]);
            assert!(names_in(&outside.join("sha256")).is_empty());
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_file_is_replaced_and_not_followed() {
        let fixture = Fixture::new();
        let victim = fixture.outside().join("victim");
        std::fs::write(&victim, "mine").unwrap();
        fixture.put(b"x").unwrap();
        let bytes: &'static [u8] = Box::leak(vec![b'y'; victim.as_os_str().len()].into_boxed_slice());
        // A link is as long as its target's path: this one has the size of the blob that it stands for.
        for name in [blob(bytes), "index.json".into(), "oci-layout".into()] {
            let path = fixture.layout().join(name);
            let _ = std::fs::remove_file(&path);
            symlink(&victim, path).unwrap();
        }
        fixture.put(bytes).unwrap();
        assert_eq!(std::fs::read(fixture.layout().join(blob(bytes))).unwrap(), bytes);
        fixture.name("tag").unwrap();
        assert_eq!(fixture.tags(), ["tag"]);
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
    }

    #[test]
    fn a_tag_names_the_last_document_that_got_it() {
        let fixture = Fixture::new();
        for tag in ["a", "b", "a"] {
            fixture.name(tag).unwrap();
        }
        assert_eq!(fixture.tags(), ["a", "b"]);
    }

    #[test]
    fn no_entry_is_lost_when_many_write_the_index_at_once() {
        let fixture = Fixture::new();
        let tags: Vec<String> = (10..50).map(|n| format!("tag{n}")).collect();
        std::thread::scope(|scope| {
            for some in tags.chunks(10) {
                scope.spawn(|| some.iter().for_each(|tag| fixture.name(tag).unwrap()));
            }
        });
        assert_eq!(fixture.tags(), tags);
    }

    #[test]
    fn a_wait_for_the_index_can_be_cancelled() {
        let fixture = Fixture::new();
        let writer = LayoutWriter::open(&fixture.layout()).unwrap();
        let held = writer.lock(&fixture.cancel).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| fixture.name("tag"));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!waiting.is_finished());
            fixture.cancel.raise();
            assert!(matches!(waiting.join().unwrap(), Err(Error::Cancelled)));
        });
        drop(held);
    }
}
