//! From the plan to a layer: every entry once, in the order of an archive, its bytes read while they are written. A
//! directory that is copied last is not even planned: however many entries it has, none is kept.

use std::io::Read;
use std::path::{Path, PathBuf};

use boxwright_cache::Cancel;
use boxwright_cache::layer::{LayerSink, Metadata};
use boxwright_cache::snapshot::tree::Extent;

use super::FileError;
use super::copy::Copying;
use super::kept::Kept;
use super::since::made_of;
use super::source::Content;
use super::view::{Data, Entry, View};

/// Where entries are written, each once.
struct Writer<'a> {
    sink: &'a mut dyn LayerSink,
    cancel: &'a Cancel,
    /// The first name of each file that has several.
    first: Kept<PathBuf>,
}

/// Writes what `view` has planned, and `rest`, a copy of which nothing is planned but where it goes. The root of the
/// layer gets the metadata of the base's, as a stack shows the topmost. Gives what the layer is made of, if that is a
/// directory of the host and nothing else.
pub(super) fn write(
    mut view: View,
    rest: Option<Copying<'_>>,
    sink: &mut dyn LayerSink,
    cancel: &Cancel,
) -> Result<Option<String>, FileError> {
    if let Some(root) = view.base().lookup("", false)? {
        sink.dir(Path::new(""), &root.meta)?;
    } else {
        sink.dir(Path::new(""), &Metadata { mode: 0o755, mtime: view.now(), ..Metadata::default() })?;
    }
    let mut writer = Writer { sink, cancel, first: Kept::new(view.spool()) };
    let mut made_of = None;
    match rest {
        Some(rest) if rest.dir().is_some_and(|dir| view.is_way_to(dir)) => {
            made_of = writer.copy(&mut view, rest)?;
        }
        Some(rest) => rest.plan(&mut view, cancel)?,
        None => {}
    }
    writer.planned(&mut view)?;
    Ok(made_of)
}

impl Writer<'_> {
    fn planned(&mut self, view: &mut View) -> Result<(), FileError> {
        view.take_planned(|path, entry| self.entry(path, entry))
    }

    /// Writes a directory's content as it is read: in order, and behind all that is planned. Gives what the layer is
    /// made of, if the source is a directory of the host.
    fn copy(&mut self, view: &mut View, copying: Copying<'_>) -> Result<Option<String>, FileError> {
        let since = copying.since();
        let differing = since.as_ref().and_then(|(since, from, to)| since.differing(from, to));
        let mut begun = false;
        copying.each(view, self.cancel, &mut |view, from, path, entry| {
            if !std::mem::replace(&mut begun, true) {
                view.plan_parents(path)?;
                self.planned(view)?;
            }
            let is_known = differing.is_some_and(|differing| !differing.contains(from));
            if is_known && self.as_before(path, &entry)? { Ok(()) } else { self.entry(path, &entry) }
        })?;
        Ok(since.map(|(since, from, to)| made_of(since.content, &from, &to)))
    }

    /// Whether a file could be had from the earlier layer, which has it with the same content.
    fn as_before(&mut self, path: &Path, entry: &Entry) -> Result<bool, FileError> {
        self.cancel.check()?;
        Ok(match entry {
            Entry::File { meta, data: Data::Source(Content::Host { size, .. }), group: None } => {
                self.sink.file_as_before(path, meta, *size)?.is_some()
            }
            _ => false,
        })
    }

    fn entry(&mut self, path: &Path, entry: &Entry) -> Result<(), FileError> {
        self.cancel.check()?;
        let sink = &mut *self.sink;
        match entry {
            Entry::Dir { meta, opaque } => {
                sink.dir(path, meta)?;
                if *opaque {
                    sink.opaque(path)?;
                }
            }
            Entry::File { meta, data, group: Some(group) } => match self.first.get(&group.key())? {
                Some(first) => sink.hard_link(path, &first)?,
                None => {
                    file(sink, path, meta, data, self.cancel)?;
                    self.first.put(group.key(), path.to_owned())?;
                }
            },
            Entry::File { meta, data, group: None } => file(sink, path, meta, data, self.cancel)?,
            Entry::Symlink { meta, target } => sink.symlink(path, meta, target)?,
            Entry::Node { meta, kind } => sink.node(path, meta, *kind)?,
        }
        Ok(())
    }
}

fn file(
    sink: &mut dyn LayerSink,
    path: &Path,
    meta: &Metadata,
    data: &Data,
    cancel: &Cancel,
) -> Result<(), FileError> {
    let mut put = |meta: &Metadata, size: u64, data: &mut dyn Read| {
        let result = sink.file(path, meta, size, &mut Cancellable { data, cancel });
        cancel.check().and(result)
    };
    match data {
        Data::Bytes(bytes) => put(meta, bytes.len() as u64, &mut bytes.as_slice())?,
        Data::Part { file, offset, size } => {
            let part = Extent { file: file.try_clone().map_err(failed(path))?, offset: *offset, len: *size };
            put(meta, *size, &mut part.reader())?;
        }
        Data::Source(content) => {
            let (mut file, size) = content.open()?;
            match content.xattrs(&file)? {
                Some(xattrs) => put(&Metadata { xattrs, ..meta.clone() }, size, &mut file)?,
                None => put(meta, size, &mut file)?,
            }
        }
    }
    Ok(())
}

/// Ends with an error once the token is raised: a file can be as large as a disk.
struct Cancellable<'a> {
    data: &'a mut dyn Read,
    cancel: &'a Cancel,
}

impl Read for Cancellable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.cancel.is_raised() {
            return Err(std::io::Error::other("canceled"));
        }
        self.data.read(buffer)
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> boxwright_cache::Error {
    boxwright_cache::Error::io("reading the content of", path)
}
