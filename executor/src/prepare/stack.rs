//! A stack of layers as one mount: an overlay, or where the store's file system can't have one a copy, bound.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use boxwright_cache::snapshot::Marks;
use boxwright_cache::snapshot::copy::{Copied, PART, copy_part, shows_itself};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::error::{Error, Result};
use crate::idmap;
use crate::rootfs::{Overlay, bind_alone};
use crate::spec::{Root, Upper};
use crate::stub::Stubs;

/// The root of a container.
#[derive(Debug)]
pub(super) struct RootMount {
    pub(super) mount: OwnedFd,
    /// What has to become a difference when the container has ended, where it is a copy.
    pub(super) copied: Option<Copied>,
    /// Why there is no overlay, where the kernel refused one.
    pub(super) refused: Option<String>,
}

/// What there is of a stack.
enum Mounted {
    Overlay(OwnedFd),
    /// It has to be a copy; with what the kernel said, if it was asked.
    Nothing(Option<String>),
}

/// The root with the stub layer below it.
pub(super) fn root(root: &Root, stub: &OwnedFd, attributes: MountAttrFlags) -> Result<RootMount> {
    let below: Vec<_> = std::iter::once(stub).chain(&root.lowers).collect();
    let refused = match overlay(&below, root.upper.as_ref(), &root.stubs, attributes)? {
        Mounted::Overlay(mount) => return Ok(RootMount { mount, copied: None, refused: None }),
        Mounted::Nothing(refused) => refused,
    };
    let Some(Upper { dir, work }) = &root.upper else { return Err(nowhere(refused)) };
    // First, as a kernel that can't do this is to be told before anything is copied.
    let mount = bind_alone(dir.as_fd(), attributes)?;
    let copied = Copied::new(own(&below)?, dir.as_fd(), work.as_fd(), &root.cancel).map_err(Error::cache)?;
    Ok(RootMount { mount, copied: Some(copied), refused })
}

/// A part of a stack: what is to be mounted is at the second value in the first. None where there is no such part.
/// Without an `upper` of its own it is for reading only; who may mount could write to it nevertheless, and so is shown no layer.
pub(super) fn part(
    lowers: &[OwnedFd],
    path: &str,
    upper: Option<&Upper>,
    root: &Root,
    may_mount: bool,
    attributes: MountAttrFlags,
) -> Result<Option<(OwnedFd, String)>> {
    let below: Vec<_> = lowers.iter().collect();
    let refused = match overlay(&below, upper, &root.stubs, attributes)? {
        Mounted::Overlay(mount) => return Ok(Some((mount, path.to_owned()))),
        Mounted::Nothing(refused) => refused,
    };
    if let (None, [layer], false) = (upper, lowers, may_mount)
        && shows_itself(layer.as_fd(), &root.cancel).map_err(Error::cache)?
    {
        return Ok(Some((bind_alone(layer.as_fd(), attributes)?, path.to_owned())));
    }
    let scratch;
    let dir = match (upper, &root.upper) {
        (Some(upper), _) => upper.dir.as_fd(),
        (None, Some(of_root)) => {
            scratch = directory_in(of_root.work.as_fd()).map_err(Error::io("making", "a copy"))?;
            scratch.as_fd()
        }
        (None, None) => return Err(nowhere(refused)),
    };
    let mount = bind_alone(dir, attributes)?;
    let there = copy_part(own(&below)?, path, dir, &root.cancel).map_err(Error::cache)?;
    Ok(there.then(|| (mount, PART.to_owned())))
}

fn overlay(
    lowers: &[&OwnedFd],
    upper: Option<&Upper>,
    stubs: &Stubs,
    attributes: MountAttrFlags,
) -> Result<Mounted> {
    let own_marks = |dir: &&OwnedFd| Marks::of(dir).is_ok_and(|marks| marks == Marks::Own);
    if lowers.iter().chain(&upper.map(|upper| &upper.dir)).any(own_marks) {
        return Ok(Mounted::Nothing(None));
    }
    // Without an upper directory the kernel wants two lower ones.
    let empty = if upper.is_none() { Some(stubs.empty()?) } else { None };
    let mut top_first: Vec<BorrowedFd<'_>> = lowers.iter().rev().map(AsFd::as_fd).collect();
    top_first.extend(empty.as_ref().map(AsFd::as_fd));
    let upper = upper.map(|u| (u.dir.as_fd(), u.work.as_fd()));
    let overlay = Overlay { lowers: top_first, upper, user_xattrs: idmap::in_user_namespace(), attributes };
    match overlay.mount() {
        Ok(mount) => Ok(Mounted::Overlay(mount)),
        Err(refusal) if refusal.is_of_file_system() => Ok(Mounted::Nothing(Some(refusal.reason()))),
        Err(refusal) => Err(refusal.into_error()),
    }
}

/// A directory beside what the container writes, which goes with that.
fn directory_in(work: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut number = 0;
    loop {
        let name = format!("part-{number}");
        match mkdirat(work, &name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => number += 1,
            made => return made.and_then(|()| openat(work, &name, flags, Mode::empty())),
        }
    }
}

fn own(dirs: &[&OwnedFd]) -> Result<Vec<OwnedFd>> {
    let copies = dirs.iter().map(|dir| dir.try_clone());
    copies.collect::<std::io::Result<_>>().map_err(Error::io("copying a descriptor", ""))
}

fn nowhere(refused: Option<String>) -> Error {
    let why = refused.map_or_else(String::new, |reason| format!(" ({reason})"));
    Error::Unsupported(format!("no overlay can be mounted here{why}, and there is no place for a copy"))
}
