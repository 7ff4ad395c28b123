//! Whether we can make control groups. Containers get none yet; this says what the machine would give.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Answer;
use super::child::attempt;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups {
    /// Whether there are hierarchies of version 1, and one of version 2.
    pub v1: bool,
    pub v2: bool,
    /// Controllers of the groups that were made.
    pub controllers: Vec<String>,
    /// Where none could be made, and why.
    pub refused: Vec<String>,
}

/// A hierarchy: where it is mounted, and the controllers of version 1.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    at: PathBuf,
    /// None: version 2.
    controllers: Option<Vec<String>>,
}

/// Makes a group below our own in each hierarchy, and removes it.
///
/// # Errors
/// When it can't be tried.
pub fn cgroups() -> Answer<Cgroups> {
    attempt(0, || {
        let read = |path: &str| std::fs::read_to_string(path).map_err(|e| format!("reading {path}: {e}"));
        let own = read("/proc/self/cgroup")?;
        let mut found = Cgroups::default();
        for hierarchy in hierarchies(&read("/proc/self/mountinfo")?) {
            found.try_one(&hierarchy, &own);
        }
        Ok(found)
    })
}

impl Cgroups {
    fn try_one(&mut self, hierarchy: &Hierarchy, own: &str) {
        self.v1 |= hierarchy.controllers.is_some();
        self.v2 |= hierarchy.controllers.is_none();
        let group = hierarchy.own_group(own).join(format!("boxwright-doctor-{}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&group) {
            self.refused.push(format!("making {}: {error}", group.display()));
            return;
        }
        let unified = || std::fs::read_to_string(group.join("cgroup.controllers")).unwrap_or_default();
        let controllers = hierarchy.controllers.clone();
        self.controllers
            .extend(controllers.unwrap_or_else(|| unified().split_whitespace().map(str::to_owned).collect()));
        let _ = std::fs::remove_dir(&group);
    }
}

impl Hierarchy {
    /// The directory of the group that we are in, as far as it is seen from here.
    fn own_group(&self, own: &str) -> PathBuf {
        let line = own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let ours = self.controllers.as_ref().map_or(String::new(), |names| names.join(","));
            (controllers == ours).then_some(path)
        });
        let group = self.at.join(line.unwrap_or("/").trim_start_matches('/'));
        if group.is_dir() { group } else { self.at.clone() }
    }
}

/// Those with controllers, of the lines of mountinfo.
fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    const CONTROLLERS: &[&str] = &[
        "blkio",
        "cpu",
        "cpuacct",
        "cpuset",
        "devices",
        "freezer",
        "hugetlb",
        "memory",
        "net_cls",
        "net_prio",
        "perf_event",
        "pids",
        "rdma",
    ];
    let hierarchy = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let at = PathBuf::from(mount.split(' ').nth(4)?);
        let mut words = kind.split(' ');
        match words.next()? {
            "cgroup2" => Some(Hierarchy { at, controllers: None }),
            "cgroup" => {
                let options = words.nth(1)?.split(',').filter(|o| CONTROLLERS.contains(o));
                let controllers: Vec<String> = options.map(str::to_owned).collect();
                (!controllers.is_empty()).then_some(Hierarchy { at, controllers: Some(controllers) })
            }
            _ => None,
        }
    };
    mounts.lines().filter_map(hierarchy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_those_with_controllers() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                      31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      33 25 0:29 / /tmp rw - tmpfs tmpfs rw\n";
        let found = hierarchies(mounts);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Hierarchy { at: "/sys/fs/cgroup/unified".into(), controllers: None });
        assert_eq!(found[1].controllers.as_deref().unwrap(), ["cpu", "cpuacct"]);
        assert_eq!(found[1].own_group("3:cpu,cpuacct:/none/such\n"), found[1].at);
    }
}
