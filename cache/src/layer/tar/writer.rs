//! A writer of PAX archives: the same entries give the same bytes. Plain ustar headers where they can say it all,
//! extended headers for long and non-ASCII names, fractions of seconds, large numbers and attributes.

use std::io::{Error, Result, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::header::BLOCK;
use super::pax::{push_record, time_text};
use super::reader::EntryKind;
use crate::layer::sink::{Metadata, NodeKind};

const ZEROS: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Writes entries one after the other; [`Writer::finish`] writes the end of the archive.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Content that the current entry still lacks, and the padding that follows it.
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> Writer<W> {
        Writer { out, left: 0, padding: 0 }
    }

    /// Begins an entry. For a file, [`Writer::content`] must follow until its size is reached.
    ///
    /// # Errors
    /// When the output fails, or the content of the entry before is incomplete.
    pub fn entry(&mut self, path: &Path, meta: &Metadata, kind: &EntryKind) -> Result<()> {
        if self.left > 0 {
            return Err(Error::other("the content of an archive entry is incomplete"));
        }
        let mut name = path.as_os_str().as_bytes().to_vec();
        if *kind == EntryKind::Dir {
            name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
        }
        let (kind_byte, link, size, device) = parts(kind);
        let (mut header, records) = header(&name, meta, kind_byte, link, size, device);
        if !records.is_empty() {
            self.extended(&records)?;
        }
        seal(&mut header);
        self.out.write_all(&header)?;
        self.left = size;
        self.padding = padding(size);
        self.end_content()
    }

    /// The next bytes of the current file.
    ///
    /// # Errors
    /// When the output fails, or the bytes are more than the file's size.
    pub fn content(&mut self, bytes: &[u8]) -> Result<()> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| Error::other("more content than the archive entry's size"))?;
        self.out.write_all(bytes)?;
        self.end_content()
    }

    /// Ends the archive and gives the output back.
    ///
    /// # Errors
    /// When the output fails, or the content of the last entry is incomplete.
    pub fn finish(mut self) -> Result<W> {
        if self.left > 0 {
            return Err(Error::other("the content of an archive entry is incomplete"));
        }
        self.out.write_all(&ZEROS)?;
        Ok(self.out)
    }

    fn end_content(&mut self) -> Result<()> {
        if self.left > 0 {
            return Ok(());
        }
        self.out.write_all(&ZEROS[..std::mem::take(&mut self.padding)])
    }

    fn extended(&mut self, records: &[u8]) -> Result<()> {
        let mut header = [0; BLOCK];
        put(&mut header, 0, b"PaxHeaders.0/entry");
        octal(&mut header[100..108], 0o644);
        octal(&mut header[108..116], 0);
        octal(&mut header[116..124], 0);
        octal(&mut header[124..136], records.len() as u64);
        octal(&mut header[136..148], 0);
        header[156] = b'x';
        seal(&mut header);
        self.out.write_all(&header)?;
        self.out.write_all(records)?;
        self.out.write_all(&ZEROS[..padding(records.len() as u64)])
    }
}

fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

fn parts(kind: &EntryKind) -> (u8, &[u8], u64, Option<(u32, u32)>) {
    match kind {
        EntryKind::File { size } => (b'0', b"", *size, None),
        EntryKind::HardLink(target) => (b'1', target.as_os_str().as_bytes(), 0, None),
        EntryKind::Symlink(target) => (b'2', target.as_bytes(), 0, None),
        EntryKind::Node(NodeKind::Char { major, minor }) => (b'3', b"", 0, Some((*major, *minor))),
        EntryKind::Node(NodeKind::Block { major, minor }) => (b'4', b"", 0, Some((*major, *minor))),
        EntryKind::Dir => (b'5', b"", 0, None),
        EntryKind::Node(NodeKind::Fifo) => (b'6', b"", 0, None),
    }
}

/// The header without its checksum, and the records for what doesn't fit, ordered by key.
fn header(
    name: &[u8],
    meta: &Metadata,
    kind: u8,
    link: &[u8],
    size: u64,
    device: Option<(u32, u32)>,
) -> ([u8; BLOCK], Vec<u8>) {
    let mut header = [0; BLOCK];
    let mut records = Vec::new();
    let mut attributes: Vec<_> = meta.xattrs.iter().collect();
    attributes.sort_unstable();
    for (attribute, value) in attributes {
        push_record(&mut records, &[b"SCHILY.xattr.", &attribute[..]].concat(), value);
    }
    octal(&mut header[100..108], (meta.mode & 0o7777).into());
    number(&mut header[116..124], meta.gid.into(), b"gid", &mut records);
    if fits(link, 100) {
        put(&mut header, 157, link);
    } else {
        push_record(&mut records, b"linkpath", link);
        put(&mut header, 157, &ascii(link));
    }
    let secs = u64::try_from(meta.mtime.secs).ok().filter(|_| meta.mtime.nanos == 0);
    if secs.is_none_or(|secs| secs > MAX_OCTAL_12) {
        push_record(&mut records, b"mtime", time_text(meta.mtime).as_bytes());
    }
    octal(
        &mut header[136..148],
        u64::try_from(meta.mtime.secs).ok().filter(|s| *s <= MAX_OCTAL_12).unwrap_or(0),
    );
    match split(name) {
        Some((prefix, rest)) => {
            put(&mut header, 0, rest);
            put(&mut header, 345, prefix);
        }
        None => {
            push_record(&mut records, b"path", name);
            put(&mut header, 0, &ascii(name));
        }
    }
    number(&mut header[124..136], size, b"size", &mut records);
    number(&mut header[108..116], meta.uid.into(), b"uid", &mut records);
    if let Some((major, minor)) = device {
        octal(&mut header[329..337], major.into());
        octal(&mut header[337..345], minor.into());
    }
    header[156] = kind;
    (header, records)
}

const MAX_OCTAL_12: u64 = 0o77_777_777_777;

/// A field, and a record as well if the field is too short for the number; the field is then zero.
fn number(field: &mut [u8], value: u64, key: &[u8], records: &mut Vec<u8>) {
    if value < 1 << (3 * (field.len() - 1)) {
        octal(field, value);
    } else {
        push_record(records, key, value.to_string().as_bytes());
        octal(field, 0);
    }
}

fn octal(field: &mut [u8], value: u64) {
    let text = format!("{value:0width$o}", width = field.len() - 1);
    field[..text.len()].copy_from_slice(text.as_bytes());
}

fn put(header: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    header[at..at + bytes.len()].copy_from_slice(bytes);
}

fn seal(header: &mut [u8; BLOCK]) {
    put(header, 257, b"ustar\x0000");
    put(header, 148, b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    put(header, 148, format!("{sum:06o}\0").as_bytes());
}

fn fits(name: &[u8], length: usize) -> bool {
    name.len() <= length && name.is_ascii()
}

/// The prefix and the rest of a name that a plain header can hold.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if fits(name, 100) {
        return Some((b"", name));
    }
    if !fits(name, 256) {
        return None;
    }
    // The slash between the two is implied; neither part may be empty.
    let earliest = name.len().saturating_sub(101).max(1);
    let at = (earliest..name.len() - 1).find(|at| name[*at] == b'/')?;
    (at <= 155).then(|| (&name[..at], &name[at + 1..]))
}

/// A hint for readers that know no extended headers.
fn ascii(name: &[u8]) -> Vec<u8> {
    let mut short: Vec<u8> = name.iter().copied().filter(u8::is_ascii).take(100).collect();
    while short.last() == Some(&b'/') {
        short.pop();
    }
    short
}
