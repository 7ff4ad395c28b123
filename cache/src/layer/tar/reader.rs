//! A strict reader of archives that may be hostile (R5, R9): it accepts what common archivers write, and refuses
//! what two readers could understand differently.

use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::header::{BLOCK, Header};
use super::pax::{Extended, check_global};
use crate::error::{Error, Result};
use crate::layer::sink::{Metadata, NodeKind};

/// As much as one extended header or long name may have; what other readers of image layers accept as well.
const MAX_EXTENDED: u64 = 1 << 20;
/// The kernel's limits for a path and for one component.
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;
/// The largest size that the plain header field can tell.
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;

/// How much one archive may make of itself.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub entries: u64,
    /// Of the uncompressed archive, in bytes.
    pub bytes: u64,
}

impl Default for Limits {
    /// Far above real layers, and below what hurts a machine for long.
    fn default() -> Limits {
        Limits { entries: 5_000_000, bytes: 1 << 40 }
    }
}

/// One entry, with what extended headers say applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative, without `.` and `..`; empty for the root.
    pub path: PathBuf,
    pub meta: Metadata,
    pub kind: EntryKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Dir,
    /// The content is `size` bytes that [`Reader::data`] gives.
    File {
        size: u64,
    },
    Symlink(OsString),
    /// The path of an earlier entry, cleaned like [`Entry::path`].
    HardLink(PathBuf),
    Node(NodeKind),
}

/// Reads entries one after the other. `source` is read in small pieces, so it should be buffered.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    limits: Limits,
    entries: u64,
    /// Content of the current entry that was not read yet, and the padding after it.
    left: u64,
    padding: u64,
    escapes: Escapes,
}

/// What a `..` is that would lead out of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escapes {
    Refused,
    /// It stays at the root.
    Clamped,
}

impl<R: Read> Reader<R> {
    pub fn new(source: R, limits: Limits) -> Reader<R> {
        Reader { source, limits, entries: 0, left: 0, padding: 0, escapes: Escapes::Refused }
    }

    /// Takes names that lead out of the archive as if its root had no parent, like one who unpacks it after chroot.
    #[must_use]
    pub fn clamped(mut self) -> Reader<R> {
        self.escapes = Escapes::Clamped;
        self
    }

    /// The next entry, after skipping what is left of the current one; none at the end of the archive.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an archive that breaks the format or a limit, and what the source reports.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        self.skip()?;
        let mut extended: Option<Extended> = None;
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(block) = self.header()? else {
                if extended.is_some() || long_name.is_some() || long_link.is_some() {
                    return Err(malformed("it ends after an extended header"));
                }
                return Ok(None);
            };
            let header = Header(&block);
            header.check().map_err(malformed)?;
            self.entries += 1;
            if self.entries > self.limits.entries {
                return Err(malformed(format!("more than {} entries", self.limits.entries)));
            }
            let twice = |again: bool| {
                if again { Err(malformed("two extended headers for one entry")) } else { Ok(()) }
            };
            match header.kind() {
                b'x' => {
                    twice(extended.is_some())?;
                    let mut records = Extended::default();
                    records.read(&self.extension(&header)?).map_err(malformed)?;
                    extended = Some(records);
                }
                b'g' => check_global(&self.extension(&header)?).map_err(malformed)?,
                b'L' => {
                    twice(long_name.is_some())?;
                    long_name = Some(terminated(self.extension(&header)?)?);
                }
                b'K' => {
                    twice(long_link.is_some())?;
                    long_link = Some(terminated(self.extension(&header)?)?);
                }
                _ => {
                    let extended = merge(extended.unwrap_or_default(), long_name, long_link)?;
                    return self.entry(&header, extended).map(Some);
                }
            }
        }
    }

    /// What is left of the current entry's content.
    pub fn data(&mut self) -> Data<'_, R> {
        Data(self)
    }

    /// The source, positioned after what was read so far.
    pub fn into_inner(self) -> R {
        self.source
    }

    fn entry(&mut self, header: &Header<'_>, extended: Extended) -> Result<Entry> {
        let name = extended.path.clone().unwrap_or_else(|| header.name());
        let shown = shown(&name);
        let refuse = |reason: String| Error::malformed(format!("archive entry {shown:?}"), reason);
        let size = size_of(header, extended.size).map_err(refuse)?;
        if size > self.limits.bytes {
            return Err(refuse(format!("larger than the limit of {} bytes", self.limits.bytes)));
        }
        let meta = Metadata {
            mode: header.mode().map_err(refuse)?,
            uid: id(extended.uid.map_or_else(|| header.uid(), Ok).map_err(refuse)?).map_err(refuse)?,
            gid: id(extended.gid.map_or_else(|| header.gid(), Ok).map_err(refuse)?).map_err(refuse)?,
            mtime: extended.mtime.map_or_else(|| header.mtime(), Ok).map_err(refuse)?,
            xattrs: extended.xattrs,
        };
        let link = extended.link_path.unwrap_or_else(|| header.link_name().to_vec());
        let kind = kind_of(header, size, &name, link, self.escapes).map_err(refuse)?;
        let path = clean(&name, self.escapes).map_err(refuse)?;
        if let EntryKind::File { size } = kind {
            self.left = size;
            self.padding = size.next_multiple_of(BLOCK as u64) - size;
        }
        Ok(Entry { path, meta, kind })
    }

    /// The next header block; none at the end, which is two blocks of zeros or the end of the stream.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        if !self.block(&mut block)? {
            return Ok(None);
        }
        if block.iter().any(|b| *b != 0) {
            return Ok(Some(block));
        }
        if self.block(&mut block)? && block.iter().any(|b| *b != 0) {
            return Err(malformed("entries after a block of zeros"));
        }
        Ok(None)
    }

    /// Fills `block`, or tells that the stream had ended.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(truncated()),
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(reading(e)),
            }
        }
        Ok(true)
    }

    /// The content of an extended header.
    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>> {
        let size = header.size().map_err(malformed)?;
        if size > MAX_EXTENDED {
            return Err(malformed(format!("an extended header of {size} bytes")));
        }
        let mut content = Vec::new();
        let padded = size.next_multiple_of(BLOCK as u64);
        (&mut self.source).take(padded).read_to_end(&mut content).map_err(reading)?;
        if (content.len() as u64) < padded {
            return Err(truncated());
        }
        content.truncate(usize::try_from(size).expect("below the limit"));
        Ok(content)
    }

    fn skip(&mut self) -> Result<()> {
        let total = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        if total == 0 {
            return Ok(());
        }
        let skipped =
            std::io::copy(&mut (&mut self.source).take(total), &mut std::io::sink()).map_err(reading)?;
        if skipped == total { Ok(()) } else { Err(truncated()) }
    }
}

/// The content of the current entry; ends with it.
#[derive(Debug)]
pub struct Data<'a, R>(&'a mut Reader<R>);

impl<R: Read> Read for Data<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = usize::try_from(self.0.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let n = self.0.source.read(&mut buffer[..want])?;
        if n == 0 {
            return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the archive ends too early"));
        }
        self.0.left -= n as u64;
        Ok(n)
    }
}

/// A name as messages have it: as much of it as can be read.
fn shown(name: &[u8]) -> String {
    let mut shown = String::from_utf8_lossy(&name[..name.len().min(MAX_NAME)]).into_owned();
    if name.len() > MAX_NAME {
        shown.push('…');
    }
    shown
}

/// Names that GNU and PAX headers both give could differ, and readers differ on which of them counts.
fn merge(mut extended: Extended, name: Option<Vec<u8>>, link: Option<Vec<u8>>) -> Result<Extended> {
    if extended.path.is_some() && name.is_some() || extended.link_path.is_some() && link.is_some() {
        return Err(malformed("two long names for one entry"));
    }
    extended.path = extended.path.or(name);
    extended.link_path = extended.link_path.or(link);
    Ok(extended)
}

/// The size by which the next header is found. The PAX record wins; a plain field that could have told the same
/// and tells something else (other than nothing) is an attempt to make readers disagree.
fn size_of(header: &Header<'_>, record: Option<u64>) -> Result<u64, String> {
    let plain = header.size();
    match (record, plain) {
        (None, plain) => plain,
        (Some(size), Ok(plain)) if plain != 0 && plain != size && size <= MAX_OCTAL_SIZE => {
            Err(format!("two sizes, {plain} and {size}"))
        }
        (Some(size), _) => Ok(size),
    }
}

fn kind_of(
    header: &Header<'_>,
    size: u64,
    name: &[u8],
    link: Vec<u8>,
    escapes: Escapes,
) -> Result<EntryKind, String> {
    // Old archivers mark a directory by nothing but the slash.
    let kind = match header.kind() {
        b'0' | 0 | b'7' if name.ends_with(b"/") => b'5',
        other => other,
    };
    let empty =
        |kind: EntryKind| if size == 0 { Ok(kind) } else { Err("content where none belongs".to_owned()) };
    let device = || header.device();
    match kind {
        b'0' | 0 | b'7' => Ok(EntryKind::File { size }),
        // Old writers tell the size of the file that is linked to, and no content follows. POSIX has allowed content
        // since, and readers differ on which it is.
        b'1' if size > 0 && header.is_posix() => Err("a hard link with content".into()),
        b'1' => Ok(EntryKind::HardLink(clean(&link, escapes)?)),
        b'2' if link.is_empty() || link.len() > MAX_PATH => Err("bad link target".into()),
        b'2' => empty(EntryKind::Symlink(OsString::from_vec(link))),
        b'3' => device().and_then(|(major, minor)| empty(EntryKind::Node(NodeKind::Char { major, minor }))),
        b'4' => device().and_then(|(major, minor)| empty(EntryKind::Node(NodeKind::Block { major, minor }))),
        b'5' => empty(EntryKind::Dir),
        b'6' => empty(EntryKind::Node(NodeKind::Fifo)),
        b'S' => Err("sparse files are not supported".into()),
        other => Err(format!("unknown type {:?}", char::from(other))),
    }
}

/// An archive's name as a relative path without `.` and `..`. Leading slashes mean the root; a `..` takes back the
/// component before it, and must not take back more than there is.
///
/// # Errors
/// The reason why the name can't be a path below the root.
pub fn clean_path(name: &[u8]) -> Result<PathBuf, String> {
    clean(name, Escapes::Refused)
}

fn clean(name: &[u8], escapes: Escapes) -> Result<PathBuf, String> {
    if name.len() > MAX_PATH {
        return Err("a path that is too long".into());
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() && escapes == Escapes::Refused {
                    return Err("a path that leads out of the archive".into());
                }
            }
            long if long.len() > MAX_NAME => return Err("a name that is too long".into()),
            plain => parts.push(plain),
        }
    }
    Ok(Path::new(std::ffi::OsStr::from_bytes(&parts.join(&b'/'))).to_owned())
}

fn id(value: u64) -> Result<u32, String> {
    // The kernel's largest id means "no change".
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| format!("owner {value} is out of range"))
}

/// A GNU long name without the NUL at its end.
fn terminated(mut name: Vec<u8>) -> Result<Vec<u8>> {
    if name.last() == Some(&0) {
        name.pop();
    }
    if name.contains(&0) || name.is_empty() { Err(malformed("a bad long name")) } else { Ok(name) }
}

pub(super) fn malformed(reason: impl Into<String>) -> Error {
    Error::malformed("layer archive", reason)
}

fn truncated() -> Error {
    malformed("it ends too early")
}

fn reading(source: std::io::Error) -> Error {
    if source.kind() == ErrorKind::UnexpectedEof {
        truncated()
    } else {
        Error::io("reading", "the layer archive")(source)
    }
}
