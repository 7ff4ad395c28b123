//! ADD of a local archive: it is told by its content, whatever its name and compression, and unpacked below the
//! destination. Links, those of the archive and those that are there already, are resolved inside the destination, and
//! a `..` that leads out of it ends there.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use boxwright_cache::Cancel;
use boxwright_cache::Error as CacheError;
use boxwright_cache::layer::compress::{MAGIC, decompressor};
use boxwright_cache::layer::tar::{BLOCK, Entry as TarEntry, EntryKind, Limits, Reader, is_header};
use boxwright_cache::layer::{Compression, Metadata};
use boxwright_cache::snapshot::tree::Kind;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::FileError;
use super::resolve::{Seen, clean, resolve, shown};
use super::source::{Item, What, of_node};
use super::view::{Data, Entry, Owner, View};

const BUFFER: usize = 128 * 1024;

/// Plans what the archive `item` holds, below `dest`. False, and nothing planned, if it is no archive. The content of
/// a compressed archive waits in an unnamed file in `spool`.
pub(super) fn unpack(
    view: &mut View,
    item: &Item,
    dest: &str,
    owner: Option<Owner>,
    spool: BorrowedFd<'_>,
    cancel: &Cancel,
) -> Result<bool, FileError> {
    let What::File(content) = &item.what else { return Ok(false) };
    let file = || -> Result<File, FileError> { Ok(content.open()?.0) };
    let Some(compression) = detect(file()?) else { return Ok(false) };
    let root = view.resolve(&clean(dest))?;
    view.make_implied(&root, owner.unwrap_or_default())?;
    let archive = Archive { name: shown(&item.path), root, owner };
    let failed = |e: std::io::Error| archive.broken(e.to_string());
    let (source, content) = match compression {
        Compression::None => (file()?, Arc::new(file()?)),
        packed => {
            let content = temporary(spool)?;
            let mut out = content.try_clone().map_err(failed)?;
            let mut plain = decompressor(packed, file()?).map_err(failed)?;
            expand(&mut plain, &mut out, cancel).map_err(|e| archive.refused(e))?;
            (reopen(&content)?, Arc::new(content))
        }
    };
    archive.plan(view, source, &content, cancel)?;
    Ok(true)
}

/// How the file is compressed, if it is an archive: its first header must hold.
fn detect(file: File) -> Option<Compression> {
    let mut start = Vec::new();
    (&file).take(MAGIC as u64).read_to_end(&mut start).ok()?;
    let compression = Compression::detect(&start);
    let mut header = [0; BLOCK];
    decompressor(compression, start.chain(file)).ok()?.read_exact(&mut header).ok()?;
    is_header(&header).then_some(compression)
}

struct Archive {
    /// For messages.
    name: String,
    root: PathBuf,
    owner: Option<Owner>,
}

impl Archive {
    fn plan(
        &self,
        view: &mut View,
        source: File,
        content: &Arc<File>,
        cancel: &Cancel,
    ) -> Result<(), FileError> {
        let at = Rc::new(Cell::new(0));
        let counted = Counted { source: BufReader::with_capacity(BUFFER, source), at: at.clone() };
        let mut reader = Reader::new(counted, Limits::default()).clamped();
        while let Some(entry) = reader.next_entry().map_err(|e| self.refused(e))? {
            cancel.check()?;
            self.entry(view, entry, content, at.get())?;
        }
        Ok(())
    }

    fn entry(
        &self,
        view: &mut View,
        entry: TarEntry,
        content: &Arc<File>,
        offset: u64,
    ) -> Result<(), FileError> {
        if entry.path.as_os_str().is_empty() {
            return Ok(());
        }
        let TarEntry { path, mut meta, kind } = entry;
        if let Some(owner) = self.owner {
            (meta.uid, meta.gid) = (owner.uid, owner.gid);
        }
        let target = self.resolve(view, &path, kind == EntryKind::Dir)?;
        if target == self.root {
            return Ok(());
        }
        view.make_implied(target.parent().unwrap_or(Path::new("")), Owner::default())?;
        let planned = match kind {
            EntryKind::Dir => Entry::Dir { meta, opaque: false },
            EntryKind::File { size } => {
                Entry::File { meta, data: Data::Part { file: content.clone(), offset, size }, group: None }
            }
            EntryKind::Symlink(to) => Entry::Symlink { meta, target: to },
            EntryKind::Node(kind) => Entry::Node { meta, kind },
            EntryKind::HardLink(to) => {
                let to = self.resolve(view, &to, false)?;
                if to == target {
                    return Ok(());
                }
                self.link(view, &to, &meta)?
            }
        };
        view.put(&target, planned)
    }

    /// A path of the archive as a path in the image. Directories go through a link of their own name as well.
    fn resolve(&self, view: &mut View, path: &Path, follow: bool) -> Result<PathBuf, FileError> {
        Ok(self.root.join(resolve(path, follow, |p| -> Result<Option<Seen>, FileError> {
            view.look(&self.root.join(p))
        })?))
    }

    /// Another name for what is at `target`. A file of a lower layer is copied, so that both names are one file here;
    /// the file becomes what the new name says of it.
    fn link(&self, view: &mut View, target: &Path, linked: &Metadata) -> Result<Entry, FileError> {
        if view.planned(target)?.is_none() {
            let Some(node) = view.base_node(target)?.filter(|node| node.kind != Kind::Dir) else {
                return Err(self.broken(format!("hard link to {}, which is no file", shown(target))));
            };
            let broken = || self.broken(format!("hard link to {}, which is a socket", shown(target)));
            let item = of_node(view.base(), node).ok_or_else(broken)?;
            view.put(target, lower(item))?;
        }
        let there = view.planned(target)?;
        match there.as_deref() {
            Some(Entry::File { meta, data, group }) => {
                let xattrs = if linked.xattrs.is_empty() { &meta.xattrs } else { &linked.xattrs }.clone();
                let linked = Metadata { xattrs, ..linked.clone() };
                let shared = group.unwrap_or_else(|| view.new_group());
                let file = |meta: &Metadata| Entry::File {
                    meta: meta.clone(),
                    data: data.clone(),
                    group: Some(shared),
                };
                if group.is_none() {
                    view.put(target, file(meta))?;
                }
                view.set_group(shared, linked.clone())?;
                Ok(file(&linked))
            }
            Some(same @ (Entry::Symlink { .. } | Entry::Node { .. })) => Ok(same.clone()),
            _ => Err(self.broken(format!("hard link to {}, which is no file", shown(target)))),
        }
    }

    fn broken(&self, reason: impl Into<String>) -> FileError {
        FileError::Archive { archive: self.name.clone(), reason: reason.into() }
    }

    /// Errors of the reader, but for a cancellation, are the archive's fault.
    fn refused(&self, error: CacheError) -> FileError {
        match error {
            CacheError::Cancelled => FileError::Cache(error),
            other => self.broken(other.to_string()),
        }
    }
}

/// A file of the base, to be written again.
fn lower(item: Item) -> Entry {
    let meta = item.meta;
    match item.what {
        What::Dir => Entry::Dir { meta, opaque: false },
        What::File(content) => Entry::File { meta, data: Data::Source(content), group: None },
        What::Symlink(target) => Entry::Symlink { meta, target },
        What::Node(kind) => Entry::Node { meta, kind },
    }
}

/// Tells how far a source was read.
struct Counted<R> {
    source: R,
    at: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.at.set(self.at.get() + n as u64);
        Ok(n)
    }
}

fn expand(source: &mut dyn Read, out: &mut File, cancel: &Cancel) -> Result<(), CacheError> {
    let limit = Limits::default().bytes;
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        cancel.check()?;
        let n = match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(CacheError::malformed("archive", e.to_string())),
        };
        total += n as u64;
        if total > limit {
            return Err(CacheError::malformed("archive", format!("larger than the limit of {limit} bytes")));
        }
        out.write_all(&buffer[..n]).map_err(CacheError::io("writing", "an unpacked archive"))?;
    }
}

/// A file that goes away with its last descriptor.
fn temporary(dir: BorrowedFd<'_>) -> Result<File, CacheError> {
    let failed = || CacheError::io("making a temporary file in", "the store");
    let (flags, mode) = (OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    match rustix::fs::openat(dir, ".", flags | OFlags::TMPFILE, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
        other => return Ok(other.map_err(failed())?.into()),
    }
    // Some file systems know no files without names. The directory is this vertex' own, so any name is free.
    let named =
        rustix::fs::openat(dir, "archive", flags | OFlags::CREATE | OFlags::EXCL, mode).map_err(failed())?;
    rustix::fs::unlinkat(dir, "archive", AtFlags::empty()).map_err(failed())?;
    Ok(named.into())
}

/// The same file, read from its beginning.
fn reopen(file: &File) -> Result<File, CacheError> {
    let failed = CacheError::io("reading", "an unpacked archive");
    let mut again = file.as_fd().try_clone_to_owned().map(File::from).map_err(failed)?;
    std::io::Seek::rewind(&mut again).map_err(CacheError::io("reading", "an unpacked archive"))?;
    Ok(again)
}
