//! The mount that every RUN step and container has, and what is done in it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use boxwright_cache::fs::whiteout::is_whiteout;
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, statat, unlinkat};

use rustix::mount::MountAttrFlags;

use super::child::attempt_in_namespace;
use super::scratch::Scratch;
use super::{Answer, idmap};
use crate::rootfs::Overlay;

/// Mounts layers of the store's file system, and changes, removes and replaces what is in them.
///
/// # Errors
/// Which of that failed, and what the kernel says.
pub fn overlay(store: &Path) -> Answer {
    attempt_in_namespace(0, || {
        let scratch = Scratch::below(store)?;
        let root = mounted(&scratch)?;
        change(&root).map_err(|(doing, errno)| format!("{doing} in the overlay: {errno}"))?;
        let upper = open(&scratch.path("upper"))?;
        match statat(&upper, c"gone", AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(&stat) => Ok(()),
            _ => Err("removing a file in the overlay leaves no mark".to_owned()),
        }
    })
}

/// Two layers and what is written over them. `top` and `bottom` may have files already.
pub(super) fn mounted(scratch: &Scratch) -> Answer<OwnedFd> {
    let (bottom, top) = (bottom(scratch)?, scratch.dir("top")?);
    let (upper, work) = (open(&scratch.dir("upper")?)?, open(&scratch.dir("work")?)?);
    let lowers = [open(&top)?, open(&bottom)?];
    let overlay = Overlay {
        lowers: lowers.iter().map(AsFd::as_fd).collect(),
        upper: Some((upper.as_fd(), work.as_fd())),
        user_xattrs: idmap::in_user_namespace(),
        attributes: MountAttrFlags::MOUNT_ATTR_NODEV,
    };
    overlay.mount().map_err(|e| e.into_error().to_string())
}

/// A layer with something to change.
pub(super) fn bottom(scratch: &Scratch) -> Answer<PathBuf> {
    let bottom = scratch.dir("bottom")?;
    scratch.dir("bottom/replaced")?;
    for file in ["bottom/gone", "bottom/changed", "bottom/replaced/file"] {
        scratch.file(file, b"x")?;
    }
    Ok(bottom)
}

pub(super) fn change(root: &OwnedFd) -> Result<(), (&'static str, rustix::io::Errno)> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    openat(root, c"changed", flags, Mode::empty()).map_err(|e| ("changing a file", e))?;
    unlinkat(root, c"gone", AtFlags::empty()).map_err(|e| ("removing a file", e))?;
    let replaced = || {
        unlinkat(root, c"replaced/file", AtFlags::empty())?;
        unlinkat(root, c"replaced", AtFlags::REMOVEDIR)?;
        mkdirat(root, c"replaced", Mode::RWXU)
    };
    replaced().map_err(|e| ("replacing a directory", e))
}

pub(super) fn open(path: &Path) -> Answer<OwnedFd> {
    let file = File::open(path).map_err(|e| format!("opening {}: {e}", path.display()))?;
    Ok(file.into())
}
