//! The system calls of a container's first process, as strace sees them: once the host's files are out of sight, nothing
//! is looked up by a path but the user's program, and that with the user's rights.

use std::fs;
use std::process::Command;

use boxwright_testdata::run;

use crate::tool::{Boxwright, Context, Who, wrapped};

/// Calls whose first argument is a path, and those where a descriptor comes before it.
const BY_PATH: &[&str] = &[
    "access",
    "chdir",
    "chmod",
    "chown",
    "chroot",
    "creat",
    "execve",
    "getxattr",
    "lchown",
    "lgetxattr",
    "link",
    "listxattr",
    "llistxattr",
    "lremovexattr",
    "lsetxattr",
    "lstat",
    "mkdir",
    "mknod",
    "mount",
    "open",
    "pivot_root",
    "quotactl",
    "readlink",
    "removexattr",
    "rename",
    "rmdir",
    "setxattr",
    "stat",
    "statfs",
    "swapon",
    "symlink",
    "truncate",
    "umount2",
    "unlink",
    "utime",
    "utimes",
];
const BY_DESCRIPTOR: &[&str] = &[
    "execveat",
    "faccessat",
    "faccessat2",
    "fanotify_mark",
    "fchmodat",
    "fchmodat2",
    "fchownat",
    "fspick",
    "futimesat",
    "linkat",
    "mkdirat",
    "mknodat",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "newfstatat",
    "open_tree",
    "openat",
    "openat2",
    "readlinkat",
    "renameat",
    "renameat2",
    "statx",
    "symlinkat",
    "unlinkat",
    "utimensat",
];

#[derive(Debug)]
struct Call {
    name: String,
    line: String,
}

impl Call {
    /// None for lines about signals and the end.
    fn parse(line: &str) -> Option<Call> {
        let (name, _) = line.split_once('(')?;
        let word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        word.then(|| Call { name: name.to_owned(), line: line.to_owned() })
    }

    fn succeeded(&self) -> bool {
        !self.line.contains(") = -1 ") && !self.line.contains("= -1 E")
    }

    /// A lookup that begins at the root or the working directory of the process.
    fn looks_up_by_path(&self) -> bool {
        BY_PATH.contains(&self.name.as_str())
            || BY_DESCRIPTOR.contains(&self.name.as_str()) && self.line.contains("AT_FDCWD")
    }
}

/// What the process that changed its root did from then on, up to and with its first exec. The other processes are
/// those that this one started, and whoever started it.
fn traced(boxwright: &Boxwright, args: &[&str]) -> Vec<Call> {
    let traces = tempfile::tempdir().unwrap();
    let prefix = traces.path().join("trace");
    let strace = ["strace", "-ff", "-qq", "-s", "256", "-o", prefix.to_str().unwrap()];
    run(&mut wrapped(&strace, &boxwright.command(args))).ok();
    let of_process =
        |path| fs::read_to_string(path).unwrap().lines().filter_map(Call::parse).collect::<Vec<_>>();
    let all = fs::read_dir(traces.path()).unwrap().map(|entry| of_process(entry.unwrap().path()));
    let entered =
        |calls: &Vec<Call>| calls.iter().position(|call| call.name == "pivot_root" && call.succeeded());
    let mut found = all.filter_map(|calls| entered(&calls).map(|at| (at, calls)));
    let (at, mut calls) = found.next().expect("a process changes its root");
    assert!(found.next().is_none(), "there is one container");
    calls.drain(..at);
    let started = calls.iter().position(|call| call.name.starts_with("exec") && call.succeeded());
    calls.truncate(started.expect("a program is started") + 1);
    calls
}

/// Checks the calls; `exec` is how the line of the exec must begin.
#[track_caller]
fn assert_clean(calls: &[Call], exec: &str) {
    let all = || calls.iter().map(|call| format!("{}\n", call.line)).collect::<String>();
    let at = |name: &str| {
        calls.iter().position(|call| call.name == name).unwrap_or_else(|| panic!("no {name}:\n{}", all()))
    };
    let words = |calls: &[Call]| {
        calls.iter().filter(|c| c.looks_up_by_path()).map(|c| c.line.clone()).collect::<Vec<_>>()
    };
    // The old root goes by the only name that it has left.
    let (user, end) = (at("setresuid"), calls.len() - 1);
    let detach = "umount2(\".\", MNT_DETACH)              = 0";
    let own = ["pivot_root(\".\", \".\")                   = 0", detach, detach];
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let before: Vec<_> = words(&calls[..user]).iter().map(|line| squeeze(line)).collect();
    assert_eq!(before, own.map(squeeze), "{}", all());
    for line in words(&calls[user..end]) {
        let search =
            ["newfstatat(AT_FDCWD, \"/bin/", "faccessat(AT_FDCWD, \"/bin/", "openat(AT_FDCWD, \"/bin/"];
        assert!(search.iter().any(|search| line.starts_with(search)), "{line} in\n{}", all());
    }
    assert!(calls[end].line.starts_with(exec), "{}", all());
    assert!(calls[..end].iter().all(|call| !call.name.starts_with("exec")), "{}", all());
    // The working directory was opened, and is entered by that descriptor and no other way.
    assert!(at("fchdir") < user && !calls.iter().any(|call| call.name == "chdir"), "{}", all());
    // Nor is anything left open for the program.
    assert!(
        calls.iter().any(|call| call.line.starts_with("close_range(3, 4294967295, CLOSE_RANGE_CLOEXEC)")),
        "{}",
        all()
    );
}

const IMAGE: &str = "FROM busybox\nENV PATH=/bin\nWORKDIR /made/by/us\nUSER 1000:1000\n";

fn a_container_looks_nothing_up_by_path(who: Who) {
    let boxwright = Boxwright::with_busybox_of(who);
    let context = Context::new(IMAGE);
    boxwright.build(&context, &["-t", "image"]).ok();
    // Helpers of a user's network change their roots as well.
    let run = ["run", "--rm", "--network", "none", "-w", "/new/dir", "-v", "volume:/v", "image", "true"];
    assert_clean(&traced(&boxwright, &run), "execve(\"/bin/true\"");
    let init = [
        "run",
        "--rm",
        "--network",
        "none",
        "--init",
        "--security-opt",
        "no-new-privileges",
        "image",
        "true",
    ];
    assert_clean(&traced(&boxwright, &init), "execveat(");
}

fn a_step_looks_nothing_up_by_path(who: Who) {
    let boxwright = Boxwright::with_busybox_of(who);
    let mounts = "--mount=type=cache,target=/c --mount=type=secret,id=s,uid=1000 --mount=source=.,target=/b";
    let context = Context::new(&format!("{IMAGE}RUN {mounts} true\n"));
    let secret = context.join("secret");
    fs::write(&secret, "x").unwrap();
    let secret = format!("id=s,src={}", secret.display());
    let build = ["build", "--network", "none", "-q", "--no-cache", "--secret", &secret, context.path()];
    assert_clean(&traced(&boxwright, &build), "execve(\"/bin/sh\"");
}

super::by_both!(a_container_looks_nothing_up_by_path, a_step_looks_nothing_up_by_path);

#[test]
fn the_trace_sees_what_it_is_about() {
    let call = |line: &str| Call::parse(line).unwrap();
    assert!(call("openat(AT_FDCWD, \"/etc/passwd\", O_RDONLY) = 3").looks_up_by_path());
    assert!(call("chdir(\"/\") = 0").looks_up_by_path());
    assert!(!call("openat2(20, \"new\", {flags=O_PATH}, 24) = -1 ENOENT (No such file)").succeeded());
    assert!(!call("openat(7, \"x\", O_RDONLY) = 3").looks_up_by_path());
    let version = run(Command::new("strace").arg("--version")).ok();
    assert!(version.starts_with("strace"), "{version}");
}
