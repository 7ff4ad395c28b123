//! The container's file system, put together inside its own mount namespace. Targets are resolved once, inside the
//! new root, and used as descriptors; nothing is looked up by a path of the host.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use boxwright_cache::fs::open_resolved;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstat, fstatfs, mkdirat, mknodat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount, fsopen, mount_change, move_mount, open_tree,
    unmount,
};

use super::hierarchies::Hierarchies;
use super::shared::is_shared;
use super::{Outcome, Stage, at};
use crate::spec::Propagation;
use crate::sys;

/// The mounts of a container, outer ones first.
#[derive(Debug)]
pub(crate) struct Mounts {
    /// A tmpfs of ours that the container never sees: files to be bound, an empty directory, places for `hidden`.
    pub(crate) scratch: OwnedFd,
    /// The overlay.
    pub(crate) root: OwnedFd,
    /// A directory of `scratch`.
    pub(crate) root_at: OwnedFd,
    pub(crate) root_read_only: bool,
    pub(crate) hidden: Vec<Hidden>,
    pub(crate) attachments: Vec<Attachment>,
    pub(crate) proc: usize,
    pub(crate) sys: usize,
    /// The tmpfs that becomes `/dev`.
    pub(crate) dev: OwnedFd,
    /// Paths relative to the root of procfs, and what is written there.
    pub(crate) sysctls: Vec<(CString, CString)>,
    /// Relative to the root of procfs or sysfs.
    pub(crate) masked: Vec<(Pseudo, CString)>,
    pub(crate) read_only: Vec<(Pseudo, CString)>,
}

/// A mount from which something is bound, kept out of sight.
#[derive(Debug)]
pub(crate) struct Hidden {
    pub(crate) mount: OwnedFd,
    /// A directory of the scratch tmpfs.
    pub(crate) at: OwnedFd,
}

#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) source: Source,
    pub(crate) target: Steps,
    /// Added to those that the source has.
    pub(crate) attributes: MountAttrFlags,
    pub(crate) propagation: Propagation,
    /// Made when missing, as a directory or as a file; None for what must be an ordinary directory already, or in procfs an
    /// ordinary file.
    pub(crate) create: Option<FileType>,
    /// In the place of a file of procfs, one of the few for which that is allowed.
    pub(crate) in_proc: bool,
    /// Left out where the kernel does not have the file system.
    pub(crate) optional: bool,
}

#[derive(Debug)]
pub(crate) enum Source {
    Mount(OwnedFd),
    /// A file of the scratch tmpfs.
    Scratch(CString),
    /// A path in a mount that is attached by now, resolved inside it.
    Inside {
        mount: OwnedFd,
        path: CString,
    },
    Proc,
    /// The fallback is what to use, read-only, where a new sysfs is refused.
    Sys {
        attributes: MountAttrFlags,
        fallback: Option<OwnedFd>,
    },
    Hierarchies(Hierarchies),
    /// A file system without options.
    New(&'static CStr, MountAttrFlags),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pseudo {
    Proc,
    Sys,
}

/// A path below the root, with each of its prefixes.
#[derive(Debug)]
pub(crate) struct Steps(Vec<(CString, CString)>);

const NOT_EXECUTABLE: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

impl Steps {
    /// # Errors
    /// When the path holds a NUL byte.
    pub(crate) fn new(path: &str) -> Result<Steps, std::ffi::NulError> {
        let mut prefix = String::new();
        let mut steps = Vec::new();
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            prefix = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            steps.push((CString::new(prefix.as_str())?, CString::new(name)?));
        }
        Ok(Steps(steps))
    }

    pub(super) fn path(&self) -> &CStr {
        self.0.last().map_or(c".", |(prefix, _)| prefix)
    }

    /// Opens what is there, or makes it and the directories it needs; `made` is called on each new directory or file.
    pub(super) fn open_or_create(
        &self,
        root: BorrowedFd<'_>,
        last: FileType,
        made: impl Fn(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<OwnedFd, Errno> {
        match open_in(root, self.path(), IN_ROOT) {
            Err(Errno::NOENT) => {}
            result => return result,
        }
        let mut parent = open_in(root, c".", IN_ROOT)?;
        for (n, (prefix, name)) in self.0.iter().enumerate() {
            parent = match open_in(root, prefix, IN_ROOT) {
                Err(Errno::NOENT) => {
                    let kind = if n + 1 == self.0.len() { last } else { FileType::Directory };
                    create(parent.as_fd(), name, kind)?;
                    let new =
                        open_in(parent.as_fd(), name, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
                    made(new.as_fd())?;
                    new
                }
                result => result?,
            };
        }
        Ok(parent)
    }
}

fn create(parent: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Result<(), Errno> {
    match kind {
        FileType::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        _ => mknodat(parent, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0),
    }
}

/// A descriptor for a path, whatever it is, that stands for nothing but the place.
pub(crate) fn open_in(root: BorrowedFd<'_>, path: &CStr, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    open_resolved(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

impl Attachment {
    /// The root of what is attached, where that was made before.
    fn bound(&self) -> Result<Option<OwnedFd>, Errno> {
        match &self.source {
            Source::Mount(mount) => open_in(mount.as_fd(), c".", IN_ROOT).map(Some),
            _ => Ok(None),
        }
    }
}

impl Mounts {
    /// Leaves the process in the container's root, with nothing of the host mounted in sight.
    pub(super) fn enter(&self) -> Outcome {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change(c"/", private).map_err(at(Stage::Private, 0))?;
        // On top of the old root, where no lookup that begins at it arrives: it needs a place that certainly exists.
        let host = open_in(rustix::fs::CWD, c"/", ResolveFlags::empty()).map_err(at(Stage::Root, 0))?;
        attach(self.scratch.as_fd(), host.as_fd()).map_err(at(Stage::Root, 1))?;
        attach(self.root.as_fd(), self.root_at.as_fd()).map_err(at(Stage::Root, 2))?;
        for (n, hidden) in self.hidden.iter().enumerate() {
            attach(hidden.mount.as_fd(), hidden.at.as_fd()).map_err(at(Stage::Hidden, n))?;
        }
        let pseudo = self.attach_all()?;
        self.hide(&pseudo)?;
        if self.root_read_only {
            read_only(self.root.as_fd()).map_err(at(Stage::ReadOnly, usize::MAX))?;
        }
        self.pivot().map_err(at(Stage::Pivot, 0))
    }

    /// The descriptors of the new procfs and sysfs.
    fn attach_all(&self) -> Outcome<[Option<OwnedFd>; 2]> {
        let mut pseudo = [None, None];
        for (n, attachment) in self.attachments.iter().enumerate() {
            let target = self.target(attachment).map_err(at(Stage::Attach, n))?;
            self.check(target.as_fd()).map_err(at(Stage::Shared, n))?;
            match self.attach_one(attachment, target.as_fd()) {
                Ok(Some(mount)) if n == self.proc => pseudo[0] = Some(mount),
                Ok(Some(mount)) if n == self.sys => pseudo[1] = Some(mount),
                // The host's, which was bound there.
                Ok(None) if n == self.sys => pseudo[1] = attachment.bound().map_err(at(Stage::Attach, n))?,
                Err(Errno::NODEV | Errno::PERM) if attachment.optional => {}
                result => drop(result.map_err(at(Stage::Attach, n))?),
            }
        }
        Ok(pseudo)
    }

    /// The mount, where it was made here.
    fn attach_one(&self, attachment: &Attachment, target: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
        let made = match &attachment.source {
            Source::Mount(mount) => {
                return place_shared(mount.as_fd(), target, attachment).map(|()| None);
            }
            Source::Scratch(name) => clone_of(self.scratch.as_fd(), name, false)?,
            Source::Inside { mount, path } => {
                let from = open_in(mount.as_fd(), path, IN_ROOT)?;
                clone_of(from.as_fd(), c"", true)?
            }
            Source::Proc => new(c"proc", NOT_EXECUTABLE)?,
            Source::Sys { attributes, fallback } => {
                match (new(c"sysfs", NOT_EXECUTABLE | *attributes), fallback) {
                    (Err(Errno::PERM), Some(host)) => {
                        place(host.as_fd(), target, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
                        return open_in(host.as_fd(), c".", IN_ROOT).map(Some);
                    }
                    (result, _) => result?,
                }
            }
            Source::Hierarchies(hierarchies) => {
                return hierarchies
                    .attach(self.scratch.as_fd(), target, attachment.attributes)
                    .map(|()| None);
            }
            Source::New(name, attributes) => new(name, *attributes)?,
        };
        place(made.as_fd(), target, attachment.attributes)?;
        Ok(Some(made))
    }

    /// Refuses a place on a mount that the host shares: it would have what is attached there as well, and keep it.
    fn check(&self, target: BorrowedFd<'_>) -> Result<(), Errno> {
        let any = self.attachments.iter().any(|attachment| attachment.propagation == Propagation::Shared);
        if any && is_shared(target)? { Err(Errno::PERM) } else { Ok(()) }
    }

    fn target(&self, attachment: &Attachment) -> Result<OwnedFd, Errno> {
        let root = self.root.as_fd();
        match attachment.create {
            // Where procfs and sysfs go must be what it looks like.
            None => {
                let target = open_in(root, attachment.target.path(), IN_ROOT | ResolveFlags::NO_SYMLINKS)?;
                let kind = FileType::from_raw_mode(fstat(&target)?.st_mode);
                if attachment.in_proc {
                    return if kind == FileType::RegularFile { Ok(target) } else { Err(Errno::PERM) };
                }
                if kind == FileType::Directory { Ok(target) } else { Err(Errno::NOTDIR) }
            }
            Some(kind) => {
                let target = attachment.target.open_or_create(root, kind, |_| Ok(()))?;
                // Nothing may cover a part of procfs: programs trust what they read there.
                if fstatfs(&target)?.f_type == rustix::fs::PROC_SUPER_MAGIC {
                    Err(Errno::PERM)
                } else {
                    Ok(target)
                }
            }
        }
    }

    /// Settings, masks and read-only paths are looked up in the mounts just made, whatever now lies over them.
    fn hide(&self, [proc, sysfs]: &[Option<OwnedFd>; 2]) -> Outcome {
        let below = |pseudo| match pseudo {
            Pseudo::Proc => proc.as_ref(),
            Pseudo::Sys => sysfs.as_ref(),
        };
        for (n, (path, value)) in self.sysctls.iter().enumerate() {
            let Some(mount) = below(Pseudo::Proc) else { continue };
            write(mount.as_fd(), path, value).map_err(at(Stage::Sysctl, n))?;
        }
        for (n, (pseudo, path)) in self.masked.iter().enumerate() {
            let Some(mount) = below(*pseudo) else { continue };
            self.mask(mount.as_fd(), path).map_err(at(Stage::Mask, n))?;
        }
        for (n, (pseudo, path)) in self.read_only.iter().enumerate() {
            let Some(mount) = below(*pseudo) else { continue };
            self.make_read_only(mount.as_fd(), path).map_err(at(Stage::ReadOnly, n))?;
        }
        Ok(())
    }

    fn mask(&self, mount: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
        let Some(target) = open_pseudo(mount, path)? else { return Ok(()) };
        self.check(target.as_fd())?;
        if FileType::from_raw_mode(fstat(&target)?.st_mode) == FileType::Directory {
            let empty = clone_of(self.scratch.as_fd(), EMPTY, false)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
            place(empty.as_fd(), target.as_fd(), attributes)
        } else {
            let null = open_in(self.dev.as_fd(), c"null", ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)?;
            attach(clone_of(null.as_fd(), c"", false)?.as_fd(), target.as_fd())
        }
    }

    fn make_read_only(&self, mount: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
        let Some(target) = open_pseudo(mount, path)? else { return Ok(()) };
        self.check(target.as_fd())?;
        let copy = clone_of(target.as_fd(), c"", true)?;
        place(copy.as_fd(), target.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    fn pivot(&self) -> Result<(), Errno> {
        rustix::process::fchdir(&self.root)?;
        // With the same directory twice the old root ends up on top of the new one, and the scratch tmpfs is on top of
        // that: they are detached in this order, the old root with everything below it.
        rustix::process::pivot_root(c".", c".")?;
        unmount(c".", UnmountFlags::DETACH)?;
        unmount(c".", UnmountFlags::DETACH)?;
        rustix::process::fchdir(&self.root)
    }
}

/// The empty directory of the scratch tmpfs.
pub(crate) const EMPTY: &CStr = c"empty";

pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", empty)
}

/// Attaches, with the attributes from the first moment on where the kernel can do that.
fn place(mount: BorrowedFd<'_>, target: BorrowedFd<'_>, attributes: MountAttrFlags) -> Result<(), Errno> {
    if attributes.is_empty() {
        return attach(mount, target);
    }
    match sys::mount::add_attributes(mount, attributes, true) {
        // Before Linux 5.12 only a mount that has a place can be changed, and the process is the only one to see it.
        Err(Errno::NOSYS) => {
            attach(mount, target)?;
            remount(mount, attributes)
        }
        Ok(()) => attach(mount, target),
        Err(errno) => Err(errno),
    }
}

/// Attaches what may be a copy of a mount of the host: that belongs to the same group as the mount itself.
fn place_shared(mount: BorrowedFd<'_>, target: BorrowedFd<'_>, attachment: &Attachment) -> Result<(), Errno> {
    let flag = match attachment.propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => return place(mount, target, attachment.attributes),
    };
    let changed = sys::mount::set_propagation(mount, flag.bits().into());
    if !matches!(changed, Ok(()) | Err(Errno::NOSYS)) {
        return changed;
    }
    place(mount, target, attachment.attributes)?;
    if changed.is_err() {
        let mut buffer = [0u8; 32];
        mount_change(fd_path(&mut buffer, FDS, mount.as_raw_fd()), flag | MountPropagationFlags::REC)?;
    }
    Ok(())
}

fn read_only(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
    match sys::mount::add_attributes(mount, attributes, false) {
        Err(Errno::NOSYS) => remount(mount, attributes),
        result => result,
    }
}

/// By the host's procfs, which is still there.
pub(super) fn remount(mount: BorrowedFd<'_>, attributes: MountAttrFlags) -> Result<(), Errno> {
    let mut buffer = [0u8; 32];
    let path = fd_path(&mut buffer, FDS, mount.as_raw_fd());
    let kept = rustix::fs::fstatvfs(mount)?.f_flag;
    let mut flags = MountFlags::BIND;
    for (attribute, bit, flag) in [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        if attributes.contains(attribute) || kept.contains(bit) {
            flags |= flag;
        }
    }
    rustix::mount::mount_remount(path, flags, c"")
}

pub(super) const FDS: &[u8] = b"/proc/self/fd/";

/// `/proc/self/fd/N`, or another path that ends in the number, without allocating.
pub(super) fn fd_path<'a>(buffer: &'a mut [u8; 32], prefix: &[u8], fd: i32) -> &'a CStr {
    let mut digits = [0u8; 10];
    let mut left = fd.unsigned_abs();
    let mut count = 0;
    for digit in digits.iter_mut() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
        count += 1;
        if left == 0 {
            break;
        }
    }
    let text = prefix.iter().chain(digits.iter().take(count).rev()).chain(&[0]);
    for (to, from) in buffer.iter_mut().zip(text) {
        *to = *from;
    }
    CStr::from_bytes_until_nul(buffer).unwrap_or(c"")
}

/// A detached copy of the mount at `path` below `from`, to be attached once.
pub(super) fn clone_of(from: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags |= OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(from, path, flags)
}

fn new(name: &CStr, attributes: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Into a file of procfs that is there.
fn write(proc: BorrowedFd<'_>, path: &CStr, value: &CStr) -> Result<(), Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = open_resolved(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::io::write(&file, value.to_bytes()).map(drop)
}

/// None where this kernel does not have the path.
fn open_pseudo(mount: BorrowedFd<'_>, path: &CStr) -> Result<Option<OwnedFd>, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match open_in(mount, path, resolve) {
        Err(Errno::NOENT) => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_have_a_path() {
        for fd in [0, 7, 10, 1_234_567] {
            let mut buffer = [0; 32];
            assert_eq!(fd_path(&mut buffer, FDS, fd).to_str().unwrap(), format!("/proc/self/fd/{fd}"));
        }
    }

    #[test]
    fn steps_are_prefixes() {
        let steps = Steps::new("/a//b/./c/").unwrap();
        let prefixes: Vec<_> =
            steps.0.iter().map(|(p, n)| (p.to_str().unwrap(), n.to_str().unwrap())).collect();
        assert_eq!(prefixes, [("a", "a"), ("a/b", "b"), ("a/b/c", "c")]);
        assert_eq!(Steps::new("/").unwrap().path(), c".");
        assert!(Steps::new("/a\0b").is_err());
    }
}
