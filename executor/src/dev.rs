//! `/dev`: a fresh tmpfs with the nodes that every container has, and its own devpts. Each node is bound to its place:
//! the tmpfs itself has no devices, so that what else root makes in it opens nothing of the host.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fstat, makedev, mkdirat, mknodat,
    openat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};
use rustix::pty::OpenptFlags;

use crate::error::{Error, Result};
use crate::init::Source;
use crate::rootfs::{filesystem, tmpfs};
use crate::spec::DeviceNode;

const NODES: &[(&CStr, u32, u32)] = &[
    (c"null", 1, 3),
    (c"zero", 1, 5),
    (c"full", 1, 7),
    (c"random", 1, 8),
    (c"urandom", 1, 9),
    (c"tty", 5, 0),
];

/// With [`LOOPS`] loop devices.
const HOST_NODES: &[(&CStr, u32, u32)] = &[
    (c"kmsg", 1, 11),
    (c"cuse", 10, 203),
    (c"fuse", 10, 229),
    (c"kvm", 10, 232),
    (c"net/tun", 10, 200),
    (c"loop-control", 10, 237),
];
const LOOPS: u32 = 16;

const LINKS: &[(&CStr, &CStr)] = &[
    (c"/proc/self/fd", c"fd"),
    (c"/proc/self/fd/0", c"stdin"),
    (c"/proc/self/fd/1", c"stdout"),
    (c"/proc/self/fd/2", c"stderr"),
    (c"pts/ptmx", c"ptmx"),
];

/// The detached file systems of `/dev`.
#[derive(Debug)]
pub(crate) struct Dev {
    pub(crate) dev: OwnedFd,
    pub(crate) pts: OwnedFd,
    pub(crate) shm: OwnedFd,
    /// What is bound over files in `dev`.
    pub(crate) nodes: Vec<(CString, Source)>,
}

/// A pseudo-terminal in the container's own devpts.
#[derive(Debug)]
pub(crate) struct Terminal {
    pub(crate) controller: OwnedFd,
    pub(crate) terminal: OwnedFd,
    /// Its name in `/dev/pts`.
    pub(crate) name: CString,
}

impl Dev {
    /// The nodes are made in `scratch`, a tmpfs that the container never sees.
    pub(crate) fn new(scratch: BorrowedFd<'_>, shm_size: u64, hosts: bool) -> Result<Dev> {
        let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
        let quiet = nosuid | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let strict = nosuid | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
        let dev = tmpfs(&[(c"source", "tmpfs"), (c"mode", "755"), (c"size", "65536k")], strict)?;
        let shm = tmpfs(
            &[(c"source", "shm"), (c"mode", "1777"), (c"size", &shm_size.to_string())],
            quiet | MountAttrFlags::MOUNT_ATTR_NODEV,
        )?;
        let mut nodes = Vec::new();
        for &(name, major, minor) in NODES {
            let made = node(&dev, scratch, name, FileType::CharacterDevice, makedev(major, minor));
            nodes.push((name.to_owned(), made.map_err(Error::io("making device", text(name)))?));
        }
        if hosts && !crate::idmap::in_user_namespace() {
            nodes.extend(host_nodes(&dev, scratch)?);
        }
        for directory in [c"pts", c"shm", c"mqueue"] {
            mkdirat(&dev, directory, Mode::from_raw_mode(0o755))
                .map_err(Error::io("creating /dev", text(directory)))?;
        }
        let core = rustix::fs::access(c"/proc/kcore", rustix::fs::Access::EXISTS).is_ok();
        for &(target, name) in LINKS.iter().chain(core.then_some(&(c"/proc/kcore", c"core"))) {
            symlinkat(target, &dev, name).map_err(Error::io("linking /dev", text(name)))?;
        }
        Ok(Dev { dev, pts: devpts(quiet)?, shm, nodes })
    }

    /// Makes a terminal, and the place where it is bound as `/dev/console`.
    pub(crate) fn terminal(&self) -> Result<Terminal> {
        let doing = "making a pseudo-terminal";
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let make = || {
            let controller = openat(&self.pts, c"ptmx", flags, Mode::empty())?;
            rustix::pty::unlockpt(&controller)?;
            let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let terminal = rustix::pty::ioctl_tiocgptpeer(&controller, peer)?;
            let name = rustix::pty::ptsname(&controller, Vec::new())?;
            let number = name.to_bytes().rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
            mknodat(&self.dev, c"console", FileType::RegularFile, Mode::from_raw_mode(0o600), 0)?;
            Ok((controller, terminal, number))
        };
        let (controller, terminal, number) = make().map_err(Error::io::<Errno>(doing, "/dev/pts/ptmx"))?;
        let name = CString::new(number).map_err(Error::io(doing, "/dev/pts"))?;
        Ok(Terminal { controller, terminal, name })
    }
}

/// What BuildKit gives to a step without a sandbox: those of the host's devices that building images takes.
fn host_nodes(dev: &OwnedFd, scratch: BorrowedFd<'_>) -> Result<Vec<(CString, Source)>> {
    let mut wanted: Vec<(CString, FileType, u64)> = HOST_NODES
        .iter()
        .map(|&(name, major, minor)| (name.to_owned(), FileType::CharacterDevice, makedev(major, minor)))
        .collect();
    for number in 0..LOOPS {
        let name = CString::new(format!("loop{number}")).map_err(Error::io("making device", "loop"))?;
        wanted.push((name, FileType::BlockDevice, makedev(7, number)));
    }
    mkdirat(dev, c"net", Mode::from_raw_mode(0o755)).map_err(Error::io("creating /dev", "net"))?;
    mkdirat(scratch, c"net", Mode::from_raw_mode(0o700)).map_err(Error::io("creating /dev", "net"))?;
    let made = wanted.into_iter().map(|(name, kind, device)| {
        let source = node(dev, scratch, &name, kind, device);
        Ok((name.clone(), source.map_err(Error::io("making device", text(&name)))?))
    });
    made.collect()
}

/// The devices that every container has.
pub(crate) fn ordinary_names() -> impl Iterator<Item = &'static str> {
    NODES.iter().filter_map(|(name, _, _)| name.to_str().ok())
}

/// Whether it is one of those that every container has.
pub(crate) fn is_ordinary(device: u64) -> bool {
    NODES.iter().any(|&(_, major, minor)| makedev(major, minor) == device)
}

/// A file in `dev`, and what to bind over it: a node of our own, or the host's where we may not make one.
fn node(
    dev: &OwnedFd,
    scratch: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    device: u64,
) -> rustix::io::Result<Source> {
    let mode = Mode::from_raw_mode(0o666);
    mknodat(dev, name, FileType::RegularFile, mode, 0)?;
    // A tmpfs made in a user namespace lets nodes be made, at best, but not be used.
    if !crate::idmap::in_user_namespace() {
        match mknodat(scratch, name, kind, mode, device) {
            Ok(()) => {
                chmodat(scratch, name, mode, AtFlags::empty())?;
                return Ok(Source::Scratch(name.to_owned()));
            }
            Err(Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    let host = openat(CWD, c"/dev", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let host = openat(&host, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&host)?;
    if FileType::from_raw_mode(stat.st_mode) != kind || stat.st_rdev != device {
        return Err(Errno::NODEV);
    }
    bind(host.as_fd(), false).map(Source::Mount)
}

/// A node for the same device as the host's, named `name` in `scratch`: what the container does to it does not reach the
/// host's. In a user namespace it is the host's, which that protects, with its mode and owner.
pub(crate) fn node_like(
    device: &DeviceNode,
    scratch: BorrowedFd<'_>,
    name: &str,
) -> rustix::io::Result<Source> {
    let stat = fstat(&device.host)?;
    if !crate::idmap::in_user_namespace() {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = Mode::from_raw_mode(device.mode.unwrap_or(stat.st_mode) & 0o7777);
        match mknodat(scratch, name, kind, mode, stat.st_rdev) {
            Ok(()) => {
                let uid = Uid::from_raw(device.uid.unwrap_or(stat.st_uid));
                let gid = Gid::from_raw(device.gid.unwrap_or(stat.st_gid));
                chownat(scratch, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                chmodat(scratch, name, mode, AtFlags::empty())?;
                return Ok(Source::Scratch(CString::new(name).map_err(|_| Errno::INVAL)?));
            }
            Err(Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    bind(&device.host, false).map(Source::Mount)
}

/// A detached copy of the mount of the host that `from` is in, with `from` as its root.
pub(crate) fn bind(from: impl AsFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(from, c"", flags)
}

fn devpts(attributes: MountAttrFlags) -> Result<OwnedFd> {
    let plain = [(c"source", "devpts"), (c"newinstance", ""), (c"ptmxmode", "0666"), (c"mode", "0620")];
    let mut with_group = plain.to_vec();
    with_group.push((c"gid", "5"));
    // A user namespace of one id has no group tty.
    filesystem(c"devpts", &with_group, attributes).or_else(|_| filesystem(c"devpts", &plain, attributes))
}

fn text(name: &CStr) -> String {
    name.to_string_lossy().into_owned()
}
