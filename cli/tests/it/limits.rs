//! What a container may use: limits reach the kernel, are told when they end a container, and leave nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use boxwright_testdata::{Ran, run};
use rustix::process::Signal;

use crate::run::start;
use crate::tool::{Boxwright, Context, Who, eventually, wrapped};

/// A control group of a test's own, in which containers have theirs.
pub(crate) struct Parent(pub(crate) String);

impl Parent {
    pub(crate) fn new(name: &str) -> Parent {
        Parent(format!("bwtest-{name}-{}", std::process::id()))
    }

    /// In each hierarchy that has it.
    fn places(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
        let places = hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join(&self.0));
        places.filter(|place| place.is_dir()).collect()
    }

    /// The groups of containers in it.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        let places = self.places().into_iter();
        let inner = places.flat_map(|place| fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()));
        inner.filter(|path| path.is_dir()).collect()
    }

    /// What the only container in it has in the file, by its name in either version.
    #[track_caller]
    fn value(&self, v1: &str, v2: &str) -> String {
        let groups = self.groups().into_iter();
        let files = groups.flat_map(|group| [group.join(v1), group.join(v2)]);
        let mut values = files.filter_map(|file| fs::read_to_string(file).ok());
        values.next().unwrap_or_else(|| panic!("neither {v1} nor {v2}")).trim().to_owned()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        for place in self.places() {
            fs::remove_dir(place).unwrap();
        }
    }
}

#[track_caller]
fn refused(boxwright: &Boxwright, flags: &[&str], words: &str) {
    boxwright.run(&[&["run", "--rm"], flags, &["busybox", "true"]].concat()).fails_with(125).says(words);
}

#[test]
fn limits_reach_the_kernel_and_go_with_the_container() {
    let boxwright = Boxwright::with_busybox();
    let parent = Parent::new("values");
    let mut running = start(
        &boxwright,
        &[
            "run",
            "--rm",
            "--cgroup-parent",
            &parent.0,
            "-m",
            "64m",
            "--memory-swap",
            "96m",
            "--memory-reservation",
            "32m",
            "--cpus",
            "0.5",
            "-c",
            "1024",
            "--cpuset-cpus",
            "0",
            "--cpuset-mems",
            "0",
            "--pids-limit",
            "9",
            "busybox",
            "sh",
            "-c",
            "echo ready; exec sleep 1000",
        ],
    );
    assert_eq!(parent.value("memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(parent.value("memory.soft_limit_in_bytes", "memory.low"), (32 << 20).to_string());
    let swap = parent.value("memory.memsw.limit_in_bytes", "memory.swap.max");
    assert!(swap == (96 << 20).to_string() || swap == (32 << 20).to_string(), "{swap}");
    let time = parent.value("cpu.cfs_quota_us", "cpu.max");
    assert!(time == "50000" || time == "50000 100000", "{time}");
    let share = parent.value("cpu.shares", "cpu.weight");
    assert!(share == "1024" || share == "100", "{share}");
    assert_eq!(parent.value("cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(parent.value("cpuset.mems", "cpuset.mems"), "0");
    assert_eq!(parent.value("pids.max", "pids.max"), "9");
    running.signal(Signal::TERM);
    running.signal(Signal::KILL);
    running.wait();
    // It was killed and could not clean up; whoever comes next does.
    let again =
        ["run", "--rm", "--cgroup-parent", &parent.0, "-m", "64m", "--cpus", "1", "--cpuset-cpus", "0"];
    let again = [&again[..], &["--pids-limit", "9", "busybox", "true"]].concat();
    eventually("the groups of a killed command are gone", || {
        boxwright.ok(&again);
        parent.groups().is_empty()
    });
}

/// Of version 1 each hierarchy has a directory, of version 2 there is one mount; the fields of mountinfo before the root, and
/// those from the place on but for the options of the whole file system.
fn expected(access: &str) -> Vec<String> {
    let own = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let kinds = own.lines().filter_map(|line| Some((line.split(' ').nth(4)?, line.split_once(" - ")?.1)));
    let of = |wanted: &'static str| {
        let found = kinds.clone().filter(move |(_, kind)| kind.split(' ').next() == Some(wanted));
        found.map(move |(place, _)| format!("/ {place} {access},nosuid,nodev,noexec,relatime {wanted}"))
    };
    let all: BTreeSet<_> =
        if of("cgroup").next().is_some() { of("cgroup").collect() } else { of("cgroup2").collect() };
    all.into_iter().collect()
}

/// Starts a command in a group of its own in each hierarchy of version 1.
const IN_GROUPS: &str = "all() { awk '/ - cgroup / { print $5 }' /proc/self/mountinfo; }; \
    leave() { for at in $(all); do echo $$ > $at/cgroup.procs; rmdir $at/bwtest-view-$$; done; }; trap leave EXIT; \
    for at in $(all); do group=$at/bwtest-view-$$; mkdir $group; \
        for file in cpuset.cpus cpuset.mems; do [ ! -e $at/$file ] || cat $at/$file > $group/$file; done; \
        echo $$ > $group/cgroup.procs; done; \"$@\"";

/// What the container has of that, by its mountinfo.
fn seen(boxwright: &Boxwright, flags: &[&str]) -> Vec<String> {
    seen_by(&["sh", "-ec", IN_GROUPS, "sh"], boxwright, flags)
}

/// The same where another program starts the command.
fn seen_by(starter: &[&str], boxwright: &Boxwright, flags: &[&str]) -> Vec<String> {
    let script = "grep -E -- '- cgroup2? ' /proc/self/mountinfo | grep -o '/.*' | sed -E 's/ - ([a-z0-9]*).*/ \\1/' | sort";
    let all = [&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat();
    run(&mut wrapped(starter, &boxwright.command(&all))).ok().lines().map(str::to_owned).collect()
}

#[test]
fn a_container_sees_its_own_groups_and_may_change_them_if_it_is_privileged() {
    let boxwright = Boxwright::with_busybox();
    assert_eq!(seen(&boxwright, &[]), expected("ro"));
    assert_eq!(seen(&boxwright, &["-m", "64m"]), expected("ro"));
    assert_eq!(seen(&boxwright, &["--privileged"]), expected("rw"));
    let limit = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes 2>/dev/null || cat memory.max";
    let run = |flags: &[&str], script: &str| {
        boxwright.ok(&[&["run", "--rm", "-m", "64m"], flags, &["busybox", "sh", "-c", script]].concat())
    };
    assert_eq!(run(&[], limit), "67108864\n");
    assert_eq!(run(&["--user", "7"], limit), "67108864\n");
    let make = format!("{limit}; cd memory 2>/dev/null; mkdir made && rmdir made && echo done");
    assert_eq!(run(&["--privileged"], &make), "67108864\ndone\n");
    let context = Context::new(&format!("FROM busybox\nRUN ({limit}) > /limit\n"));
    boxwright.built(&context, &["-m", "64m"]);
    assert_eq!(boxwright.output_of("x", &["cat", "/limit"]), "67108864\n");
    let user = Boxwright::with_busybox_of(Who::User);
    assert_eq!(seen(&user, &[]), expected("ro"));
}

#[test]
fn a_kernel_that_changes_no_detached_mounts_shows_them_as_well() {
    let boxwright = Boxwright::with_busybox();
    let refuse = "inject=mount_setattr:error=ENOSYS";
    let older = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=mount_setattr", "-e", refuse];
    let older = [&["sh", "-ec", IN_GROUPS, "sh"], &older[..]].concat();
    assert_eq!(seen_by(&older, &boxwright, &[]), expected("ro"));
    assert_eq!(seen_by(&older, &boxwright, &["--privileged"]), expected("rw"));
}

/// Neither with all rights, nor where the host's administrator has put something else over a hierarchy.
#[test]
fn the_groups_of_everybody_are_no_containers() {
    let boxwright = Boxwright::with_busybox();
    let script = "for at in $(awk '/ - cgroup / { print $5 }' /proc/self/mountinfo); do echo $$ > $at/cgroup.procs; done; exec \"$@\"";
    let first = ["sh", "-ec", script, "sh"];
    if expected("ro").iter().any(|line| line.ends_with(" cgroup")) {
        assert_eq!(seen_by(&first, &boxwright, &[]), [""; 0]);
        assert_eq!(seen_by(&first, &boxwright, &["--privileged"]), [""; 0]);
        let own = seen_by(&first, &boxwright, &["-m", "64m"]);
        assert_eq!(own, ["/ /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime cgroup"]);
    }
    let over = "mount -t tmpfs none /sys/fs/cgroup/memory 2>/dev/null || exit 0; echo > /sys/fs/cgroup/memory/canary; exec \"$@\"";
    let over = ["unshare", "--mount", "--propagation", "private", "sh", "-c", over, "sh"];
    let ls = boxwright.command(&["run", "--rm", "busybox", "sh", "-c", "ls -R /sys/fs/cgroup"]);
    run(&mut wrapped(&over, &ls)).says_nothing_of("canary").ok();
}

#[test]
fn controllers_of_one_hierarchy_are_links_to_its_directory() {
    let boxwright = Boxwright::with_busybox();
    let script =
        "cd /sys/fs/cgroup; ls; readlink cpu; readlink cpuacct; test -f cpuacct/cgroup.procs && echo there";
    let mounts = "umount -R /sys/fs/cgroup && mount -t tmpfs none /sys/fs/cgroup && cd /sys/fs/cgroup && \
                  mkdir cpu,cpuacct && mount -t cgroup -o cpu none cpu,cpuacct || exit 77; \
                  mkdir cpu,cpuacct/bwtest-links-$$; echo $$ > cpu,cpuacct/bwtest-links-$$/cgroup.procs; \"$@\"; code=$?; \
                  echo $$ > cpu,cpuacct/cgroup.procs; rmdir cpu,cpuacct/bwtest-links-$$; exit $code";
    let run_there = boxwright.command(&["run", "--rm", "busybox", "sh", "-c", script]);
    let there = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, "sh"];
    let ran = run(&mut wrapped(&there, &run_there));
    if ran.status == 77 {
        // Version 2 alone has the controller, or it shares its hierarchy with another one already.
        return;
    }
    let said = ran.ok();
    assert_eq!(said, "cpu\ncpu,cpuacct\ncpuacct\ncpu,cpuacct\ncpu,cpuacct\nthere\n");
}

#[test]
fn a_container_that_uses_up_its_memory_ends_and_says_why() {
    let boxwright = Boxwright::with_busybox();
    let says = |ran: Ran| ran.says("out of memory: a process was killed at the limit of 16 MiB");
    let run = |flags: &[&str], command: &[&str]| {
        boxwright.run(
            &[&["run", "--rm", "-m", "16m", "--memory-swap", "16m"], flags, &["busybox"], command].concat(),
        )
    };
    says(run(&[], &["tail", "/dev/zero"]).fails_with(137));
    says(run(&["--init"], &["sh", "-c", "tail /dev/zero; exit 3"]).fails_with(3));
    run(&[], &["true"]).says_nothing_of("memory").ok();
    let context = Context::new("FROM busybox\nRUN tail /dev/zero\n");
    let ran = boxwright.build(&context, &["-m", "16m", "--memory-swap", "16m"]).fails_with(1);
    says(ran).says("did not complete successfully: exit code: 137: out of memory");
    let survived = Context::new("FROM busybox\nRUN tail /dev/zero || echo went on\n");
    let ran = boxwright.build(&survived, &["-m", "16m", "--memory-swap", "16m"]);
    says(ran).says("went on").ok();
}

#[test]
fn a_step_has_its_limits_and_they_are_in_no_key() {
    let boxwright = Boxwright::with_busybox();
    let forks = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait";
    let context = Context::new(&format!("FROM busybox\nRUN {forks}\nRUN nproc > /n\n"));
    boxwright.build(&context, &["--pids-limit", "4"]).fails_with(1).says("can't fork");
    let context = Context::new("FROM busybox\nRUN nproc > /n\n");
    boxwright.built(&context, &["--cpuset-cpus", "0", "--cpu-shares", "512"]);
    assert_eq!(boxwright.output_of("x", &["cat", "/n"]), "1\n");
    let again = boxwright.built(&context, &["-m", "64m"]);
    assert!(again.contains("CACHED"), "{again}");
}

#[test]
fn limits_that_are_none_are_refused() {
    let boxwright = Boxwright::with_busybox();
    refused(&boxwright, &["-m", "1m"], "Minimum memory limit allowed is 6MB");
    refused(
        &boxwright,
        &["--cpuset-cpus", "4096"],
        "requested cpuset.cpus are not available: requested 4096, available: 0",
    );
    refused(&boxwright, &["--cgroup-parent", "a/../../b"], "invalid cgroup parent");
    refused(&boxwright, &["--oom-score-adj", "1001"], "invalid value 1001");
    refused(&boxwright, &["--uts", "host", "-h", "name"], "conflicting options");
    refused(&boxwright, &["--uts", "host", "--domainname", "name"], "conflicting options");
    boxwright
        .build(&Context::new("FROM busybox\n"), &["-m", "lots"])
        .fails_with(1)
        .says("invalid size: 'lots'");
}

#[test]
fn who_is_killed_first_and_whose_name_it_has() {
    let boxwright = Boxwright::with_busybox();
    let run = |flags: &[&str], command: &[&str]| {
        boxwright.ok(&[&["run", "--rm"], flags, &["busybox"], command].concat())
    };
    assert_eq!(run(&["--oom-score-adj", "642"], &["cat", "/proc/self/oom_score_adj"]), "642\n");
    let own = |uts: &Path| format!("{}\n", fs::read_link(uts).unwrap().display());
    assert_eq!(run(&["--uts=host"], &["readlink", "/proc/self/ns/uts"]), own(Path::new("/proc/self/ns/uts")));
}
