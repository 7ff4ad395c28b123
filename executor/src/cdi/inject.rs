//! What a container gets with its devices.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, major, minor};
use rustix::mount::MountAttrFlags;

use super::document::{self, Edits};
use super::{Entry, Registry};
use crate::cgroup::{DeviceAccess, DeviceRule};
use crate::error::{Error, Result};
use crate::idmap;
use crate::spec::{Bind, DeviceNode, Mount, MountSource, Spec};

/// What is to be allowed for the devices that a container got.
#[derive(Debug, Default)]
pub struct Injected {
    pub rules: Vec<DeviceRule>,
    /// One that may not be both read and written, which only a control group can see to.
    pub partial: Option<String>,
}

impl Registry {
    /// Gives the devices of these full names to a container.
    ///
    /// # Errors
    /// When one is not there, or is described twice; when what belongs to it is not there or can't be given.
    pub fn inject(&self, names: &[String], spec: &mut Spec) -> Result<Injected> {
        let mut injected = Injected::default();
        let mut files = Vec::new();
        for name in names {
            let entry = self.devices.get(name).ok_or_else(|| {
                let looked_at = self.looked_at();
                Error::start(125, format!("unresolvable CDI devices {name}: looked at {looked_at}"))
            })?;
            let fault = |why: String| {
                Error::start(125, format!("giving device {name} of {}: {why}", entry.file.display()))
            };
            if let Some(other) = &entry.twice {
                return Err(fault(format!("{} describes it as well", other.display())));
            }
            // What is said of all devices of a file is done once.
            if !files.contains(&&entry.file) {
                files.push(&entry.file);
                apply(&entry.document.container_edits, spec, &mut injected).map_err(fault)?;
            }
            apply(entry.edits(), spec, &mut injected).map_err(fault)?;
        }
        Ok(injected)
    }
}

impl Entry {
    fn edits(&self) -> &Edits {
        &self.document.devices[self.device].container_edits
    }
}

fn apply(edits: &Edits, spec: &mut Spec, injected: &mut Injected) -> Result<(), String> {
    if let Some(hook) = edits.hooks.first() {
        return Err(format!("its hook {} would have to run on the host, and no hook is run", hook.path));
    }
    if !edits.net_devices.is_empty() || edits.intel_rdt.is_some() {
        return Err("it needs netDevices or intelRdt, which are not supported".to_owned());
    }
    for entry in &edits.env {
        if entry.split_once('=').is_none_or(|(name, _)| name.is_empty()) || entry.contains('\0') {
            return Err(format!("{entry:?} is no variable"));
        }
        spec.env.push(entry.clone());
    }
    spec.extra_groups.extend(edits.groups.iter().filter(|group| **group != 0).map(u32::to_string));
    for wanted in &edits.device_nodes {
        let (node, rule) = node(wanted)?;
        if !(rule.access.read && rule.access.write) {
            injected.partial = Some(wanted.path.clone());
        }
        injected.rules.push(rule);
        put(spec, &wanted.path, MountSource::Device(node), false);
    }
    for wanted in &edits.mounts {
        let (bind, read_only) = bind(wanted)?;
        put(spec, &wanted.container_path, MountSource::Bind(bind), read_only);
    }
    Ok(())
}

/// The last of several for one place counts.
fn put(spec: &mut Spec, target: &str, source: MountSource, read_only: bool) {
    spec.mounts.retain(|mount| mount.target != target);
    spec.mounts.push(Mount { target: target.to_owned(), source, read_only });
}

/// The paths are the host's, by the word of who wrote its files.
fn open(path: &str) -> Result<(OwnedFd, Stat), String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} is no absolute path"));
    }
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let found = found.and_then(|fd| fstat(&fd).map(|stat| (fd, stat)));
    found.map_err(|errno| format!("{path}: {}", std::io::Error::from(errno)))
}

fn node(wanted: &document::Node) -> Result<(DeviceNode, DeviceRule), String> {
    let path = wanted.host_path.as_deref().unwrap_or(&wanted.path);
    let (host, stat) = open(path)?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => "c",
        FileType::BlockDevice => "b",
        _ => return Err(format!("{path} is no device")),
    };
    let is_kind = wanted.kind.as_deref().is_none_or(|wanted| wanted == kind || (wanted, kind) == ("u", "c"));
    let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
    // Zeros stand for what was not said.
    let is = |wanted: Option<u32>, real: u32| wanted.is_none_or(|wanted| wanted == real);
    let numbered = wanted.major.unwrap_or(0) != 0;
    if !is_kind || numbered && !(is(wanted.major, major) && is(wanted.minor, minor)) {
        return Err(format!("{path} is another device ({kind} {major}:{minor}) than it says"));
    }
    // Nothing said is everything allowed, as other runtimes have it.
    let permissions = wanted.permissions.as_deref().filter(|letters| !letters.is_empty()).unwrap_or("rwm");
    let access =
        DeviceAccess::parse(permissions).ok_or_else(|| format!("{permissions:?} are no permissions"))?;
    let mode = wanted.mode.map(|mode| mode & 0o7777);
    let differs = |wanted: Option<u32>, real: u32| wanted.is_some_and(|wanted| wanted != 0 && wanted != real);
    if idmap::in_user_namespace()
        && (differs(mode, stat.st_mode & 0o7777)
            || differs(wanted.uid, stat.st_uid)
            || differs(wanted.gid, stat.st_gid))
    {
        return Err(format!("only root can give {path} another mode or owner than it has"));
    }
    let file = File::from(host);
    let rule = DeviceRule::of(&file, access).ok_or_else(|| format!("{path} is no device"))?;
    Ok((DeviceNode { host: file.into(), mode, uid: wanted.uid, gid: wanted.gid }, rule))
}

fn bind(wanted: &document::Mount) -> Result<(Bind, bool), String> {
    if !wanted.kind.as_deref().is_none_or(|kind| matches!(kind, "" | "bind" | "none")) {
        return Err(format!("mounts of type {:?} are not supported", wanted.kind.as_deref().unwrap_or("")));
    }
    let (source, _) = open(&wanted.host_path)?;
    let mut bind = Bind { recursive: false, ..Bind::from(source) };
    let mut read_only = false;
    for option in &wanted.options {
        match option.as_str() {
            "bind" | "rw" | "private" | "rprivate" | "exec" | "suid" | "dev" => {}
            "rbind" => bind.recursive = true,
            "ro" => read_only = true,
            "nosuid" => bind.attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nodev" => bind.attributes |= MountAttrFlags::MOUNT_ATTR_NODEV,
            "noexec" => bind.attributes |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            other => {
                return Err(format!(
                    "the option {other:?} of the mount {} is not supported",
                    wanted.container_path
                ));
            }
        }
    }
    Ok((bind, read_only))
}
