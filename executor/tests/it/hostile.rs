//! Images that try to get out. Each test has a canary on the host that must stay as it is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::fixture::{Sandbox, run, try_run};
use boxwright_executor::{Mount, MountSource, Tmpfs};

fn link(layer: &Path, name: &str, target: &str) {
    let path = layer.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

#[test]
fn proc_and_sys_must_be_directories() {
    for name in ["proc", "sys"] {
        let sandbox = Sandbox::new().layer(|layer| link(layer, name, "/tmp"));
        assert!(try_run(sandbox.spec(&["true"])).is_err(), "/{name} as a symlink");
    }
}

#[test]
fn links_at_places_of_ours_stay_inside() {
    for (name, target) in [
        ("dev", "/canary"),
        ("dev", "../../canary"),
        ("dev", "/proc"),
        ("dev/pts", "/canary"),
        ("dev/shm", "../../../../canary"),
        ("etc-link", "/canary"),
    ] {
        let canary = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::new().layer(|layer| {
            fs::create_dir(layer.join("canary")).unwrap();
            link(layer, name, target);
        });
        let mut spec =
            sandbox.spec(&["sh", "-c", "echo x > /dev/null; cat /etc-link/hosts 2>/dev/null; true"]);
        spec.mounts = vec![Mount {
            target: "/etc-link/hosts".into(),
            source: MountSource::File { data: b"hosts\n".to_vec(), mode: 0o644 },
            read_only: false,
        }];
        let _ = try_run(spec);
        assert!(fs::read_dir(canary.path()).unwrap().next().is_none());
        assert!(!Path::new("/canary").exists(), "{name} -> {target}");
    }
}

#[test]
fn masks_do_not_use_the_images_null() {
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let sandbox = Sandbox::new().layer(|layer| link(layer, "dev/null", "/proc/sys/kernel/core_pattern"));
    let script = "for f in interrupts kcore keys latency_stats sched_debug timer_list; do \
        echo '|/canary' > /proc/$f; done 2>/dev/null; true";
    sandbox.sh(script).text();
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

#[test]
fn a_working_directory_on_the_host_is_refused() {
    let _leaked = fs::File::open("/").unwrap();
    let sandbox = Sandbox::new().layer(|layer| link(layer, "sly", "/proc/self/fd/3"));
    for cwd in
        (3..24).map(|n| format!("/proc/self/fd/{n}")).chain(["/sly".into(), "/proc/self/cwd/../..".into()])
    {
        let mut spec = sandbox.spec(&["cat", "/etc/shadow"]);
        spec.cwd.clone_from(&cwd);
        assert!(try_run(spec).is_err(), "{cwd}");
    }
}

#[test]
fn targets_through_links_stay_inside() {
    let sandbox = Sandbox::new().layer(|layer| {
        link(layer, "up", "../../../../..");
        link(layer, "magic", "/proc/self/root");
    });
    let mount = |target: &str| Mount {
        target: target.to_owned(),
        source: MountSource::File { data: b"x".to_vec(), mode: 0o644 },
        read_only: false,
    };
    let mut spec = sandbox.spec(&["cat", "/canary-target"]);
    spec.mounts = vec![mount("/up/canary-target")];
    assert_eq!(run(spec).text(), "x");
    assert!(!Path::new("/canary-target").exists());
    let mut spec = sandbox.spec(&["true"]);
    spec.mounts = vec![mount("/magic/canary-target")];
    let _ = try_run(spec);
    assert!(!Path::new("/canary-target").exists());
}

#[test]
fn nothing_is_mounted_over_a_part_of_proc() {
    let sandbox = Sandbox::new().layer(|layer| link(layer, "alias", "/proc"));
    let mut spec = sandbox.spec(&["true"]);
    spec.mounts = vec![Mount {
        target: "/alias".into(),
        source: MountSource::Tmpfs(Tmpfs::default()),
        read_only: false,
    }];
    assert!(try_run(spec).is_err());
}

#[test]
fn our_binary_is_not_executed() {
    let sandbox = Sandbox::new().layer(|layer| {
        fs::write(layer.join("script"), "#!/proc/self/exe\n").unwrap();
        fs::write(layer.join("outer"), "#!/script\n").unwrap();
        for name in ["script", "outer"] {
            fs::set_permissions(layer.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        link(layer, "bin/alias", "/proc/self/exe");
    });
    for args in [["/proc/self/exe"], ["/script"], ["/outer"], ["alias"], ["/proc/1/exe"]] {
        let error = try_run(sandbox.spec(&args)).unwrap_err();
        assert_eq!(error.exit_code(), 126, "{args:?}: {error}");
    }
}

#[test]
fn the_host_is_not_reachable_by_any_mount() {
    let text = Sandbox::new().sh("cat /proc/self/mountinfo | awk '{print $5}'; true").text();
    for line in text.lines() {
        let known =
            ["/proc", "/dev", "/sys"].iter().any(|p| line == *p || line.starts_with(&format!("{p}/")));
        assert!(known || line == "/", "{line} is mounted");
    }
}
