//! Dockerfiles and contexts that want out: sources and targets behind links, and frontends of others.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};

use boxwright_testdata::Ran;
use boxwright_testdata::tar::Tar;

use super::{Canary, SECRET, load, patient, tries, wrapped};
use crate::tool::{Boxwright, Context, Who};

/// Builds what may work or not, and must neither read nor change the canary.
#[track_caller]
fn harmless(boxwright: &Boxwright, canary: &Canary, context: &Context) -> i32 {
    let ran =
        patient(&boxwright.command(&["build", "--progress", "plain", "-t", "harmless", context.path()]));
    assert!(ran.status <= 1, "{ran}");
    canary.assert_unknown_to(&ran);
    ran.status
}

fn instructions_through_links_of_an_image_write_inside(who: Who) {
    // CVE-2024-1753, CVE-2026-44517
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    for target in canary.ways() {
        load(&boxwright, "links", Tar::new().symlink("link", &target).symlink("via", "link"));
        let tar = Tar::new().dir(".", 0o700).file("file", 0o600, "added").dir("new", 0o777).finish();
        let mut case = 0;
        for place in
            ["/link", "/link/", "/link/file", "/link/new/x", "/via/", "/via/file", "link/new/../file"]
        {
            let instructions = [
                format!("COPY Dockerfile {place}"),
                format!("COPY --chown=1:1 --chmod=4777 Dockerfile {place}"),
                format!("COPY sub {place}"),
                format!("COPY --link --chown=1:1 sub {place}"),
                format!("ADD --link a.tar {place}"),
                format!("COPY --parents --exclude=x sub/deep/f {place}"),
                format!("COPY --from=links /etc {place}"),
                format!("ADD a.tar {place}"),
                format!("ADD Dockerfile {place}"),
                format!("WORKDIR {place}\nRUN pwd && ls -a"),
                format!("WORKDIR {place}\nCOPY sub ."),
                format!("COPY <<EOF {place}\ntext\nEOF"),
            ];
            let context = Context::new("").file("sub/deep/f", "x").file("a.tar", &tar);
            for instruction in instructions {
                // Each instruction and each place is among those of a user: 7 and 12 have no common factor.
                if tries(who, case, 7) {
                    context.write("Dockerfile", format!("FROM links\n{instruction}\n"));
                    harmless(&boxwright, &canary, &context);
                }
                case += 1;
            }
        }
        // Where nothing is in the way, the file is where the link leads inside.
        let context = Context::new("FROM links\nCOPY Dockerfile /link/made\n");
        assert_eq!(harmless(&boxwright, &canary, &context), 0);
        let made = boxwright.output_of("harmless", &["cat", &format!("{}/made", canary.path())]);
        assert!(made.starts_with("FROM links"), "{made}");
    }
}

fn copies_from_a_stage_read_nothing_of_the_host(who: Who) {
    // CVE-2024-1753
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    for target in canary.ways() {
        let file = format!("{}/file", canary.path());
        let by_proc = format!("/proc-root{file}");
        let layer =
            Tar::new().symlink("link", &target).symlink("top", "/").symlink("proc-root", "/proc/1/root");
        load(&boxwright, "links", layer.file(&file[1..], 0o644, "of the image\n"));
        let sources = [
            "/link",
            "/link/",
            "/link/file",
            "/link/*",
            "/l*/f*",
            "/../../../link/file",
            "/top",
            &file,
            &by_proc,
        ];
        for source in sources {
            let context = Context::new(&format!(
                "FROM links AS from\nFROM links\nCOPY --from=from {source} /got/\n\
                 COPY --from=from --parents --link --exclude=none {source}/./* /got/\nRUN find /got -name file -exec cat {{}} +; true\n"
            ));
            harmless(&boxwright, &canary, &context);
        }
        assert_eq!(
            harmless(&boxwright, &canary, &Context::new("FROM links\nCOPY --from=links /link/file /got\n")),
            0
        );
        assert_eq!(boxwright.output_of("harmless", &["cat", "/got"]), "of the image\n");
    }
}

fn links_in_a_context_read_nothing_beside_it(who: Who) {
    // CVE-2026-44517
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let tar = Tar::new().file("of-the-host", 0o644, SECRET).finish();
    let outside = Context::new("").file("a.tar", tar);
    for target in canary.ways() {
        let context = Context::new("");
        fs::create_dir(context.join("sub")).unwrap();
        let file = format!("{target}/file");
        for (link, to) in [
            ("dir", target.as_str()),
            ("leak", &file),
            ("sub/dir", &target),
            ("sub/leak", &file),
            ("self", "/proc/self/environ"),
        ] {
            symlink(to, context.join(link)).unwrap();
        }
        symlink(outside.join("a.tar"), context.join("a.tar")).unwrap();
        let mut case = 0;
        for source in [
            "leak",
            "dir",
            "dir/",
            "dir/file",
            "d*",
            "l*",
            "sub",
            "sub/leak",
            "sub/dir/file",
            "./sub/../leak",
            "../../leak",
            "self",
            "a.tar",
            ".",
        ] {
            for instruction in ["COPY", "ADD", "COPY --parents", "COPY --exclude=none", "COPY --link"] {
                case += 1;
                if !tries(who, case, 6) {
                    continue;
                }
                context.write(
                    "Dockerfile",
                    format!(
                        "FROM busybox\n{instruction} {source} /got/\nRUN grep -rs 'known to' /got; ls -R /got; true\n"
                    ),
                );
                let ran = patient(&boxwright.command(&["build", "--progress", "plain", context.path()]));
                assert!(ran.status <= 1, "{ran}");
                canary.assert_unknown_to(&ran.says_nothing_of("of-the-host\n"));
            }
        }
    }
}

fn a_local_archive_that_climbs_out_writes_nothing_outside(who: Who) {
    // CVE-2020-10696, CVE-2021-32760, CVE-2021-29136, GHSA-j4xf
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let [absolute, climbing] = canary.ways();
    let tar = Tar::new;
    let mut archives = vec![
        tar().file(&format!("{climbing}/new"), 0o644, "x"),
        tar().file(&format!("{absolute}/new"), 0o644, "x"),
        tar().hard_link("h", &format!("{climbing}/file")).file("h", 0o777, "x"),
        tar().hard_link("h", &format!("{absolute}/file")),
        tar().whiteout(&climbing, "file"),
        tar().dir("..", 0o777).file("..", 0o777, "x"),
    ];
    for to in canary.ways() {
        archives.extend([
            tar().symlink("s", &to).file("s/file", 0o777, "x").dir("s/new", 0o777),
            tar().symlink("s", &to).dir("s", 0o700).file("s/file", 0o777, "x"),
            tar().symlink("f", &format!("{to}/file")).file("f", 0o777, "x"),
            tar().symlink("f", &format!("{to}/file")).hard_link("g", "f").file("g", 0o777, "x"),
            tar().symlink("a", "b").symlink("b", &to).file("a/file", 0o777, "x").whiteout("a", "file"),
            tar().symlink(".", &to).file("file", 0o777, "x"),
            tar().symlink("./", &to).dir("./", 0o777).file("./file", 0o777, "x"),
            tar().symlink("s", &to).fifo("s/pipe", 0o777).device("s/null", b'3', 1, 3).symlink("s/l", "x"),
        ]);
    }
    for (number, archive) in archives.into_iter().enumerate() {
        for (case, place) in ["/", "/made/here/"].into_iter().enumerate() {
            if !tries(who, number + case, 2) {
                continue;
            }
            let context = Context::new(&format!(
                "FROM busybox\nADD a.tar {place}\nRUN cat {absolute}/file s/file f g; true\n"
            ));
            context.write("a.tar", archive.clone().finish());
            harmless(&boxwright, &canary, &context);
            canary.assert_intact(&format!("archive {number}"));
        }
    }
}

fn a_frontend_of_others_is_refused_and_not_even_fetched(who: Who) {
    // CVE-2026-33747
    let boxwright = Boxwright::with_busybox_of(who);
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    registry.set_nonblocking(true).unwrap();
    let address = registry.local_addr().unwrap();
    for name in [
        format!("{address}/evil/frontend"),
        format!("{address}/docker/dockerfile:1"),
        "evil/frontend".into(),
        "busybox".into(),
    ] {
        for directive in ["# syntax=", "#syntax = ", "# check=skip=all\n# SYNTAX=", "#!/bin/x\n# syntax="] {
            let context = Context::new(&format!("{directive}{name}\nFROM busybox\nRUN touch /ran\n"));
            let ran = patient(&boxwright.command(&["build", "--progress", "plain", context.path()]));
            ran.fails_with(1).says(&name).says("is a builder of Dockerfiles alone").says_nothing_of("[2/2]");
        }
        let context = Context::new("FROM busybox\nRUN touch /ran\n");
        let argument = format!("BUILDKIT_SYNTAX={name}");
        boxwright.build(&context, &["--build-arg", &argument]).fails_with(1).says(&name);
        // No directive any more, but a comment of the language that we speak.
        let context = Context::new(&format!("# comment\n# syntax={name}\nFROM busybox\nRUN true\n"));
        boxwright.build(&context, &[]).ok();
    }
    assert!(registry.accept().is_err(), "somebody has asked for the frontend");
    let context = Context::new("# syntax=docker/dockerfile:1\nFROM busybox\nRUN true\n");
    boxwright.build(&context, &[]).ok();
}

fn what_would_load_modules_of_an_image_waits_for_ever_and_nothing_does(who: Who) {
    // CVE-2019-14271, GHSA-x86f
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    let evil = format!("#!/bin/sh\necho $0 >> /started; echo $0 >> {}/started\n", canary.path());
    let mut layer =
        Tar::new().file("etc/nsswitch.conf", 0o644, "passwd: evil files\ngroup: evil files\nhosts: evil\n");
    for name in ["xz", "unxz", "gzip", "unpigz", "zstd", "tar", "git", "getent", "newuidmap"] {
        layer = layer.file(&format!("usr/bin/{name}"), 0o755, &evil).file(
            &format!("usr/local/bin/{name}"),
            0o755,
            &evil,
        );
    }
    for library in ["libnss_evil.so.2", "libnss_files.so.2", "libc.so.6", "ld.so.preload"] {
        for dir in ["lib", "usr/lib", "lib/x86_64-linux-gnu", "etc"] {
            // Whoever opens one waits for somebody to write.
            layer = layer.fifo(&format!("{dir}/{library}"), 0o755);
        }
    }
    load(&boxwright, "evil", layer);
    let tar = Tar::new().file("f", 0o644, "text").finish();
    let context = Context::new(
        "FROM evil\nADD a.tar.xz b.tar /\nCOPY --chown=daemon:wheel Dockerfile /d\nUSER daemon\nRUN cat /f; id -un\n",
    );
    context.write("b.tar", tar);
    let out = fs::File::create(context.join("a.tar.xz")).unwrap();
    assert!(
        std::process::Command::new("xz")
            .arg("-c")
            .arg(context.join("b.tar"))
            .stdout(out)
            .status()
            .unwrap()
            .success()
    );
    let build = boxwright.command(&["build", "--progress", "plain", "-t", "built", context.path()]);
    patient(&build).says("textdaemon").ok();
    let run =
        boxwright.command(&["run", "--rm", "-u", "daemon:wheel", "built", "sh", "-c", "id -un; ls /started"]);
    let ran = patient(&run);
    assert_eq!(ran.stdout, "daemon\n", "{ran}");
    canary.assert_intact("programs of the image");
}

fn an_ignore_file_or_dockerfile_that_never_ends_is_refused(who: Who) {
    let boxwright = Boxwright::with_busybox_of(who);
    let context = Context::new("FROM busybox\n");
    symlink("/dev/zero", context.join(".dockerignore")).unwrap();
    patient(&boxwright.command(&["build", context.path()])).fails_with(1).says("larger than");
    fs::remove_file(context.join(".dockerignore")).unwrap();
    fs::remove_file(context.join("Dockerfile")).unwrap();
    symlink("/dev/zero", context.join("Dockerfile")).unwrap();
    patient(&boxwright.command(&["build", context.path()])).fails_with(1).says("larger than");
    for (arguments, words) in [
        (&["build", "-f", "-", context.path()][..], "larger than"),
        (&["build", "-"], "neither a Dockerfile nor a tar archive"),
    ] {
        let mut command = wrapped(&["prlimit", "--data=268435456"], &boxwright.command(arguments));
        let input = fs::File::open("/dev/zero").unwrap();
        let output = command.stdin(input).output().unwrap();
        Ran::new("build < /dev/zero".into(), &output).fails_with(1).says(words);
    }
}

fn set_id_bits_of_a_context_do_not_lie_open_to_other_users(who: Who) {
    // CVE-2021-41091
    let boxwright = Boxwright::with_busybox_of(who);
    let context = Context::new("FROM scratch\nCOPY program /program\n");
    fs::copy("/bin/busybox", context.join("program")).unwrap();
    fs::set_permissions(context.join("program"), fs::Permissions::from_mode(0o4755)).unwrap();
    boxwright.build(&context, &["-t", "set-id"]).ok();
    super::store::assert_closed(&boxwright);
}

super::by_both!(
    instructions_through_links_of_an_image_write_inside,
    copies_from_a_stage_read_nothing_of_the_host,
    links_in_a_context_read_nothing_beside_it,
    a_local_archive_that_climbs_out_writes_nothing_outside,
    a_frontend_of_others_is_refused_and_not_even_fetched,
    what_would_load_modules_of_an_image_waits_for_ever_and_nothing_does,
    an_ignore_file_or_dockerfile_that_never_ends_is_refused,
    set_id_bits_of_a_context_do_not_lie_open_to_other_users,
);
