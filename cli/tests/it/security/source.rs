//! URLs and repositories that want more than to be read: options in place of names, transports that run programs,
//! submodules that are files of the host, entries that no checkout has, and answers without end.

use std::io::{Read, Write};
use std::net::TcpListener;

use boxwright_testdata::git::Repositories;
use boxwright_testdata::server::{Reply, Server};
use rustix::process::Signal;

use super::{Canary, patient};
use crate::tool::{Boxwright, Context, Running, Who, eventually};

/// Builds an ADD of `source`, which must fail, and neither read nor change the canary.
#[track_caller]
fn refused(boxwright: &Boxwright, canary: &Canary, source: &str) -> String {
    let context = Context::new(&format!("FROM scratch\nADD {source} /r\n"));
    let ran = patient(&boxwright.command(&["build", "--progress", "plain", context.path()]));
    assert_eq!(ran.status, 1, "{source}: {ran}");
    canary.assert_unknown_to(&ran);
    ran.stderr
}

fn names_are_no_options_of_git_or_ssh(who: Who) {
    // CVE-2017-1000117 and its like
    let (boxwright, canary, served) = (Boxwright::of(who), Canary::of(who), Repositories::serve());
    let origin = served.make("repo");
    origin.write("file", "x");
    origin.commit("one");
    let run = format!("touch${{IFS}}{}/new", canary.path());
    for source in [
        format!("ssh://-oProxyCommand={run}/x"),
        format!("ssh://-oProxyCommand={run}@host/x"),
        format!("-oProxyCommand={run}@host:x"),
        format!("{}#--upload-pack={run}", served.url("repo")),
        format!("{}?ref=--upload-pack={run}", served.url("repo")),
        format!("{}?branch=../../../../{}", served.url("repo"), canary.path()),
        format!("{}?ref=main%0a-x", served.url("repo")),
    ] {
        refused(&boxwright, &canary, &source);
    }
    // An option that looks like a directory is one.
    let said = refused(
        &boxwright,
        &canary,
        &format!("{}?subdir=--output={}/new", served.url("repo"), canary.path()),
    );
    assert!(said.contains("failed to open subdir"), "{said}");
}

fn submodules_are_fetched_from_the_network_or_not_at_all(who: Who) {
    // CVE-2022-39253, CVE-2024-32002 and their like
    let (boxwright, canary, served) = (Boxwright::of(who), Canary::of(who), Repositories::serve());
    let inner = served.make("inner");
    inner.write("file", "x");
    let commit = inner.commit("one");
    for (n, url) in [
        format!("ext::sh -c touch% {}/new", canary.path()),
        canary.path().to_owned(),
        format!("file://{}", served.path().join("inner").display()),
        "-u./touch".to_owned(),
        "../../../inner".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("outer{n}");
        let outer = served.make(&name);
        outer.write(".gitmodules", format!("[submodule \"s\"]\n\tpath = sub\n\turl = \"{url}\"\n"));
        outer.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},sub")]);
        outer.git(&["add", ".gitmodules"]);
        outer.git(&["commit", "-q", "-m", "one"]);
        refused(&boxwright, &canary, &served.url(&name));
    }
}

fn hooks_and_filters_of_a_repository_do_not_run(who: Who) {
    let (boxwright, canary, served) = (Boxwright::of(who), Canary::of(who), Repositories::serve());
    let origin = served.make("repo");
    let touch = format!("touch {}/new", canary.path());
    origin.write(".gitattributes", "* filter=evil diff=evil\n");
    origin.write(".gitconfig", format!("[filter \"evil\"]\n\tsmudge = {touch}\n\tprocess = {touch}\n"));
    origin.write("hooks/post-checkout", format!("#!/bin/sh\n{touch}\n"));
    origin.write("file", "x");
    origin.commit("one");
    let context = Context::new(&format!("FROM scratch\nADD --keep-git-dir=true {} /r\n", served.url("repo")));
    let ran = patient(&boxwright.command(&["build", context.path()]));
    canary.assert_unknown_to(&ran);
    ran.ok();
}

fn entries_that_no_checkout_has_are_refused(who: Who) {
    let (boxwright, canary, served) = (Boxwright::of(who), Canary::of(who), Repositories::serve());
    let origin = served.make("repo");
    origin.write("hook", "#!/bin/sh\n");
    origin.commit("one");
    let blob = origin.git(&["rev-parse", "HEAD:hook"]);
    for name in [".git", ".GIT", ".."] {
        origin.write("tree", format!("100644 blob {blob}\tx\n"));
        let make = |input: &str| {
            let script = format!("git mktree < {input}");
            let mut shell = std::process::Command::new("sh");
            let ran = boxwright_testdata::run(shell.args(["-c", &script]).current_dir(&origin.dir));
            ran.ok().trim().to_owned()
        };
        let inner = make("tree");
        origin.write("tree", format!("040000 tree {inner}\t{name}\n"));
        let outer = make("tree");
        let commit = origin.git(&["commit-tree", "-m", "evil", &outer]);
        origin.git(&["update-ref", "refs/heads/evil", &commit]);
        refused(&boxwright, &canary, &format!("{}#evil", served.url("repo")));
    }
}

fn redirects_lead_somewhere_or_end(who: Who) {
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    let around = Server::start(|_, before| Reply::new(302, "").header("Location", format!("/{before}")));
    let said = refused(&boxwright, &canary, &format!("http://{}/f", around.address()));
    assert!(said.contains("more than 10 redirects"), "{said}");
    let local = format!("file://{}/file", canary.path());
    let away = Server::start(move |_, _| Reply::new(302, "").header("Location", local.clone()));
    let said = refused(&boxwright, &canary, &format!("http://{}/f", away.address()));
    assert!(said.contains("redirect to nowhere"), "{said}");
}

#[test]
fn names_of_urls_stay_in_their_directory() {
    let (boxwright, canary) = (Boxwright::new(), Canary::of(Who::Root));
    let server =
        Server::start(|_, _| Reply::new(200, "x").header("Content-Disposition", "filename=../../evil"));
    for path in ["..%2f..%2fevil", "%2e%2e", "a%00b", "x%0ay", "*", "[a", "%5c"] {
        let context = Context::new(&format!("FROM scratch\nADD http://{}/{path} /d/\n", server.address()));
        let listing = crate::sources::result(&boxwright, context.path(), &[]);
        assert_eq!(listing.entries.len(), 2, "{path}: {:?}", listing.entries);
        canary.assert_intact(path);
    }
}

#[test]
fn an_answer_without_end_ends_with_the_build() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (began, begun) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let _ = connection.read(&mut [0; 1024]);
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let _ = began.send(());
        while connection.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let boxwright = Boxwright::new();
    let context = Context::new(&format!("FROM scratch\nADD http://{address}/f /f\n"));
    let mut build = Running::start(&mut boxwright.command(&["build", context.path()]));
    begun.recv().unwrap();
    build.signal(Signal::INT);
    assert_eq!(build.wait(), 130);
    let tmp = boxwright.store().join("tmp");
    eventually("nothing is left", || std::fs::read_dir(&tmp).unwrap().count() == 0);
}

super::by_both!(
    names_are_no_options_of_git_or_ssh,
    submodules_are_fetched_from_the_network_or_not_at_all,
    hooks_and_filters_of_a_repository_do_not_run,
    entries_that_no_checkout_has_are_refused,
    redirects_lead_somewhere_or_end,
);
