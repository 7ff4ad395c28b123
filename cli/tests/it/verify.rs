//! `verify`: what makes a build give another image each time is named, and nothing of the two builds stays.

use std::fs;
use std::path::Path;

use boxwright_testdata::Ran;

use crate::tool::{Boxwright, Context, Who};

const EPOCH: &str = "SOURCE_DATE_EPOCH=1700000000";

fn verify(boxwright: &Boxwright, context: &Context, args: &[&str]) -> Ran {
    boxwright.run(&[&["verify"], args, &[context.path()]].concat())
}

/// The lines that tell of the first difference.
#[track_caller]
fn difference(boxwright: &Boxwright, dockerfile: &str) -> Vec<String> {
    let ran = verify(boxwright, &Context::new(dockerfile), &["--build-arg", EPOCH]);
    assert_eq!(ran.status, 1, "{ran}");
    let mut lines: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
    assert_eq!(lines.remove(0), "the builds differ", "{ran}");
    lines
}

#[test]
fn equal_builds_are_told_by_the_id_of_the_image_and_leave_nothing() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\nCOPY f /f\nRUN --mount=type=cache,target=/c echo made > /g && rm /etc/group\n",
    )
    .file("f", "1");
    let count = |dir: &str| fs::read_dir(boxwright.store().join(dir)).unwrap().count();
    let before = count("layers");
    let images = boxwright.ok(&["images", "-aq"]);
    let out = boxwright.scratch("out.tar");
    let output = format!("type=oci,dest={}", out.display());
    let args = ["-q", "--no-cache-filter", "x", "--build-arg", EPOCH, "-t", "named", "-o", &output];
    let verified = verify(&boxwright, &context, &args);
    assert_eq!((verified.status, verified.stderr.as_str()), (0, ""), "{verified}");
    assert_eq!(boxwright.ok(&["images", "-aq"]), images, "no image");
    assert!(!out.exists(), "no output");
    assert_eq!(count("layers"), before);
    assert_eq!(
        count("caches"),
        1,
        "the second build's own is gone, the first one's is there as after a build"
    );
    let built = boxwright.build(&context, &["--build-arg", EPOCH]);
    assert!(
        built.status == 0 && built.stderr.matches("CACHED").count() == 1,
        "nothing but the base is found again: {built}"
    );
    assert_eq!(boxwright.build(&context, &["-q", "--build-arg", EPOCH]).ok(), verified.stdout);
}

#[test]
fn without_an_epoch_times_are_not_compared_and_that_is_said() {
    let boxwright = Boxwright::with_busybox();
    let context =
        Context::new("FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo \"of $SOURCE_DATE_EPOCH\" > /f\n");
    let ran = verify(&boxwright, &context, &[]);
    assert_eq!(ran.status, 0, "{ran}");
    assert!(
        ran.stdout.starts_with("sha256:") && ran.stderr.contains("times of what is new were not compared"),
        "{ran}"
    );
    let with = verify(&boxwright, &context, &["--build-arg", EPOCH]);
    assert!(with.status == 0 && !with.stderr.contains("not compared"), "{with}");
}

#[test]
fn clocks_chance_and_names_of_the_machine_are_found() {
    let boxwright = Boxwright::with_busybox();
    let step = |run: &str| difference(&boxwright, &format!("FROM busybox\nRUN true\nRUN {run}\n"));
    let lines = step("date +%s > /now");
    assert_eq!(lines[0], "layer 3 of 3, RUN /bin/sh -c date +%s > /now # buildkit");
    assert!(
        lines[1].starts_with("/now: content, from byte ") && lines[1].contains(" (line 1): \"1"),
        "{lines:?}"
    );
    let lines = step("echo same > /id && cat /proc/sys/kernel/random/uuid >> /id");
    assert!(lines[1].starts_with("/id: content, from byte ") && lines[1].contains("(line 2)"), "{lines:?}");
    assert_eq!(
        step("hostname > /etc/name"),
        [
            "layer 3 of 3, RUN /bin/sh -c hostname > /etc/name # buildkit",
            "/etc/name: content, from byte 0 on (line 1): \"buildkitsandbox\\n\" in the first build, \
             \"verify\\n\" in the second",
        ]
    );
    // As Python's compiled files have it: the time of the source is in the content, where no epoch gets to.
    let lines = step("mkdir /py && echo x > /py/a.py && stat -c %Y /py/a.py > /py/a.pyc");
    assert!(lines[1].starts_with("/py/a.pyc: content"), "{lines:?}");
}

#[test]
fn a_file_that_is_large_is_compared_to_its_end() {
    let boxwright = Boxwright::with_busybox();
    let lines = difference(&boxwright, "FROM busybox\nRUN truncate -s 19999999 /big && hostname >> /big\n");
    assert!(lines[1].starts_with("/big: content, from byte 19999999 on (line 1): "), "{lines:?}");
}

#[test]
fn what_hangs_on_a_cache_mount_is_found() {
    let boxwright = Boxwright::with_busybox();
    let context = "FROM busybox\nRUN --mount=type=cache,target=/c,mode=0700 touch /c/old; ls /c > /seen\n";
    let filled = Context::new(&context.replace("old", "older"));
    boxwright.built(&filled, &[]);
    let lines = difference(&boxwright, context);
    assert!(lines[1].contains("/seen: content, from byte 4 on (line 2): \"older\\n\""), "{lines:?}");
    // It was not emptied either, as `build --no-cache` would.
    assert!(difference(&boxwright, context)[1].contains("from byte 4 on"));
}

#[test]
fn what_hangs_on_the_number_of_processors_is_found() {
    let boxwright = Boxwright::with_busybox();
    let count = boxwright.output_of("busybox", &["nproc"]);
    let (count, dockerfile) = (count.trim(), "FROM busybox\nRUN nproc > /f\n");
    if count == "1" {
        // There is no other number to be found.
        assert_eq!(verify(&boxwright, &Context::new(dockerfile), &["--build-arg", EPOCH]).status, 0);
        return;
    }
    let lines = difference(&boxwright, dockerfile);
    assert_eq!(
        lines[1],
        format!(
            "/f: content, from byte 0 on (line 1): \"{count}\\n\" in the first build, \"1\\n\" in the second"
        )
    );
}

#[test]
fn what_hangs_on_steps_that_run_at_once_is_found() {
    let boxwright = Boxwright::with_busybox();
    let meet = |own: &str, other: &str| {
        format!(
            "FROM busybox AS {own}\nRUN --mount=type=cache,target=/c touch /c/{own}; n=0; \
             most=1200; [ $(hostname) = verify ] && most=60; while [ ! -e /c/{other} ] && [ $n -lt $most ]; do usleep 50000; n=$((n+1)); done; \
             [ -e /c/{other} ] && echo met > /met || echo alone > /met\n"
        )
    };
    let dockerfile =
        meet("a", "b") + &meet("b", "a") + "FROM scratch\nCOPY --from=a /met /a\nCOPY --from=b /met /b\n";
    let lines = difference(&boxwright, &dockerfile);
    assert!(lines[1].contains("\"met\\n\" in the first build, \"alone\\n\" in the second"), "{lines:?}");
}

#[test]
fn a_difference_in_the_config_is_named_by_its_place() {
    let boxwright = Boxwright::new();
    let lines = difference(
        &boxwright,
        "FROM scratch\nARG BUILDKIT_SANDBOX_HOSTNAME=none\nENV HOST=$BUILDKIT_SANDBOX_HOSTNAME\n",
    );
    assert_eq!(lines[0], "config");
    assert!(
        lines[1].ends_with("\"HOST=none\" in the first build, \"HOST=verify\" in the second"),
        "{lines:?}"
    );
    assert!(lines[1].starts_with(".config.Env["), "{lines:?}");
}

#[test]
fn each_platform_is_told() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM --platform=$BUILDPLATFORM busybox AS made\nARG TARGETARCH\n\
         RUN if [ $TARGETARCH = arm64 ]; then hostname; fi > /f\nFROM scratch\nCOPY --from=made /f /f\n",
    );
    let ran = verify(&boxwright, &context, &["--platform", "linux/amd64,linux/arm64", "--build-arg", EPOCH]);
    assert_eq!(ran.status, 1, "{ran}");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("linux/amd64 sha256:"), "{ran}");
    assert_eq!(lines[1], "linux/arm64 the builds differ");
    assert!(lines[3].starts_with("/f: content, from byte 0 on"), "{ran}");
}

#[test]
fn what_fails_is_told_as_by_build() {
    let boxwright = Boxwright::with_busybox();
    let failing = verify(&boxwright, &Context::new("FROM busybox\nRUN exit 7\n"), &[]);
    assert_eq!(failing.status, 1, "{failing}");
    assert!(failing.stderr.contains("exit code: 7") && !failing.stderr.contains("debug shell"), "{failing}");
    let second = verify(&boxwright, &Context::new("FROM busybox\nRUN [ $(hostname) != verify ]\n"), &[]);
    assert!(second.status == 1 && second.stderr.contains("the first build went well"), "{second}");
    let named = ["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=own"];
    assert_eq!(verify(&boxwright, &Context::new("FROM busybox\nRUN hostname > /f\n"), &named).status, 0);
    for args in [&["--check"][..], &["--call=outline"], &["--on-error=shell"]] {
        let refused = verify(&boxwright, &Context::new("FROM scratch\n"), args);
        assert!(refused.status == 1 && refused.stderr.contains("verify takes neither"), "{refused}");
    }
}

#[test]
fn names_of_files_drive_no_terminal() {
    let boxwright = Boxwright::with_busybox();
    let lines = difference(&boxwright, "FROM busybox\nRUN hostname > \"$(printf '/a\\033[31m\\nb')\"\n");
    assert!(!lines.concat().contains('\u{1b}'), "{lines:?}");
    assert!(lines[1].starts_with("/a\u{fffd}[31m\\nb: content"), "{lines:?}");
}

#[test]
fn an_ordinary_user_is_told_the_same() {
    let (root, user) = (Boxwright::with_busybox(), Boxwright::with_busybox_of(Who::User));
    let told = |dockerfile: &str| {
        let context = Context::new(dockerfile).file("f", "1");
        Who::User.own_all(Path::new(context.path()));
        let [one, two] = [&root, &user].map(|who| verify(who, &context, &["-q", "--build-arg", EPOCH]));
        assert_eq!((one.status, &one.stdout), (two.status, &two.stdout), "{one} {two}");
        one.stdout
    };
    assert!(told("FROM busybox\nCOPY f /f\nRUN chown 12:34 /f && mkfifo /p\n").starts_with("sha256:"));
    assert!(told("FROM busybox\nRUN hostname > /f\n").contains("/f: content"));
}

#[test]
fn nothing_of_the_host_is_compared_whatever_a_step_puts_in_its_place() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("f"), "known to the host alone").unwrap();
    let outside = outside.path().display();
    for who in [Who::Root, Who::User] {
        let boxwright = Boxwright::with_busybox_of(who);
        // What is a directory in one build is a link out of the image in the other; and what never ends is opened by nobody.
        let context = Context::new(&format!(
            "FROM busybox\nRUN if test $(hostname) = verify; then ln -s {outside} /d; else mkdir /d && echo x > /d/f; fi; mkfifo /a\n"
        ));
        who.own_all(Path::new(context.path()));
        let ran = verify(&boxwright, &context, &["--build-arg", EPOCH]);
        assert_eq!(ran.status, 1, "{ran}");
        let words =
            format!("/d: type: directory in the first build, symbolic link to \"{outside}\" in the second");
        ran.says(&words).says_nothing_of("known to the host");
    }
}
