//! [`DirSink`]: a layer as a directory in overlayfs's own layout.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek as _, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::fs::open_resolved;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, makedev};
use rustix::io::Errno;

use super::like::{Like, Twin};
use super::parents::{Missing, Open, Parents, dir_flags, not_plain};
use super::times::Times;
use super::{LayerSink, Metadata, NodeKind};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::snapshot::Marks;
use crate::snapshot::owner::{OwnerView, times};

/// As large as a copy is fast: larger buffers leave the processor's cache.
const BUFFER: usize = 128 * 1024;
const UNPACKING: &str = "unpacking";
/// How many bytes of paths, and of what keeping them takes, may be waiting for lower layers. Real layers have a few hundred.
const MOST_IMPLIED: usize = 8 << 20;
const KEEPING: usize = 64;

/// What a layer leaves to the layers below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Implied {
    /// Directories that entries need but that were not given themselves. They were made 0755, root's, of 1970.
    pub dirs: Vec<PathBuf>,
    /// Hard links (path, target) whose target is not in this layer. Nothing was made for them.
    pub links: Vec<(PathBuf, PathBuf)>,
}

/// Writes a layer into an empty directory, or files into one of the host. Nothing outside of it is touched, whatever the entries are (R1, R5).
#[derive(Debug)]
pub struct DirSink {
    parents: Parents,
    notes: Notes,
    buffer: Vec<u8>,
    like: Option<Like>,
}

#[derive(Debug)]
struct Notes {
    view: OwnerView,
    marks: Result<Marks, Errno>,
    /// In the order they were given, so that the last time of a directory wins.
    times: Times,
    implied: BTreeSet<PathBuf>,
    links: Vec<(PathBuf, PathBuf)>,
    /// Bytes that the last two take.
    remembered: usize,
}

impl DirSink {
    /// `dir` must have been opened for reading (not `O_PATH`).
    pub fn new(dir: OwnedFd, view: OwnerView) -> DirSink {
        let parents = Parents::new(dir);
        let notes = Notes {
            view,
            marks: parents.marks(),
            times: Times::default(),
            implied: BTreeSet::new(),
            links: Vec::new(),
            remembered: 0,
        };
        DirSink { parents, notes, buffer: Vec::new(), like: None }
    }

    /// Files that the layer in this directory has as well, time included, become further names of those.
    #[must_use]
    pub fn like(mut self, layer: OwnedFd) -> DirSink {
        self.like = Some(Like::new(layer, self.notes.view));
        self
    }

    /// Sets the times of directories, which entries made in them have changed, and tells what is left.
    ///
    /// # Errors
    /// When a time can't be set.
    pub fn finish(mut self) -> Result<Implied> {
        self.parents.forget();
        for entry in std::mem::take(&mut self.notes.times).into_iter()? {
            let (path, mtime) = entry?;
            if let Some(open) = self.parents.find(&path, None)? {
                rustix::fs::futimens(&open.fd, &times(mtime))
                    .map_err(Error::io("setting the time of", &path))?;
            }
        }
        let mut implied = Implied::default();
        for path in std::mem::take(&mut self.notes.implied) {
            // A later entry may have replaced the directory.
            if self.parents.find(&path, None)?.is_some_and(|open| open.real == path) {
                implied.dirs.push(path);
            }
        }
        for (path, target) in std::mem::take(&mut self.notes.links) {
            if !self.exists(&path)? {
                implied.links.push((path, target));
            }
        }
        Ok(implied)
    }

    /// A file with the bytes of another one, copied by the kernel: where it can, they share them. Holes stay holes.
    ///
    /// # Errors
    /// When it can't be made or read, or `cancel` is raised.
    pub fn file_from(&mut self, path: &Path, meta: &Metadata, from: &File, cancel: &Cancel) -> Result<()> {
        let mut file = self.new_file(path)?;
        super::content::copy(from, &mut file, path, cancel)?;
        self.notes.dress(&file, meta, path)
    }

    fn exists(&mut self, path: &Path) -> Result<bool> {
        let (parent, name) = split(path)?;
        let Some(open) = self.parents.find(parent, None)? else { return Ok(false) };
        match rustix::fs::statat(&open.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(Error::io(UNPACKING, path)(e)),
        }
    }

    fn parent<'p>(&mut self, path: &'p Path) -> Result<(Open, &'p OsStr)> {
        let (parent, name) = split(path)?;
        let open = self.parents.find(parent, Some(&mut self.notes))?;
        Ok((open.expect("a missing directory was made"), name))
    }

    /// Makes an entry with `create`, clearing away what is in its place.
    fn create<T>(
        &mut self,
        path: &Path,
        doing: &'static str,
        create: impl Fn(&Open, &OsStr) -> Result<T, Errno>,
    ) -> Result<(T, Open)> {
        let (at, name) = self.parent(path)?;
        let result = match create(&at, name) {
            Err(Errno::EXIST) => self.clear(&at, name).and_then(|()| create(&at, name)),
            other => other,
        };
        Ok((result.map_err(Error::io(doing, path))?, at))
    }

    fn clear(&mut self, at: &Open, name: &OsStr) -> Result<(), Errno> {
        self.parents.forget();
        remove(&at.fd, name)
    }

    fn make_dir(&mut self, at: &Open, name: &OsStr) -> Result<OwnedFd, Errno> {
        let mut opaque = false;
        match rustix::fs::mkdirat(&at.fd, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&at.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    // A whiteout hides what is below; the directory that follows it must go on hiding it.
                    opaque = self.notes.marks?.is_whiteout_at(&at.fd, name, &stat)?;
                    self.clear(at, name)?;
                    rustix::fs::mkdirat(&at.fd, name, Mode::RWXU)?;
                }
            }
            Err(e) => return Err(e),
        }
        let fd = rustix::fs::openat(&at.fd, name, dir_flags(), Mode::empty())?;
        if opaque {
            self.notes.set_opaque(&fd)?;
        }
        Ok(fd)
    }

    fn new_file(&mut self, path: &Path) -> Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (fd, _) = self.create(path, "creating file", |at, name| {
            rustix::fs::openat(&at.fd, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        Ok(fd.into())
    }

    /// The next of `left` bytes, in the buffer.
    fn read(&mut self, path: &Path, left: u64, data: &mut dyn Read) -> Result<usize> {
        self.buffer.resize(BUFFER, 0);
        let want = usize::try_from(left).map_or(BUFFER, |n| n.min(BUFFER));
        loop {
            let error = match data.read(&mut self.buffer[..want]) {
                Ok(0) => ErrorKind::UnexpectedEof.into(),
                Ok(n) => return Ok(n),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => e,
            };
            return Err(Error::io("reading the content of", path)(error));
        }
    }

    fn copy(&mut self, path: &Path, size: u64, data: &mut dyn Read, mut out: &File) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let n = self.read(path, left, data)?;
            out.write_all(&self.buffer[..n]).map_err(Error::io(UNPACKING, path))?;
            left -= n as u64;
        }
        Ok(())
    }

    /// Whether `path` could become a name of `twin`. If that has too many, or is somebody else's, it is made anew.
    fn link(&mut self, path: &Path, twin: &Twin<'_>) -> bool {
        self.create(path, "linking", |at, name| twin.link(&at.fd, name)).is_ok()
    }

    /// Compares the bytes of `data` with those of `twin` as they come. If all are the same, the file has one more name
    /// and there is nothing left to write; else gives the new file, with what has come written to it.
    fn compare(
        &mut self,
        path: &Path,
        size: u64,
        data: &mut dyn Read,
        mut twin: Twin<'_>,
    ) -> Result<Option<(File, u64)>> {
        let (mut same, mut other) = (0, 0);
        while same < size && other == 0 {
            let n = self.read(path, size - same, data)?;
            let like = self.like.as_mut().expect("a twin is of an earlier layer");
            if like.goes_on(&mut twin, &self.buffer[..n]) {
                same += n as u64;
            } else {
                other = n;
            }
        }
        if other == 0 && self.link(path, &twin) {
            return Ok(None);
        }
        let (mut from, mut out) = (twin.into_file(), self.new_file(path)?);
        let copied = from.rewind().and_then(|()| std::io::copy(&mut from.take(same), &mut out));
        if copied.map_err(Error::io(UNPACKING, path))? != same {
            return Err(Error::malformed(path.display().to_string(), "the file shrank while it was read"));
        }
        out.write_all(&self.buffer[..other]).map_err(Error::io(UNPACKING, path))?;
        Ok(Some((out, size - same - other as u64)))
    }
}

impl LayerSink for DirSink {
    fn dir(&mut self, path: &Path, meta: &Metadata) -> Result<()> {
        if path.as_os_str().is_empty() {
            self.notes.times.push(&self.parents.root().fd, Path::new(""), meta.mtime)?;
            return own(self.notes.view, &self.parents.root().fd, meta, path);
        }
        let (at, name) = self.parent(path)?;
        let real = at.below(name)?;
        let fd = self.make_dir(&at, name).map_err(Error::io("creating directory", path))?;
        own(self.notes.view, &fd, meta, path)?;
        let open = Open { fd: fd.into(), real };
        self.notes.implied.remove(&open.real);
        self.notes.times.push(&self.parents.root().fd, &open.real, meta.mtime)?;
        // Making the directory may have forgotten the chain; only then is the parent looked up again.
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.parents.find(parent, None)?.is_some() {
            self.parents.entered(name, open);
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, meta: &Metadata, size: u64, data: &mut dyn Read) -> Result<()> {
        let twin = self.like.as_mut().and_then(|like| like.twin(path, meta, size));
        let (file, left) = match twin {
            None => (self.new_file(path)?, size),
            Some(twin) => match self.compare(path, size, data, twin)? {
                Some(begun) => begun,
                None => return Ok(()),
            },
        };
        self.copy(path, left, data, &file)?;
        self.notes.dress(&file, meta, path)
    }

    fn file_as_before(&mut self, path: &Path, meta: &Metadata, size: u64) -> Result<Option<File>> {
        let twin = self.like.as_mut().and_then(|like| like.twin(path, meta, size));
        Ok(twin.and_then(|twin| self.link(path, &twin).then(|| twin.into_file())))
    }

    fn symlink(&mut self, path: &Path, meta: &Metadata, target: &OsStr) -> Result<()> {
        let ((), at) = self
            .create(path, "creating symbolic link", |at, name| rustix::fs::symlinkat(target, &at.fd, name))?;
        own_at(self.notes.view, &at, path, meta, true)
    }

    fn hard_link(&mut self, path: &Path, target: &Path) -> Result<()> {
        let (from, from_name) = split(target)?;
        let Some(source) = self.parents.find(from, None)? else { return self.notes.link(path, target) };
        let found = match rustix::fs::statat(&source.fd, from_name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return self.notes.link(path, target),
            Ok(stat) => stat,
            Err(e) => return Err(Error::io("linking to", target)(e)),
        };
        let hidden = self.notes.marks.and_then(|marks| marks.is_whiteout_at(&source.fd, from_name, &found));
        if hidden.map_err(Error::io("linking to", target))? {
            return self.notes.link(path, target);
        }
        let (at, name) = self.parent(path)?;
        if rustix::fs::statat(&at.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|s| s.st_ino == found.st_ino && s.st_dev == found.st_dev)
        {
            return Ok(());
        }
        self.create(path, "creating hard link", |at, name| {
            rustix::fs::linkat(&source.fd, from_name, &at.fd, name, AtFlags::empty())
        })?;
        Ok(())
    }

    fn node(&mut self, path: &Path, meta: &Metadata, kind: NodeKind) -> Result<()> {
        let (doing, file_type, device) = match kind {
            // overlayfs takes this device for a whiteout, so that is what it is.
            NodeKind::Char { major: 0, minor: 0 } => return self.whiteout(path),
            NodeKind::Fifo => ("creating pipe", FileType::Fifo, 0),
            NodeKind::Char { major, minor } => {
                ("creating character device", FileType::CharacterDevice, makedev(major, minor))
            }
            NodeKind::Block { major, minor } => {
                ("creating block device", FileType::BlockDevice, makedev(major, minor))
            }
        };
        let view = self.notes.view;
        let (made, at) = self.create(path, doing, |at, name| {
            match rustix::fs::mknodat(&at.fd, name, file_type, Mode::RUSR | Mode::WUSR, device) {
                // In a user namespace: the layer still has it, by a file that stands for it.
                Err(Errno::PERM) if device != 0 && view != OwnerView::Real => Ok(false),
                made => made.map(|()| true),
            }
        })?;
        if made {
            return own_at(view, &at, path, meta, false);
        }
        let file = self.new_file(path)?;
        view.record_device(&file, kind).map_err(Error::io(doing, path))?;
        self.notes.dress(&file, meta, path)
    }

    fn whiteout(&mut self, path: &Path) -> Result<()> {
        let (at, name) = self.parent(path)?;
        match self.notes.marks.and_then(|marks| marks.make_whiteout(&at.fd, name)) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(Error::io("creating whiteout", path)(e)),
        }
        // Something of this layer is in its place, and stays: a directory must not show what is below it.
        let stat = rustix::fs::statat(&at.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io(UNPACKING, path))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.opaque(path);
        }
        Ok(())
    }

    fn opaque(&mut self, path: &Path) -> Result<()> {
        let open = self.parents.find(path, Some(&mut self.notes))?.expect("a missing directory was made");
        self.notes.set_opaque(&open.fd).map_err(Error::io("making opaque", path))
    }
}

impl Notes {
    fn dress(&self, file: &File, meta: &Metadata, path: &Path) -> Result<()> {
        own(self.view, file, meta, path)?;
        rustix::fs::futimens(file, &times(meta.mtime)).map_err(Error::io("setting the time of", path))
    }

    fn set_opaque(&self, dir: impl AsFd) -> Result<(), Errno> {
        self.marks?.set_opaque(self.view, dir)
    }

    fn link(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.remember(&[path, target])?;
        self.links.push((path.to_owned(), target.to_owned()));
        Ok(())
    }
}

impl Notes {
    /// Counts what is to be remembered until the end.
    fn remember(&mut self, paths: &[&Path]) -> Result<()> {
        self.remembered += paths.iter().map(|path| KEEPING + path.as_os_str().len()).sum::<usize>();
        if self.remembered <= MOST_IMPLIED {
            return Ok(());
        }
        let reason = "more directories and links that the layer does not bring itself than it may need";
        Err(Error::malformed(paths[0].display().to_string(), reason))
    }
}

impl Missing for Notes {
    fn made(&mut self, dir: &Open, opaque: bool) -> Result<()> {
        let meta = Metadata { mode: 0o755, ..Metadata::default() };
        own(self.view, &dir.fd, &meta, &dir.real)?;
        if opaque {
            self.set_opaque(&dir.fd).map_err(Error::io("making opaque", &dir.real))?;
        }
        self.times.push(&dir.fd, &dir.real, meta.mtime)?;
        self.remember(&[&dir.real])?;
        self.implied.insert(dir.real.clone());
        Ok(())
    }
}

fn own(view: OwnerView, fd: &impl AsFd, meta: &Metadata, path: &Path) -> Result<()> {
    view.write(fd.as_fd(), meta).map_err(|(doing, errno)| not_owned(view, meta, doing, path, errno))
}

/// In a user namespace the kernel calls an id invalid that the namespace does not have.
fn not_owned(view: OwnerView, meta: &Metadata, doing: &'static str, path: &Path, errno: Errno) -> Error {
    if errno != Errno::INVAL || view != OwnerView::MappedIds {
        return Error::io(doing, path)(errno);
    }
    let source = std::io::Error::other(format!(
        "the ranges of this user in /etc/subuid and /etc/subgid have no ids for user {} and group {}",
        meta.uid, meta.gid
    ));
    Error::Io { doing, path: path.to_owned(), source }
}

fn own_at(view: OwnerView, at: &Open, path: &Path, meta: &Metadata, is_link: bool) -> Result<()> {
    let (_, name) = split(path)?;
    view.write_at(at.fd.as_fd(), name.as_bytes(), meta, is_link)
        .map_err(|(doing, errno)| not_owned(view, meta, doing, path, errno))
}

/// The parent and the last component of a path that is not the root.
fn split(path: &Path) -> Result<(&Path, &OsStr)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent, name)),
        _ => Err(not_plain(path)),
    }
}

/// Removes `name` in `parent` and all that is in it, one open directory at a time however deep it is.
fn remove(parent: &impl AsFd, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    let mut pending = vec![PathBuf::from(name)];
    while let Some(path) = pending.last().cloned() {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let fd = open_resolved(parent, &path, dir_flags(), Mode::empty(), resolve)?;
        let mut empty = true;
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            match rustix::fs::unlinkat(&fd, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => {
                    pending.push(path.join(OsStr::from_bytes(name.to_bytes())));
                    empty = false;
                }
                other => other?,
            }
        }
        if empty {
            rustix::fs::unlinkat(parent, &path, AtFlags::REMOVEDIR)?;
            pending.pop();
        }
    }
    Ok(())
}
