//! What a container is: plain values and descriptors, prepared by whoever knows images and stores. No paths of the host.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use boxwright_cache::Cancel;
use rustix::mount::MountAttrFlags;
use rustix::process::{Resource, Rlimit};
use rustix::termios::Winsize;
use rustix::thread::CapabilitySet;

use crate::capability;
use crate::cgroup::{DeviceRule, Resources};
use crate::seccomp::Seccomp;
use crate::secret::Secret;
use crate::stub::Stubs;

/// A container to be. [`Spec::new`] has docker's defaults; every field may be changed before
/// [`crate::Container::spawn`].
#[derive(Debug)]
pub struct Spec {
    pub root: Root,
    /// It has `/.dockerenv` and `/etc/mtab` as under docker, where its layers have nothing of that name.
    pub dockers_files: bool,
    /// In any order; a target below another one is mounted after it.
    pub mounts: Vec<Mount>,
    pub args: Vec<String>,
    /// The program is our own shell ([`crate::SHELL`]), whatever the root has; `args` count for nothing.
    pub own_shell: bool,
    /// The program is started by a process of ours, which waits for orphans and passes signals on.
    pub init: bool,
    /// `NAME=value`, later ones win. HOME is added from the passwd file where it is missing.
    pub env: Vec<String>,
    pub cwd: String,
    pub missing_cwd: MissingCwd,
    /// `name[:group]` or `uid[:gid]`, resolved against the files of the root; empty is root.
    pub user: String,
    /// Names or numbers, besides those that the group file gives.
    pub extra_groups: Vec<String>,
    pub hostname: Option<String>,
    /// The NIS domain name.
    pub domain: Option<String>,
    pub network: Network,
    /// A pseudo-terminal of this size as stdin, stdout and stderr. Output is then all stdout.
    pub tty: Option<Winsize>,
    /// Copied to the process until its end; None is `/dev/null` (with a tty: nothing is typed).
    pub stdin: Option<OwnedFd>,
    pub capabilities: CapabilitySet,
    /// Users other than root have the capabilities as well.
    pub ambient: bool,
    pub seccomp: Seccomp,
    pub no_new_privileges: bool,
    /// Paths below `/proc` and `/sys` that show nothing.
    pub masked_paths: Vec<String>,
    /// Paths below `/proc` and `/sys` that can't be written.
    pub read_only_paths: Vec<String>,
    pub writable_sys: bool,
    /// `/dev` has the host's usual devices besides those of every container.
    pub host_devices: bool,
    /// A container does not start where one of them can't be set.
    pub limits: Vec<(Resource, Rlimit)>,
    /// Names, with dots, and values; only what its own namespaces have can be set.
    pub sysctls: Vec<(String, String)>,
    /// Of `/dev/shm`, in bytes.
    pub shm_size: u64,
    /// Of authorities that are trusted besides those of the image, in PEM; nothing of them stays in the root's upper
    /// directory.
    pub certificates: Vec<u8>,
    /// Of the container as a whole.
    pub resources: Resources,
    pub devices: Devices,
    /// How soon its processes are killed when memory is short, from -1000 to 1000.
    pub oom_score: Option<i32>,
    /// Its host name is the host's.
    pub host_uts: bool,
    /// Which it is in, and which owns its network if that is one that is joined; None is ours. See [`crate::Nested`].
    pub user_namespace: Option<OwnedFd>,
}

/// What keeps it from the devices of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Devices {
    /// Nodes on a mount of ours can't be opened, but for those of `/dev` and what is bound as a device. Who may mount
    /// can have other mounts.
    #[default]
    NoNodes,
    /// A control group: those of these rules besides the usual ones can be opened, wherever the node is, and no others.
    Rules(Vec<DeviceRule>),
    /// Nothing.
    All,
}

impl Devices {
    /// Added to the mounts of a container.
    pub(crate) fn attributes(&self) -> MountAttrFlags {
        match self {
            Devices::NoNodes => MountAttrFlags::MOUNT_ATTR_NODEV,
            Devices::Rules(_) | Devices::All => MountAttrFlags::empty(),
        }
    }

    pub(crate) fn rules(&self) -> Option<&[DeviceRule]> {
        match self {
            Devices::Rules(rules) => Some(rules),
            Devices::NoNodes | Devices::All => None,
        }
    }
}

/// The root file system: an overlay that is mounted in the container's own mount namespace only, or where there can be
/// none a copy in the upper directory.
#[derive(Debug)]
pub struct Root {
    /// Layer directories, bottom first.
    pub lowers: Vec<OwnedFd>,
    /// Where writes go; None makes the root read-only.
    pub upper: Option<Upper>,
    pub read_only: bool,
    pub stubs: Arc<Stubs>,
    /// Ends the copying, which may take long.
    pub cancel: Cancel,
}

/// Two empty directories of one file system. The work directory serves one container only (`volatile` mounts).
#[derive(Debug)]
pub struct Upper {
    pub dir: OwnedFd,
    pub work: OwnedFd,
}

#[derive(Debug)]
pub struct Mount {
    /// Absolute, in the container; symlinks in it are followed inside the root. Made when missing.
    pub target: String,
    pub source: MountSource,
    pub read_only: bool,
}

#[derive(Debug)]
pub enum MountSource {
    Bind(Bind),
    /// The container gets a node of its own for it.
    Device(DeviceNode),
    /// A file or directory of a stack of layers (bottom first), `path` resolved inside them. Without an `upper` of its
    /// own it is read-only.
    Layers {
        lowers: Vec<OwnedFd>,
        path: String,
        upper: Option<Upper>,
    },
    Tmpfs(Tmpfs),
    /// A file with these bytes, owned by root. Writes to it last as long as the container.
    File {
        data: Vec<u8>,
        mode: u32,
    },
    /// A file that nobody outside can see.
    Secret {
        secret: Secret,
        owner: Owner,
    },
    /// A socket that is bound here and listens; its owner accepts what comes.
    Socket {
        socket: OwnedFd,
        owner: Owner,
    },
}

/// A file or directory of the host.
#[derive(Debug)]
pub struct Bind {
    pub source: OwnedFd,
    /// With what is mounted below it.
    pub recursive: bool,
    pub propagation: Propagation,
    /// Besides those of every mount.
    pub attributes: MountAttrFlags,
}

/// A device of the host.
#[derive(Debug)]
pub struct DeviceNode {
    /// As a place only.
    pub host: OwnedFd,
    /// Where the node is not to have those of the host's.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// Where mounts made later below one end of a bind are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    #[default]
    Private,
    /// Those of the host, in the container as well.
    Slave,
    /// Those of each, in both.
    Shared,
}

/// A tmpfs of its own.
#[derive(Debug, Default)]
pub struct Tmpfs {
    /// As the kernel takes them: `size`, `mode` (octal; 1777 without one), `uid`, …
    pub options: Vec<(&'static CStr, String)>,
    /// Programs in it can be run.
    pub exec: bool,
    /// Set-user-id bits count.
    pub suid: bool,
    pub access_times: AccessTimes,
}

/// When a file's time of access changes because it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessTimes {
    /// After it was changed, and once a day.
    #[default]
    Relative,
    /// So, but never that of a directory.
    OfFiles,
    Never,
    Always,
}

/// Mode, user and group of a file, as the container knows them.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What to do about a working directory that isn't there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingCwd {
    /// As `docker run`.
    CreateAsRoot,
    /// As a RUN step.
    CreateAsUser,
}

#[derive(Clone, Debug, Default)]
pub enum Network {
    /// That of whoever started us.
    #[default]
    Host,
    /// Its own, with nothing but loopback.
    None,
    /// One that is there: see [`crate::network::Connection`], or that of another container.
    Joined(Arc<OwnedFd>),
}

impl From<OwnedFd> for Bind {
    fn from(source: OwnedFd) -> Bind {
        let attributes = MountAttrFlags::empty();
        Bind { source, recursive: true, propagation: Propagation::Private, attributes }
    }
}

impl From<OwnedFd> for DeviceNode {
    fn from(host: OwnedFd) -> DeviceNode {
        DeviceNode { host, mode: None, uid: None, gid: None }
    }
}

impl Spec {
    pub fn new(root: Root, args: Vec<String>) -> Spec {
        Spec {
            root,
            dockers_files: false,
            mounts: Vec::new(),
            args,
            own_shell: false,
            init: false,
            env: Vec::new(),
            cwd: "/".to_owned(),
            missing_cwd: MissingCwd::CreateAsRoot,
            user: String::new(),
            extra_groups: Vec::new(),
            hostname: None,
            domain: None,
            network: Network::default(),
            tty: None,
            stdin: None,
            capabilities: capability::DEFAULT,
            ambient: false,
            seccomp: Seccomp::Default,
            no_new_privileges: false,
            masked_paths: masked_paths(),
            read_only_paths: READ_ONLY_PATHS.iter().map(|&p| p.to_owned()).collect(),
            writable_sys: false,
            host_devices: false,
            limits: Vec::new(),
            sysctls: Vec::new(),
            shm_size: 64 << 20,
            certificates: Vec::new(),
            resources: Resources::default(),
            devices: Devices::default(),
            oom_score: None,
            host_uts: false,
            user_namespace: None,
        }
    }

    pub(crate) fn may_mount(&self) -> bool {
        self.capabilities.contains(CapabilitySet::SYS_ADMIN)
    }

    /// Takes every restriction away that is ours, other than the namespaces.
    pub fn unconfine(&mut self) {
        self.capabilities = CapabilitySet::all();
        self.ambient = true;
        self.seccomp = Seccomp::Unconfined;
        self.masked_paths.clear();
        self.read_only_paths.clear();
        self.writable_sys = true;
        self.host_devices = true;
        self.devices = Devices::All;
    }
}

pub(crate) const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

pub(crate) const READ_ONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// moby's list, with the thermal counters of each processor this machine has.
fn masked_paths() -> Vec<String> {
    static PATHS: OnceLock<Vec<String>> = OnceLock::new();
    PATHS.get_or_init(find_masked_paths).clone()
}

fn find_masked_paths() -> Vec<String> {
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let mut paths = mask(&possible);
    paths.retain(|path| {
        MASKED_PATHS.contains(&path.as_str()) || rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok()
    });
    paths
}

/// `possible` is the kernel's list of processors: how many of them we may run on ourselves says nothing of what a
/// container sees.
fn mask(possible: &str) -> Vec<String> {
    let processors = crate::cgroup::numbers(possible).unwrap_or_default().into_iter();
    let thermal = processors.map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle"));
    MASKED_PATHS.iter().map(|&path| path.to_owned()).chain(thermal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_processors_that_we_may_not_run_on_are_masked_too() {
        let many = mask("0-1023\n");
        assert_eq!(many.len(), MASKED_PATHS.len() + 1024);
        assert_eq!(many.last().unwrap(), "/sys/devices/system/cpu/cpu1023/thermal_throttle");
        assert_eq!(mask(""), MASKED_PATHS);
    }
}
