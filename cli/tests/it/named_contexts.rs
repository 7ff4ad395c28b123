//! `--build-context`: directories, images, layouts, repositories and URLs in the place of stages and images.

use std::fs;
use std::process::Command;

use boxwright_testdata::git::Repositories;
use boxwright_testdata::listing::Listing;
use boxwright_testdata::run;
use boxwright_testdata::server::{Reply, Server};

use crate::sources::result;
use crate::tool::{Boxwright, Context};

fn names(listing: &Listing) -> Vec<&str> {
    listing.entries.keys().map(String::as_str).collect()
}

fn named(name: &str, dir: &Context) -> String {
    format!("{name}={}", dir.path())
}

#[test]
fn a_directory_is_copied_from_mounted_and_built_upon() {
    let boxwright = Boxwright::with_busybox();
    let dir =
        Context::new("").file("a", "1").file("sub/b", "2").file("left", "x").file(".dockerignore", "left\n");
    run(Command::new("chown").args(["-R", "7:8"]).arg(dir.path())).ok();
    let context = Context::new(
        "FROM scratch AS copied\nCOPY --from=dir a /\nCOPY --from=dir sub /\n\
         FROM scratch AS all\nCOPY --from=dir / /\n\
         FROM dir AS built\nCOPY --from=copied b /\n\
         FROM busybox AS mounted\nRUN --mount=from=dir,source=sub,target=/m cat /m/b && ! ls /m/../left\n\
         RUN --mount=type=cache,from=dir,source=/sub,target=/c cat /c/b > /cached\n\
         FROM scratch AS missing\nCOPY --from=dir left /\n",
    );
    let flag = named("dir", &dir);
    let stage =
        |target: &str| result(&boxwright, context.path(), &["--build-context", &flag, "--target", target]);
    let copied = stage("copied");
    assert_eq!(names(&copied), ["a", "b"]);
    assert!(copied.entries["a"].ends_with(" 0:0"), "{copied:?}");
    assert_eq!(names(&stage("all")), [".dockerignore", "Dockerfile", "a", "sub", "sub/b"]);
    let built = stage("built");
    assert_eq!(names(&built), [".dockerignore", "Dockerfile", "a", "b", "sub", "sub/b"]);
    assert!(stage("mounted").entries["cached"].starts_with("file 1 "));
    let target = |target| ["--build-context", &flag, "--target", target];
    let missing = boxwright.build(&context, &target("missing")).fails_with(1);
    missing.says("\"/left\": not found").says("the ignore file excludes it by \"left\"");
    // The layer that the files make has its line in the history, so that the two agree.
    boxwright.build(&context, &[&target("built")[..], &["-t", "built"]].concat()).ok();
    assert!(boxwright.ok(&["history", "--no-trunc", "built"]).contains("FROM dir # context"));
    assert_eq!(boxwright.inspect("built")["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    // Only what is named of it counts.
    dir.write("left", "other");
    dir.write("sub/b", "3");
    boxwright.build(&context, &target("copied")).says("COPY --from=dir a /\n#4 CACHED").ok();
}

#[test]
fn a_stage_that_is_replaced_needs_nothing_any_more() {
    let boxwright = Boxwright::new();
    let dir = Context::new("").file("out", "given");
    let context = Context::new(
        "FROM scratch AS first\nCOPY --from=base out /early\n\
         FROM nosuch.example/image AS deps\nFROM deps AS parent\n\
         FROM parent AS base\nCOPY --from=nosuch.example/other / /\nRUN false\n\
         FROM base AS heir\nCOPY --from=first early /\nFROM scratch\nCOPY --from=heir /early /out /\n",
    );
    let flag = named("base", &dir);
    let listing = result(&boxwright, context.path(), &["--build-context", &flag]);
    assert_eq!(names(&listing), ["early", "out"]);
    let listing = result(&boxwright, context.path(), &["--build-context", &flag, "--target", "base"]);
    assert_eq!(names(&listing), ["Dockerfile", "out"]);
    let empty = ["--build-context", "base=docker-image://scratch", "--target", "base"];
    assert!(names(&result(&boxwright, context.path(), &empty)).is_empty());
}

#[test]
fn an_image_stands_in_for_another_by_any_of_its_names() {
    let boxwright = Boxwright::with_busybox();
    let base = Context::new("FROM busybox\nENV FOO=bar\nONBUILD RUN echo $FOO > /triggered\n");
    boxwright.build(&base, &["-t", "base.example/mine:2"]).ok();
    let context = Context::new(
        "FROM docker.io/library/other:latest AS one\nRUN echo $FOO > /one\n\
         FROM scratch\nCOPY --from=one /one /triggered /\nCOPY --from=other /bin/busybox /b\n",
    );
    for name in ["other", "other:latest", "docker.io/library/other"] {
        let flag = format!("{name}=docker-image://base.example/mine:2");
        let listing = result(&boxwright, context.path(), &["--build-context", &flag]);
        assert_eq!(names(&listing), ["b", "one", "triggered"], "{name}");
        assert!(listing.entries["one"].starts_with("file 4 "), "{listing:?}");
    }
    // Its triggers do not run where it stands in for a stage: there is nothing that they could come before.
    let stage = Context::new("FROM scratch AS x\nFROM scratch\nCOPY --from=x /bin/busybox /triggere[d] /\n");
    let flag = "x=docker-image://base.example/mine:2";
    assert_eq!(names(&result(&boxwright, stage.path(), &["--build-context", flag])), ["busybox"]);
    let empty = Context::new("FROM busybox\nCOPY <<EOF /out\nx\nEOF\n");
    let flag = "busybox=docker-image://scratch";
    assert_eq!(names(&result(&boxwright, empty.path(), &["--build-context", flag])), ["out"]);
    // `scratch` and `context` always mean what they say.
    let plain = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    let flags =
        ["--build-context", "scratch=docker-image://busybox", "--build-context", &named("context", &base)];
    assert_eq!(names(&result(&boxwright, plain.path(), &flags)), ["Dockerfile"]);
}

#[test]
fn an_image_of_a_layout_stands_in() {
    let boxwright = Boxwright::with_busybox();
    let made = Context::new("FROM busybox\nCOPY <<EOF /test/out\nfirst\nEOF\nENV foo=bar\nWORKDIR /test\n");
    boxwright.build(&made, &["-t", "made:7"]).ok();
    let (tar, dir) = (boxwright.scratch("made.tar"), boxwright.scratch("layout"));
    boxwright.ok(&["save", "-o", tar.to_str().unwrap(), "made:7"]);
    fs::create_dir(&dir).unwrap();
    run(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&dir)).ok();
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    let tag = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
    boxwright.ok(&["rmi", "made:7"]);
    let context = Context::new(
        "FROM nosuch AS base\nRUN false\nFROM foo AS imported\nRUN echo $foo > outfoo\n\
         FROM scratch\nCOPY --from=base /test/o* /\nCOPY --from=imported /test/outfoo /\n",
    );
    let layout = format!("oci-layout://{}", dir.display());
    for value in [
        layout.clone(),
        format!("{layout}@{digest}"),
        format!("{layout}:any@{digest}"),
        format!("{layout}:{tag}"),
    ] {
        let (base, foo) = (format!("base={value}"), format!("foo={value}"));
        let flags = ["--build-context", &base, "--build-context", &foo];
        let listing = result(&boxwright, context.path(), &flags);
        assert_eq!(names(&listing), ["out", "outfoo"], "{value}");
        assert!(listing.entries["outfoo"].starts_with("file 4 "));
    }
    let flags = ["--build-context", &format!("foo={layout}:nosuch"), "--target", "imported"];
    boxwright.build(&context, &flags).fails_with(1).says("nosuch").says("Dockerfile:3");
}

#[test]
fn repositories_and_urls_stand_in() {
    let (served, boxwright) = (Repositories::serve(), Boxwright::with_busybox());
    let origin = served.make("repo");
    origin.write("file", "one");
    origin.write("sub/inner", "inside");
    origin.write(".dockerignore", "file\n");
    origin.commit("one");
    origin.git(&["tag", "v1"]);
    origin.write("file", "two!");
    origin.commit("two");
    let server = Server::start(|_, _| Reply::new(200, "content"));
    let context = Context::new(
        "FROM busybox AS mounted\nRUN --mount=from=git,target=/m cp /m/file /got\n\
         FROM scratch\nCOPY --from=git file /\nCOPY --from=sub inner /\n\
         COPY --from=web context /web\nCOPY --from=mounted /got /\n",
    );
    let flags = [
        format!("git={}#v1", served.url("repo")),
        format!("sub={}#:sub", served.url("repo")),
        format!("web=http://{}/x.tar", server.address()),
        format!("unneeded={}", served.url("nosuch")),
        "unneeded2=docker-image://nosuch.example/image".to_owned(),
        format!("unneeded3=oci-layout://{}", boxwright.scratch("nosuch").display()),
    ];
    let flags: Vec<&str> = flags.iter().flat_map(|flag| ["--build-context", flag]).collect();
    let listing = result(&boxwright, context.path(), &flags);
    assert_eq!(names(&listing), ["file", "got", "inner", "web"]);
    for (name, size) in [("file", 3), ("got", 3), ("inner", 6), ("web", 7)] {
        assert!(listing.entries[name].starts_with(&format!("file {size} ")), "{name}: {listing:?}");
    }
    let checked = boxwright.build(&context, &[&flags[..], &["--check"]].concat());
    checked.says("Check complete, no warnings found").ok();
}

#[test]
fn a_context_may_be_for_one_platform() {
    let boxwright = Boxwright::new();
    let (any, amd64) = (Context::new("").file("any", ""), Context::new("").file("amd64", ""));
    let context = Context::new("FROM scratch\nCOPY --from=dir /a* /\n");
    let host = boxwright_testdata::run(Command::new("uname").arg("-m")).ok();
    let (own, other) = if host.trim() == "x86_64" { ("amd64", "arm64") } else { ("arm64", "amd64") };
    let flag = |platform: &str| format!("dir::linux/{platform}={}", amd64.path());
    let flags = ["--build-context", &named("dir", &any), "--build-context", &flag(own)];
    assert_eq!(names(&result(&boxwright, context.path(), &flags)), ["amd64"]);
    let flags = ["--build-context", &named("dir", &any), "--build-context", &flag(other)];
    assert_eq!(names(&result(&boxwright, context.path(), &flags)), ["any"]);
}

#[test]
fn what_can_not_stand_in_is_refused_by_name() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch AS x\nFROM x\nCOPY --from=img / /\n");
    for (flag, words) in [
        ("x", "invalid context value: x, expected key=value"),
        ("X=/tmp", "invalid context name X"),
        ("x=/nosuch", "failed to get build context x: stat /nosuch"),
        ("x=/etc/passwd", "/etc/passwd: not a directory"),
        ("x=target:y", "unsupported context source target for x"),
        ("x=docker-image://a b", "invalid"),
        ("img=docker-image://nosuch.invalid/image", "nosuch.invalid/image"),
        ("img=oci-layout:///nosuch", "/nosuch"),
    ] {
        boxwright.build(&context, &["--build-context", flag]).fails_with(1).says(words);
    }
}
