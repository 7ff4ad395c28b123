//! Looking up, below a directory that is held open, a path that others wrote.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::ids;

/// The kernel gives up on `..` when anything at all was renamed or mounted meanwhile, anywhere on the machine. Next to a
/// process that does nothing but rename, each attempt still has a fair chance.
const ATTEMPTS: u32 = 1000;

/// As `openat2(2)`, for any path: one with `..`, in it or in a link, is tried until the kernel has made sure of it.
/// Allocates nothing if `path` is a `CStr`, or short, and this process has its ids.
///
/// # Errors
/// As `openat2(2)`.
pub fn open_resolved(
    dir: impl AsFd,
    path: impl Arg,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    path.into_with_c_str(|path| {
        for _ in 1..ATTEMPTS {
            match ids::with_ids(|| once(&dir, path, flags, mode, resolve)) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        once(&dir, path, flags, mode, resolve)
    })
}

#[allow(clippy::disallowed_methods, reason = "this is what the others are to use")]
fn once(
    dir: impl AsFd,
    path: &std::ffi::CStr,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat2(dir, path, flags, mode, resolve)
}
