//! Removing trees of ours, whatever containers left in them: with few descriptors at any depth, and while another process does
//! the same.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, renameat, unlinkat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fs::open_dir;
use crate::ids;
use crate::store::{Store, unique_name};

/// Directories that are open at a time. What is deeper is moved up before it is looked into.
const DEPTH: usize = 32;

/// Removes what has this name in the store, if there is something. The store is the one that was opened, wherever its directory
/// may be called something else by now: another one may have its path.
///
/// # Errors
/// When it, or a part of it, can't be removed.
pub(crate) fn remove_tree(store: &Store, name: &str) -> Result<()> {
    ids::needed();
    let io = |errno: Errno| Error::io("removing", store.path().join(name))(errno);
    match unlinkat(store.dir(), name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // What unlink says of directories, as Linux and as POSIX have it.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(io(errno)),
    }
    let Some(top) = open(store.dir().as_fd(), name).map_err(io)? else { return Ok(()) };
    loop {
        let mut gone = 0;
        empty(top.as_fd(), top.as_fd(), 0, &mut gone)?;
        match unlinkat(store.dir(), name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Something was moved up meanwhile, by us or by another.
            Err(Errno::NOTEMPTY) if gone > 0 => {}
            Err(errno) => return Err(io(errno)),
        }
    }
}

/// Removes what is in `dir`, and counts it. What is too deep is in `top` then.
fn empty(top: BorrowedFd<'_>, dir: BorrowedFd<'_>, depth: usize, gone: &mut u64) -> Result<()> {
    for entry in Dir::read_from(dir).map_err(failed(c"."))? {
        let entry = entry.map_err(failed(c"."))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let is_dir = match entry.file_type() {
            FileType::Directory => true,
            _ => match unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => false,
                Err(Errno::ISDIR) => true,
                Err(errno) => return Err(failed(name)(errno)),
            },
        };
        *gone += 1;
        if !is_dir {
            continue;
        }
        if depth == DEPTH {
            match renameat(dir, name, top, unique_name()?) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(errno) => return Err(failed(name)(errno)),
            }
        }
        let Some(child) = open(dir, name).map_err(failed(name))? else { continue };
        empty(top, child.as_fd(), depth + 1, gone)?;
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(failed(name)(errno)),
        }
    }
    Ok(())
}

/// None where it is gone.
fn open(dir: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<Option<OwnedFd>> {
    match open_dir(dir, name) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn failed(name: &CStr) -> impl FnOnce(Errno) -> Error {
    let name = name.to_string_lossy().into_owned();
    move |errno| Error::io("removing", name)(errno)
}
