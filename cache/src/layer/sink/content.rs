//! Copying the bytes of a file by the kernel, which shares them where it can. Holes stay holes.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// What the kernel may copy in one go without anybody asking whether it should go on.
const AT_ONCE: u64 = 16 << 20;
const COPYING: &str = "copying";

/// `to` is empty, and `path` is what errors call it.
pub(super) fn copy(from: &File, to: &mut File, path: &Path, cancel: &Cancel) -> Result<()> {
    let has = rustix::fs::fstat(from).map_err(Error::io(COPYING, path))?;
    let size = has.st_size.unsigned_abs();
    if has.st_blocks.unsigned_abs() * 512 >= size {
        return copy_next(size, from, to, path, cancel);
    }
    to.set_len(size).map_err(Error::io(COPYING, path))?;
    let mut done = 0;
    while let Some((start, end)) = seek_data(from, to, done).map_err(Error::io(COPYING, path))? {
        copy_next(end - start, from, to, path, cancel)?;
        done = end;
    }
    Ok(())
}

fn copy_next(bytes: u64, from: &File, to: &mut File, path: &Path, cancel: &Cancel) -> Result<()> {
    let mut from = from.take(bytes);
    while std::io::copy(&mut from.by_ref().take(AT_ONCE), to).map_err(Error::io(COPYING, path))? == AT_ONCE {
        cancel.check()?;
    }
    Ok(())
}

/// Moves both to the next bytes that are no hole; where those begin and end. None behind the last ones.
fn seek_data(from: &File, to: &File, at: u64) -> rustix::io::Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return Ok(None),
        start => start?,
    };
    let end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
    rustix::fs::seek(from, SeekFrom::Start(start))?;
    rustix::fs::seek(to, SeekFrom::Start(start))?;
    Ok(Some((start, end)))
}
