//! Dockerfiles and contexts that try to read or write the host.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use boxwright_testdata::tar::Tar;
use serde_json::json;

use super::{Canary, shell, with_image, with_layer};
use crate::tool::{Boxwright, Context};

/// CVE-2024-23652, CVE-2024-1753 and their kind: links of a stage end inside of it, for whoever reads or writes.
#[test]
fn copies_through_links_stay_in_their_root() {
    let canary = Canary::new();
    let up = format!("../../../../../../..{}", canary.path());
    let layer = Tar::new().symlink("abs", canary.path()).symlink("up", &up).symlink("root", "/");
    let boxwright = with_layer(layer);
    for link in ["abs", "up", &format!("root{}", canary.path())] {
        for instruction in [
            format!("COPY f /{link}/f"),
            format!("COPY f /{link}/"),
            format!("ADD a.tar /{link}/"),
            format!("WORKDIR /{link}/deeper\nRUN touch x"),
            format!("COPY <<EOF /{link}/doc\nx\nEOF"),
        ] {
            let context = Context::new(&format!("FROM evil\n{instruction}\n")).file("f", "x");
            context.write("a.tar", Tar::new().file("f", 0o666, "x").finish());
            boxwright.build(&context, &["-t", "x"]).ok();
            canary.is_untouched();
        }
        let context = Context::new(&format!("FROM scratch\nCOPY --from=evil /{link}/secret /\n"));
        boxwright.build(&context, &[]).fails_with(1).says_nothing_of("canary");
    }
}

/// CVE-2026-44517: a context can't name what lies outside of it.
#[test]
fn links_of_a_context_stay_in_the_context() {
    let canary = Canary::new();
    let boxwright = Boxwright::with_busybox();
    let secret = format!("{}/secret", canary.path());
    for source in ["abs", "up", "dir/secret", "../secret", &secret, "./dir/../../secret"] {
        let context = Context::new(&format!("FROM busybox\nCOPY {source} /got\n"));
        symlink(&secret, context.join("abs")).unwrap();
        symlink(format!("../../../../../..{secret}"), context.join("up")).unwrap();
        symlink(canary.path(), context.join("dir")).unwrap();
        let ran = boxwright.build(&context, &["-t", "got"]);
        if ran.status == 0 {
            let got = boxwright.run(&["run", "--rm", "got", "cat", "/got"]);
            got.says_nothing_of("canary");
        }
    }
    canary.is_untouched();
}

/// CVE-2021-32760, CVE-2020-10696: a link in an archive is replaced or stays inside; nothing is changed through it.
#[test]
fn archives_that_are_added_change_nothing_through_their_links() {
    let canary = Canary::new();
    let secret = format!("{}/secret", canary.path());
    let archives = [
        Tar::new().symlink("s", &secret).file("s", 0o777, "evil"),
        Tar::new().symlink("s", canary.path()).dir("s", 0o700),
        Tar::new().symlink("s", canary.path()).file("s/secret", 0o777, "evil"),
        Tar::new().file(&format!("../../../../../../../..{secret}"), 0o777, "evil"),
        Tar::new().hard_link("h", &secret),
        Tar::new().symlink(".", canary.path()).file("new", 0o644, "x"),
    ];
    let boxwright = Boxwright::with_busybox();
    for (number, archive) in archives.into_iter().enumerate() {
        let context = Context::new("FROM busybox\nADD a.tar /\nRUN cat /h; true\n");
        context.write("a.tar", archive.finish());
        let ran = boxwright.build(&context, &[]);
        assert!(ran.status <= 1, "{number}: {ran}");
        ran.says_nothing_of("canary\n");
        canary.is_untouched();
    }
}

/// CVE-2026-33747: no image is ever fetched to read a Dockerfile with.
#[test]
fn a_foreign_frontend_is_refused() {
    let boxwright = Boxwright::with_busybox();
    for name in ["evil/frontend:1", "docker.io/evil/dockerfile", "127.0.0.1:1/docker/dockerfile:1"] {
        let context = Context::new(&format!("# syntax={name}\nFROM busybox\n"));
        boxwright.build(&context, &[]).fails_with(1).says(name);
    }
}

/// CVE-2026-53488: labels and variables of an image are data; nothing is run, opened or mounted for them.
#[test]
fn labels_and_unknown_fields_change_nothing_that_runs() {
    let canary = Canary::new();
    let command = format!("touch {}/ran", canary.path());
    let config = json!({
        "Labels": { "io.containerd.runc.v2.hook": command, "devices": "/dev/kmsg", "org.opencontainers.hook": command },
        "Env": ["LD_PRELOAD=/evil.so", "BOXWRIGHT_ROOT=/evil", "PATH=/bin"],
        "Hooks": { "prestart": [{ "path": "/bin/touch", "args": [command] }] },
    });
    let boxwright = with_image(&config, &[shell()]);
    assert_eq!(boxwright.output_of("evil", &["sh", "-c", "test -e /dev/kmsg || echo no"]), "no\n");
    boxwright.build(&Context::new("FROM evil\nRUN test ! -e /dev/kmsg\n"), &[]).ok();
    canary.is_untouched();
}

/// CVE-2021-41091: programs of images with set-user-id bits are out of other users' reach.
#[test]
fn no_other_user_reaches_the_files_of_an_image() {
    let boxwright = with_layer(Tar::new().file("bin/suid", 0o4755, "#!/bin/sh\n"));
    boxwright.build(&Context::new("FROM evil\nRUN touch /new\n"), &["-t", "built"]).ok();
    let store = boxwright.store();
    assert_eq!(fs::metadata(&store).unwrap().permissions().mode() & 0o7777, 0o700);
    // The directory above is the test's own, and closed.
    fs::set_permissions(store.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let find = ["--reuid=65534", "--regid=65534", "--clear-groups", "find"];
    let ran = boxwright_testdata::run(Command::new("setpriv").args(find).arg(&store).args(["-name", "suid"]));
    assert_eq!(ran.stdout, "");
    ran.says("Permission denied");
    let ran = boxwright_testdata::run(Command::new("find").arg(&store).args(["-name", "suid"]));
    assert_eq!(ran.stdout.lines().count(), 1, "{ran}");
}
