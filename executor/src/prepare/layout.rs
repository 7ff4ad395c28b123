//! Which mounts a container has, where they go, and in which order.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::MountPoints;
use crate::dev::{self, Dev};
use crate::error::{Error, Result};
use crate::idmap;
use crate::init::{Attachment, Hidden, Mounts, Pseudo, Source, Steps};
use crate::mountpoint;
use crate::rootfs::{Overlay, tmpfs};
use crate::spec::{Mount, MountSource, Network, Spec};

/// The mounts, and what only messages and the end of the container need.
#[derive(Debug)]
pub(super) struct LaidOut {
    pub(super) mounts: Mounts,
    pub(super) targets: Vec<String>,
    pub(super) mount_points: MountPoints,
}

/// Mounts the root, stub layer included, for nobody to see.
pub(super) fn mount_root(spec: &Spec) -> Result<OwnedFd> {
    let mut targets = Vec::new();
    for mount in &spec.mounts {
        targets.push((mount.target.as_str(), kind_of(&mount.source)?));
    }
    let stub = spec.root.stubs.layer(&targets)?;
    let empty = if spec.root.upper.is_none() { Some(spec.root.stubs.empty()?) } else { None };
    let mut lowers: Vec<_> = spec.root.lowers.iter().rev().map(AsFd::as_fd).collect();
    lowers.push(stub.as_fd());
    lowers.extend(empty.as_ref().map(AsFd::as_fd));
    let upper = spec.root.upper.as_ref().map(|u| (u.dir.as_fd(), u.work.as_fd()));
    Overlay { lowers, upper, user_xattrs: idmap::in_user_namespace() }.mount()
}

/// A layers mount is taken for a directory unless it says otherwise itself, when it is resolved.
fn kind_of(source: &MountSource) -> Result<FileType> {
    Ok(match source {
        MountSource::Tmpfs { .. } => FileType::Directory,
        MountSource::File { .. } => FileType::RegularFile,
        MountSource::Bind(fd) => place_kind(fd)?,
        MountSource::Layers { lowers, path } => {
            let mut found = FileType::Directory;
            // The topmost layer that has the path decides; through symlinks it is settled in the mount, later.
            for lower in lowers.iter().rev() {
                let open = openat2(
                    lower,
                    clean(path),
                    OFlags::PATH | OFlags::CLOEXEC,
                    Mode::empty(),
                    ResolveFlags::IN_ROOT,
                );
                if let Ok(fd) = open {
                    found = place_kind(&fd)?;
                    break;
                }
            }
            found
        }
    })
}

fn clean(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "" => ".",
        path => path,
    }
}

/// A mount goes on a directory or on anything else.
fn place_kind(fd: &OwnedFd) -> Result<FileType> {
    let mode = fstat(fd).map_err(Error::io("looking at a mount's source", ""))?.st_mode;
    let directory = FileType::from_raw_mode(mode) == FileType::Directory;
    Ok(if directory { FileType::Directory } else { FileType::RegularFile })
}

pub(super) fn lay_out(spec: &mut Spec, root: OwnedFd, dev: Dev, console: Option<CString>) -> Result<LaidOut> {
    let mut scratch = Scratch::new()?;
    let root_at = scratch.directory("root")?;
    scratch.directory("empty")?;
    let mut list = List::default();
    let dev_fd = dev.dev.try_clone().map_err(Error::io("copying a descriptor", ""))?;
    let (proc, sys) = list.system(spec.network, dev, console)?;
    let mut user_mounts = std::mem::take(&mut spec.mounts);
    user_mounts.sort_by_key(|m| m.target.split('/').filter(|n| !n.is_empty()).count());
    let mut made = Vec::new();
    let mut outer: Vec<String> = Vec::new();
    for (n, mount) in user_mounts.into_iter().enumerate() {
        check_target(&mount.target)?;
        let kind = kind_of(&mount.source)?;
        // What lies in another mount of this container is made there, when that is in its place.
        let inside_another =
            outer.iter().any(|o| mount.target.starts_with(o.as_str())) || in_dev(&mount.target);
        if !inside_another {
            let ensured = mountpoint::ensure(root.as_fd(), &mount.target, kind);
            made.extend(ensured.map_err(Error::io("creating mount point", &mount.target))?);
        }
        outer.push(format!("{}/", mount.target.trim_end_matches('/')));
        list.user(spec, mount, kind, n, &mut scratch)?;
    }
    for (path, kind) in [
        ("etc", FileType::Directory),
        ("proc", FileType::Directory),
        ("sys", FileType::Directory),
        ("dev", FileType::Directory),
    ] {
        made.extend(ensure_system(&root, path, kind)?);
    }
    let upper = spec.root.upper.as_ref().map(|u| u.dir.try_clone()).transpose();
    let upper = upper.map_err(Error::io("copying a descriptor", ""))?;
    let mut mount_points = MountPoints { upper, made };
    mount_points.remember();
    let mounts = Mounts {
        scratch: scratch.mount,
        root,
        root_at,
        root_read_only: spec.root.read_only || spec.root.upper.is_none(),
        hidden: scratch.hidden,
        attachments: list.attachments,
        proc,
        sys,
        dev: dev_fd,
        masked: pseudo_paths(&spec.masked_paths)?,
        read_only: pseudo_paths(&spec.read_only_paths)?,
    };
    Ok(LaidOut { mounts, targets: list.targets, mount_points })
}

/// A whiteout of one of our own mount points hides the stub. A symlink is not followed here: where it matters, the
/// mount is refused.
fn ensure_system(root: &OwnedFd, path: &str, kind: FileType) -> Result<Vec<mountpoint::Made>> {
    match rustix::fs::statat(root, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {
            mountpoint::ensure(root.as_fd(), path, kind).map_err(Error::io("creating mount point", path))
        }
        _ => Ok(Vec::new()),
    }
}

fn check_target(target: &str) -> Result<()> {
    let names: Vec<&str> = target.split('/').filter(|n| !n.is_empty() && *n != ".").collect();
    let refuse = |reason: &str| Err(Error::start(125, format!("invalid mount target {target:?}: {reason}")));
    if !target.starts_with('/') {
        return refuse("mount path must be absolute");
    }
    if names.is_empty() {
        return refuse("destination can't be '/'");
    }
    if names[0] == "proc" || (names[0] == "sys" && names.len() == 1) {
        return refuse("it is a mount of the container's own");
    }
    Ok(())
}

fn in_dev(target: &str) -> bool {
    target.split('/').find(|n| !n.is_empty()) == Some("dev")
}

fn pseudo_paths(paths: &[String]) -> Result<Vec<(Pseudo, CString)>> {
    let mut found = Vec::new();
    for path in paths {
        let relative = match (path.strip_prefix("/proc/"), path.strip_prefix("/sys/")) {
            (Some(rest), _) => (Pseudo::Proc, rest),
            (_, Some(rest)) => (Pseudo::Sys, rest),
            _ => {
                return Err(Error::Unsupported(format!(
                    "{path}: only paths below /proc and /sys can be masked"
                )));
            }
        };
        found.push((relative.0, CString::new(relative.1).map_err(|_| super::nul("a masked path"))?));
    }
    Ok(found)
}

/// The tmpfs that holds what is bound into the container.
struct Scratch {
    mount: OwnedFd,
    hidden: Vec<Hidden>,
}

impl Scratch {
    fn new() -> Result<Scratch> {
        let mount =
            tmpfs(&[(c"mode", "700")], MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV)?;
        Ok(Scratch { mount, hidden: Vec::new() })
    }

    fn directory(&mut self, name: &str) -> Result<OwnedFd> {
        let error = || Error::io("preparing mounts", name);
        mkdirat(&self.mount, name, Mode::from_raw_mode(0o755)).map_err(error())?;
        rustix::fs::chmodat(&self.mount, name, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty())
            .map_err(error())?;
        openat(&self.mount, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(error())
    }

    fn file(&mut self, name: &str, data: &[u8], mode: u32) -> Result<CString> {
        use std::io::Write;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = openat(&self.mount, name, flags, Mode::from_raw_mode(0o600))
            .map_err(Error::io("preparing file", name))?;
        let mut file = std::fs::File::from(fd);
        file.write_all(data).map_err(Error::io("writing file", name))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(Error::io("preparing file", name))?;
        CString::new(name).map_err(|_| super::nul("a file's name"))
    }
}

#[derive(Debug, Default)]
struct List {
    attachments: Vec<Attachment>,
    targets: Vec<String>,
}

impl List {
    fn push(
        &mut self,
        target: &str,
        source: Source,
        create: Option<FileType>,
        read_only: bool,
        optional: bool,
    ) -> Result<usize> {
        let steps = Steps::new(target).map_err(|_| super::nul("a mount target"))?;
        self.targets.push(target.to_owned());
        self.attachments.push(Attachment { source, target: steps, read_only, create, optional });
        Ok(self.attachments.len() - 1)
    }

    /// What every container has, in docker's order. The positions of procfs and sysfs.
    fn system(&mut self, network: Network, dev: Dev, console: Option<CString>) -> Result<(usize, usize)> {
        let directory = Some(FileType::Directory);
        let proc = self.push("/proc", Source::Proc, None, false, false)?;
        self.push("/dev", Source::Mount(dev.dev), directory, false, false)?;
        for (name, host) in dev.bound {
            let target = format!("/dev/{}", name.to_string_lossy());
            self.push(&target, Source::Mount(host), Some(FileType::RegularFile), false, false)?;
        }
        let pts = dev.pts.try_clone().map_err(Error::io("copying a descriptor", ""))?;
        self.push("/dev/pts", Source::Mount(dev.pts), directory, false, false)?;
        let sys = self.push("/sys", Source::Sys(host_sys(network)?), None, false, false)?;
        let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        if has_cgroup2() {
            self.push("/sys/fs/cgroup", Source::New(c"cgroup2", quiet), directory, true, true)?;
        }
        self.push("/dev/mqueue", Source::New(c"mqueue", quiet), directory, false, true)?;
        self.push("/dev/shm", Source::Mount(dev.shm), directory, false, false)?;
        if let Some(name) = console {
            self.push(
                "/dev/console",
                Source::Inside { mount: pts, path: name },
                Some(FileType::RegularFile),
                false,
                false,
            )?;
        }
        Ok((proc, sys))
    }

    fn user(
        &mut self,
        spec: &Spec,
        mount: Mount,
        kind: FileType,
        n: usize,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Mount { target, source, read_only } = mount;
        let source = match source {
            MountSource::Bind(fd) => {
                Source::Mount(dev::bind(&fd, true).map_err(Error::io("binding for", &target))?)
            }
            MountSource::Tmpfs { size, mode } => Source::Mount(user_tmpfs(size, mode)?),
            MountSource::File { data, mode } => {
                Source::Scratch(scratch.file(&format!("file{n}"), &data, mode)?)
            }
            MountSource::Layers { lowers, path } => {
                let mount = layers(spec, &lowers)?;
                let again = mount.try_clone().map_err(Error::io("copying a descriptor", ""))?;
                let at = scratch.directory(&format!("layers{n}"))?;
                scratch.hidden.push(Hidden { mount, at });
                let path = CString::new(clean(&path)).map_err(|_| super::nul("a mount's source"))?;
                return self
                    .push(&target, Source::Inside { mount: again, path }, Some(kind), true, false)
                    .map(drop);
            }
        };
        self.push(&target, source, Some(kind), read_only, false).map(drop)
    }
}

fn layers(spec: &Spec, lowers: &[OwnedFd]) -> Result<OwnedFd> {
    let (first, second) = (spec.root.stubs.empty()?, spec.root.stubs.empty()?);
    let mut top_first: Vec<_> = lowers.iter().rev().map(AsFd::as_fd).collect();
    top_first.push(first.as_fd());
    if lowers.is_empty() {
        top_first.push(second.as_fd());
    }
    Overlay { lowers: top_first, upper: None, user_xattrs: idmap::in_user_namespace() }.mount()
}

fn user_tmpfs(size: Option<u64>, mode: u32) -> Result<OwnedFd> {
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let (mode, size) = (format!("{mode:o}"), size.map(|s| s.to_string()));
    let mut options = vec![(c"source", "tmpfs"), (c"mode", mode.as_str())];
    options.extend(size.as_deref().map(|s| (c"size", s)));
    tmpfs(&options, quiet)
}

/// In a user namespace that does not own its network namespace a new sysfs is refused.
fn host_sys(network: Network) -> Result<Option<OwnedFd>> {
    if network == Network::None || !idmap::in_user_namespace() {
        return Ok(None);
    }
    let sys = openat(CWD, c"/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let sys = sys.map_err(Error::io("opening", "/sys"))?;
    dev::bind(&sys, true).map(Some).map_err(Error::io("binding", "/sys"))
}

/// Under v1 and the hybrid layout `/sys/fs/cgroup` stays empty.
fn has_cgroup2() -> bool {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    rustix::fs::statfs(c"/sys/fs/cgroup").is_ok_and(|fs| fs.f_type as i64 == CGROUP2_SUPER_MAGIC)
}
