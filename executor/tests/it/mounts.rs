//! Mounts, mount points, and what of them stays behind: nothing.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;

use crate::fixture::{Sandbox, open, run, try_run};
use boxwright_executor::network::Names;
use boxwright_executor::{Mount, MountSource, Network, Tmpfs};

fn file(target: &str, text: &str) -> Mount {
    Mount {
        target: target.to_owned(),
        source: MountSource::File { data: text.as_bytes().to_vec(), mode: 0o644 },
        read_only: false,
    }
}

#[test]
fn a_container_that_changes_nothing_leaves_an_empty_upper() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.spec(&["cat", "/etc/hosts", "/run/secrets/x"]);
    let names = Names { hostname: "box".into(), ..Names::default() };
    spec.mounts = names.files(&Network::Host, None).unwrap().mounts(false);
    spec.mounts.push(file("/run/secrets/x", "secret"));
    assert!(run(spec).text().ends_with("box\nsecret"));
    assert_eq!(sandbox.changes(), [] as [&str; 0]);
}

#[test]
fn changes_are_in_the_upper() {
    let sandbox = Sandbox::new();
    sandbox.sh("echo x > /new; rm /etc/group; chmod 700 /root").text();
    assert_eq!(sandbox.changes(), ["etc", "new", "root"]);
    assert_eq!(fs::read_to_string(sandbox.upper().join("new")).unwrap(), "x\n");
}

#[test]
fn bind_mounts_of_directories_and_files() {
    let sandbox = Sandbox::new();
    let host = sandbox.path("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("f"), "from the host\n").unwrap();
    let script = "cat /data/f /one; echo y > /data/g; (echo z > /ro/g) 2>/dev/null || echo refused";
    let mut spec = sandbox.spec(&["sh", "-c", script]);
    let bind = |target: &str, path, read_only| Mount {
        target: target.to_owned(),
        source: MountSource::Bind(open(path).into()),
        read_only,
    };
    spec.mounts =
        vec![bind("/data", &host, false), bind("/one", &host.join("f"), true), bind("/ro", &host, true)];
    assert_eq!(run(spec).text(), "from the host\nfrom the host\nrefused\n");
    assert_eq!(fs::read_to_string(host.join("g")).unwrap(), "y\n");
    assert_eq!(sandbox.changes(), [] as [&str; 0]);
}

#[test]
fn mounts_inside_mounts() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.spec(&[
        "sh",
        "-c",
        "cat /t/a/b; stat -c %a /t; df -k /t | tail -n1 | awk '{print $2}'; cat /dev/extra",
    ]);
    let tmpfs =
        MountSource::Tmpfs(Tmpfs { options: vec![(c"size", (1 << 20).to_string())], ..Tmpfs::default() });
    spec.mounts =
        vec![file("/t/a/b", "inner\n"), Mount { target: "/t".into(), source: tmpfs, read_only: false }];
    spec.mounts.push(file("/dev/extra", "e\n"));
    assert_eq!(run(spec).text(), "inner\n1777\n1024\ne\n");
    assert_eq!(sandbox.changes(), [] as [&str; 0]);
}

#[test]
fn a_part_of_other_layers_can_be_bound() {
    let sandbox = Sandbox::new();
    let other = sandbox.path("other");
    fs::create_dir_all(other.join("usr/src")).unwrap();
    fs::write(other.join("usr/src/f"), "source\n").unwrap();
    symlink("/usr", other.join("link")).unwrap();
    let mut spec = sandbox.spec(&["sh", "-c", "cat /mnt/f; touch /mnt/g 2>/dev/null || echo refused"]);
    let source = MountSource::Layers { lowers: vec![open(&other)], path: "/link/src".into(), upper: None };
    spec.mounts = vec![Mount { target: "/mnt".into(), source, read_only: true }];
    assert_eq!(run(spec).text(), "source\nrefused\n");
}

#[test]
fn a_read_only_root() {
    let sandbox = Sandbox::new();
    let mut spec =
        sandbox.spec(&["sh", "-c", "touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo shm"]);
    spec.root.read_only = true;
    assert_eq!(run(spec).text(), "refused\nshm\n");
    let mut spec = sandbox.spec(&["sh", "-c", "touch /x 2>/dev/null || echo refused"]);
    spec.root.upper = None;
    assert_eq!(run(spec).text(), "refused\n");
}

#[test]
fn hidden_stubs_are_replaced_and_taken_back() {
    let sandbox = Sandbox::new().layer(|path| {
        // An opaque directory hides the stubs below it; a symlink leads past them.
        fs::create_dir_all(path.join("etc")).unwrap();
        rustix::fs::setxattr(
            path.join("etc"),
            c"trusted.overlay.opaque",
            b"y",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        fs::create_dir_all(path.join("run")).unwrap();
        symlink("/run", path.join("var-run")).unwrap();
    });
    let mut spec = sandbox.spec(&["cat", "/etc/hosts", "/var-run/x/y"]);
    spec.mounts = vec![file("/etc/hosts", "hosts\n"), file("/var-run/x/y", "through a link\n")];
    assert_eq!(run(spec).text(), "hosts\nthrough a link\n");
    assert!(!sandbox.upper().join("etc/hosts").exists());
    assert!(!sandbox.upper().join("run/x").exists());
}

#[test]
fn a_resolver_file_that_is_a_link_to_nowhere() {
    let sandbox = Sandbox::new().layer(|path| {
        fs::create_dir(path.join("etc")).unwrap();
        symlink("../run/systemd/resolve/stub-resolv.conf", path.join("etc/resolv.conf")).unwrap();
    });
    let mut spec = sandbox.spec(&["cat", "/etc/resolv.conf"]);
    spec.mounts = vec![file("/etc/resolv.conf", "nameserver 9.9.9.9\n")];
    assert_eq!(run(spec).text(), "nameserver 9.9.9.9\n");
    assert!(!sandbox.upper().join("run").exists());
}

/// The host's sysfs, at a place of the container.
fn host_sys(target: &str) -> Mount {
    let dir = fs::File::open("/sys").unwrap();
    Mount { target: target.into(), source: MountSource::Bind(OwnedFd::from(dir).into()), read_only: true }
}

#[test]
fn the_hosts_sysfs_may_take_the_place_of_ours_and_hides_the_same() {
    let sandbox = Sandbox::new();
    let script = "grep -c ' /sys ' /proc/mounts; touch /sys/kernel/uevent_helper 2>/dev/null && echo writable
        ls -A /sys/firmware /sys/devices/virtual/powercap 2>/dev/null | grep -v : | grep .
        cat /sys/devices/system/cpu/cpu0/thermal_throttle/* 2>/dev/null; ls -d /sys/class/net /sys/fs/cgroup";
    for target in ["/sys", "//sys/."] {
        let mut spec = sandbox.spec(&["sh", "-c", script]);
        spec.mounts = vec![host_sys(target)];
        assert_eq!(run(spec).text(), "1\n/sys/class/net\n/sys/fs/cgroup\n", "{target}");
    }
    // Something else there would have nothing masked.
    let mut spec = sandbox.spec(&["true"]);
    let dir = tempfile::tempdir().unwrap();
    spec.mounts = vec![Mount {
        source: MountSource::Bind(OwnedFd::from(fs::File::open(dir.path()).unwrap()).into()),
        ..host_sys("/sys")
    }];
    assert!(try_run(spec).is_err());
    let linked = Sandbox::new().layer(|layer| symlink("/tmp", layer.join("sys")).unwrap());
    let mut spec = linked.spec(&["true"]);
    spec.mounts = vec![host_sys("/sys")];
    assert!(try_run(spec).is_err(), "/sys as a symlink");
}

#[test]
fn only_what_lxcfs_tells_may_take_the_place_of_files_of_procfs() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("told"), "told\n").unwrap();
    let open = |name: &str| OwnedFd::from(fs::File::open(dir.path().join(name)).unwrap());
    let bind = |target: &str, source: OwnedFd| Mount {
        target: target.into(),
        source: MountSource::Bind(source.into()),
        read_only: true,
    };
    let sandbox = Sandbox::new();
    let mut spec = sandbox.spec(&["cat", "/proc/meminfo", "/proc/uptime"]);
    spec.mounts = vec![bind("/proc/meminfo", open("told")), bind("//proc/./uptime", open("told"))];
    assert_eq!(run(spec).text(), "told\ntold\n");
    assert!(!sandbox.upper().join("proc").exists(), "nothing is made for them");
    for (target, name) in [
        ("/proc/meminfo", "."),
        ("/proc/keys", "told"),
        ("/proc/self/status", "told"),
        ("/proc/1/environ", "told"),
        ("/proc/sys/kernel/core_pattern", "told"),
        ("/x/../proc/meminfo", "told"),
    ] {
        let mut spec = sandbox.spec(&["true"]);
        spec.mounts = vec![bind(target, open(name))];
        assert!(try_run(spec).is_err(), "{target}");
    }
    // What a link in the image calls so is another file.
    let linked = Sandbox::new().layer(|layer| symlink("/etc", layer.join("proc")).unwrap());
    let mut spec = linked.spec(&["true"]);
    spec.mounts = vec![bind("/proc/meminfo", open("told"))];
    assert!(try_run(spec).is_err());
}

#[test]
fn targets_that_make_no_sense_are_refused() {
    for target in ["/", "relative", "/proc", "/proc/sys/kernel/core_pattern", "/sys"] {
        let sandbox = Sandbox::new();
        let mut spec = sandbox.spec(&["true"]);
        spec.mounts = vec![file(target, "x")];
        assert!(try_run(spec).is_err(), "{target}");
    }
}
