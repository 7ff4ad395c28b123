//! ADD of URLs and repositories: what arrives, what is asked for again, and what is said when nothing comes.

use std::fs;
use std::process::Command;

use boxwright_testdata::git::{Repositories, Repository};
use boxwright_testdata::listing::Listing;
use boxwright_testdata::server::{Reply, Request, Server};
use boxwright_testdata::{archive, run};

use crate::tool::{Boxwright, Context};

const DATE: &str = "Wed, 01 Jan 2020 00:00:00 GMT";
const DATE_SECONDS: i64 = 1_577_836_800;

/// Builds into a tar and lists it.
#[track_caller]
pub(crate) fn result(boxwright: &Boxwright, context: &str, args: &[&str]) -> Listing {
    let tar = boxwright.scratch("result.tar");
    let output = format!("type=tar,dest={}", tar.display());
    let mut all = vec!["build", "--progress", "plain", "-o", &output];
    all.extend(args);
    all.push(context);
    boxwright.ok(&all);
    Listing::of_tar(&tar)
}

fn digest(content: &str) -> String {
    archive::sha256(content.as_bytes())
}

/// A server of one file that knows tags.
fn tagged(content: &'static str) -> Server {
    Server::start(move |request, _| {
        let tag = format!("\"{}\"", digest(content));
        let same = request.header("if-none-match") == Some(&tag);
        let reply = Reply::new(if same { 304 } else { 200 }, if same { "" } else { content });
        reply.header("ETag", tag).header("Last-Modified", DATE)
    })
}

#[test]
fn a_file_arrives_once_and_keeps_its_time() {
    let (server, boxwright) = (tagged("content"), Boxwright::new());
    let url = format!("http://{}/dir/foo?a=b", server.address());
    let context =
        Context::new(&format!("FROM scratch\nADD {url} /dest/\nADD --chmod=0644 --chown=3:4 {url} /x\n"));
    let listing = result(&boxwright, context.path(), &[]);
    let hash = &digest("content")[..16];
    assert_eq!(listing.entries["dest/foo"], format!("file 7 {hash} 0600 0:0"));
    assert_eq!(listing.entries["x"], format!("file 7 {hash} 0644 3:4"));
    assert_eq!(listing.mtimes["dest/foo"], DATE_SECONDS);
    assert_eq!(server.requests().len(), 1, "two steps that want one file fetch it once");
    boxwright.build(&context, &[]).says("[1/2] ADD").says("CACHED").ok();
    let again = &server.requests()[1..];
    assert!(again.iter().all(|request| request.header("if-none-match").is_some()), "{again:?}");
}

#[test]
fn a_file_that_changed_is_fetched_and_one_that_did_not_rebuilds_nothing() {
    let server = Server::start(|_, before| Reply::new(200, if before < 2 { "one" } else { "two" }));
    let boxwright = Boxwright::with_busybox();
    let dockerfile =
        format!("FROM busybox\nADD http://{}/f /f\nRUN echo ran-$((1)) && cat /f\n", server.address());
    let context = Context::new(&dockerfile);
    boxwright.build(&context, &[]).says("ran-1").says("one").ok();
    // The server tells nothing that could be asked by: the bytes are compared.
    boxwright.build(&context, &[]).says_nothing_of("ran-1").ok();
    boxwright.build(&context, &[]).says("ran-1").says("two").ok();
}

#[test]
fn a_checksum_is_verified_and_spares_the_question() {
    let (server, boxwright) = (Server::start(|_, _| Reply::new(200, "content")), Boxwright::new());
    let add = |sum: &str| format!("FROM scratch\nADD --checksum={sum} http://{}/f /f\n", server.address());
    let right = format!("sha256:{}", digest("content"));
    let context = Context::new(&add(&right));
    for _ in 0..2 {
        boxwright.build(&context, &[]).ok();
    }
    assert_eq!(server.requests().len(), 1);
    let wrong = format!("sha256:{}", digest("other"));
    context.write("Dockerfile", add(&wrong));
    boxwright
        .build(&context, &[])
        .fails_with(1)
        .says("digest mismatch")
        .says(&wrong)
        .says(&right)
        .says("Dockerfile:2");
    context.write("Dockerfile", add("sha256:ab"));
    boxwright.build(&context, &[]).fails_with(1).says("invalid checksum digest length");
}

#[test]
fn an_archive_is_unpacked_only_when_that_is_asked_for() {
    let tar = boxwright_testdata::tar::Tar::new().dir("d", 0o755).file("d/x", 0o644, "in tar").finish();
    let (server, boxwright) = (Server::start(move |_, _| Reply::new(200, tar.clone())), Boxwright::new());
    let url = format!("http://{}/a.tar", server.address());
    let context = Context::new(&format!("FROM scratch\nADD {url} /kept/\nADD --unpack=true {url} /open/\n"));
    let entries = result(&boxwright, context.path(), &[]).entries;
    assert!(entries["kept/a.tar"].starts_with("file") && !entries.contains_key("kept/d"));
    assert!(entries["open/d/x"].starts_with("file 6") && !entries.contains_key("open/a.tar"));
}

#[test]
fn redirects_are_followed_without_the_login_and_nothing_tells_it() {
    let target = Server::start(|_, _| Reply::new(200, "content"));
    let location = format!("http://{}/real", target.address());
    let server =
        Server::start(move |request, _| match (request.path.as_str(), request.header("authorization")) {
            (_, None) => Reply::new(401, ""),
            ("/f", Some(_)) => Reply::new(302, "").header("Location", location.clone()),
            _ => Reply::new(404, "no"),
        });
    let boxwright = Boxwright::new();
    let url = |path: &str| format!("http://user:s3cr%65t@{}/{path}", server.address());
    let context = Context::new(&format!("FROM scratch\nADD {} /f\n", url("f")));
    let said = boxwright.build(&context, &["-t", "x"]).says_nothing_of("s3cr");
    said.ok();
    assert_eq!(server.requests()[0].header("authorization"), Some("Basic dXNlcjpzM2NyZXQ="));
    assert!(target.requests().iter().all(|request| request.header("authorization").is_none()));
    let history = boxwright.ok(&["history", "--no-trunc", "x"]);
    assert!(history.contains("ADD http://xxxxx@") && !history.contains("s3cr"), "{history}");
    let missing = Context::new(&format!("FROM scratch\nADD {} /f\n", url("missing")));
    let said =
        boxwright.build(&missing, &[]).fails_with(1).says("invalid response status 404").says("/missing");
    // The Dockerfile's own line is shown as it is written.
    assert!(
        said.stderr.lines().filter(|l| !l.contains("ADD http://user")).all(|l| !l.contains("s3cr")),
        "{said}"
    );
}

fn repository(served: &Repositories) -> Repository {
    let repository = served.make("repo");
    repository.write("Dockerfile", "FROM scratch\nCOPY file /\n");
    repository.write("file", "one\n");
    repository.write("dir/inner", "inside\n");
    repository.write("run.sh", "#!/bin/sh\n");
    run(Command::new("chmod").arg("755").arg(repository.dir.join("run.sh"))).ok();
    std::os::unix::fs::symlink("dir/inner", repository.dir.join("link")).unwrap();
    repository.write(".gitattributes", "ignored export-ignore\nfile export-subst\n");
    repository.write("ignored", "$Format:%H$\n");
    repository
}

#[test]
fn a_repository_arrives_as_a_checkout_would() {
    let (served, boxwright) = (Repositories::serve(), Boxwright::new());
    let origin = repository(&served);
    origin.commit("one");
    origin.git(&["tag", "-a", "v1", "-m", "first"]);
    let context = Context::new(&format!("FROM scratch\nADD {} /r\n", served.url("repo?tag=v1&mtime=commit")));
    let listing = result(&boxwright, context.path(), &[]);
    let expected = Listing::of_dir(&origin.dir);
    let ours = |name: &str| listing.entries.get(&format!("r/{name}"));
    for (name, line) in
        expected.entries.iter().filter(|(name, _)| !name.starts_with(".git/") && *name != ".git")
    {
        assert_eq!(ours(name), Some(line), "{name}");
    }
    assert_eq!(listing.entries.keys().filter(|name| name.starts_with("r/.git/")).count(), 0);
    assert_eq!(listing.mtimes["r/file"], DATE_SECONDS, "the commit's time");
    boxwright.build(&context, &[]).says("CACHED").ok();
}

#[test]
fn every_way_to_name_a_commit_leads_to_it() {
    let (served, boxwright) = (Repositories::serve(), Boxwright::new());
    let origin = repository(&served);
    let first = origin.commit("one");
    origin.git(&["tag", "-a", "v1", "-m", "first"]);
    origin.git(&["branch", "old/branch"]);
    origin.write("file", "two\n");
    let second = origin.commit("two");
    let tag = origin.git(&["rev-parse", "v1"]);
    let url = served.url("repo");
    let content = |source: &str, flags: &str| {
        let context = Context::new(&format!("FROM scratch\nADD {flags} {source} /r\n"));
        let entries = result(&boxwright, context.path(), &[]).entries;
        let is = |text: &str| entries["r/file"].contains(&digest(text)[..16]);
        if is("one\n") {
            1
        } else {
            assert!(is("two\n"), "{entries:?}");
            2
        }
    };
    for (source, which) in [
        (url.clone(), 2),
        (format!("{url}#main"), 2),
        (format!("{url}#v1"), 1),
        (format!("{url}#old/branch"), 1),
        (format!("{url}#{first}"), 1),
        (format!("{url}?branch=old/branch"), 1),
        (format!("{url}?tag=v1&checksum={}", &first[..8]), 1),
        (format!("{url}?tag=v1&checksum={tag}"), 1),
        (format!("{url}?fetch-by-commit&checksum={first}"), 1),
        (format!("{url}?commit={}", &second[..7]), 2),
    ] {
        assert_eq!(content(&source, ""), which, "{source}");
    }
    assert_eq!(content(&format!("{url}#v1"), &format!("--checksum={first}")), 1);
    for (source, words) in [
        (format!("{url}#nosuch"), "repository does not contain ref nosuch"),
        (format!("{url}?branch=v1"), "repository does not contain ref refs/heads/v1"),
        (format!("{url}?tag=v1&commit={second}"), "expected checksum to match"),
        (format!("{url}?commit={}", &first[..8]), "expected checksum to match"),
        (format!("{url}#v1:nosuch"), "failed to open subdir /nosuch"),
        (format!("{url}#v1:file"), "failed to open subdir /file"),
        (format!("{url}#v1:link"), "failed to open subdir /link"),
        (served.url("nosuch"), "failed to fetch remote"),
    ] {
        let context = Context::new(&format!("FROM scratch\nADD {source} /r\n"));
        boxwright.build(&context, &[]).fails_with(1).says(words).says("Dockerfile:2");
    }
    let context = Context::new(&format!("FROM scratch\nADD {url}?subdir=dir /r\n"));
    let entries = result(&boxwright, context.path(), &[]).entries;
    assert_eq!(entries.keys().map(String::as_str).collect::<Vec<_>>(), ["r", "r/inner"]);
}

#[test]
fn a_branch_that_moved_is_fetched_and_one_that_did_not_rebuilds_nothing() {
    let (served, boxwright) = (Repositories::serve(), Boxwright::with_busybox());
    let origin = repository(&served);
    origin.commit("one");
    let url = served.url("repo");
    let context = Context::new(&format!("FROM busybox\nADD {url} /r\nRUN echo ran-$((1)) && cat /r/file\n"));
    boxwright.build(&context, &[]).says("ran-1").says("one").ok();
    boxwright.build(&context, &[]).says_nothing_of("ran-1").ok();
    origin.write("file", "two\n");
    origin.commit("two");
    boxwright.build(&context, &[]).says("ran-1").says("two").ok();
    // A commit with the same files is another commit, and gives the same result.
    origin.commit("three");
    boxwright.build(&context, &[]).says_nothing_of("ran-1").ok();
}

#[test]
fn submodules_come_along_with_theirs() {
    let (served, boxwright) = (Repositories::serve(), Boxwright::new());
    for (name, below) in [("deep", None), ("mid", Some("deep")), ("repo", Some("mid"))] {
        let repository = served.make(name);
        repository.write("file", name);
        if let Some(below) = below {
            let url = if below == "mid" { format!("../{below}") } else { served.url(below) };
            let from = format!("file://{}", served.path().join(below).display());
            repository.git(&["submodule", "add", "-q", &from, "sub"]);
            repository.git(&["config", "-f", ".gitmodules", "submodule.sub.url", &url]);
        }
        repository.commit("all");
    }
    let url = served.url("repo");
    let files = |source: &str| -> Vec<String> {
        let context = Context::new(&format!("FROM scratch\nADD {source} /r\n"));
        let entries = result(&boxwright, context.path(), &[]).entries;
        entries.into_keys().filter(|name| name.ends_with("file")).collect()
    };
    assert_eq!(files(&url), ["r/file", "r/sub/file", "r/sub/sub/file"]);
    assert_eq!(files(&format!("{url}?submodules=false")), ["r/file"]);
    assert_eq!(files(&format!("{url}?subdir=sub/sub")), ["r/file"]);
}

#[test]
fn a_kept_git_directory_is_one_that_git_takes() {
    let (served, boxwright) = (Repositories::serve(), Boxwright::new());
    let origin = repository(&served);
    let commit = origin.commit("one");
    origin.git(&["tag", "v1"]);
    let context = Context::new(&format!("FROM scratch\nADD --keep-git-dir {}#v1 /r\n", served.url("repo")));
    let tar = boxwright.scratch("kept.tar");
    boxwright.build(&context, &["-o", &format!("type=tar,dest={}", tar.display())]).ok();
    let dir = boxwright.scratch("kept");
    fs::create_dir(&dir).unwrap();
    run(Command::new("tar").arg("-xpf").arg(&tar).arg("-C").arg(&dir)).ok();
    let clone = Repository { dir: dir.join("r") };
    assert_eq!(clone.git(&["rev-parse", "HEAD"]), commit);
    assert_eq!(clone.git(&["status", "--porcelain"]), "");
    assert_eq!(clone.git(&["log", "--format=%s"]), "one");
    assert_eq!(clone.git(&["remote", "get-url", "origin"]), served.url("repo"));
    clone.git(&["fsck", "--no-dangling"]);
}

#[test]
fn a_plain_file_server_is_enough_for_git() {
    let (served, boxwright) = (Repositories::serve(), Boxwright::new());
    let origin = repository(&served);
    origin.commit("one");
    origin.git(&["tag", "v1"]);
    origin.write("file", "two\n");
    origin.commit("two");
    origin.git(&["repack", "-adq"]);
    origin.git(&["update-server-info"]);
    let root = served.path().to_owned();
    let server = Server::start(move |request: &Request, _| {
        let path = request.path.split('?').next().unwrap_or_default();
        match fs::read(root.join(path.trim_start_matches('/'))) {
            Ok(bytes) if request.header("authorization").is_some() => Reply::new(200, bytes),
            Ok(_) => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=x"),
            Err(_) => Reply::new(404, "no"),
        }
    });
    let url = format!("http://user:s3cret@{}/repo/.git#v1", server.address());
    let context = Context::new(&format!("FROM scratch\nADD {url} /r\n"));
    boxwright.build(&context, &["-t", "x"]).says_nothing_of("s3cret").ok();
    assert!(!boxwright.ok(&["history", "--no-trunc", "x"]).contains("s3cret"));
    let known = run(Command::new("grep").args(["-r", "s3cret"]).arg(boxwright.store()));
    assert_eq!(known.status, 1, "the store holds no password: {known}");
}

#[test]
fn without_git_its_absence_is_told() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch\nADD git://127.0.0.1:1/repo /r\n");
    let ran = run(boxwright.command(&["build", context.path()]).env("PATH", "/nowhere"));
    ran.fails_with(1).says("git is needed to read repositories");
}

#[test]
fn stages_named_by_a_filter_run_again() {
    let boxwright = Boxwright::with_busybox();
    let stage = |name: &str| format!("FROM busybox AS {name}\nRUN echo ran-$((1))-{name} > /f && cat /f\n");
    let context = Context::new(&format!("{}{}FROM a\nCOPY --from=b /f /g\n", stage("a"), stage("b")));
    boxwright.build(&context, &[]).says("ran-1-a").says("ran-1-b").ok();
    boxwright.build(&context, &["--no-cache-filter", "x,B"]).says("ran-1-b").says_nothing_of("ran-1-a").ok();
    boxwright
        .build(&context, &["--no-cache", "--no-cache-filter=a"])
        .fails_with(1)
        .says("--no-cache and --no-cache-filter cannot currently be used together");
}
