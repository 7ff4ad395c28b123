//! Devices: nodes that an image brings, or that root makes, are the host's devices, and open nothing.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use boxwright_testdata::tar::Tar;
use boxwright_testdata::{Ran, run};

use super::load;
use crate::tool::{Boxwright, Context, cache};

/// `loop-control`, `fuse`, `net/tun` and `loop0`: what the machine has and no container does, and what opens for whoever
/// reaches a node of it.
const FOREIGN: [(u8, u32, u32); 4] = [(b'c', 10, 237), (b'c', 10, 229), (b'c', 10, 200), (b'b', 7, 0)];

/// Tries to open every node that is there, for reading and for writing.
const OPEN: &str = "for d in *; do (: < $d) 2>/dev/null && echo read $d; (: >> $d) 2>/dev/null && echo wrote $d; done; echo tried *";

fn names() -> String {
    let name = |(kind, major, minor): &(u8, u32, u32)| format!("{}{major}-{minor}", char::from(*kind));
    let mut names: Vec<_> = FOREIGN.iter().map(name).collect();
    names.sort();
    names.join(" ")
}

/// A script that makes the nodes in `dir`, and opens them.
fn make_and_open(dir: &str) -> String {
    let made: Vec<_> = FOREIGN
        .iter()
        .map(|(kind, major, minor)| {
            let kind = char::from(*kind);
            format!("mknod {kind}{major}-{minor} {kind} {major} {minor}")
        })
        .collect();
    format!("mkdir -p {dir} && cd {dir} && {} && {OPEN}", made.join(" && "))
}

#[test]
fn nodes_in_an_image_open_nothing() {
    let boxwright = Boxwright::new();
    let layer = FOREIGN.iter().fold(Tar::new().dir("nodes", 0o755), |tar, &(kind, major, minor)| {
        let number = if kind == b'c' { b'3' } else { b'4' };
        tar.device(&format!("nodes/{}{major}-{minor}", char::from(kind)), number, major, minor)
    });
    load(&boxwright, "nodes", layer);
    let script = format!("cd /nodes && test -c c10-237 -a -b b7-0 && {OPEN}");
    let tried = format!("tried {}\n", names());
    assert_eq!(boxwright.output_of("nodes", &["sh", "-c", &script]), tried);
    boxwright.build(&Context::new(&format!("FROM nodes\nRUN ({script}) > /seen\n")), &["-t", "seen"]).ok();
    assert_eq!(boxwright.output_of("seen", &["cat", "/seen"]), tried);
}

#[test]
fn nodes_that_root_makes_open_nothing() {
    let boxwright = Boxwright::with_busybox();
    let tried = format!("tried {}\n", names());
    for dir in ["/made", "/dev/made", "/dev/shm/made", "/tmp/made"] {
        assert_eq!(boxwright.output_of("busybox", &["sh", "-c", &make_and_open(dir)]), tried, "{dir}");
        let context = Context::new(&format!("FROM busybox\nRUN ({}) > /seen\n", make_and_open(dir)));
        boxwright.build(&context, &["-t", "seen"]).ok();
        assert_eq!(boxwright.output_of("seen", &["cat", "/seen"]), tried, "a step in {dir}");
    }
    // They are part of the image all the same.
    boxwright.build(&Context::new("FROM busybox\nRUN mknod /n c 1 3\n"), &["-t", "n"]).ok();
    assert_eq!(boxwright.output_of("n", &["stat", "-c", "%F %t:%T", "/n"]), "character special file 1:3\n");
}

#[test]
fn nodes_in_a_directory_of_the_host_open_nothing() {
    let boxwright = Boxwright::with_busybox();
    let shared = Context::new("");
    let bind = format!("{}:/shared", shared.path());
    let script = make_and_open("/shared/made");
    let out = boxwright.ok(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", &script]);
    assert_eq!(out, format!("tried {}\n", names()));
    let kind = fs::metadata(shared.join("made/c10-237")).unwrap().file_type();
    assert!(kind.is_char_device(), "it is there, on the host as well");
    // What every container has may be shown at another place too, and nothing else.
    let out = |device: &str| {
        let bind = format!("{device}:/shown");
        boxwright.run(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", "echo x > /shown && echo wrote"])
    };
    assert_eq!(out("/dev/null").ok(), "wrote\n");
    let node = shared.join("made/c10-237");
    out(node.to_str().unwrap()).fails_with(1);
}

#[test]
fn the_machine_has_the_devices_that_are_tried() {
    // Without containers they open, or the other tests would see nothing.
    let dir = tempfile::tempdir_in(cache()).unwrap();
    let script = make_and_open(dir.path().join("made").to_str().unwrap());
    let out = run(std::process::Command::new("sh").args(["-c", &script])).ok();
    assert!(out.contains("read "), "{out}");
}

/// What a container that may mount can try besides: a file system of the kernel that has all devices, and to allow itself
/// more by the control groups that it sees.
const MOUNT: &str = "mkdir -p /m /g /d && mount -t devtmpfs none /m && (: < /m/loop-control) 2>/dev/null && echo devtmpfs; \
    mount -t cgroup -o devices none /d 2>/dev/null && echo a > /d/devices.allow; \
    (: < /m/loop-control) 2>/dev/null && echo allowed; \
    mount -t cgroup2 none /g && mkdir /g/x && echo 0 > /g/x/cgroup.procs && (: < /m/loop-control) 2>/dev/null && echo moved; \
    mknod /disk b 7 0 && mount -t ext4 /disk /x 2>&1 | grep -c 'not permitted'; \
    mount -t tmpfs none /m && cd /m";

#[test]
fn who_may_mount_is_kept_to_its_devices() {
    let boxwright = Boxwright::with_busybox();
    let script = format!("{MOUNT} && {}", make_and_open("/m/made"));
    let usual = "mount -t tmpfs none /mnt && mknod /mnt/zero c 1 5 && head -c 3 /mnt/zero | wc -c";
    for flags in
        [&["--cap-add=SYS_ADMIN"][..], &["--cap-add=SYS_ADMIN", "--cap-add=MKNOD"], &["--cap-add=ALL"]]
    {
        let run = |script: &str| {
            let args = [&["run", "--rm", "-v", "/mnt"][..], flags, &["busybox", "sh", "-c", script]].concat();
            boxwright.run(&args).says_nothing_of("SYS_ADMIN")
        };
        let out = run(&script).ok();
        assert!(!out.contains("devtmpfs") && !out.contains("allowed") && !out.contains("moved"), "{out}");
        assert!(out.ends_with(&format!("tried {}\n", names())), "{flags:?}: {out}");
        assert!(!out.contains("read ") && !out.contains("wrote "), "{out}");
        assert_eq!(run(usual).ok(), "3\n", "{flags:?}");
    }
    let all = boxwright.ok(&["run", "--rm", "--privileged", "busybox", "sh", "-c", &script]);
    assert!(all.contains("devtmpfs") && all.contains("read "), "without rules it opens them: {all}");
}

#[test]
fn a_device_is_given_for_what_was_said() {
    let boxwright = Boxwright::with_busybox();
    let open = "for d in /x /y; do (: < $d) 2>/dev/null && echo read $d; (: >> $d) 2>/dev/null && echo wrote $d; done; echo done";
    let run = |flags: &[&str], script: &str| {
        boxwright.run(&[&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat())
    };
    let both = ["--device", "/dev/loop-control:/x:r", "--device", "/dev/fuse:/y"];
    assert_eq!(run(&both, open).ok(), "read /x\nread /y\nwrote /y\ndone\n");
    // A node of one's own is no way around it.
    let made = format!("mknod /x c 10 237 && mknod /y c 10 229 && {open}");
    assert_eq!(run(&["--device-cgroup-rule", "c 10:237 w"], &made).ok(), "wrote /x\ndone\n");
    assert_eq!(
        run(&["--device-cgroup-rule=a *:* rwm"], &made).ok(),
        "read /x\nwrote /x\nread /y\nwrote /y\ndone\n"
    );
    run(&["--device-cgroup-rule", "c 10:237 rwx"], "true")
        .fails_with(125)
        .says("invalid device cgroup format");
}

#[test]
fn a_tmpfs_of_a_step_has_the_usual_devices_and_no_others() {
    let boxwright = Boxwright::with_busybox();
    let script = format!("mknod /t/null c 1 3 && echo x > /t/null && ({}) > /seen", make_and_open("/t/made"));
    let context = Context::new(&format!("FROM busybox\nRUN --mount=type=tmpfs,target=/t {script}\n"));
    boxwright.build(&context, &["-t", "seen"]).ok();
    assert_eq!(boxwright.output_of("seen", &["cat", "/seen"]), format!("tried {}\n", names()));
}

/// On a machine that has other control groups: none, but for what `mounts` mounts.
fn with_groups(mounts: &str, boxwright: &Boxwright, args: &[&str]) -> Ran {
    let script = format!("umount -R /sys/fs/cgroup && {mounts} exec \"$@\"");
    let inner = boxwright.command(args);
    let mut outer = std::process::Command::new("unshare");
    outer.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
    outer.arg(inner.get_program()).args(inner.get_args());
    run(&mut outer)
}

#[test]
fn version_1_keeps_them_to_their_devices_as_well() {
    let boxwright = Boxwright::with_busybox();
    let v1 = "mount -t tmpfs none /sys/fs/cgroup && mkdir /sys/fs/cgroup/devices && \
              mount -t cgroup -o devices none /sys/fs/cgroup/devices &&";
    let script =
        format!("{MOUNT} && {}; mknod /zero c 1 5 && head -c 3 /zero | wc -c", make_and_open("/m/made"));
    let ran =
        with_groups(v1, &boxwright, &["run", "--rm", "--cap-add=SYS_ADMIN", "busybox", "sh", "-c", &script]);
    let out = ran.says_nothing_of("With SYS_ADMIN").ok();
    for opened in ["devtmpfs", "allowed", "moved", "read ", "wrote "] {
        assert!(!out.contains(opened), "{opened}: {out}");
    }
    assert!(out.ends_with(&format!("tried {}\n3\n", names())), "{out}");
    let open = "(: < /x) 2>/dev/null && echo read; (: >> /x) 2>/dev/null && echo wrote; echo done";
    let device = ["run", "--rm", "--device", "/dev/loop-control:/x:r", "busybox", "sh", "-c", open];
    assert_eq!(with_groups(v1, &boxwright, &device).ok(), "read\ndone\n");
}

#[test]
fn without_control_groups_who_may_mount_makes_no_devices_unless_that_was_asked_for() {
    let boxwright = Boxwright::with_busybox();
    let script = "mkdir /m && mount -t tmpfs none /m && mknod /m/zero c 1 5 && head -c 3 /m/zero | wc -c";
    let run = |flags: &[&str], script: &str| {
        with_groups("", &boxwright, &[&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat())
    };
    for flags in
        [&["--cap-add=SYS_ADMIN"][..], &["--cap-add=ALL"], &["--cap-add=all", "--cap-add=cap_sys_admin"]]
    {
        let ran = run(flags, script).fails_with(1).says("mknod: /m/zero: Operation not permitted");
        ran.says("With SYS_ADMIN a container can reach the devices of the host; MKNOD is left out");
    }
    for flags in [&["--cap-add=SYS_ADMIN", "--cap-add=cap_mknod"][..], &["--cap-add=ALL", "--cap-add=MKNOD"]]
    {
        let ran = run(flags, script).says("With SYS_ADMIN a container can reach the devices of the host\n");
        assert_eq!(ran.ok(), "3\n");
    }
    assert_eq!(run(&["--privileged"], script).says_nothing_of("SYS_ADMIN").ok(), "3\n");
    run(&[], "mknod /zero c 1 5").says_nothing_of("SYS_ADMIN").ok();
    for (flags, words) in [
        (["-v", "/tmp:/m:slave"], "need --privileged or a control group for devices"),
        (["--device", "/dev/zero:/dev/x:r"], "/dev/zero) needs a control group for devices"),
        (["--device-cgroup-rule", "c 1:2 r"], "needs a control group for devices"),
        (["-m", "50m"], "no such control groups are mounted"),
    ] {
        run(&flags, "true").fails_with(125).says(words);
    }
    let context = Context::new(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t mknod /t/null c 1 3 && ! echo x > /t/null\n",
    );
    with_groups("", &boxwright, &["build", context.path()]).ok();
}
