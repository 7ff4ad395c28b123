//! Root file systems as one flat tar (`-o type=tar`): what a container of the image would see, without whiteouts.

use std::io::{BufWriter, Read as _, Write};

use super::nodes::{Entry, Root, each};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::layer::tar::{EntryKind, Writer};

const CHUNK: usize = 256 << 10;

/// Writes everything in `roots` but the roots themselves, parents first and names in the order of their bytes. Names of
/// one file become hard links to the first of them; sockets are left out, as a tar has none. With an `epoch` (seconds
/// since 1970) that is the time of all of it.
///
/// # Errors
/// When a tree can't be read, two in one place have the same file, `out` fails, or `cancel` is raised.
pub fn tar(roots: &[Root], epoch: Option<i64>, out: &mut dyn Write, cancel: &Cancel) -> Result<()> {
    let mut tar = Writer::new(BufWriter::with_capacity(CHUNK, out));
    each(roots, epoch, cancel, &mut |entry| {
        tar.entry(&entry.path, &entry.meta, &entry.kind).map_err(writing)?;
        match entry.kind {
            EntryKind::File { size } => copy(entry, size, &mut tar, cancel),
            _ => Ok(()),
        }
    })?;
    tar.finish().map_err(writing)?.flush().map_err(writing)
}

fn copy<W: Write>(entry: &Entry<'_>, size: u64, tar: &mut Writer<W>, cancel: &Cancel) -> Result<()> {
    let extent = entry.open()?;
    let mut reader = extent.reader();
    let mut chunk = vec![0; usize::try_from(size).unwrap_or(CHUNK).clamp(1, CHUNK)];
    let mut left = size;
    while left > 0 {
        cancel.check()?;
        let n = reader.read(&mut chunk).map_err(Error::io("reading", &entry.path))?;
        if n == 0 {
            return Err(Error::malformed(
                entry.path.display().to_string(),
                "the file shrank while it was read",
            ));
        }
        tar.content(&chunk[..n]).map_err(writing)?;
        left -= n as u64;
    }
    Ok(())
}

fn writing(error: std::io::Error) -> Error {
    Error::io("writing", "the tar of the root file system")(error)
}
