//! Control groups: what a container may use, and which devices it may open. A group is made only for a container that
//! asks for something of it, and goes with it. Knows no flag and prints nothing.

mod device;
mod directory;
pub(crate) mod hierarchy;
mod place;
mod resources;
pub(crate) mod view;

use std::fmt::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::{idmap, sys};
use directory::Directory;
use hierarchy::Hierarchy;
use resources::Setting;
pub(crate) use resources::numbers;

pub use device::{DeviceAccess, DeviceKind, DeviceRule};
pub use resources::{Amount, Resources};

/// The groups of one container. Dropping them removes them; nothing may run in them any more.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    made: Vec<Directory>,
    /// Those that the process enters by itself, by their `cgroup.procs`.
    enter: Vec<OwnedFd>,
    /// That of version 2, in which it can be cloned.
    unified: Option<OwnedFd>,
    /// See [`Entrances::seen`].
    seen: Vec<(PathBuf, OwnedFd)>,
    /// With the limit of memory, and whether it is one of version 2.
    memory: Option<(OwnedFd, bool)>,
}

/// What the process enters before it does anything else.
#[derive(Debug, Default)]
pub(crate) struct Entrances {
    pub(crate) groups: Vec<OwnedFd>,
    pub(crate) unified: Option<Unified>,
    /// Those of version 1 that it is in then, by where their hierarchies are mounted: of two the later one.
    pub(crate) seen: Vec<(PathBuf, OwnedFd)>,
}

/// A group of version 2.
#[derive(Debug)]
pub(crate) struct Unified {
    /// The directory, for a process that is cloned into it.
    pub(crate) group: OwnedFd,
    /// For one that is not.
    pub(crate) procs: OwnedFd,
}

/// Processes of a container were killed, as its memory was used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Bytes; where the kernel tells them.
    pub limit: Option<u64>,
    pub peak: Option<u64>,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: u64| {
            let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
            let unit = units.into_iter().find(|(shift, _)| bytes >> shift > 0);
            #[allow(clippy::cast_precision_loss, reason = "for people")]
            unit.map_or(format!("{bytes} B"), |(shift, name)| {
                let number = format!("{:.1}", bytes as f64 / f64::from(1u32 << shift));
                format!("{} {name}", number.trim_end_matches(".0"))
            })
        };
        f.write_str("out of memory: a process was killed")?;
        if let Some(limit) = self.limit {
            write!(f, " at the limit of {}", size(limit))?;
        }
        self.peak.map_or(Ok(()), |peak| write!(f, ", the most used at a time was {}", size(peak)))
    }
}

/// Whether containers can be kept from the devices of the host by a group: for containers that root starts.
///
/// # Errors
/// Why not.
pub fn device_groups() -> std::result::Result<(), String> {
    static FOUND: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let find = || Groups::new(&Resources::default(), Some(&[])).map(drop).map_err(|error| error.to_string());
    FOUND.get_or_init(find).clone()
}

/// The same of limits.
///
/// # Errors
/// Why not.
pub(crate) fn settable(resources: &Resources) -> std::result::Result<(), String> {
    Groups::new(resources, None).map(drop).map_err(|error| error.to_string())
}

impl Groups {
    /// Makes what is asked for; nothing where nothing is. `devices`: all that may be used besides the usual ones.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where a limit can't be set, with what may help.
    pub(crate) fn new(resources: &Resources, devices: Option<&[DeviceRule]>) -> Result<Groups> {
        if resources.is_empty() && devices.is_none() {
            return Ok(Groups::default());
        }
        let read = |path: &str| std::fs::read_to_string(path).map_err(Error::io("reading", path));
        let own = read("/proc/self/cgroup")?;
        let hierarchies = hierarchy::hierarchies(&read("/proc/self/mountinfo")?);
        Groups::below(&hierarchies, &own, resources, devices)
    }

    fn below(
        hierarchies: &[Hierarchy],
        own: &str,
        resources: &Resources,
        devices: Option<&[DeviceRule]>,
    ) -> Result<Groups> {
        if devices.is_some() && idmap::in_user_namespace() {
            return Err(Error::Unsupported(
                "only real root can tell the kernel which devices a container may use".into(),
            ));
        }
        let mut groups = Groups::default();
        let mut wanted = resources.controllers();
        for hierarchy in hierarchies.iter().filter(|h| h.controllers.is_some()) {
            let here: Vec<&str> = wanted.iter().copied().filter(|name| hierarchy.has(name)).collect();
            if !here.is_empty() {
                groups.add_v1(hierarchy, own, resources, &here)?;
                wanted.retain(|name| !here.contains(name));
            }
        }
        let unified = hierarchies.iter().find(|h| h.controllers.is_none());
        // Without a controller the parent still has to be the one that was asked for.
        let parent_alone = resources.parent.is_some() && groups.made.is_empty();
        match unified {
            Some(unified) if !wanted.is_empty() || devices.is_some() || parent_alone => {
                groups.add_v2(unified, own, resources, &wanted, devices)?;
            }
            None if !wanted.is_empty() => {
                return Err(refused(&wanted, "no such control groups are mounted"));
            }
            None if devices.is_some() => {
                let v1 = hierarchies.iter().find(|h| h.has("devices"));
                let v1 =
                    v1.ok_or_else(|| Error::Unsupported("no control groups for devices are mounted".into()))?;
                groups.add_v1_devices(v1, own, resources, devices.unwrap_or_default())?;
            }
            None if parent_alone => {
                return Err(Error::Unsupported("no control groups are mounted for a parent".into()));
            }
            _ => {}
        }
        Ok(groups)
    }

    fn add_v1(
        &mut self,
        hierarchy: &Hierarchy,
        own: &str,
        resources: &Resources,
        here: &[&str],
    ) -> Result<()> {
        let parent = v1_parent(hierarchy, own, resources)?;
        let directory = make(&parent, here)?;
        if hierarchy.has("cpuset") {
            inherit_cpuset(&directory).map_err(failed(here, &directory))?;
        }
        let settings = resources.v1();
        apply(&settings, here, &directory, directory.dir())?;
        if here.contains(&"memory") {
            self.memory = Some((directory.same().map_err(Error::io("opening", directory.path()))?, false));
        }
        self.enter.push(procs(directory.dir(), &directory)?);
        let same = directory.same().map_err(Error::io("opening", directory.path()))?;
        self.seen.push((hierarchy.at.clone(), same));
        self.made.push(directory);
        Ok(())
    }

    /// The container is in a group of its own in the one with the rules, so that it can't loosen them.
    fn add_v1_devices(
        &mut self,
        hierarchy: &Hierarchy,
        own: &str,
        resources: &Resources,
        rules: &[DeviceRule],
    ) -> Result<()> {
        let directory = make(&v1_parent(hierarchy, own, resources)?, &["devices"])?;
        let write = |file: &str, line: &str| {
            directory::write(directory.dir(), file, line).map_err(failed(&["devices"], &directory))
        };
        write("devices.deny", "a")?;
        for line in device::lines(rules) {
            write("devices.allow", &line)?;
        }
        let inner = directory.inner().map_err(Error::io("making a group in", directory.path()))?;
        self.enter.push(procs(&inner, &directory)?);
        self.seen.push((hierarchy.at.clone(), inner));
        self.made.push(directory);
        Ok(())
    }

    fn add_v2(
        &mut self,
        hierarchy: &Hierarchy,
        own: &str,
        resources: &Resources,
        wanted: &[&str],
        devices: Option<&[DeviceRule]>,
    ) -> Result<()> {
        let own = hierarchy.own_group(own);
        let parent = match &resources.parent {
            None => place::find(&own, &hierarchy.at, wanted).map_err(|why| refused(wanted, &why))?,
            Some(parent) => v2_parent(hierarchy, parent, wanted)?,
        };
        let directory = make(&parent, wanted)?;
        let mut group = directory.same().map_err(Error::io("opening", directory.path()))?;
        if let Some(rules) = devices {
            // The container is in a group of its own in it, so that it can't loosen the rules.
            let program = sys::bpf::load_device_program(&device::program(rules));
            let attached = program.and_then(|p| sys::bpf::attach_device_program(group.as_fd(), p.as_fd()));
            attached.map_err(failed(&["devices"], &directory))?;
            if !wanted.is_empty() {
                place::hand_down(directory.path(), wanted, false).map_err(|why| refused(wanted, &why))?;
            }
            group = directory.inner().map_err(Error::io("making a group in", directory.path()))?;
        }
        apply(&resources.v2(), wanted, &directory, &group)?;
        if wanted.contains(&"memory") {
            self.memory = Some((group.try_clone().map_err(Error::io("opening", directory.path()))?, true));
        }
        self.unified = Some(group);
        self.made.push(directory);
        Ok(())
    }

    /// To be called once.
    pub(crate) fn entrances(&mut self) -> Result<Entrances> {
        let unified = self.unified.take().map(|group| {
            let procs = directory::open_file(&group, "cgroup.procs", OFlags::WRONLY);
            let procs = procs.map_err(Error::io("opening", "cgroup.procs"))?;
            Ok(Unified { group, procs })
        });
        let (groups, seen) = (std::mem::take(&mut self.enter), std::mem::take(&mut self.seen));
        Ok(Entrances { groups, unified: unified.transpose()?, seen })
    }

    /// Whether the kernel has killed a process of the container for its memory.
    pub(crate) fn out_of_memory(&self) -> Option<OutOfMemory> {
        let (group, v2) = self.memory.as_ref()?;
        let file = if *v2 { "memory.events" } else { "memory.oom_control" };
        let events = directory::read(group, file).ok()?;
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        if kills.trim() == "0" {
            return None;
        }
        let number = |file| directory::read(group, file).ok()?.trim().parse().ok();
        let (limit, peak) = match v2 {
            true => ("memory.max", "memory.peak"),
            false => ("memory.limit_in_bytes", "memory.max_usage_in_bytes"),
        };
        Some(OutOfMemory { limit: number(limit), peak: number(peak) })
    }
}

fn make(parent: &Path, wanted: &[&str]) -> Result<Directory> {
    Directory::new(parent)
        .map_err(|error| refused(wanted, &format!("making a group in {}: {error}", parent.display())))
}

fn procs(group: &OwnedFd, directory: &Directory) -> Result<OwnedFd> {
    directory::open_file(group, "cgroup.procs", OFlags::WRONLY)
        .map_err(Error::io("opening the processes of", directory.path()))
}

/// A group without processors and memory takes no process.
fn inherit_cpuset(directory: &Directory) -> Result<(), Errno> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if directory::read(directory.dir(), file)?.trim().is_empty() {
            let above = directory::read(directory.parent(), file)?;
            directory::write(directory.dir(), file, above.trim())?;
        }
    }
    Ok(())
}

fn apply(settings: &[Setting], here: &[&str], directory: &Directory, group: &OwnedFd) -> Result<()> {
    for setting in settings.iter().filter(|setting| here.contains(&setting.controller)) {
        if let Some(there) = available(setting, directory)
            && let (Some(wanted), Some(numbers_there)) = (numbers(&setting.value), numbers(&there))
            && !wanted.is_subset(&numbers_there)
        {
            let (what, value) = (setting.file, &setting.value);
            let reason =
                format!("requested {what} are not available: requested {value}, available: {}", there.trim());
            return Err(Error::Unsupported(reason));
        }
        match directory::write(group, setting.file, &setting.value) {
            Err(Errno::NOENT) if setting.implied => {}
            Err(errno) => return Err(not_set(setting, errno)),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// What the group above may use of what is listed by number. Version 2 takes any number and makes nothing of it.
fn available(setting: &Setting, directory: &Directory) -> Option<String> {
    if setting.controller != "cpuset" {
        return None;
    }
    let (v2, v1) = match setting.file {
        "cpuset.mems" => ("cpuset.mems.effective", "cpuset.effective_mems"),
        _ => ("cpuset.cpus.effective", "cpuset.effective_cpus"),
    };
    let parent = directory.parent();
    directory::read(parent, v2).or_else(|_| directory::read(parent, v1)).ok()
}

fn not_set(setting: &Setting, errno: Errno) -> Error {
    let reason = match errno {
        Errno::NOENT => "this kernel has no such limit".to_owned(),
        errno => std::io::Error::from(errno).to_string(),
    };
    Error::Unsupported(format!("setting {} to {}: {reason}", setting.file, setting.value))
}

/// A closure for `map_err`.
fn failed(wanted: &[&str], directory: &Directory) -> impl FnOnce(Errno) -> Error {
    let (path, wanted) = (directory.path().display().to_string(), wanted.join(", "));
    move |errno| refused(&[&wanted], &format!("setting up {path}: {}", std::io::Error::from(errno)))
}

/// Limits are not left out silently: who asked for them counts on them.
fn refused(wanted: &[&str], why: &str) -> Error {
    let mut message = "the container's control group can't be made".to_owned();
    if !wanted.is_empty() {
        let _ = write!(message, " (for {})", wanted.join(", "));
    }
    let _ = write!(message, ": {why}");
    if idmap::in_user_namespace() {
        message.push_str(
            "; where systemd gives this user a part of the control groups, 'systemd-run --user --scope -p \
             Delegate=yes COMMAND' starts a command in there",
        );
    }
    Error::Unsupported(message)
}

fn v1_parent(hierarchy: &Hierarchy, own: &str, resources: &Resources) -> Result<PathBuf> {
    let Some(parent) = &resources.parent else { return Ok(hierarchy.own_group(own)) };
    let mut path = hierarchy.at.clone();
    for name in names(parent)? {
        let above = path.clone();
        path.push(&name);
        let new = make_parent(&path)?;
        if new && hierarchy.has("cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let copied = std::fs::read_to_string(above.join(file))
                    .and_then(|all| std::fs::write(path.join(file), all.trim()));
                copied.map_err(Error::io("setting up", &path))?;
            }
        }
    }
    Ok(path)
}

fn v2_parent(hierarchy: &Hierarchy, parent: &str, wanted: &[&str]) -> Result<PathBuf> {
    let mut path = hierarchy.at.clone();
    let hand_down = |path: &Path| place::hand_down(path, wanted, false).map_err(|why| refused(wanted, &why));
    for name in names(parent)? {
        hand_down(&path)?;
        path.push(&name);
        make_parent(&path)?;
    }
    hand_down(&path)?;
    place::takes_processes(&path).map_err(|why| refused(wanted, &why))?;
    Ok(path)
}

/// Whether it was not there.
fn make_parent(path: &Path) -> Result<bool> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io("making the control group", path)(error)),
    }
}

/// Of the groups that `--cgroup-parent` names. One of systemd's slices is in those that its name is made of.
fn names(parent: &str) -> Result<Vec<String>> {
    let path = Path::new(parent);
    let invalid =
        || Error::start(125, format!("invalid cgroup parent {parent:?}: it is a path without \"..\""));
    let mut found = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => found.push(name.to_str().ok_or_else(invalid)?.to_owned()),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(invalid()),
        }
    }
    if let ([slice], false) = (found.as_slice(), parent.contains('/'))
        && let Some(stem) = slice.strip_suffix(".slice")
    {
        // As systemd calls the root.
        if stem == "-" {
            return Ok(Vec::new());
        }
        let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
        return Ok(ends.map(|end| format!("{}.slice", &stem[..end])).collect());
    }
    if found.iter().any(|name| name.contains('\0')) { Err(invalid()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_a_path_or_a_slice() {
        let of = |text: &str| names(text).map(|names| names.join(" "));
        assert_eq!(of("/a/b").unwrap(), "a b");
        assert_eq!(of("a//./b/").unwrap(), "a b");
        assert_eq!(of("a-b-c.slice").unwrap(), "a.slice a-b.slice a-b-c.slice");
        assert_eq!(of("/x/a-b.slice").unwrap(), "x a-b.slice");
        assert_eq!(of("").unwrap(), "");
        assert_eq!(of("-.slice").unwrap(), "", "the root");
        for text in ["..", "/a/../../b"] {
            assert!(of(text).unwrap_err().to_string().contains("invalid cgroup parent"), "{text}");
        }
    }

    #[test]
    fn being_out_of_memory_is_told_in_sizes() {
        let told = |limit, peak| OutOfMemory { limit, peak }.to_string();
        let most = "out of memory: a process was killed at the limit of 16 MiB, the most used at a time was 15.5 MiB";
        assert_eq!(told(Some(16 << 20), Some(31 << 19)), most);
        assert_eq!(told(None, None), "out of memory: a process was killed");
    }

    #[test]
    fn nothing_is_made_for_who_asks_for_nothing() {
        let groups = Groups::new(&Resources::default(), None).unwrap();
        assert!(groups.made.is_empty() && groups.out_of_memory().is_none());
    }
}
