//! What a container sees of control groups of version 1: of each hierarchy the group that it is in. They are bound from the
//! host's own mounts, which takes half the time of mounting them anew in its group namespace, and shows the same. The first
//! group of a hierarchy has everybody's below it: whoever is in that sees nothing of the hierarchy.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstatfs, openat, statat};
use rustix::io::Errno;

use super::hierarchy::hierarchies;
use crate::dev;

/// A hierarchy, with the group that a container without one of its own is in: ours.
#[derive(Debug)]
struct Ours {
    at: PathBuf,
    group: Option<OwnedFd>,
}

/// A detached mount for each hierarchy, with the name of its directory: that of the one where the host has it, which lists
/// controllers that share it by commas. `made` are the groups of the container's own.
pub(crate) fn mounts(made: &[(PathBuf, OwnedFd)]) -> Vec<(String, OwnedFd)> {
    // What we are in is asked once, as a build has many containers.
    static OURS: OnceLock<Vec<Ours>> = OnceLock::new();
    let ours = match OURS.get() {
        Some(ours) => ours,
        // Programs can do without.
        None => match find() {
            Ok(found) => OURS.get_or_init(|| found),
            Err(_) => return Vec::new(),
        },
    };
    let mounts = ours.iter().filter_map(|Ours { at, group }| {
        let own = made.iter().rev().find(|(place, _)| place == at).map(|(_, own)| own);
        Some((at.file_name()?.to_str()?.to_owned(), dev::bind(own.or(group.as_ref())?, false).ok()?))
    });
    mounts.collect()
}

fn find() -> io::Result<Vec<Ours>> {
    let own = std::fs::read_to_string("/proc/self/cgroup")?;
    let all = hierarchies(&std::fs::read_to_string("/proc/self/mountinfo")?);
    let version_1 = all.into_iter().filter(|hierarchy| hierarchy.controllers.is_some());
    let opened = version_1.map(|hierarchy| {
        let group = open(&hierarchy.own_group(&own))?;
        Ok(Ours { at: hierarchy.at, group })
    });
    opened.collect()
}

/// The group at a path, unless it is the first one of its hierarchy, or something else is mounted there.
fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
    const CGROUP_SUPER_MAGIC: i64 = 0x27_e0eb;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let group = match openat(CWD, path, flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(None),
        group => group?,
    };
    let is_first = statat(&group, c"release_agent", AtFlags::SYMLINK_NOFOLLOW).is_ok();
    Ok((fstatfs(&group)?.f_type == CGROUP_SUPER_MAGIC && !is_first).then_some(group))
}
