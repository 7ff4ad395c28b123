//! What a container's process can reach of us and of the host.

use std::fs;
use std::os::fd::AsRawFd;

use boxwright_testdata::archive;
use boxwright_testdata::tar::Tar;

use super::{Canary, with_layer};
use crate::tool::{Boxwright, Context};

/// CVE-2019-5736: our binary is neither started nor written by what it runs.
#[test]
fn our_binary_is_not_the_containers_to_start_or_write() {
    let digest = || archive::sha256(&fs::read(env!("CARGO_BIN_EXE_boxwright")).unwrap());
    let before = digest();
    let boxwright =
        with_layer(Tar::new().file("script", 0o755, "#!/proc/self/exe\n").symlink("alias", "/proc/self/exe"));
    for entrypoint in ["/script", "/alias", "/proc/self/exe", "/proc/1/exe"] {
        boxwright.run(&["run", "--rm", "--entrypoint", entrypoint, "evil", "version"]).fails_with(126);
    }
    let script = "for p in 1 self $PPID; do echo x > /proc/$p/exe; done; echo done";
    assert_eq!(boxwright.output_of("evil", &["sh", "-c", script]), "done\n");
    let context = Context::new(&format!("FROM evil\nRUN {script}\n"));
    boxwright.build(&context, &[]).ok();
    assert_eq!(digest(), before);
}

/// CVE-2024-21626: no directory of the host is open in the container, so none can be its working directory.
#[test]
fn no_descriptor_of_ours_is_a_way_out() {
    let boxwright = Boxwright::with_busybox();
    let canary = Canary::new();
    // Open in our parent and inherited by us, as a careless caller would do.
    let leaked = fs::File::open(canary.path()).unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    for number in (3..20).chain([leaked.as_raw_fd()]) {
        let dir = format!("/proc/self/fd/{number}");
        let ran = boxwright.run(&["run", "--rm", "-w", &dir, "busybox", "cat", "secret"]);
        assert_ne!(ran.status, 0, "{ran}");
        ran.says_nothing_of("canary");
        let context = Context::new(&format!("FROM busybox\nWORKDIR {dir}\nRUN cat secret && echo found\n"));
        let ran = boxwright.build(&context, &[]);
        assert_ne!(ran.status, 0, "{ran}");
        ran.says_nothing_of("canary\n");
    }
    // The fourth is the directory that ls reads.
    let context = Context::new("FROM busybox\nRUN test $(ls /proc/self/fd | wc -l) = 4\n");
    boxwright.build(&context, &[]).ok();
    canary.is_untouched();
}

/// CVE-2022-29162, CVE-2022-27651: nothing is inheritable, and a user that is not root holds nothing.
#[test]
fn capabilities_are_dockers_in_steps_and_containers() {
    let boxwright = with_layer(Tar::new());
    let root = "CapInh:0000000000000000 CapPrm:00000000a80425fb CapEff:00000000a80425fb \
                CapBnd:00000000a80425fb CapAmb:0000000000000000 ";
    let user = "CapInh:0000000000000000 CapPrm:0000000000000000 CapEff:0000000000000000 \
                CapBnd:00000000a80425fb CapAmb:0000000000000000 ";
    let script = "grep ^Cap /proc/self/status | tr -d '\\t' | tr '\\n' ' '";
    for (id, expected) in [("0", root), ("1000", user)] {
        assert_eq!(boxwright.ok(&["run", "--rm", "-u", id, "evil", "sh", "-c", script]), expected);
        let step = format!("FROM evil\nUSER {id}\nRUN {script} > /tmp/caps\n");
        boxwright.build(&Context::new(&step), &["-t", "step"]).ok();
        assert_eq!(boxwright.output_of("step", &["cat", "/tmp/caps"]), expected);
    }
}

/// CVE-2022-36109, CVE-2022-2989: the groups are those of the image, with the user's own among them.
#[test]
fn groups_are_those_that_the_image_gives() {
    let boxwright = with_layer(Tar::new());
    let groups = |user: &str| boxwright.ok(&["run", "--rm", "-u", user, "evil", "id", "-G"]);
    assert_eq!(groups("web"), "1000 2000\n");
    assert_eq!(groups("1000"), "1000 2000\n");
    assert_eq!(groups("1:2"), "2\n");
    assert_eq!(groups("77"), "0\n");
    boxwright.build(&Context::new("FROM evil\nUSER web\nRUN id -G > /tmp/groups\n"), &["-t", "step"]).ok();
    assert_eq!(boxwright.output_of("step", &["cat", "/tmp/groups"]), "1000 2000\n");
}

/// CVE-2021-3602: what our environment holds is nobody else's.
#[test]
fn our_environment_is_out_of_reach() {
    let boxwright = Boxwright::with_busybox();
    let script = "cat /proc/*/environ /proc/*/task/*/environ | tr '\\0' '\\n'; env";
    let context = Context::new(&format!("FROM busybox\nRUN {script}\n"));
    for args in [
        &["run", "--rm", "busybox", "sh", "-c", script][..],
        &["build", "--progress", "plain", context.path()],
    ] {
        let mut command = boxwright.command(args);
        command.env("CI_TOKEN", "canary-token");
        boxwright_testdata::run(&mut command).says("PATH=").says_nothing_of("canary-token");
    }
}

/// CVE-2024-29018: a container without a network has no way to ask anybody anything.
#[test]
fn without_a_network_there_is_loopback_alone() {
    let boxwright = Boxwright::with_busybox();
    let script = "cat /proc/net/route | grep -vc Iface; ls /sys/class/net; grep -c @ /proc/net/unix";
    let out = boxwright.run(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    assert_eq!(out.stdout, "0\nlo\n0\n");
    let context = Context::new(&format!("FROM busybox\nRUN {{ {script}; }} > /seen; true\n"));
    boxwright.build(&context, &["--network", "none", "-t", "step"]).ok();
    assert_eq!(boxwright.output_of("step", &["cat", "/seen"]), "0\nlo\n0\n");
}
