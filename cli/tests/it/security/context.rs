//! Contexts from elsewhere that want more than to be read: Dockerfiles that are links to the host's files, members that
//! leave their archive, and input without end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use boxwright_testdata::git::Repositories;
use boxwright_testdata::server::{Reply, Server};
use boxwright_testdata::tar::Tar;
use rustix::process::Signal;

use super::Canary;
use crate::contexts::piped;
use crate::tool::{Boxwright, Context, Running, Who, eventually};

fn a_dockerfile_that_is_a_link_leads_nowhere_but_into_its_context(who: Who) {
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    let served = Repositories::serve();
    for (n, way) in canary.ways().into_iter().enumerate() {
        let target = format!("{way}/file");
        let archive = Tar::new().symlink("Dockerfile", &target).symlink(".dockerignore", &target).finish();
        let ran = piped(&boxwright, &["-"], &archive);
        canary.assert_unknown_to(&ran);
        ran.fails_with(1).says("open Dockerfile: no such file or directory");
        let inner = Tar::new().symlink("d", &way).finish();
        let ran = piped(&boxwright, &["-f", "d/file", "-"], &inner);
        canary.assert_unknown_to(&ran);
        ran.fails_with(1).says("open d/file: no such file or directory");
        let server = Server::start(move |_, _| Reply::new(200, archive.clone()));
        let ran = piped(&boxwright, &[&format!("http://{}/", server.address())], b"");
        canary.assert_unknown_to(&ran);
        ran.fails_with(1).says("open Dockerfile: no such file or directory");
        let origin = served.make(&format!("repo{n}"));
        symlink(&target, origin.dir.join("Dockerfile")).unwrap();
        symlink(&way, origin.dir.join("sub")).unwrap();
        origin.commit("evil");
        for context in ["", "#:sub", "#:../../../.."].map(|end| served.url(&format!("repo{n}{end}"))) {
            let ran = piped(&boxwright, &[&context], b"");
            canary.assert_unknown_to(&ran);
            ran.fails_with(1);
        }
    }
    // Within the context links are what they are anywhere.
    let good = Tar::new().symlink("Dockerfile", "/d/../d/real").dir("d", 0o755).file(
        "d/real",
        0o644,
        "FROM scratch\nCOPY d /d\n",
    );
    piped(&boxwright, &["-"], &good.finish()).ok();
}

fn names_of_the_command_line_stay_inside_as_well(who: Who) {
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    let archive = Tar::new().file("x", 0o644, "FROM scratch\n").finish();
    for way in canary.ways() {
        let ran = piped(&boxwright, &["-f", &format!("{way}/file"), "-"], &archive);
        canary.assert_unknown_to(&ran);
        ran.fails_with(1).says("no such file or directory");
    }
}

fn members_stay_in_their_archive(who: Who) {
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    for way in canary.ways() {
        let archive = Tar::new()
            .file("Dockerfile", 0o644, "FROM scratch\nCOPY . /\n")
            .symlink("out", &way)
            .file("out/new", 0o644, "x")
            .file(&format!("{way}/new"), 0o644, "x")
            .finish();
        let ran = piped(&boxwright, &["-"], &archive);
        canary.assert_unknown_to(&ran);
        let link = Tar::new().hard_link("Dockerfile", &format!("{way}/file")).file("y", 0o644, "x").finish();
        let ran = piped(&boxwright, &["-"], &link);
        canary.assert_unknown_to(&ran);
        assert_ne!(ran.status, 0, "{ran}");
    }
}

fn a_dockerfile_that_is_no_file_or_too_large_is_refused(who: Who) {
    let boxwright = Boxwright::of(who);
    let device = Tar::new().device("Dockerfile", b'3', 1, 5).finish();
    for odd in [Tar::new().fifo("Dockerfile", 0o644).finish(), device] {
        let ran = piped(&boxwright, &["-"], &odd);
        assert_ne!(ran.status, 0, "{ran}");
    }
    let huge = vec![b'#'; (16 << 20) + 1];
    let archive = Tar::new().file("Dockerfile", 0o644, &huge).finish();
    piped(&boxwright, &["-"], &archive).fails_with(1).says("larger than 16777216 bytes");
    piped(&boxwright, &["-"], &huge).fails_with(1).says("larger than 16777216 bytes");
    let whole = Tar::new().file("Dockerfile", 0o644, "FROM scratch\n").finish();
    let cut = &whole[..600];
    let ran = piped(&boxwright, &["-"], cut);
    assert_ne!(ran.status, 0, "{ran}");
}

fn links_of_a_named_context_stay_inside(who: Who) {
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    let dir = Context::new("");
    for (n, way) in canary.ways().into_iter().enumerate() {
        symlink(&way, dir.join(&format!("out{n}"))).unwrap();
        for line in
            ["COPY --from=dir out0/file /", "COPY --from=dir out1/file /", "COPY --from=dir out*/fil* /x/"]
        {
            let context = Context::new(&format!("FROM scratch\n{line}\n"));
            let ran = boxwright.build(&context, &["--build-context", &format!("dir={}", dir.path())]);
            canary.assert_unknown_to(&ran);
            assert!(line.contains('*') || ran.status == 1, "{ran}");
        }
    }
    let context = Context::new("FROM scratch\nCOPY --from=dir / /\n");
    symlink("/dev/zero", dir.join(".dockerignore")).unwrap();
    let ran = boxwright.build(&context, &["--build-context", &format!("dir={}", dir.path())]);
    ran.fails_with(1).says("larger than");
}

/// Ends a build with Ctrl-C, and looks for what it left.
#[track_caller]
fn interrupt(boxwright: &Boxwright, mut build: Running) {
    build.signal(Signal::INT);
    assert_eq!(build.wait(), 130);
    let tmp = boxwright.store().join("tmp");
    eventually("nothing is left", || std::fs::read_dir(&tmp).unwrap().count() == 0);
}

#[test]
fn input_without_end_ends_with_the_build() {
    let boxwright = Boxwright::new();
    // Nothing ever comes.
    let mut silent = Running::start(boxwright.command(&["build", "-"]).stdin(Stdio::piped()));
    let held = silent.0.stdin.take();
    eventually("the store is there", || boxwright.store().join("tmp").exists());
    interrupt(&boxwright, silent);
    drop(held);
    // It never stops.
    let mut endless = Running::start(boxwright.command(&["build", "-"]).stdin(Stdio::piped()));
    let mut input = endless.0.stdin.take().unwrap();
    let start = Tar::new().file_of_size("Dockerfile", 1 << 30, "FROM scratch\n").unfinished();
    input.write_all(&start).unwrap();
    for _ in 0..64 {
        input.write_all(&[b'x'; 4096]).unwrap();
    }
    interrupt(&boxwright, endless);
    drop(input);
}

#[test]
fn a_server_without_end_ends_with_the_build() {
    for scheme in ["http", "git"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (began, begun) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let _ = connection.read(&mut [0; 1024]);
            if scheme == "http" {
                let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            }
            let _ = began.send(());
            while scheme == "http" && connection.write_all(&[b'x'; 4096]).is_ok() {}
            while connection.read(&mut [0; 1024]).is_ok_and(|n| n > 0) {}
        });
        let boxwright = Boxwright::new();
        let build = Running::start(&mut boxwright.command(&["build", &format!("{scheme}://{address}/x")]));
        begun.recv().unwrap();
        interrupt(&boxwright, build);
    }
}

super::by_both!(
    a_dockerfile_that_is_a_link_leads_nowhere_but_into_its_context,
    names_of_the_command_line_stay_inside_as_well,
    members_stay_in_their_archive,
    a_dockerfile_that_is_no_file_or_too_large_is_refused,
    links_of_a_named_context_stay_inside,
);
