//! `mount_setattr`, which rustix lacks.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::exec::check;

/// Adds attributes to the mount that `mount` is the root of, and with `recursive` to all below it. Linux 5.12.
pub(crate) fn add_attributes(
    mount: BorrowedFd<'_>,
    attributes: MountAttrFlags,
    recursive: bool,
) -> Result<(), Errno> {
    let attr =
        libc::mount_attr { attr_set: attributes.bits().into(), attr_clr: 0, propagation: 0, userns_fd: 0 };
    set(mount, &attr, recursive)
}

/// Changes the propagation (`MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`) of a mount and of all below it. Linux 5.12.
pub(crate) fn set_propagation(mount: BorrowedFd<'_>, propagation: libc::c_ulong) -> Result<(), Errno> {
    let attr = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation, userns_fd: 0 };
    set(mount, &attr, true)
}

fn set(mount: BorrowedFd<'_>, attr: &libc::mount_attr, recursive: bool) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, `attr` is valid for reads of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}
