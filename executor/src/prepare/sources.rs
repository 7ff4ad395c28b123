//! What a container's own mounts show: each made as a detached mount, or as a file to be bound.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use boxwright_cache::fs::open_resolved;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chmodat, chownat, fchmod, fstat, fstatfs,
    mkdirat, openat,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::net::SocketAddrUnix;

use super::stack;
use crate::error::{Error, Result};
use crate::init::{Hidden, Source};
use crate::rootfs::tmpfs;
use crate::secret::Secret;
use crate::spec::{
    AccessTimes, Bind, DeviceNode, Devices, Mount, MountSource, Owner, Propagation, Spec, Tmpfs,
};
use crate::{dev, propagation};

/// How many connections to a socket may wait.
const BACKLOG: i32 = 16;

/// A mount whose source exists, and so has a type.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) target: String,
    /// A directory, or a file for anything else.
    pub(super) kind: FileType,
    pub(super) attributes: MountAttrFlags,
    pub(super) propagation: Propagation,
    pub(super) source: ReadySource,
}

#[derive(Debug)]
pub(super) enum ReadySource {
    Mount(OwnedFd),
    Device(DeviceNode),
    Layers { mount: OwnedFd, path: CString },
    File { data: Vec<u8>, mode: u32 },
    Secret { secret: Secret, owner: Owner },
    Socket { socket: OwnedFd, owner: Owner },
}

/// Makes the sources of the spec's mounts, and sorts them: those that others may lie in come first.
pub(super) fn ready(spec: &mut Spec) -> Result<Vec<Ready>> {
    let mut mounts = std::mem::take(&mut spec.mounts);
    if spec.devices == Devices::NoNodes {
        let nodes = nodes_over_dev(&mounts)?;
        mounts.extend(nodes);
    }
    mounts.sort_by_key(|m| m.target.split('/').filter(|n| !n.is_empty()).count());
    mounts.into_iter().map(|mount| make(mount, spec)).collect()
}

/// What takes the place of `/dev` is `nodev`: the ordinary devices that it has are bound once more over themselves.
fn nodes_over_dev(mounts: &[Mount]) -> Result<Vec<Mount>> {
    let at = |target: &str| mounts.iter().find(|mount| mount.target.trim_end_matches('/') == target);
    let Some(Mount { source: MountSource::Bind(Bind { source, .. }), .. }) = at("/dev") else {
        return Ok(Vec::new());
    };
    let mut nodes = Vec::new();
    for name in dev::ordinary_names() {
        let target = format!("/dev/{name}");
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if at(&target).is_none()
            && let Ok(node) = openat(source, name, flags, Mode::empty())
            && is_ordinary_device(&node)?
        {
            nodes.push(Mount { target, source: MountSource::Bind(node.into()), read_only: false });
        }
    }
    Ok(nodes)
}

fn make(mount: Mount, spec: &Spec) -> Result<Ready> {
    // Where root could make a node of any device of the host in it.
    let nodev = spec.devices.attributes();
    let Mount { target, source, mut read_only } = mount;
    check_target(&target, &source)?;
    let (mut attributes, mut propagation) = (MountAttrFlags::empty(), Propagation::Private);
    let (kind, source) = match source {
        MountSource::Bind(Bind { source, recursive, propagation: wanted, attributes: more }) => {
            attributes |= more;
            if !is_ordinary_device(&source)? {
                attributes |= nodev;
            }
            propagation::check(&source, wanted)?;
            propagation = wanted;
            let bound = dev::bind(&source, recursive).map_err(Error::io("binding for", &target))?;
            (kind(&source)?, ReadySource::Mount(bound))
        }
        MountSource::Device(device) => (FileType::RegularFile, ReadySource::Device(device)),
        MountSource::Tmpfs(options) => {
            (FileType::Directory, ReadySource::Mount(user_tmpfs(&options, nodev)?))
        }
        MountSource::File { data, mode } => {
            attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
            (FileType::RegularFile, ReadySource::File { data, mode })
        }
        MountSource::Secret { secret, owner } => {
            attributes |= MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            (FileType::RegularFile, ReadySource::Secret { secret, owner })
        }
        MountSource::Socket { socket, owner } => {
            attributes |= MountAttrFlags::MOUNT_ATTR_NODEV;
            (FileType::RegularFile, ReadySource::Socket { socket, owner })
        }
        MountSource::Layers { lowers, path, .. } if lowers.is_empty() => {
            if path.split('/').any(|name| !matches!(name, "" | "." | "..")) {
                return Err(no_source(&path, Errno::NOENT));
            }
            let options = vec![(c"mode", "755".to_owned())];
            let empty = user_tmpfs(&Tmpfs { options, exec: true, ..Tmpfs::default() }, nodev)?;
            (FileType::Directory, ReadySource::Mount(empty))
        }
        MountSource::Layers { lowers, path: wanted, upper } => {
            read_only |= upper.is_none();
            let part = stack::part(&lowers, &wanted, upper.as_ref(), &spec.root, spec.may_mount(), nodev)?;
            let (mount, path) = part.ok_or_else(|| no_source(&wanted, Errno::NOENT))?;
            let path = format!("./{path}");
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let found = open_resolved(&mount, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
            let found = found.map_err(|errno| no_source(&path[2..], errno))?;
            let path = CString::new(path).map_err(|_| super::nul("a mount's source"))?;
            (kind(&found)?, ReadySource::Layers { mount, path })
        }
    };
    if read_only {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    Ok(Ready { target, kind, attributes, propagation, source })
}

fn no_source(path: &str, errno: Errno) -> Error {
    match errno {
        Errno::NOENT => Error::start(125, format!("mount source {path:?}: not found")),
        errno => Error::io("looking for mount source", path)(errno),
    }
}

fn stat(fd: &OwnedFd) -> Result<Stat> {
    fstat(fd).map_err(Error::io("looking at a mount's source", ""))
}

fn is_ordinary_device(fd: &OwnedFd) -> Result<bool> {
    let stat = stat(fd)?;
    let character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    Ok(character && dev::is_ordinary(stat.st_rdev))
}

fn kind(fd: &OwnedFd) -> Result<FileType> {
    let directory = FileType::from_raw_mode(stat(fd)?.st_mode) == FileType::Directory;
    Ok(if directory { FileType::Directory } else { FileType::RegularFile })
}

fn names(target: &str) -> Vec<&str> {
    target.split('/').filter(|n| !n.is_empty() && *n != ".").collect()
}

/// Whether a mount takes the place of our sysfs. Only the host's may do so.
pub(super) fn is_sys(target: &str) -> bool {
    names(target) == ["sys"]
}

fn check_target(target: &str, source: &MountSource) -> Result<()> {
    let names = names(target);
    let refuse = |reason: &str| Err(Error::start(125, format!("invalid mount target {target:?}: {reason}")));
    if !target.starts_with('/') {
        return refuse("mount path must be absolute");
    }
    if names.is_empty() {
        return refuse("destination can't be '/'");
    }
    let own = if is_in_proc(target) {
        !PROC_FILES.contains(&names[1..].join("/").as_str()) || !is_file(source)?
    } else {
        is_sys(target) && !is_sysfs(source)?
    };
    if own {
        return refuse("it is a mount of the container's own");
    }
    Ok(())
}

/// What LXCFS tells instead of the kernel: numbers of the container, where the kernel has those of the machine.
const PROC_FILES: [&str; 8] =
    ["cpuinfo", "diskstats", "loadavg", "meminfo", "slabinfo", "stat", "swaps", "uptime"];

pub(super) fn is_in_proc(target: &str) -> bool {
    names(target).first() == Some(&"proc")
}

fn is_file(source: &MountSource) -> Result<bool> {
    let MountSource::Bind(Bind { source, .. }) = source else { return Ok(false) };
    Ok(FileType::from_raw_mode(stat(source)?.st_mode) == FileType::RegularFile)
}

/// Whether it is all of one: what is masked in our own is masked in that.
fn is_sysfs(source: &MountSource) -> Result<bool> {
    let MountSource::Bind(Bind { source, .. }) = source else { return Ok(false) };
    let found = fstatfs(source).map_err(Error::io("looking at a mount's source", ""))?;
    Ok(found.f_type == SYSFS_MAGIC && stat(source)?.st_ino == SYSFS_ROOT)
}

/// The number of the first directory of each.
const SYSFS_ROOT: u64 = 1;
/// Of `statfs`; from the kernel's `magic.h`.
const SYSFS_MAGIC: rustix::fs::FsWord = 0x6265_6572;

fn user_tmpfs(wanted: &Tmpfs, nodev: MountAttrFlags) -> Result<OwnedFd> {
    let mut attributes = nodev;
    if !wanted.exec {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
    }
    if !wanted.suid {
        attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID;
    }
    attributes |= match wanted.access_times {
        AccessTimes::Relative => MountAttrFlags::MOUNT_ATTR_RELATIME,
        AccessTimes::OfFiles => MountAttrFlags::MOUNT_ATTR_NODIRATIME,
        AccessTimes::Never => MountAttrFlags::MOUNT_ATTR_NOATIME,
        AccessTimes::Always => MountAttrFlags::MOUNT_ATTR_STRICTATIME,
    };
    let mut options = vec![(c"source", "tmpfs")];
    options.extend(wanted.options.iter().map(|(name, value)| (*name, value.as_str())));
    tmpfs(&options, attributes)
}

/// The tmpfs that holds what is bound into the container, each file and device by itself.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) mount: OwnedFd,
    pub(super) hidden: Vec<Hidden>,
}

impl Scratch {
    pub(super) fn new() -> Result<Scratch> {
        let mount = tmpfs(&[(c"mode", "700")], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
        Ok(Scratch { mount, hidden: Vec::new() })
    }

    /// What to attach for the `n`th mount.
    pub(super) fn source(&mut self, n: usize, ready: ReadySource) -> Result<Source> {
        match ready {
            ReadySource::Mount(mount) => Ok(Source::Mount(mount)),
            ReadySource::Device(device) => dev::node_like(&device, self.mount.as_fd(), &format!("device{n}"))
                .map_err(Error::io("making a node for", "a device")),
            ReadySource::File { data, mode } => {
                self.file(&format!("file{n}"), &data, mode).map(Source::Scratch)
            }
            ReadySource::Secret { secret, owner } => {
                let name = self.file(&format!("secret{n}"), secret.bytes(), 0o600)?;
                self.give(&name, owner)?;
                Ok(Source::Scratch(name))
            }
            ReadySource::Socket { socket, owner } => self.socket(&format!("socket{n}"), &socket, owner),
            ReadySource::Layers { mount, path } => {
                let again = mount.try_clone().map_err(Error::io("copying a descriptor", ""))?;
                let at = self.directory(&format!("layers{n}"))?;
                self.hidden.push(Hidden { mount, at });
                Ok(Source::Inside { mount: again, path })
            }
        }
    }

    pub(super) fn directory(&mut self, name: &str) -> Result<OwnedFd> {
        let error = || Error::io("preparing mounts", name);
        let mode = Mode::from_raw_mode(0o755);
        mkdirat(&self.mount, name, mode).map_err(error())?;
        chmodat(&self.mount, name, mode, AtFlags::empty()).map_err(error())?;
        openat(&self.mount, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(error())
    }

    /// Binds a socket by a name that is short, however deep we are.
    fn socket(&mut self, name: &str, socket: &OwnedFd, owner: Owner) -> Result<Source> {
        let error = || Error::io("making the socket", name);
        let path = format!("/proc/self/fd/{}/{name}", self.mount.as_raw_fd());
        let address = SocketAddrUnix::new(path.as_str()).map_err(error())?;
        rustix::net::bind(socket, &address).map_err(error())?;
        rustix::net::listen(socket, BACKLOG).map_err(error())?;
        let name = CString::new(name).map_err(|_| super::nul("a socket's name"))?;
        self.give(&name, owner)?;
        Ok(Source::Scratch(name))
    }

    fn give(&self, name: &CStr, owner: Owner) -> Result<()> {
        let shown = name.to_string_lossy().into_owned();
        let error = || Error::io("setting mode and owner of", &shown);
        let Owner { mode, uid, gid } = owner;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(&self.mount, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(error())?;
        chmodat(&self.mount, name, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(error())
    }

    fn file(&mut self, name: &str, data: &[u8], mode: u32) -> Result<CString> {
        use std::io::Write;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = openat(&self.mount, name, flags, Mode::from_raw_mode(0o600));
        let mut file = std::fs::File::from(fd.map_err(Error::io("preparing file", name))?);
        file.write_all(data).map_err(Error::io("writing file", name))?;
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(Error::io("preparing file", name))?;
        CString::new(name).map_err(|_| super::nul("a file's name"))
    }
}
