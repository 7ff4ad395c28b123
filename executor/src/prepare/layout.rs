//! Which mounts a container has, where they go, and in which order.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::sources::{Ready, Scratch, is_in_proc, is_sys};
use super::stack::{self, RootMount};
use super::{MountPoints, groups, sysctl};
use crate::dev::{self, Dev};
use crate::error::{Error, Result};
use crate::idmap;
use crate::init::{Attachment, Mounts, Pseudo, Source, Steps};
use crate::mountpoint;
use crate::spec::{Network, Propagation, Spec};
use crate::stub;
use crate::trust::Installed;

pub(super) const QUIET: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// The mounts, and what only messages and the end of the container need.
#[derive(Debug)]
pub(super) struct LaidOut {
    pub(super) mounts: Mounts,
    pub(super) targets: Vec<String>,
    pub(super) mount_points: MountPoints,
}

/// Mounts the root, stub layer included, for nobody to see.
pub(super) fn mount_root(spec: &Spec, mounts: &[Ready]) -> Result<RootMount> {
    let mut targets: Vec<_> = mounts.iter().map(|m| (m.target.as_str(), m.kind)).collect();
    if spec.dockers_files {
        targets.extend(stub::DOCKERS);
    }
    let stub = spec.root.stubs.layer(&targets)?;
    stack::root(&spec.root, &stub, spec.devices.attributes())
}

pub(super) fn lay_out(
    spec: &Spec,
    mounts: Vec<Ready>,
    root: OwnedFd,
    mut scratch: Scratch,
    dev: Dev,
    console: Option<CString>,
    groups: &[(PathBuf, OwnedFd)],
) -> Result<LaidOut> {
    let root_at = scratch.directory("root")?;
    scratch.directory("empty")?;
    let mut list = List::default();
    let dev_fd = dev.dev.try_clone().map_err(Error::io("copying a descriptor", ""))?;
    let own: Vec<&str> = mounts.iter().map(|mount| mount.target.as_str()).collect();
    let groups = groups::source(&mut scratch, groups)?;
    let (proc, mut sys) = list.system(spec, dev, console, groups, &own)?;
    let mut made = Vec::new();
    for path in ["proc", "sys", "dev"] {
        made.extend(ensure_system(&root, path)?);
    }
    // What lies in another mount of this container is made there, when that is in its place.
    let mut outer = vec!["/dev/".to_owned(), "/proc/".to_owned()];
    for (n, mount) in mounts.into_iter().enumerate() {
        if !outer.iter().any(|o| mount.target.starts_with(o.as_str())) {
            let ensured = mountpoint::ensure(root.as_fd(), &mount.target, mount.kind);
            made.extend(ensured.map_err(Error::io("creating mount point", &mount.target))?);
        }
        outer.push(format!("{}/", mount.target.trim_end_matches('/')));
        let source = scratch.source(n, mount.source)?;
        let in_place_of_sys = is_sys(&mount.target);
        let in_proc = is_in_proc(&mount.target);
        let create = if in_place_of_sys || in_proc { None } else { Some(mount.kind) };
        let at = list.push(&mount.target, source, create, mount.attributes, false)?;
        list.attachments[at].propagation = mount.propagation;
        list.attachments[at].in_proc = in_proc;
        if in_place_of_sys {
            sys = at;
        }
    }
    let upper = spec.root.upper.as_ref().map(|u| u.dir.try_clone()).transpose();
    let upper = upper.map_err(Error::io("copying a descriptor", ""))?;
    let mut mount_points =
        MountPoints { upper, made, trusted: Installed::default(), copied: None, refused: None };
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
        sysctls: sysctl::paths(spec)?,
        masked: pseudo_paths(&spec.masked_paths)?,
        read_only: pseudo_paths(&spec.read_only_paths)?,
    };
    Ok(LaidOut { mounts, targets: list.targets, mount_points })
}

/// A whiteout of one of our own mount points hides the stub. A symlink is not followed here: where it matters, the
/// mount is refused.
fn ensure_system(root: &OwnedFd, path: &str) -> Result<Vec<mountpoint::Made>> {
    match rustix::fs::statat(root, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => mountpoint::ensure(root.as_fd(), path, FileType::Directory)
            .map_err(Error::io("creating mount point", path)),
        _ => Ok(Vec::new()),
    }
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
        attributes: MountAttrFlags,
        optional: bool,
    ) -> Result<usize> {
        let steps = Steps::new(target).map_err(|_| super::nul("a mount target"))?;
        self.targets.push(target.to_owned());
        self.attachments.push(Attachment {
            source,
            target: steps,
            attributes,
            propagation: Propagation::Private,
            create,
            in_proc: false,
            optional,
        });
        Ok(self.attachments.len() - 1)
    }

    /// What every container has, in docker's order. The positions of procfs and sysfs, which one of its own may follow.
    fn system(
        &mut self,
        spec: &Spec,
        dev: Dev,
        console: Option<CString>,
        groups: Option<Source>,
        own: &[&str],
    ) -> Result<(usize, usize)> {
        let (directory, plain) = (Some(FileType::Directory), MountAttrFlags::empty());
        let proc = self.push("/proc", Source::Proc, None, plain, false)?;
        self.push("/dev", Source::Mount(dev.dev), directory, plain, false)?;
        for (name, node) in dev.nodes {
            let target = format!("/dev/{}", name.to_string_lossy());
            self.push(&target, node, Some(FileType::RegularFile), plain, false)?;
        }
        let pts = dev.pts.try_clone().map_err(Error::io("copying a descriptor", ""))?;
        self.push("/dev/pts", Source::Mount(dev.pts), directory, plain, false)?;
        let of_sys = if spec.writable_sys { plain } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
        let mut sys = usize::MAX;
        // What takes its place has the groups of the host.
        if !own.iter().any(|target| is_sys(target)) {
            let source = Source::Sys { attributes: of_sys, fallback: host_sys(&spec.network)? };
            sys = self.push("/sys", source, None, plain, false)?;
            if let Some(source) = groups {
                let optional = matches!(source, Source::New(..));
                self.push("/sys/fs/cgroup", source, directory, QUIET | of_sys, optional)?;
            }
        }
        // What the container has there itself takes their place.
        if !own.contains(&"/dev/mqueue") {
            self.push("/dev/mqueue", Source::New(c"mqueue", QUIET), directory, plain, true)?;
        }
        if !own.contains(&"/dev/shm") {
            self.push("/dev/shm", Source::Mount(dev.shm), directory, plain, false)?;
        }
        if let Some(name) = console {
            self.push(
                "/dev/console",
                Source::Inside { mount: pts, path: name },
                Some(FileType::RegularFile),
                plain,
                false,
            )?;
        }
        Ok((proc, sys))
    }
}

/// In a user namespace that does not own its network namespace a new sysfs is refused.
fn host_sys(network: &Network) -> Result<Option<OwnedFd>> {
    if !matches!(network, Network::Host) || !idmap::in_user_namespace() {
        return Ok(None);
    }
    let sys = openat(CWD, c"/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let sys = sys.map_err(Error::io("opening", "/sys"))?;
    dev::bind(&sys, true).map(Some).map_err(Error::io("binding", "/sys"))
}
