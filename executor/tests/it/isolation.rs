//! What a process can see and do.

use crate::fixture::{Sandbox, run, try_run};
use boxwright_executor::{CapabilitySet, Network, Resource, Rlimit};

/// Of the default set that the caller of the tests has itself.
fn expected_capabilities() -> String {
    let bounding = |n: u32| {
        rustix::thread::capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << n)) == Ok(true)
    };
    let bits =
        (0..41).filter(|n| 0xa804_25fb_u64 >> n & 1 == 1 && bounding(*n)).fold(0u64, |set, n| set | 1 << n);
    format!("{bits:016x}")
}

#[test]
fn capabilities_are_dockers() {
    let sandbox = Sandbox::new();
    let bits = expected_capabilities();
    let none = "0000000000000000";
    for (user, held) in [("", bits.as_str()), ("1000", none)] {
        let mut spec = sandbox.spec(&["grep", "Cap", "/proc/self/status"]);
        spec.user = user.to_owned();
        let expected =
            format!("CapInh:\t{none}\nCapPrm:\t{held}\nCapEff:\t{held}\nCapBnd:\t{bits}\nCapAmb:\t{none}\n");
        assert_eq!(run(spec).text(), expected, "user {user:?}");
    }
}

#[test]
fn no_descriptor_but_the_streams() {
    let _leaked = std::fs::File::open("/").unwrap();
    // Without close-on-exec, as somebody careless may have started us.
    let careless = rustix::io::fcntl_dupfd_cloexec(&_leaked, 20).unwrap();
    rustix::io::fcntl_setfd(&careless, rustix::io::FdFlags::empty()).unwrap();
    // The shell's glob opens the directory itself.
    assert_eq!(Sandbox::new().sh("cd /proc/self/fd; echo *").text().split_whitespace().count(), 4);
}

#[test]
fn masked_and_read_only_paths() {
    let script = "
        for f in interrupts kcore keys timer_list; do test ! -e /proc/$f || cat /proc/$f; done
        ls -A /sys/firmware /proc/scsi /proc/acpi 2>/dev/null | grep -v : | grep .
        for f in sys/kernel/core_pattern sysrq-trigger; do (echo x > /proc/$f) 2>/dev/null && echo wrote $f; done
        (echo x > /sys/kernel/uevent_helper) 2>/dev/null && echo wrote sys
        mkdir /sys/fs/cgroup/x 2>/dev/null && echo made a cgroup
        true";
    assert_eq!(Sandbox::new().sh(script).text(), "");
}

#[test]
fn the_devices_are_dockers() {
    let script = "cd /dev; for d in *; do test -c $d -a ! -L $d && echo $d $(stat -c '%a %t:%T' $d); done; ls -d * | tr '\\n' ' '";
    let text = Sandbox::new().sh(script).text();
    let core = if std::path::Path::new("/proc/kcore").exists() { "core " } else { "" };
    let expected = "full 666 1:7\nnull 666 1:3\nrandom 666 1:8\ntty 666 5:0\nurandom 666 1:9\nzero 666 1:5\n\
        CORE fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ";
    assert_eq!(text, expected.replace("CORE ", core));
}

#[test]
fn the_mounts_are_dockers() {
    let script = "cut -d' ' -f2-4 /proc/mounts | sed 's/,size=[^ ]*//; s/,inode64//'";
    let text = Sandbox::new().sh(script).text();
    for expected in [
        "/proc proc rw,nosuid,nodev,noexec,relatime",
        "/dev tmpfs rw,nosuid",
        "/dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666",
        "/sys sysfs ro,nosuid,nodev,noexec,relatime",
        "/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime",
        "/dev/shm tmpfs rw,nosuid,nodev,noexec",
        "/proc/sys proc ro,nosuid,nodev,noexec,relatime",
        "/proc/keys tmpfs rw,nosuid",
        "/sys/firmware tmpfs ro,nosuid,nodev",
    ] {
        assert!(text.lines().any(|line| line.starts_with(expected)), "{expected} is not in\n{text}");
    }
    assert_eq!(text.lines().next().map(|l| l.starts_with("/ overlay rw")), Some(true), "{text}");
}

#[test]
fn it_sees_its_own_processes_only() {
    let text = Sandbox::new().sh("echo $$; ls /proc | grep -c '^[0-9]'").text();
    assert!(text.starts_with("1\n"), "{text}");
    assert!(text.trim().ends_with(['1', '2', '3']), "{text}");
}

#[test]
fn settings_of_the_kernel_are_those_of_its_own_namespaces() {
    const FILES: [&str; 3] =
        ["net/ipv4/ip_unprivileged_port_start", "kernel/shm_rmid_forced", "fs/mqueue/msg_max"];
    let files = FILES.map(|name| format!("/proc/sys/{name}"));
    let hosts = || files.clone().map(|file| std::fs::read_to_string(file).unwrap_or_default());
    let before = hosts();
    let sandbox = Sandbox::new();
    let set = |network: Network, settings: &[(&str, &str)]| {
        let mut spec = sandbox.spec(&["cat", &files[0], &files[1], &files[2]]);
        spec.network = network;
        spec.sysctls = settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        spec
    };
    let three = [
        ("net.ipv4.ip_unprivileged_port_start", "7"),
        ("kernel.shm_rmid_forced", "1"),
        ("fs.mqueue.msg_max", "77"),
    ];
    assert_eq!(run(set(Network::None, &three)).text(), "7\n1\n77\n");
    for (network, name) in [
        (Network::Host, "net.ipv4.ip_unprivileged_port_start"),
        (Network::None, "kernel.core_pattern"),
        (Network::None, "net./../kernel.core_pattern"),
        (Network::None, "net...kernel.core_pattern"),
        (Network::None, "net.ipv4.no_such_setting"),
    ] {
        assert!(try_run(set(network, &[(name, "7")])).is_err(), "{name}");
    }
    assert_eq!(hosts(), before);
}

#[test]
fn every_namespace_is_its_own() {
    let script = "for n in mnt pid ipc uts cgroup net; do readlink /proc/self/ns/$n; done";
    let sandbox = Sandbox::new();
    let mut spec = sandbox.spec(&["sh", "-c", script]);
    spec.network = Network::None;
    let ours = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    let theirs = run(spec).text();
    for (name, theirs) in ["mnt", "pid", "ipc", "uts", "cgroup", "net"].iter().zip(theirs.lines()) {
        assert_ne!(ours(name).to_str().unwrap(), theirs);
    }
}

#[test]
fn no_network_is_loopback_alone() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.spec(&[
        "sh",
        "-c",
        "ls /sys/class/net; ping -c1 -W1 127.0.0.1 >/dev/null && echo up; ip route",
    ]);
    spec.network = Network::None;
    assert_eq!(run(spec).text(), "lo\nup\n");
}

#[test]
fn the_filter_is_in_force() {
    let sandbox = Sandbox::new();
    let script = "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status; unshare -U true 2>&1 | tail -n1; mount -t tmpfs x /tmp 2>&1";
    let mut spec = sandbox.spec(&["sh", "-c", script]);
    spec.no_new_privileges = true;
    let output = run(spec);
    assert!(output.stdout.starts_with("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{output:?}");
    assert_eq!(
        output.stdout.matches("Operation not permitted").count()
            + output.stdout.matches("permission denied").count(),
        2,
        "{output:?}"
    );
    let mut spec = sandbox.spec(&["sh", "-c", "grep -E 'Seccomp:|NoNewPrivs' /proc/self/status"]);
    spec.seccomp = boxwright_executor::Seccomp::Unconfined;
    assert_eq!(run(spec).text(), "NoNewPrivs:\t0\nSeccomp:\t0\n");
}

#[test]
fn limits_are_set() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.spec(&["sh", "-c", "ulimit -n; ulimit -Hn; umask"]);
    spec.limits = vec![(Resource::Nofile, Rlimit { current: Some(100), maximum: Some(200) })];
    assert_eq!(run(spec).text(), "100\n200\n0022\n");
}

#[test]
fn our_environment_and_our_binary_are_out_of_reach() {
    let script = "cat /proc/*/environ | tr '\\0' '\\n' | grep -c CARGO; readlink /proc/self/exe";
    assert_eq!(Sandbox::new().sh(script).stdout, "0\n/bin/busybox\n");
}
