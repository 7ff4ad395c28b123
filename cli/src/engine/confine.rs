//! How far a container is kept from the machine: capabilities, filter, devices, limits.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use boxwright_executor::cgroup::{DeviceAccess, DeviceRule, Resources, device_groups};
use boxwright_executor::{
    CapabilitySet, Devices, Mount, MountSource, Nested, Propagation, Resource, Rlimit, Seccomp, Spec,
    capability, cdi, idmap,
};
use rustix::fs::{FileType, Mode, OFlags};

use super::settings::not_started;
use crate::error::{Error, Result};

/// What a container may do. The default is docker's.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// Nothing keeps it but its namespaces.
    pub privileged: bool,
    pub capabilities: CapabilitySet,
    pub seccomp: Seccomp,
    pub no_new_privileges: bool,
    /// Nothing of procfs and sysfs is hidden.
    pub system_paths: bool,
    pub devices: Vec<Device>,
    /// Those that have names in files of these directories.
    pub named_devices: Vec<String>,
    pub device_files: Vec<PathBuf>,
    /// What may be used besides them, if there is a node.
    pub device_rules: Vec<DeviceRule>,
    pub limits: Vec<(Resource, Rlimit)>,
    /// Names and values of what the kernel has for each container.
    pub sysctls: Vec<(String, String)>,
    /// Of `/dev/shm`, in bytes.
    pub shm_size: Option<u64>,
    /// A first process of ours, which waits for orphans.
    pub init: bool,
    /// Of all its processes together.
    pub resources: Resources,
    /// How soon it is killed when memory is short.
    pub oom_score: Option<i32>,
    /// Its host name is the machine's.
    pub host_uts: bool,
}

/// A device of the host, or a directory of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub host: PathBuf,
    /// Absolute, in the container.
    pub target: String,
    pub access: DeviceAccess,
}

impl Default for Confinement {
    fn default() -> Confinement {
        Confinement {
            privileged: false,
            capabilities: capability::DEFAULT,
            seccomp: Seccomp::Default,
            no_new_privileges: false,
            system_paths: false,
            devices: Vec::new(),
            named_devices: Vec::new(),
            device_files: Vec::new(),
            device_rules: Vec::new(),
            limits: Vec::new(),
            sysctls: Vec::new(),
            shm_size: None,
            init: false,
            resources: Resources::default(),
            oom_score: None,
            host_uts: false,
        }
    }
}

/// What `/dev` of a privileged container has by itself, or must not have.
#[rustfmt::skip]
const OWN: [&str; 16] = [
    "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
    "urandom", "zero",
];

impl Confinement {
    pub(super) fn apply(&self, spec: &mut Spec) -> Result<()> {
        if self.privileged {
            spec.unconfine();
            // Only root has the capabilities, as in docker; and its devices come below.
            (spec.ambient, spec.host_devices) = (false, false);
        }
        spec.capabilities = self.capabilities;
        spec.seccomp = self.seccomp.clone();
        spec.no_new_privileges = self.no_new_privileges;
        if self.system_paths {
            spec.masked_paths.clear();
            spec.read_only_paths.clear();
        }
        spec.limits.extend_from_slice(&self.limits);
        spec.sysctls.clone_from(&self.sysctls);
        spec.shm_size = self.shm_size.unwrap_or(spec.shm_size);
        spec.init = self.init;
        spec.resources.clone_from(&self.resources);
        (spec.oom_score, spec.host_uts) = (self.oom_score, self.host_uts);
        let mut rules = self.add_devices(spec)?;
        let mut partial = self
            .devices
            .iter()
            .find(|device| !(device.access.read && device.access.write))
            .map(|device| device.host.display().to_string());
        if !self.named_devices.is_empty() {
            let registry = cdi::Registry::load(&self.device_files);
            let injected = registry.inject(&self.named_devices, spec).map_err(not_started)?;
            rules.extend(injected.rules);
            partial = partial.or(injected.partial);
        }
        self.guard_devices(spec, rules, partial)
    }

    /// Whether it can have mounts of its own on which the nodes of the host's devices could be opened.
    pub(crate) fn may_mount(&self) -> bool {
        !self.privileged
            && self.capabilities.contains(CapabilitySet::SYS_ADMIN)
            && !idmap::in_user_namespace()
    }

    /// What who may mount is apart from us in.
    pub(super) fn nested(&self) -> Result<Option<Nested>> {
        match self.capabilities.contains(CapabilitySet::SYS_ADMIN) {
            true => Nested::needed().map_err(not_started),
            false => Ok(None),
        }
    }

    /// A control group guards the devices where `nodev` does not: for who may mount, for mounts that arrive later, and for
    /// what has rules.
    fn guard_devices(&self, spec: &mut Spec, rules: Vec<DeviceRule>, partial: Option<String>) -> Result<()> {
        if self.privileged {
            return Ok(());
        }
        let passes_on = |mount: &Mount| match &mount.source {
            MountSource::Bind(bind) => bind.propagation != Propagation::Private,
            _ => false,
        };
        let wanted = if let Some(mount) = spec.mounts.iter().find(|mount| passes_on(mount)) {
            format!("the propagation modes shared and slave of {} need --privileged or", mount.target)
        } else if let Some(device) = partial {
            format!("a device that may not be both read and written ({device}) needs")
        } else if !self.device_rules.is_empty() {
            "--device-cgroup-rule needs".to_owned()
        } else {
            if self.may_mount() && device_groups().is_ok() {
                spec.devices = Devices::Rules(rules);
            }
            return Ok(());
        };
        device_groups()
            .map_err(|why| Error::invalid(format!("{wanted} a control group for devices: {why}")))?;
        spec.devices = Devices::Rules(rules);
        Ok(())
    }

    /// Gives the rules that let it use them.
    fn add_devices(&self, spec: &mut Spec) -> Result<Vec<DeviceRule>> {
        let mut rules = self.device_rules.clone();
        let mut found = Vec::new();
        // What is bound there has them already.
        let bound = spec.mounts.iter().any(|mount| mount.target == "/dev");
        if self.privileged && !bound {
            all_devices(Path::new("/dev"), "/dev", &mut found)?;
        }
        for device in &self.devices {
            let before = found.len();
            add(&device.host, &device.target, &mut found)
                .map_err(|errno| not_gathered(&device.host, &errno.to_string()))?;
            if found.len() == before {
                return Err(not_gathered(&device.host, "not a device node"));
            }
            rules.extend(found[before..].iter().filter_map(|(_, node)| DeviceRule::of(node, device.access)));
        }
        for (target, node) in found {
            // The last of several for one place counts.
            spec.mounts.retain(|mount| mount.target != target);
            spec.mounts.push(Mount { target, source: MountSource::Device(node.into()), read_only: false });
        }
        Ok(rules)
    }
}

fn not_gathered(host: &Path, reason: &str) -> Error {
    Error::invalid(format!(
        "error gathering device information while adding custom device {host:?}: {reason}"
    ))
}

/// The device at `host`, or those in the directory there and below it.
fn add(host: &Path, target: &str, found: &mut Vec<(String, OwnedFd)>) -> Result<()> {
    let fd = rustix::fs::open(host, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("opening", host))?;
    let stat = rustix::fs::fstat(&fd).map_err(Error::io("looking at", host))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice | FileType::BlockDevice => found.push((target.to_owned(), fd)),
        FileType::Directory => {
            for name in names(host)? {
                // What is not a device, or went away, is no part of it.
                let _ = add_below(&host.join(&name), &format!("{target}/{name}"), found);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Links are not followed: they lead to devices that are found by their own names, or out of the directory.
fn add_below(host: &Path, target: &str, found: &mut Vec<(String, OwnedFd)>) -> Result<()> {
    let kind = std::fs::symlink_metadata(host).map_err(Error::io("looking at", host))?.file_type();
    if kind.is_symlink() { Ok(()) } else { add(host, target, found) }
}

fn all_devices(host: &Path, target: &str, found: &mut Vec<(String, OwnedFd)>) -> Result<()> {
    for name in names(host)? {
        if !OWN.contains(&name.as_str()) {
            let _ = add_below(&host.join(&name), &format!("{target}/{name}"), found);
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).map_err(Error::io("listing", dir))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
