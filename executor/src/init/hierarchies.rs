//! `/sys/fs/cgroup` of version 1: a directory with a mount for each hierarchy. Every container has it, so it takes few system
//! calls.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, MoveMountFlags, mount_change, move_mount};

use super::mounts::{FDS, attach, clone_of, fd_path, remount};
use crate::sys;

#[derive(Debug)]
pub(crate) struct Hierarchies {
    /// In the scratch tmpfs.
    pub(crate) directory: CString,
    /// By the directories in there that they go over.
    pub(crate) mounts: Vec<(CString, OwnedFd)>,
}

impl Hierarchies {
    /// All get the attributes and become private when they are in their places, where nobody but this process sees them yet.
    pub(super) fn attach(
        &self,
        scratch: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        attributes: MountAttrFlags,
    ) -> Result<(), Errno> {
        let top = clone_of(scratch, &self.directory, false)?;
        attach(top.as_fd(), target)?;
        for (name, mount) in &self.mounts {
            move_mount(mount, c"", &top, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        }
        let private = MountPropagationFlags::PRIVATE;
        match sys::mount::set_propagation(top.as_fd(), private.bits().into()) {
            Err(Errno::NOSYS) => {}
            changed => {
                return changed.and_then(|()| sys::mount::add_attributes(top.as_fd(), attributes, true));
            }
        }
        for mount in self.mounts.iter().map(|(_, mount)| mount).chain([&top]) {
            let mut buffer = [0u8; 32];
            mount_change(fd_path(&mut buffer, FDS, mount.as_raw_fd()), private)?;
            remount(mount.as_fd(), attributes)?;
        }
        Ok(())
    }
}
