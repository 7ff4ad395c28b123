//! From a layer directory back to an archive: the walk that gives the archive's bytes, the diff id, and the digest
//! of what the layer changes. The layer itself is read, never a mounted view of it.

mod names;

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::fs::names::Names;
use crate::fs::open_resolved;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use self::names::FirstNames;
use super::sink::{Metadata, NodeKind};
use super::tar::{EntryKind, Writer};
use crate::cancel::Cancel;
use crate::digest::{Algorithm, ContentDigest, DiffId, Hasher};
use crate::error::{Error, Result};
use crate::fs::whiteout::{OPAQUE, PREFIX};
use crate::snapshot::Marks;
use crate::snapshot::owner::OwnerView;

const BUFFER: usize = 128 * 1024;
const READING: &str = "reading the layer's";

/// What a layer directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSummary {
    pub diff_id: DiffId,
    /// Of the uncompressed archive, in bytes.
    pub tar_size: u64,
    /// Of paths, types, modes, owners, kept attributes, links, hard-link groups, deletions and bytes; not of times.
    pub content: ContentDigest,
    pub entries: u64,
}

/// What [`write_tar`] would write, without writing it.
///
/// # Errors
/// As [`write_tar`].
pub fn scan(layer: BorrowedFd<'_>, epoch: Option<i64>, cancel: &Cancel) -> Result<LayerSummary> {
    write_tar(layer, epoch, &mut std::io::sink(), cancel)
}

/// Writes the layer as an archive (OCI image-spec, layer): entries in the order of their names' bytes, parents first.
/// The same layer gives the same bytes. Times later than `epoch` (seconds since 1970) become that. Sockets are left
/// out, as an archive has none. `out` gets small pieces.
///
/// # Errors
/// When the layer can't be read or changes meanwhile, `out` fails, or `cancel` is raised.
pub fn write_tar(
    layer: BorrowedFd<'_>,
    epoch: Option<i64>,
    out: &mut dyn Write,
    cancel: &Cancel,
) -> Result<LayerSummary> {
    let mut pass = Pass {
        view: OwnerView::current(),
        marks: Marks::of(layer).map_err(Error::io(READING, "root"))?,
        cancel,
        sum: Sum::new(out, epoch),
        layer,
        names: FirstNames::default(),
        buffer: Vec::new(),
    };
    pass.walk(layer)?;
    pass.sum.finish()
}

/// The summary in the making: entries in the archive's order go in, the archive's bytes come out.
pub(super) struct Sum<W> {
    tar: Writer<Hashed<W>>,
    content: blake3::Hasher,
    entries: u64,
    epoch: Option<i64>,
}

impl<W: Write> Sum<W> {
    pub(super) fn new(out: W, epoch: Option<i64>) -> Sum<W> {
        Sum {
            epoch,
            tar: Writer::new(Hashed { out, hasher: Algorithm::Sha256.hasher(), size: 0 }),
            content: blake3::Hasher::new_derive_key("boxwright layer content v1"),
            entries: 0,
        }
    }

    /// An entry; the bytes of a file follow with [`Sum::data`].
    pub(super) fn entry(&mut self, path: &Path, meta: &Metadata, kind: &EntryKind) -> Result<()> {
        self.entries += 1;
        describe(&mut self.content, path, meta, kind);
        let mtime = meta.mtime.until(self.epoch);
        if mtime == meta.mtime {
            return self.tar.entry(path, meta, kind).map_err(writing);
        }
        self.tar.entry(path, &Metadata { mtime, ..meta.clone() }, kind).map_err(writing)
    }

    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.content.update(bytes);
        self.tar.content(bytes).map_err(writing)
    }

    /// A deletion, or the mark of an opaque directory. It has no metadata worth keeping, so it has none that could
    /// differ.
    pub(super) fn marker(&mut self, path: &Path) -> Result<()> {
        self.entry(path, &Metadata::default(), &EntryKind::File { size: 0 })
    }

    pub(super) fn finish(self) -> Result<LayerSummary> {
        let hashed = self.tar.finish().map_err(writing)?;
        Ok(LayerSummary {
            diff_id: DiffId(hashed.hasher.finish()),
            tar_size: hashed.size,
            content: ContentDigest(*self.content.finalize().as_bytes()),
            entries: self.entries,
        })
    }
}

/// Counts and hashes what passes.
struct Hashed<W> {
    out: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
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

struct Pass<'a> {
    view: OwnerView,
    marks: Marks,
    cancel: &'a Cancel,
    sum: Sum<&'a mut dyn Write>,
    layer: BorrowedFd<'a>,
    names: FirstNames,
    buffer: Vec<u8>,
}

/// A directory on the way down, with what is left to visit in it.
struct Level {
    path: PathBuf,
    rest: Names,
}

impl Pass<'_> {
    /// One directory is open at a time, however deep the tree is.
    fn walk(&mut self, layer: BorrowedFd<'_>) -> Result<()> {
        let mut open = Some(open_dir(layer, Path::new("")).map_err(Error::io(READING, "root"))?);
        let mut levels = vec![level(open.as_ref(), PathBuf::new())?];
        while let Some(level_now) = levels.last_mut() {
            let Some((name, kind)) = level_now.rest.next() else {
                levels.pop();
                open = None;
                continue;
            };
            self.cancel.check()?;
            let path = level_now.path.join(&name);
            let dir = match open.take() {
                Some(dir) => dir,
                None => open_dir(layer, &level_now.path).map_err(Error::io(READING, &level_now.path))?,
            };
            match self.visit(&dir, &name, kind, &path)? {
                Some(child) => {
                    levels.push(level(Some(&child), path)?);
                    open = Some(child);
                }
                None => open = Some(dir),
            }
        }
        Ok(())
    }

    /// Writes one entry; a directory is given back to be entered.
    fn visit(&mut self, dir: &OwnedFd, name: &OsStr, kind: FileType, path: &Path) -> Result<Option<OwnedFd>> {
        let failed = |e: Errno| Error::io(READING, path)(e);
        let stat = || rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed);
        let kind = match kind {
            FileType::Unknown => FileType::from_raw_mode(stat()?.st_mode),
            known => known,
        };
        match kind {
            FileType::Directory => {
                let fd = rustix::fs::openat(dir, name, dir_flags(), Mode::empty()).map_err(failed)?;
                self.directory(&fd, path)?;
                return Ok(Some(fd));
            }
            FileType::RegularFile
                if self.marks == Marks::Own
                    && self.marks.is_whiteout_at(dir, name, &stat()?).map_err(failed)? =>
            {
                self.whiteout(path)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed)?;
                self.file(fd, path)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(failed)?;
                let meta = Metadata { mode: 0o777, ..self.view.read_plain(&stat()?) };
                self.linked(
                    path,
                    &stat()?,
                    &meta,
                    EntryKind::Symlink(OsString::from_vec(target.into_bytes())),
                )?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                let stat = stat()?;
                if self.marks.is_whiteout_at(dir, name, &stat).map_err(failed)? {
                    self.whiteout(path)?;
                } else {
                    let meta = self.view.read_plain(&stat);
                    self.linked(path, &stat, &meta, EntryKind::Node(node(kind, &stat)))?;
                }
            }
            _ => {}
        }
        Ok(None)
    }

    fn whiteout(&mut self, path: &Path) -> Result<()> {
        let marker = [PREFIX, path.file_name().unwrap_or_default().as_bytes()].concat();
        self.sum.marker(&path.with_file_name(OsStr::from_bytes(&marker)))
    }

    fn directory(&mut self, fd: &OwnedFd, path: &Path) -> Result<()> {
        let failed = |e: Errno| Error::io(READING, path)(e);
        let stat = rustix::fs::fstat(fd).map_err(failed)?;
        let meta = self.view.read(fd, &stat).map_err(failed)?;
        self.sum.entry(path, &meta, &EntryKind::Dir)?;
        if self.marks.is_opaque(self.view, fd).map_err(failed)? {
            self.sum.marker(&path.join(OsStr::from_bytes(OPAQUE)))?;
        }
        Ok(())
    }

    fn file(&mut self, fd: OwnedFd, path: &Path) -> Result<()> {
        let failed = |e: Errno| Error::io(READING, path)(e);
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        if let Some(device) = self.view.recorded_device(&fd, &stat).map_err(failed)? {
            let meta = Metadata { xattrs: Vec::new(), ..self.view.read(&fd, &stat).map_err(failed)? };
            return self.linked(path, &stat, &meta, EntryKind::Node(device)).map(drop);
        }
        let meta = self.view.read(&fd, &stat).map_err(failed)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if !self.linked(path, &stat, &meta, EntryKind::File { size })? {
            return Ok(());
        }
        let mut file = std::fs::File::from(fd);
        let mut left = size;
        let wanted = usize::try_from(size).unwrap_or(BUFFER).min(BUFFER);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while left > 0 {
            self.cancel.check()?;
            let want = usize::try_from(left).unwrap_or(BUFFER).min(self.buffer.len());
            let n = file.read(&mut self.buffer[..want]).map_err(Error::io(READING, path))?;
            if n == 0 {
                return Err(Error::malformed(
                    path.display().to_string(),
                    "the file shrank while it was read",
                ));
            }
            self.sum.data(&self.buffer[..n])?;
            left -= n as u64;
        }
        Ok(())
    }

    /// Writes `kind`, or a hard link if the same file came before under another name. True if it is the first.
    fn linked(&mut self, path: &Path, stat: &Stat, meta: &Metadata, kind: EntryKind) -> Result<bool> {
        if stat.st_nlink > 1 {
            let first = self.names.first(self.layer, (stat.st_dev, stat.st_ino), path);
            if let Some(first) = first.map_err(Error::io("keeping the names of files of", "the layer"))? {
                self.sum.entry(path, meta, &EntryKind::HardLink(first))?;
                return Ok(false);
            }
        }
        self.sum.entry(path, meta, &kind)?;
        Ok(true)
    }
}

/// Everything of an entry but its times and its bytes, each part with its length before it.
fn describe(content: &mut blake3::Hasher, path: &Path, meta: &Metadata, kind: &EntryKind) {
    let mut text = Vec::with_capacity(256);
    let mut part = |bytes: &[u8]| {
        text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        text.extend_from_slice(bytes);
    };
    part(path.as_os_str().as_bytes());
    match kind {
        EntryKind::Dir => part(b"dir"),
        EntryKind::File { size } => part(&[b"file", &size.to_le_bytes()[..]].concat()),
        EntryKind::Symlink(target) => part(&[b"link", target.as_bytes()].concat()),
        EntryKind::HardLink(first) => part(&[b"hard", first.as_os_str().as_bytes()].concat()),
        EntryKind::Node(NodeKind::Fifo) => part(b"fifo"),
        EntryKind::Node(NodeKind::Char { major, minor }) => part(format!("char {major} {minor}").as_bytes()),
        EntryKind::Node(NodeKind::Block { major, minor }) => {
            part(format!("block {major} {minor}").as_bytes())
        }
    }
    part(&[meta.mode.to_le_bytes(), meta.uid.to_le_bytes(), meta.gid.to_le_bytes()].concat());
    part(&(meta.xattrs.len() as u64).to_le_bytes());
    for (name, value) in &meta.xattrs {
        part(name);
        part(value);
    }
    content.update(&text);
}

fn level(dir: Option<&OwnedFd>, path: PathBuf) -> Result<Level> {
    let dir = dir.expect("a directory was just opened");
    let rest = Names::read(dir).map_err(Error::io(READING, &path))?;
    Ok(Level { path, rest })
}

pub(crate) fn open_dir(layer: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    open_resolved(layer, path, dir_flags(), Mode::empty(), resolve)
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn node(kind: FileType, stat: &Stat) -> NodeKind {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    match kind {
        FileType::CharacterDevice => NodeKind::Char { major, minor },
        FileType::BlockDevice => NodeKind::Block { major, minor },
        _ => NodeKind::Fifo,
    }
}

fn writing(source: std::io::Error) -> Error {
    Error::io("writing", "the layer archive")(source)
}

#[cfg(test)]
mod tests;
