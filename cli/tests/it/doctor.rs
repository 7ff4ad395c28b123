//! `doctor`, as root and as a user other than root (`daemon`), where something is there and where it is not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;

use boxwright_testdata::{Ran, run};
use serde_json::Value;

use crate::foreign::{entry, with_list};
use crate::tool::{Boxwright, binary, wrapped};

const RANGES: &str = "daemon:300000:65536\n";
const USER: u32 = 1;

/// `doctor` as the user, whose home is beside the program, with a search path that has `helpers` alone.
fn as_user(ranges: &str, helpers: &[&str], before: &str) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(binary(), path("program")).unwrap();
    fs::write(path("ranges"), ranges).unwrap();
    for name in ["home", "bin"] {
        fs::create_dir(path(name)).unwrap();
    }
    chown(path("home"), Some(USER), Some(USER)).unwrap();
    for helper in helpers {
        symlink(format!("/usr/bin/{helper}"), path("bin").join(helper)).unwrap();
    }
    for file in ["/etc/subuid", "/etc/subgid"] {
        fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
    }
    // In a mount namespace, so that the machine's own files stay as they are.
    let script = format!(
        "{before}mount --bind ranges /etc/subuid && mount --bind ranges /etc/subgid && cd home && \
         exec setpriv --reuid 1 --regid 1 --clear-groups env PATH={} HOME=$PWD \
         ../program --root $PWD/data/store doctor",
        path("bin").display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", &script]).current_dir(dir.path());
    let ran = run(&mut command);
    let left = fs::read_dir(path("home")).unwrap().count();
    assert_eq!(left, 0, "what was tried leaves nothing behind: {ran}");
    ran
}

/// The line of a thing, with what belongs to it.
#[track_caller]
fn about(text: &str, what: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line[8..].starts_with(&format!("{what}: ")));
    let first = lines.next().unwrap_or_else(|| panic!("nothing of {what} in {text}"));
    let more = lines.take_while(|line| line.starts_with(' '));
    [first].into_iter().chain(more).collect::<Vec<_>>().join("\n")
}

#[test]
fn root_has_all_that_is_needed() {
    let boxwright = Boxwright::new();
    let text = boxwright.ok(&["doctor"]);
    assert!(about(&text, "user namespace").starts_with("yes     user namespace: not needed"), "{text}");
    for what in ["namespaces", "overlay", "network", "git"] {
        let line = about(&text, what);
        assert!(line.starts_with("yes ") && !line.contains('\n'), "{text}");
    }
    assert!(about(&text, "store").contains(boxwright.store().to_str().unwrap()), "{text}");
    let cgroups = about(&text, "cgroups");
    for limited in ["memory", "cpu", "cpuset", "pids", "kept to their devices"] {
        assert!(cgroups.starts_with("yes ") && cgroups.contains(limited), "{limited}: {text}");
    }
    assert!(!boxwright.store().exists(), "it makes no store");

    let lines: Value = serde_json::from_str(&boxwright.ok(&["doctor", "--format", "json"])).unwrap();
    let overlay = lines.as_array().unwrap().iter().find(|line| line["what"] == "overlay").unwrap();
    assert_eq!((&overlay["given"], &overlay["needed"]), (&"yes".into(), &true.into()));
    boxwright.run(&["doctor", "--format", "yaml"]).fails_with(125);
}

/// A program of this machine that ends with 42, as the one for arm64 that is tried: its headers, and
/// `mov edi, 42; mov eax, 60; syscall`.
#[cfg(target_arch = "x86_64")]
fn emulator() -> Vec<u8> {
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    let words: [u32; 26] = [
        0x003e_0002,
        1,
        0x40_0078,
        0,
        64,
        0,
        0,
        0,
        0,
        0x0038_0040,
        1,
        0,
        1,
        5,
        0,
        0,
        0x40_0000,
        0,
        0x40_0000,
        0,
        132,
        0,
        132,
        0,
        0x1000,
        0,
    ];
    out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    out.extend([0xbf, 42, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    out
}

/// What is said of arm64 where the kernel has the program as emulator with these flags.
#[cfg(target_arch = "x86_64")]
fn with_emulator(program: &[u8], flags: Option<&str>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("emulator");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let entry = flags.map(|flags| entry(path.to_str().unwrap(), flags));
    let script = format!("exec {} --root $PWD/store doctor", binary().display());
    about(&with_list(entry.as_deref(), &script).ok(), "programs for arm64")
}

#[test]
#[cfg(target_arch = "x86_64")]
fn emulators_are_those_that_containers_have() {
    let ran = "yes     programs for arm64: ran one in a root of its own";
    assert_eq!(with_emulator(&emulator(), Some("F")), ran);
    assert_eq!(with_emulator(&emulator(), Some("")), ran);
    let shell = fs::read("/bin/sh").unwrap();
    let line = with_emulator(&shell, Some(""));
    assert!(line.starts_with("no ") && line.contains("without the flag F"), "{line}");
    assert!(line.contains("it is not linked statically"), "{line}");
    let line = with_emulator(&shell, Some("F"));
    assert!(line.starts_with("no ") && line.contains("can't start its emulator"), "{line}");
    let line = with_emulator(&[], None);
    assert!(line.starts_with("no ") && line.contains("is not registered with binfmt_misc"), "{line}");
    assert!(line.contains("as root: printf %s ':qemu-aarch64:M::"), "{line}");
    assert!(!line.contains("mount -t"), "what is mounted need not be mounted: {line}");
}

#[test]
fn a_program_that_hangs_is_given_up() {
    let boxwright = Boxwright::new();
    let bin = boxwright.scratch("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("git"), "#!/bin/sh\n/bin/sleep 1000\n").unwrap();
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let git = about(&run(boxwright.command(&["doctor"]).env("PATH", &bin)).ok(), "git");
    assert!(git.starts_with("no ") && git.ends_with("why: no answer within 10 seconds"), "{git}");
}

#[test]
fn what_root_lacks_is_told() {
    let boxwright = Boxwright::new();
    fs::write(boxwright.store(), "no directory").unwrap();
    let ran = run(&mut boxwright.command(&["doctor"])).fails_with(1);
    assert!(about(&ran.stdout, "store").starts_with("no "), "{ran}");
    assert!(about(&ran.stdout, "store").contains("--root DIR"), "{ran}");
    assert!(!ran.stdout.contains("overlay: "), "what was not tried is not told: {ran}");

    let boxwright = Boxwright::new();
    let text = run(boxwright.command(&["doctor"]).env("PATH", "/none")).ok();
    let git = about(&text, "git");
    assert!(git.starts_with("no      git: repositories can't be"), "{text}");
    if fs::exists("/usr/bin/apt-get").unwrap() {
        assert!(git.ends_with("as root: apt-get install git"), "{text}");
    }
    // Without the right to mount, and without a user namespace, nothing is left to try.
    let bare = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    let text = run(&mut wrapped(&bare, &boxwright.command(&["doctor"]))).stdout;
    assert!(!about(&text, "user namespace").contains("not needed"), "{text}");
}

/// On an overlay there is none, and copies are enough; a small tmpfs is mentioned.
#[test]
fn file_systems_are_told_apart() {
    let doctor_on = |mount: &str| {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "mkdir lower upper work store; {mount} $PWD/store; exec {} --root $PWD/store doctor",
            binary().display()
        );
        let script = format!("mount -t tmpfs -o size=64m none . && cd $PWD && {script}");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", &script]).current_dir(dir.path());
        run(&mut command)
    };
    let ran = doctor_on("mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work none");
    let overlay = about(&ran.stdout, "overlay");
    assert!(overlay.starts_with("partly  overlay: the files of the image are copied"), "{ran}");
    assert!(overlay.contains("why: mounting the overlay: "), "{ran}");
    assert_eq!(ran.status, 0, "{ran}");
    assert!(about(&ran.stdout, "store").contains(" on overlayfs,"), "{ran}");

    let ran = doctor_on("true");
    let store = about(&ran.stdout, "store");
    assert!(store.starts_with("partly ") && store.contains(" on tmpfs,"), "{ran}");
    assert!(store.contains("why: little is left") && store.contains("do: boxwright --root '"), "{ran}");
    assert_eq!(ran.status, 0, "{ran}");
}

#[test]
fn a_user_with_ranges_has_all_that_is_needed() {
    // The device as udev makes it.
    let device = "mknod -m 666 tun c 10 200; mount --bind tun /dev/net/tun; ";
    let text = as_user(RANGES, &["newuidmap", "newgidmap"], device).ok();
    assert!(about(&text, "user namespace").starts_with("yes     user namespace: made one"), "{text}");
    for what in ["namespaces", "overlay", "network"] {
        assert!(about(&text, what).starts_with("yes "), "{text}");
    }
}

#[test]
fn a_user_without_the_device_of_helpers_is_told_of_it() {
    let device = "mknod -m 600 tun c 10 200; mount --bind tun /dev/net/tun; ";
    let text = as_user(RANGES, &["newuidmap", "newgidmap"], device).ok();
    let line = about(&text, "network");
    assert!(line.starts_with("partly  network: containers use the host's by default"), "{text}");
    assert!(line.ends_with("as root: chmod 666 /dev/net/tun"), "{text}");
}

#[test]
fn a_user_without_ranges_is_told_how_to_get_some() {
    let text = as_user("other:100000:65536\n", &["newuidmap", "newgidmap"], "").ok();
    let line = about(&text, "user namespace");
    assert!(line.starts_with("partly  user namespace: "), "{text}");
    assert!(line.contains("why: /etc/subuid and /etc/subgid have no range for daemon"), "{text}");
    for file in ["subuid", "subgid"] {
        assert!(line.contains(&format!("as root: echo 'daemon:165536:65536' >> /etc/{file}")), "{text}");
    }
    assert!(about(&text, "overlay").starts_with("yes "), "{text}");
}

#[test]
fn a_user_without_helpers_is_told_of_them() {
    let text = as_user(RANGES, &[], "").ok();
    let line = about(&text, "user namespace");
    assert!(line.starts_with("partly ") && line.contains("newuidmap: No such file"), "{text}");
    if fs::exists("/usr/bin/apt-get").unwrap() {
        assert!(line.ends_with("as root: apt-get install uidmap"), "{text}");
    }
}

#[test]
fn a_machine_without_user_namespaces_is_told_of() {
    // The limit is one of the namespace that it is written in, so that the machine's own stays.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(binary(), dir.path().join("program")).unwrap();
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; \
                  exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin ./program --root $PWD/store doctor";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-ec", script]).current_dir(dir.path());
    let ran = run(&mut command).fails_with(1);
    let line = about(&ran.stdout, "user namespace");
    assert!(line.starts_with("no      user namespace: only root"), "{ran}");
    assert!(line.contains("as root: sysctl -w user.max_user_namespaces=15000"), "{ran}");
}
