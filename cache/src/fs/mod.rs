//! Directories of the host, read without being led out of them.

pub(crate) mod names;
pub mod pattern;
mod remove;
mod resolve;
mod size;
pub mod walk;
pub mod whiteout;
pub mod xattr;

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

pub(crate) use remove::remove_tree;
pub use resolve::open_resolved;
pub(crate) use size::allocated;

/// The directory `name` in `dir`, to be read; a link is none.
fn open_dir(dir: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}
