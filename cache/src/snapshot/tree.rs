//! [`Tree`]: a read-only view of a stack of layers as the kernel would show it, without mounting it, or of one plain
//! directory. Links are resolved inside the tree, never the host's (R1).

mod as_one;
mod resolve;
mod walk;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::fs::open_resolved;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

pub use walk::Walk;

use super::Marks;
use super::owner::OwnerView;
use crate::error::{Error, Result};
use crate::layer::sink::{Metadata, NodeKind};

/// A stack of layers, or one directory.
#[derive(Debug)]
pub struct Tree {
    /// Topmost first.
    layers: Vec<StackLayer>,
    view: OwnerView,
    /// Whether whiteouts and opaque directories mean something.
    is_stack: bool,
}

#[derive(Debug)]
struct StackLayer {
    dir: OwnedFd,
    /// No time in it counts after this one.
    epoch: Option<i64>,
    marks: Result<Marks, Errno>,
}

/// What an entry of a tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Dir,
    File,
    Symlink(OsString),
    Node(NodeKind),
    Socket,
}

/// One entry.
#[derive(Clone, Debug)]
pub struct Node {
    /// From the root, relative, and with no link in it (but the entry itself may be one). Empty for the root.
    pub path: PathBuf,
    pub kind: Kind,
    /// As the image means it.
    pub meta: Metadata,
    /// Of a regular file, in bytes.
    pub size: u64,
    /// The same for all names of one file (of which this is one), if it has several; none otherwise.
    pub group: Option<(u64, u64)>,
    /// Which of the layers shows it.
    layer: usize,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    pub name: OsString,
    pub kind: FileType,
}

/// Where a regular file's bytes are.
#[derive(Debug)]
pub struct Extent {
    pub file: File,
    pub offset: u64,
    pub len: u64,
}

impl Extent {
    /// The bytes, from the beginning; `file`'s own position is not used.
    pub fn reader(&self) -> ExtentReader<'_> {
        ExtentReader { extent: self, at: 0 }
    }
}

/// Reads an [`Extent`], and reports it if the file is shorter than it should be by ending early.
#[derive(Debug)]
pub struct ExtentReader<'a> {
    extent: &'a Extent,
    at: u64,
}

impl Read for ExtentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.extent.len - self.at).unwrap_or(usize::MAX);
        let want = left.min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let n = rustix::io::pread(&self.extent.file, &mut buffer[..want], self.extent.offset + self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// A directory of the tree: its real path and the layers that contribute to it, topmost first.
#[derive(Clone, Debug)]
struct Place {
    path: PathBuf,
    layers: Vec<usize>,
}

/// An entry as one layer has it.
struct Found {
    fd: OwnedFd,
    stat: Stat,
}

impl Tree {
    /// The stack of `layers`, bottom first; each is a directory in overlayfs's own layout. None at all is an empty
    /// tree without even a root.
    pub fn merged(layers: Vec<OwnedFd>) -> Tree {
        Tree::of_layers(layers.into_iter().map(|dir| (dir, None)).collect())
    }

    /// The same of layers that may have an epoch.
    pub(super) fn of_layers(layers: Vec<(OwnedFd, Option<i64>)>) -> Tree {
        let layer = |(dir, epoch)| StackLayer { marks: Marks::of(&dir), dir, epoch };
        let layers = layers.into_iter().rev().map(layer).collect();
        Tree { layers, view: OwnerView::current(), is_stack: true }
    }

    /// One directory as it is.
    pub fn plain(dir: OwnedFd) -> Tree {
        let layer = StackLayer { dir, epoch: None, marks: Ok(Marks::Overlay) };
        Tree { layers: vec![layer], view: OwnerView::Real, is_stack: false }
    }

    /// The entry at `path`, absolute or relative to the root. Links before the last component are followed inside
    /// the tree, the last one if `follow` is set; a `..` never leads above the root.
    ///
    /// # Errors
    /// When a layer can't be read, or more than 40 links were followed.
    pub fn lookup(&self, path: impl AsRef<Path>, follow: bool) -> Result<Option<Node>> {
        let path = path.as_ref();
        let Some(found) = self.resolve(path, follow)? else { return Ok(None) };
        self.node(found.path, found.layer).map(Some)
    }

    /// The names in the directory at `path` (links followed), in the order of their bytes.
    ///
    /// # Errors
    /// When there is no such directory, or it can't be read.
    pub fn readdir(&self, path: impl AsRef<Path>) -> Result<Vec<DirEntry>> {
        let path = path.as_ref();
        let found = self.resolve(path, true)?.and_then(|found| found.dir);
        let place =
            found.ok_or_else(|| Error::NotFound { what: "directory", name: path.display().to_string() })?;
        let children = self.children(&place)?;
        Ok(children.into_iter().map(|c| DirEntry { name: c.name, kind: c.kind }).collect())
    }

    /// The entry at `path` (links followed) and everything below it, parents first, names in the order of their
    /// bytes. Nothing is kept but the names that are still to be visited on the way down. A path that does not
    /// exist gives an empty walk.
    ///
    /// # Errors
    /// When `path` can't be resolved; errors of entries come with the walk.
    pub fn walk(&self, path: impl AsRef<Path>) -> Result<Walk<'_>> {
        Ok(Walk::new(self, self.resolve(path.as_ref(), true)?))
    }

    /// The bytes of a regular file.
    ///
    /// # Errors
    /// When `node` is no regular file, or can't be opened.
    pub fn open(&self, node: &Node) -> Result<Extent> {
        if node.kind != Kind::File {
            return Err(Error::malformed(node.path.display().to_string(), "not a regular file"));
        }
        let found = self.open_in(node.layer, &node.path, OFlags::RDONLY | OFlags::NONBLOCK);
        let file = found.map_err(Error::io("opening", &node.path))?.into();
        Ok(Extent { file, offset: 0, len: node.size })
    }

    /// The content of the regular file at `path` (links followed), if there is one.
    ///
    /// # Errors
    /// When it is larger than `limit` bytes, or can't be read.
    pub fn read_file(&self, path: impl AsRef<Path>, limit: u64) -> Result<Option<Vec<u8>>> {
        let path = path.as_ref();
        let Some(node) = self.lookup(path, true)?.filter(|node| node.kind == Kind::File) else {
            return Ok(None);
        };
        let mut content = Vec::new();
        let extent = self.open(&node)?;
        let read = (&extent.file).take(limit.saturating_add(1)).read_to_end(&mut content);
        if read.map_err(Error::io("reading", path))? as u64 > limit {
            return Err(Error::malformed(path.display().to_string(), format!("larger than {limit} bytes")));
        }
        Ok(Some(content))
    }

    /// The node of what `layer` has at the real path `path`.
    fn node(&self, path: PathBuf, layer: usize) -> Result<Node> {
        let failed = |e: Errno| Error::io("reading", &path)(e);
        let Found { fd, stat } =
            self.find_in(layer, &path).and_then(|f| f.ok_or(Errno::NOENT)).map_err(failed)?;
        let mut kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Dir,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Symlink(link_target(&fd).map_err(failed)?),
            FileType::Socket => Kind::Socket,
            other => Kind::Node(node_kind(other, &stat)),
        };
        let mut meta = match kind {
            Kind::Dir | Kind::File => {
                let open = self.open_in(layer, &path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(failed)?;
                let mut meta = self.view.read(&open, &stat).map_err(failed)?;
                if kind == Kind::File
                    && let Some(device) = self.view.recorded_device(&open, &stat).map_err(failed)?
                {
                    kind = Kind::Node(device);
                    meta.xattrs.clear();
                }
                meta
            }
            _ => self.view.read_plain(&stat),
        };
        meta.mtime = meta.mtime.until(self.layers[layer].epoch);
        let is_file = kind == Kind::File;
        let group = (kind != Kind::Dir && stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        let size = if is_file { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        Ok(Node { path, kind, meta, size, group, layer })
    }

    /// What one layer has at a real path, without following anything; none if there is nothing.
    fn find_in(&self, layer: usize, path: &Path) -> Result<Option<Found>, Errno> {
        match self.open_in(layer, path, OFlags::PATH) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd)?;
                Ok(Some(Found { fd, stat }))
            }
            // A component that is no directory in this layer hides what lower layers have, which the caller knows.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn open_in(&self, layer: usize, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open_resolved(&self.layers[layer].dir, path, flags, Mode::empty(), resolve)
    }

    /// Keeps the layers down to the first one that has the directory `path` opaque.
    fn cut_at_opaque(&self, path: &Path, layers: &mut Vec<usize>) -> Result<(), Errno> {
        if !self.is_stack || layers.len() < 2 {
            return Ok(());
        }
        for at in 0..layers.len() - 1 {
            let dir = self.open_in(layers[at], path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            if self.layers[layers[at]].marks?.is_opaque(self.view, dir)? {
                layers.truncate(at + 1);
                break;
            }
        }
        Ok(())
    }

    fn root(&self) -> Result<Option<Place>> {
        let mut layers: Vec<usize> = (0..self.layers.len()).collect();
        if layers.is_empty() {
            return Ok(None);
        }
        self.cut_at_opaque(Path::new(""), &mut layers)
            .map_err(Error::io("reading", "the root of a layer"))?;
        Ok(Some(Place { path: PathBuf::new(), layers }))
    }

    /// The merged names of a directory, in the order of their bytes.
    fn children(&self, place: &Place) -> Result<Vec<Child>> {
        let mut children = self.all_children(place)?;
        children.retain(|child| !child.hidden);
        Ok(children)
    }

    /// The same with those that are hidden.
    fn all_children(&self, place: &Place) -> Result<Vec<Child>> {
        let failed = |e: Errno| Error::io("reading directory", &place.path)(e);
        let mut children: Vec<Child> = Vec::new();
        let mut known = std::collections::HashMap::new();
        for layer in &place.layers {
            let dir =
                self.open_in(*layer, &place.path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed)?;
            for entry in Dir::read_from(&dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let bytes = entry.file_name().to_bytes();
                if matches!(bytes, b"." | b"..") {
                    continue;
                }
                let name = OsStr::from_bytes(bytes);
                let (kind, hides) = self.kind_in(*layer, &dir, name, entry.file_type()).map_err(failed)?;
                let at = *known.entry(name.to_owned()).or_insert(children.len());
                if at == children.len() {
                    children.push(Child {
                        name: name.to_owned(),
                        kind,
                        layers: vec![*layer],
                        hidden: hides,
                        closed: false,
                    });
                } else {
                    children[at].below(*layer, kind, hides);
                }
            }
        }
        children.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(children)
    }

    /// The type of a name, and whether it is a whiteout.
    fn kind_in(
        &self,
        layer: usize,
        dir: &OwnedFd,
        name: &OsStr,
        kind: FileType,
    ) -> Result<(FileType, bool), Errno> {
        let marks = self.layers[layer].marks?;
        if kind != FileType::Unknown && kind != marks.whiteout_type() {
            return Ok((kind, false));
        }
        let stat = rustix::fs::statat(dir.as_fd(), name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        let hides = self.is_stack && marks.is_whiteout_at(dir, name, &stat)?;
        Ok((FileType::from_raw_mode(stat.st_mode), hides))
    }
}

/// A name that a merged directory shows, and the layers that have it.
struct Child {
    name: OsString,
    kind: FileType,
    /// More than one only if it is a directory in all of them.
    layers: Vec<usize>,
    hidden: bool,
    /// Nothing further down can contribute.
    closed: bool,
}

impl Child {
    fn below(&mut self, layer: usize, kind: FileType, hides: bool) {
        let both_dirs = self.kind == FileType::Directory && kind == FileType::Directory && !hides;
        if both_dirs && !self.hidden && !self.closed {
            self.layers.push(layer);
        } else {
            self.closed = true;
        }
    }
}

fn link_target(link: &OwnedFd) -> Result<OsString, Errno> {
    Ok(OsString::from_vec(rustix::fs::readlinkat(link, "", Vec::new())?.into_bytes()))
}

fn node_kind(kind: FileType, stat: &Stat) -> NodeKind {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    match kind {
        FileType::CharacterDevice => NodeKind::Char { major, minor },
        FileType::BlockDevice => NodeKind::Block { major, minor },
        _ => NodeKind::Fifo,
    }
}

#[cfg(test)]
mod tests;
