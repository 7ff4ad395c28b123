//! Below which group of version 2 that of a container is made. A group with processes in it can't hand controllers down,
//! so it is seldom our own: it is the nearest above it that can and that we may use.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, accessat};
use rustix::io::Errno;

use super::directory::{open, read, write};

/// Where processes go that are in the way in a group that is ours to divide.
const ASIDE: &str = "boxwright.others";

/// The nearest group from `own` up to `root` (both below the mount) whose children can have these controllers.
///
/// # Errors
/// Why there is none.
pub(super) fn find(own: &Path, root: &Path, wanted: &[&str]) -> Result<PathBuf, String> {
    let mut refused = None;
    let groups = own.ancestors().take_while(|group| group.starts_with(root));
    for group in groups {
        match hand_down(group, wanted, group == own).and_then(|()| takes_processes(group)) {
            Ok(()) => return Ok(group.to_owned()),
            // The nearest one says most.
            Err(why) => refused = refused.or(Some(why)),
        }
    }
    Err(refused.unwrap_or_else(|| format!("{} is not there", own.display())))
}

/// Makes `wanted` controllers of the children of `path`.
pub(super) fn hand_down(path: &Path, wanted: &[&str], own: bool) -> Result<(), String> {
    let failed =
        |doing: &str, errno: Errno| format!("{doing} {}: {}", path.display(), std::io::Error::from(errno));
    let group = open(rustix::fs::CWD, path).map_err(|e| failed("opening", e))?;
    let there = |file: &str| read(&group, file).map_err(|e| failed("reading the controllers of", e));
    let (all, given) = (there("cgroup.controllers")?, there("cgroup.subtree_control")?);
    let has = |list: &str, name: &str| list.split_whitespace().any(|word| word == name);
    if let Some(missing) = wanted.iter().find(|name| !has(&all, name)) {
        return Err(format!("{} has no controller {missing}", path.display()));
    }
    let missing: Vec<String> =
        wanted.iter().filter(|name| !has(&given, name)).map(|name| format!("+{name}")).collect();
    if !missing.is_empty() {
        let ask = || write(&group, "cgroup.subtree_control", &missing.join(" "));
        let asked = match ask() {
            Err(Errno::BUSY) if own && is_ours_to_divide(&group) => {
                set_aside(&group).map_err(|e| failed("moving the processes of", e))?;
                ask()
            }
            result => result,
        };
        asked.map_err(|e| failed(&format!("handing {} down in", missing.join(" ")), e))?;
    }
    Ok(())
}

/// Whether we may move processes from one group below it to another.
pub(super) fn takes_processes(path: &Path) -> Result<(), String> {
    accessat(rustix::fs::CWD, path.join("cgroup.procs"), Access::WRITE_OK, rustix::fs::AtFlags::EACCESS)
        .map_err(|e| format!("moving processes below {}: {}", path.display(), std::io::Error::from(e)))
}

/// The root of a control group namespace (a container's), and what systemd says that it leaves to us.
fn is_ours_to_divide(group: &OwnedFd) -> bool {
    let mut value = [0u8; 8];
    let delegated = |name| rustix::fs::fgetxattr(group, name, &mut value).is_ok_and(|n| n > 0);
    is_namespace_root(group) || [c"user.delegate", c"trusted.delegate"].into_iter().any(delegated)
}

/// Its parent is out of sight, and it is not the root of all, which has no type.
fn is_namespace_root(group: &OwnedFd) -> bool {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    own.lines().any(|line| line == "0::/") && read(group, "cgroup.type").is_ok()
}

fn set_aside(group: &OwnedFd) -> Result<(), Errno> {
    match rustix::fs::mkdirat(group, ASIDE, rustix::fs::Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => {}
        result => result?,
    }
    let aside = open(group, ASIDE)?;
    for process in read(group, "cgroup.procs")?.split_whitespace() {
        match write(&aside, "cgroup.procs", process) {
            // It has ended, or is in another process namespace.
            Err(Errno::SRCH | Errno::INVAL) => {}
            result => result?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::directory::Directory;
    use super::super::hierarchy::hierarchies;
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that waits, in the group.
    fn process_in(group: &Path) -> Child {
        let child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        std::fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        child
    }

    #[test]
    fn a_group_with_processes_hands_controllers_down_where_it_is_ours_to_divide() {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let unified = hierarchies(&mounts).into_iter().find(|h| h.controllers.is_none());
        let root = unified.expect("control groups of version 2 are mounted").at;
        let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap();
        let wanted = [controllers.split_whitespace().next().expect("version 2 has a controller")];
        hand_down(&root, &wanted, false).unwrap();
        let outer = Directory::new(&root).unwrap();
        let busy = outer.path().join("busy");
        std::fs::create_dir(&busy).unwrap();
        let mut process = process_in(&busy);

        assert_eq!(find(&busy, &root, &wanted).unwrap(), outer.path());
        assert_eq!(find(&busy, &root, &[]).unwrap(), busy, "without a controller nothing is in the way");
        let none = find(&busy, &root, &["nonsense"]).unwrap_err();
        assert!(none.ends_with("busy has no controller nonsense"), "{none}");

        rustix::fs::setxattr(&busy, c"user.delegate", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        assert_eq!(find(&busy, &root, &wanted).unwrap(), busy);
        let aside = std::fs::read_to_string(busy.join(ASIDE).join("cgroup.procs")).unwrap();
        assert_eq!(aside.trim(), process.id().to_string());
        process.kill().unwrap();
        process.wait().unwrap();
        let path = outer.path().to_owned();
        drop(outer);
        assert!(!path.exists());
    }
}
