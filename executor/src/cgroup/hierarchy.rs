//! Where control groups are mounted, and which of them we are in.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(crate) at: PathBuf,
    /// Of version 1, or the `name=` of a hierarchy that has none; None is version 2.
    pub(crate) controllers: Option<Vec<String>>,
    /// The group that is seen at `at`.
    root: String,
}

const CONTROLLERS: &[&str] = &[
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];
const NAME: &str = "name=";

impl Hierarchy {
    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.as_ref().is_some_and(|names| names.iter().any(|name| name == controller))
    }

    pub(crate) fn has_controllers(&self) -> bool {
        self.controllers.as_ref().is_some_and(|names| names.iter().any(|name| !name.starts_with(NAME)))
    }

    /// The directory of the group that we are in (`own` is `/proc/self/cgroup`), as far as it is seen from here.
    pub(crate) fn own_group(&self, own: &str) -> PathBuf {
        let path = own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let ours = self.controllers.as_ref().map_or(String::new(), |names| names.join(","));
            (controllers == ours).then_some(path)
        });
        let path = Path::new(path.unwrap_or("/"));
        let below = path.strip_prefix(&self.root).unwrap_or(path);
        let below: PathBuf = below.components().filter(|part| *part != Component::RootDir).collect();
        // A group outside of our namespace is shown as one above its root.
        let outside = below.components().any(|part| part == Component::ParentDir);
        let group = self.at.join(below);
        if !outside && group.is_dir() { group } else { self.at.clone() }
    }
}

/// Those with controllers or a name, of the lines of mountinfo; the first mount of each.
pub(crate) fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for hierarchy in mounts.lines().filter_map(hierarchy) {
        if !found.iter().any(|other| other.controllers == hierarchy.controllers) {
            found.push(hierarchy);
        }
    }
    found
}

fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let root = unescaped(fields.next()?).into_string().ok()?;
    let at = PathBuf::from(unescaped(fields.next()?));
    let mut words = kind.split(' ');
    match words.next()? {
        "cgroup2" => Some(Hierarchy { at, controllers: None, root }),
        "cgroup" => {
            let known = |o: &&str| CONTROLLERS.contains(o) || o.starts_with(NAME);
            let options = words.nth(1)?.split(',').filter(known);
            let controllers: Vec<String> = options.map(str::to_owned).collect();
            (!controllers.is_empty()).then_some(Hierarchy { at, controllers: Some(controllers), root })
        }
        _ => None,
    }
}

/// The kernel writes what would end a field or a line as a backslash and three octal digits.
fn unescaped(field: &str) -> OsString {
    let (mut text, mut rest) = (Vec::with_capacity(field.len()), field.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        match digits.filter(|_| byte == b'\\').and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => (text.push(escaped), rest = &after[3..]),
            None => (text.push(byte), rest = after),
        };
    }
    OsString::from_vec(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_those_with_controllers_or_a_name() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                      31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                      33 25 0:29 / /tmp rw - tmpfs tmpfs rw\n\
                      34 25 0:26 / /elsewhere rw - cgroup2 cgroup2 rw\n";
        let found = hierarchies(mounts);
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].at.to_str(), &found[0].controllers), (Some("/sys/fs/cgroup/unified"), &None));
        assert!(found[1].has("cpu") && found[1].has("cpuacct") && !found[1].has("memory"));
        assert_eq!(found[1].own_group("3:cpu,cpuacct:/none/such\n"), found[1].at);
        assert!(found[1].has_controllers() && !found[2].has_controllers() && !found[0].has_controllers());
    }

    #[test]
    fn blanks_in_names_are_read_as_the_kernel_writes_them() {
        let mounts = "30 25 0:26 /a\\040b /my\\040groups\\134\\011x\\ rw - cgroup2 cgroup2 rw\n";
        let found = hierarchies(mounts);
        assert_eq!((found[0].at.to_str(), found[0].root.as_str()), (Some("/my groups\\\tx\\"), "/a b"));
    }

    #[test]
    fn our_own_group_is_below_what_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("here/ours")).unwrap();
        let at = dir.path().join("here");
        let hierarchy = |root: &str| Hierarchy { at: at.clone(), controllers: None, root: root.to_owned() };
        assert_eq!(hierarchy("/").own_group("0::/ours\n"), at.join("ours"));
        assert_eq!(hierarchy("/docker/id").own_group("0::/docker/id/ours\n"), at.join("ours"));
        assert_eq!(hierarchy("/").own_group("0::/../ours\n"), at, "it is in another namespace");
        assert_eq!(hierarchy("/").own_group("0::/\n"), at);
    }
}
