//! What a container sees of control groups of version 1: of each hierarchy the group that it is in. They are bound from the
//! host's own mounts, which takes half the time of mounting them anew in its group namespace, and shows the same.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::hierarchy::hierarchies;
use crate::dev;

/// A hierarchy, with the group that a container without one of its own is in: ours.
#[derive(Debug)]
struct Ours {
    at: PathBuf,
    group: OwnedFd,
}

/// A detached mount for each hierarchy, with the name of its directory: that of the one where the host has it, which lists
/// controllers that share it by commas. `made` are the groups of the container's own.
pub(crate) fn mounts(made: &[(PathBuf, OwnedFd)]) -> Vec<(String, OwnedFd)> {
    // What we are in is asked once, as a build has many containers.
    static OURS: OnceLock<Vec<Ours>> = OnceLock::new();
    let ours = OURS.get_or_init(|| find().unwrap_or_default()).iter();
    let mounts = ours.filter_map(|Ours { at, group }| {
        let own = made.iter().rev().find(|(place, _)| place == at).map_or(group, |(_, own)| own);
        Some((at.file_name()?.to_str()?.to_owned(), dev::bind(own, false).ok()?))
    });
    mounts.collect()
}

/// Programs can do without: what is not to be had is left out.
fn find() -> std::io::Result<Vec<Ours>> {
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    let all = hierarchies(&std::fs::read_to_string("/proc/self/mountinfo")?);
    let version_1 = all.into_iter().filter(|hierarchy| hierarchy.controllers.is_some());
    let opened = version_1.filter_map(|hierarchy| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let group = openat(CWD, hierarchy.own_group(&own), flags, Mode::empty()).ok()?;
        Some(Ours { at: hierarchy.at, group })
    });
    Ok(opened.collect())
}
