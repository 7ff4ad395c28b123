//! Containers without root, by a real unprivileged user of this machine (`daemon`), with and without a range of
//! subordinate ids. Not under the usual harness: a process can enter a user namespace only before it has threads.
//! Needs root to become that user, newuidmap (Debian: uidmap) and a static busybox.

#[path = "../it/fixture.rs"]
mod fixture;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use boxwright_executor::idmap::{Ids, enter_user_namespace, settle};
use boxwright_executor::{Mount, MountSource, Network};
use fixture::{Sandbox, make_busybox, run};

const USER: u32 = 1;
const MODE: &str = "BOXWRIGHT_TEST_IDS";

fn main() {
    // What test runners ask of a program before they run it.
    if std::env::args().any(|arg| arg == "--list") {
        if !std::env::args().any(|arg| arg == "--ignored") {
            io::stdout().write_all(b"rootless: test\n").unwrap();
        }
        return;
    }
    match std::env::var(MODE).as_deref() {
        Ok("mapped") => as_user(Ids::Mapped),
        Ok("single") => as_user(Ids::Single),
        _ => {
            become_user("mapped", "daemon:300000:65536\n");
            become_user("single", "");
            let done = b"rootless: with a range of ids and with a single one: ok\n";
            io::stdout().write_all(done).unwrap();
        }
    }
}

/// Runs this program as the user, with `/etc/subuid` and `/etc/subgid` as given: in a mount namespace, so that the
/// machine's own stay as they are.
fn become_user(mode: &str, ranges: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(std::env::current_exe().unwrap(), path("program")).unwrap();
    fs::write(path("ranges"), ranges).unwrap();
    fs::create_dir(path("home")).unwrap();
    chown(path("home"), Some(USER), Some(USER)).unwrap();
    for file in ["/etc/subuid", "/etc/subgid"] {
        fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
    }
    let script = "mount --bind ranges /etc/subuid && mount --bind ranges /etc/subgid && cd home && \
        exec setpriv --reuid 1 --regid 1 --clear-groups ../program";
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-ec", script])
        .current_dir(dir.path())
        .env(MODE, mode)
        .env("TMPDIR", path("home"))
        .status()
        .unwrap();
    // What the container's users own can be removed by root only, which is what this process is.
    assert!(status.success(), "as a user with {mode} ids: {status}");
}

fn as_user(expected: Ids) {
    assert_eq!(rustix::process::getuid().as_raw(), USER);
    enter_user_namespace().unwrap();
    assert_eq!(settle().unwrap(), expected);
    assert!(rustix::process::geteuid().is_root());
    root_of_the_container();
    the_hosts_network();
    whiteouts_and_layers();
    if expected == Ids::Mapped {
        other_users();
    }
}

fn sandbox() -> Sandbox {
    // The shared layer of the other tests belongs to somebody else.
    Sandbox::over(make_busybox)
}

fn root_of_the_container() {
    let sandbox = sandbox();
    let script = "id -u; echo $$; ls /proc | grep -c '^[0-9]'; echo x > /dev/null; head -c3 /dev/zero | wc -c; \
        (echo 1 > /proc/sys/kernel/panic) 2>/dev/null || echo refused; touch /x; stat -c %u /x; \
        grep CapEff /proc/self/status; ls /sys/class/net";
    let mut spec = sandbox.spec(&["sh", "-c", script]);
    spec.network = Network::None;
    let text = run(spec).text();
    assert!(text.starts_with("0\n1\n"), "{text}");
    assert!(text.ends_with("3\nrefused\n0\nCapEff:\t00000000a80425fb\nlo\n"), "{text}");
    let made = fs::metadata(sandbox.upper().join("x")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&made),
        0,
        "the user's own file, as seen from the namespace"
    );
}

fn the_hosts_network() {
    let sandbox = sandbox();
    let script = "ls /sys/class/net | grep lo; mkdir /sys/fs/cgroup/x 2>/dev/null && echo made a cgroup; \
        (echo x > /sys/kernel/uevent_helper) 2>/dev/null && echo wrote; cat /data";
    let mut spec = sandbox.spec(&["sh", "-c", script]);
    spec.mounts = vec![Mount {
        target: "/data".into(),
        source: MountSource::File { data: b"mounted\n".to_vec(), mode: 0o644 },
        read_only: true,
    }];
    let text = run(spec).text();
    assert!(
        text.contains("lo\n")
            && text.ends_with("mounted\n")
            && !text.contains("made")
            && !text.contains("wrote"),
        "{text}"
    );
}

fn whiteouts_and_layers() {
    let sandbox = sandbox().layer(|path: &Path| fs::write(path.join("gone"), "x").unwrap());
    assert_eq!(
        run(sandbox.spec(&["sh", "-c", "rm /gone; mv /etc/group /etc/groups; ls /etc"])).text(),
        "groups\npasswd\n"
    );
    let kind = fs::symlink_metadata(sandbox.upper().join("gone")).unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&kind), "a whiteout is a device 0:0");
}

fn other_users() {
    let sandbox = sandbox();
    let script = "chown web:web /tmp; stat -c '%u %g' /tmp; su web -s /bin/sh -c id";
    let expected = "1000 1000\nuid=1000(web) gid=1000(web) groups=29(audio),1000(web)\n";
    assert_eq!(run(sandbox.spec(&["sh", "-c", script])).text(), expected);
    let mut spec = sandbox.spec(&["id"]);
    spec.user = "web".into();
    assert_eq!(run(spec).text(), "uid=1000(web) gid=1000(web) groups=29(audio),1000(web)\n");
}
