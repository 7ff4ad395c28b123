//! A hundred containers at once: all of them live, with networks of their own, and take little memory.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{ChildStdout, Stdio};

use crate::tool::{Boxwright, Running, Who, binary};

const MANY: usize = 100;
/// Of all our processes of one container, in KiB.
const MOST: u64 = 5 << 10;

/// `PID` and what it started, and so on.
fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(pid) = all.get(at) {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten() {
            let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().map(|child| child.parse::<u32>().unwrap()));
        }
        at += 1;
    }
    all
}

/// The proportional share of memory, in KiB, of those that are ours: neither the container nor a helper of the host.
fn memory(pid: u32) -> (usize, u64) {
    let file = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
    let program = file(&binary());
    let is_ours = |pid: &u32| file(format!("/proc/{pid}/exe").as_ref()) == program;
    let share = |pid: u32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap().trim();
        line.trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let ours: Vec<u32> = family(pid).into_iter().filter(is_ours).collect();
    (ours.len(), ours.into_iter().map(share).sum())
}

fn a_hundred_at_once_live_with_networks_of_their_own_and_little_memory(who: Who) {
    let boxwright = Boxwright::with_busybox_of(who);
    let script = "read n; echo $n $(readlink /proc/self/ns/net); read n; echo end $n";
    let start = |n: usize| {
        // A helper each is what takes a user's containers their time: some will do.
        let network = if who == Who::Root || n.is_multiple_of(4) { "bridge" } else { "none" };
        let args = ["run", "--rm", "-i", "--network", network, "busybox", "sh", "-c", script];
        let mut command = boxwright.command(&args);
        let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let out = BufReader::new(running.0.stdout.take().unwrap());
        (running, out)
    };
    let say = |running: &mut Running, n: usize| writeln!(running.0.stdin.as_mut().unwrap(), "{n}").unwrap();
    let mut containers: Vec<(Running, BufReader<ChildStdout>)> = Vec::new();
    let mut networks = BTreeSet::new();
    // A helper has half a minute to be ready.
    let at_once = if who == Who::Root { MANY } else { MANY / 5 };
    while containers.len() < MANY {
        let begun = containers.len();
        containers.extend((begun..begun + at_once).map(start));
        for (n, (running, out)) in containers.iter_mut().enumerate().skip(begun) {
            say(running, n);
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            let (number, network) = line.trim().split_once(' ').unwrap_or_else(|| panic!("{n}: {line:?}"));
            assert_eq!(number, n.to_string());
            networks.insert(network.to_owned());
        }
    }
    // Now all of them live.
    assert_eq!(networks.len(), MANY);
    for (running, _) in &containers {
        let (processes, used) = memory(running.0.id());
        assert!(processes > 0 && used < MOST, "{processes} processes with {used} KiB");
    }
    for (n, (running, out)) in containers.iter_mut().enumerate() {
        say(running, n);
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, format!("end {n}\n"));
        assert_eq!(running.wait(), 0);
    }
}

#[test]
fn a_hundred_of_root() {
    a_hundred_at_once_live_with_networks_of_their_own_and_little_memory(Who::Root);
}

#[test]
fn a_hundred_of_a_user() {
    a_hundred_at_once_live_with_networks_of_their_own_and_little_memory(Who::User);
}
