//! Images whose file system or config is an attack on whoever runs them.

use std::fs;
use std::path::Path;
use std::process::Command;

use boxwright_testdata::run;
use boxwright_testdata::tar::Tar;
use serde_json::json;

use super::{Canary, shell, with_image, with_layer};
use crate::tool::Context;

/// CVE-2019-16884, CVE-2023-27561: a `/proc` of the image's own would take our writes to it.
#[test]
fn proc_is_the_kernels_or_nothing_starts() {
    let link = with_layer(Tar::new().dir("fake", 0o755).symlink("proc", "fake"));
    assert_ne!(link.run(&["run", "--rm", "evil", "true"]).status, 0);
    let volume = with_image(&json!({ "Volumes": { "/proc": {} } }), &[shell()]);
    let ran = volume.run(&["run", "--rm", "evil", "grep", "-c", "^Pid:", "/proc/self/status"]);
    assert!(ran.status == 125 || ran.stdout == "1\n", "{ran}");
}

/// CVE-2026-41579: links where a runtime makes directories and mounts.
#[test]
fn links_where_mounts_go_lead_to_no_place_of_the_host() {
    for name in
        ["dev", "dev/pts", "dev/shm", "dev/mqueue", "sys", "etc", "etc/hosts", "etc/resolv.conf", "run"]
    {
        let canary = Canary::new();
        for target in [canary.path().to_owned(), format!("../../../../../..{}", canary.path())] {
            let layer = Tar::new().symlink(name, &target);
            let boxwright = with_layer(layer);
            boxwright.run(&[
                "run",
                "--rm",
                "-t",
                "evil",
                "sh",
                "-c",
                "echo x > /dev/shm/x; echo x > /etc/hosts",
            ]);
            boxwright.build(&Context::new("FROM evil\nWORKDIR /run/x\nRUN echo x > /etc/x\n"), &["-t", "x"]);
            canary.is_untouched();
        }
    }
}

/// CVE-2025-31133: what hides a file of the kernel must not be the image's `/dev/null`.
#[test]
fn masks_are_ours_and_not_the_images_null() {
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let boxwright =
        with_layer(Tar::new().dir("dev", 0o755).symlink("dev/null", "/proc/sys/kernel/core_pattern"));
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list /dev/null /proc/sys/kernel/core_pattern; do \
                  echo '|/x' > $f; done; echo ran";
    assert_eq!(boxwright.output_of("evil", &["sh", "-c", script]), "ran\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
}

/// CVE-2026-46680: digits are an id, whatever the image calls its users.
#[test]
fn a_number_is_never_the_name_of_a_user() {
    let passwd = "root:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n";
    let boxwright = with_layer(Tar::new().file("etc/passwd", 0o644, passwd));
    assert_eq!(boxwright.ok(&["run", "--rm", "-u", "1000", "evil", "id", "-u"]), "1000\n");
    boxwright.build(&Context::new("FROM evil\nUSER 1000\nRUN test $(id -u) = 1000\n"), &["-t", "user"]).ok();
    assert_eq!(boxwright.output_of("user", &["id", "-u"]), "1000\n");
}

/// CVE-2024-40635: an id beyond what an id can be must not become another.
#[test]
fn ids_out_of_range_are_refused() {
    let boxwright = with_layer(Tar::new());
    for user in ["4294967296", "2147483648", "-1", "0:4294967296", "18446744073709551616"] {
        let ran = boxwright.run(&["run", "--rm", &format!("--user={user}"), "evil", "id", "-u"]);
        assert!(ran.status != 0 && ran.stdout.is_empty(), "{ran}");
        let context = Context::new(&format!("FROM evil\nUSER {user}\nRUN id -u\n"));
        assert_ne!(boxwright.build(&context, &[]).status, 0, "{user}");
    }
}

/// CVE-2024-9676, CVE-2026-47262: user files that lead elsewhere, never end, or are too large to be read.
#[test]
fn hostile_user_files_neither_hang_nor_tell_nor_fill_the_memory() {
    let secret = Canary::new();
    let file = format!("{}/secret", secret.path());
    let layers = [
        Tar::new().fifo("etc/passwd", 0o644),
        Tar::new().symlink("etc/passwd", "/dev/zero"),
        Tar::new().symlink("etc/passwd", "/proc/1/environ"),
        Tar::new().symlink("etc/passwd", &file),
        Tar::new().fifo("etc/group", 0o644),
        Tar::new().symlink("etc/group", "/dev/zero"),
    ];
    for layer in layers {
        let boxwright = with_layer(layer);
        let ran = boxwright.run(&["run", "--rm", "-u", "nosuch", "evil", "true"]).fails_with(125);
        let named = ["nosuch", "/etc/passwd", "/etc/group"].iter().any(|name| ran.stderr.contains(name));
        assert!(named, "{ran}");
        ran.says_nothing_of("canary");
        let context = Context::new("FROM evil\nUSER nosuch\nRUN true\n");
        assert_ne!(boxwright.build(&context, &[]).status, 0);
    }
    secret.is_untouched();
}

/// CVE-2022-23648: the content of a volume comes from the image, whatever its path.
#[test]
fn volumes_begin_with_nothing_of_the_host() {
    let canary = Canary::new();
    let up = format!("/../../../../..{}", canary.path());
    let config = json!({ "Volumes": { up: {}, "/link": {}, "/far/below": {} } });
    let layer =
        Tar::new().symlink("link", canary.path()).symlink("far", &format!("../../..{}", canary.path()));
    let boxwright = with_image(&config, &[shell(), layer]);
    let ran =
        boxwright.run(&["run", "--rm", "evil", "sh", "-c", "cat /link/secret; echo x > /link/x; ls /far"]);
    ran.says_nothing_of("canary").says_nothing_of("secret\n");
    canary.is_untouched();
}

/// CVE-2019-14271, GHSA-x86f-5xw2-fm2r: helpers and libraries of the image are never run by us.
#[test]
fn nothing_of_the_image_runs_but_the_command() {
    let mark = "#!/bin/sh\necho ran > /tmp/ran\n";
    let mut layer = Tar::new().dir("usr", 0o755).dir("usr/bin", 0o755).dir("lib", 0o755);
    for name in
        ["usr/bin/xz", "usr/bin/unpigz", "usr/bin/gzip", "usr/bin/tar", "bin/xz", "bin/tar", "bin/gunzip"]
    {
        layer = layer.file(name, 0o755, mark);
    }
    let layer = layer.file("etc/nsswitch.conf", 0o644, "passwd: evil\ngroup: evil\nhosts: evil\n").file(
        "lib/libnss_evil.so.2",
        0o755,
        mark,
    );
    let boxwright = with_layer(layer);
    let context =
        Context::new("FROM evil\nADD a.tar.xz /x/\nUSER web\nWORKDIR /tmp/w\nRUN test ! -e /tmp/ran\n");
    context.write("f", "content\n");
    let pack = "import tarfile; tarfile.open('a.tar.xz', 'w:xz').add('f')";
    run(Command::new("python3").current_dir(context.path()).args(["-c", pack])).ok();
    boxwright.build(&context, &["-t", "used"]).ok();
    assert_eq!(
        boxwright.output_of("used", &["sh", "-c", "cat /x/f; test ! -e /tmp/ran && id -un"]),
        "content\nweb\n"
    );
    assert!(!Path::new("/tmp/ran").exists());
}
