//! Build contexts that are no directories: archives and Dockerfiles on standard input, URLs, repositories.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use boxwright_testdata::git::Repositories;
use boxwright_testdata::listing::Listing;
use boxwright_testdata::server::{Reply, Server};
use boxwright_testdata::tar::Tar;
use boxwright_testdata::{Ran, archive, run, run_with};

use crate::tool::{Boxwright, Context};

/// `build ARGS` with these bytes on standard input.
pub(crate) fn piped(boxwright: &Boxwright, args: &[&str], input: &[u8]) -> Ran {
    let file = boxwright.scratch("stdin");
    fs::write(&file, input).unwrap();
    let mut all = vec!["build", "--progress", "plain"];
    all.extend(args);
    run_with(&mut boxwright.command(&all), Stdio::from(File::open(file).unwrap()))
}

/// The files of a build that succeeds.
#[track_caller]
fn built(boxwright: &Boxwright, args: &[&str], input: &[u8]) -> Listing {
    let tar = boxwright.scratch("result.tar");
    let output = format!("type=tar,dest={}", tar.display());
    let mut all = vec!["-o", &output];
    all.extend(args);
    piped(boxwright, &all, input).ok();
    Listing::of_tar(&tar)
}

fn line(mode: &str, content: &str) -> String {
    format!("file {} {} {mode} 0:0", content.len(), &archive::sha256(content.as_bytes())[..16])
}

fn names(listing: &Listing) -> Vec<&str> {
    listing.entries.keys().map(String::as_str).collect()
}

fn project() -> Tar {
    Tar::new()
        .owner(1000, 1000)
        .file("./Dockerfile", 0o644, "FROM scratch\nCOPY a sub /r/\n")
        .file("./other", 0o644, "FROM scratch\nCOPY a /other\n")
        .file("./a", 0o640, "content of a")
        .dir("./sub", 0o755)
        .file("./sub/Dockerfile", 0o644, "FROM scratch\nCOPY sub/b /b\n")
        .file("./sub/b", 0o600, "content of b")
        .file("./.dockerignore", 0o644, "a\n")
}

#[test]
fn an_archive_on_standard_input_is_the_context_in_any_compression() {
    let boxwright = Boxwright::new();
    let plain = project().finish();
    let packed = |program: &str| {
        let file = boxwright.scratch("plain.tar");
        fs::write(&file, &plain).unwrap();
        let packer = Command::new(program).arg("-c").stdin(File::open(&file).unwrap()).output().unwrap();
        assert!(packer.status.success() && !packer.stdout.is_empty(), "{program}");
        packer.stdout
    };
    for input in [plain.clone(), packed("gzip"), packed("bzip2"), packed("xz"), packed("zstd")] {
        let listing = built(&boxwright, &["-"], &input);
        // Owners are those of the archive; nothing of a context from elsewhere is ignored.
        let a = line("0640", "content of a").replace("0:0", "1000:1000");
        assert_eq!(listing.entries["r/a"], a);
        assert_eq!(names(&listing), ["r", "r/Dockerfile", "r/a", "r/b"]);
    }
    piped(&boxwright, &["-"], &plain).says("[1/1] COPY a sub /r/\n#6 CACHED").ok();
}

#[test]
fn the_dockerfile_of_an_archive_may_have_another_name() {
    let boxwright = Boxwright::new();
    let input = project().finish();
    assert_eq!(names(&built(&boxwright, &["-f", "other", "-"], &input)), ["other"]);
    assert_eq!(names(&built(&boxwright, &["-f", "./sub/Dockerfile", "-"], &input)), ["b"]);
    let lower = Tar::new().file("dockerfile", 0o644, "FROM scratch\nCOPY dockerfile /\n").finish();
    assert_eq!(names(&built(&boxwright, &["-"], &lower)), ["dockerfile"]);
    let words = "failed to read dockerfile: open nosuch: no such file or directory";
    piped(&boxwright, &["-f", "nosuch", "-"], &input).fails_with(1).says(words);
    piped(&boxwright, &["-f", "sub", "-"], &input).fails_with(1).says("open sub: not a regular file");
    let checked = piped(&boxwright, &["--check", "-"], &input);
    checked.says("Check complete, no warnings found").ok();
}

#[test]
fn standard_input_may_be_just_a_dockerfile() {
    let boxwright = Boxwright::new();
    let text = b"FROM scratch\nCOPY <<EOF /made\nhere\nEOF\n";
    assert_eq!(names(&built(&boxwright, &["-"], text)), ["made"]);
    let missing = piped(&boxwright, &["-"], b"FROM scratch\nCOPY a /\n");
    missing.fails_with(1).says("\"/a\": not found").says("Dockerfile:2");
}

#[test]
fn other_standard_input_is_refused_with_a_reason() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch\n");
    let here = context.path();
    for (args, input, words) in [
        (&["-"][..], &b""[..], "standard input is empty"),
        (&["-"], b"PK\x03\x04\0\0\0\0", "neither a Dockerfile nor a tar archive"),
        (&["-"], &[0; 1024], "neither a Dockerfile nor a tar archive"),
        (&["-"], b"\x1f\x8b\x08 no gzip at all", "standard input is neither a Dockerfile nor a tar archive"),
        (&["-f", "-", "-"], b"FROM scratch\n", "can't use stdin for both build context and dockerfile"),
        (&["-f", "x", "-"], b"FROM scratch\n", "ambiguous Dockerfile source"),
        (&["-f", "-", here], &project().finish(), "standard input is an archive"),
    ] {
        let ran = piped(&boxwright, args, input);
        assert_ne!(ran.status, 0, "{ran}");
        ran.says(words);
    }
}

#[test]
fn a_url_gives_an_archive_or_a_dockerfile() {
    let boxwright = Boxwright::new();
    let server = Server::start(|request, _| match request.path.as_str() {
        "/project.tar" => Reply::new(200, project().finish()),
        "/df" => Reply::new(200, "FROM scratch\nCOPY context /own\n"),
        "/zip" => Reply::new(200, b"PK\x03\x04\0\0\0\0".to_vec()),
        _ => Reply::new(404, "no"),
    });
    let url = |path: &str| format!("http://{}/{path}", server.address());
    let listing = built(&boxwright, &[&url("project.tar")], b"");
    assert_eq!(names(&listing), ["r", "r/Dockerfile", "r/a", "r/b"]);
    assert_eq!(server.requests().len(), 1, "one build asks once");
    assert_eq!(names(&built(&boxwright, &["-f", "other", &url("project.tar")], b"")), ["other"]);
    let listing = built(&boxwright, &[&url("df")], b"");
    assert_eq!(listing.entries["own"], line("0600", "FROM scratch\nCOPY context /own\n"));
    // A Dockerfile of this machine over a context from elsewhere, and the other way round.
    let context = Context::new("FROM scratch\nCOPY a /mine\n").file("context", "local");
    let file = context.join("Dockerfile");
    let mine = built(&boxwright, &["-f", file.to_str().unwrap(), &url("project.tar")], b"");
    assert_eq!(names(&mine), ["mine"]);
    let text = b"FROM scratch\nCOPY a /typed\n";
    assert_eq!(names(&built(&boxwright, &["-f", "-", &url("project.tar")], text)), ["typed"]);
    let theirs = built(&boxwright, &["-f", &url("df"), context.path()], b"");
    assert_eq!(theirs.entries["own"], line("0644", "local"));
    piped(&boxwright, &[&url("zip")], b"").fails_with(1).says("neither a Dockerfile nor a tar archive");
    let secret = format!("http://user:s3cret@{}/nosuch", server.address());
    let ran = piped(&boxwright, &[&secret], b"").fails_with(1).says("invalid response status 404");
    ran.says("/nosuch").says_nothing_of("s3cret");
}

#[test]
fn a_repository_is_a_context_by_every_name() {
    let (served, boxwright) = (Repositories::serve(), Boxwright::new());
    let origin = served.make("repo");
    origin.write("Dockerfile", "FROM scratch AS git\nCOPY .git/HEAD /head\nFROM scratch\nCOPY . /\n");
    origin.write("file", "one");
    origin.write(".dockerignore", "file\n");
    origin.write("sub/dockerfile", "FROM scratch\nCOPY inner /inner\n");
    origin.write("sub/inner", "inside");
    let first = origin.commit("one");
    origin.git(&["tag", "v1"]);
    origin.write("file", "two");
    origin.commit("two");
    let url = served.url("repo");
    for (context, content) in [
        (url.clone(), "two"),
        (format!("{url}#v1"), "one"),
        (format!("{url}#{first}"), "one"),
        (format!("{url}?tag=v1"), "one"),
        (format!("{url}?branch=main&checksum="), ""),
        (format!("{url}?commit={first}"), "one"),
    ] {
        if content.is_empty() {
            piped(&boxwright, &[&context], b"").fails_with(1).says("query \"checksum\" has no value");
            continue;
        }
        let listing = built(&boxwright, &[&context], b"");
        assert_eq!(listing.entries["file"], line("0644", content), "{context}");
        assert!(!names(&listing).iter().any(|name| name.starts_with(".git/")), "{listing:?}");
    }
    assert_eq!(names(&built(&boxwright, &[&format!("{url}#:sub")], b"")), ["inner"]);
    assert_eq!(names(&built(&boxwright, &[&format!("{url}?ref=v1&subdir=sub")], b"")), ["inner"]);
    let ran = piped(&boxwright, &["-f", "sub/Dockerfile", &url], b"").fails_with(1);
    ran.says("\"/inner\": not found");
    let git = &["--target", "git"];
    let head = |more: &[&str]| piped(&boxwright, &[&git[..], more].concat(), b"");
    head(&[&url]).fails_with(1).says("\"/.git/HEAD\": not found");
    head(&[&format!("{url}?keep-git-dir")]).ok();
    head(&["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", &url]).ok();
    for (context, words) in [
        (format!("{url}#nosuch"), "repository does not contain ref nosuch"),
        (format!("{url}#:nosuch"), "failed to open subdir /nosuch"),
        (format!("{url}?what=ever"), "unexpected query \"what\""),
        (served.url("nosuch"), "failed to fetch remote"),
        (served.path().join("nosuch").display().to_string(), "unable to prepare context: path"),
    ] {
        piped(&boxwright, &[&context], b"").fails_with(1).says(words);
    }
}

#[test]
fn a_directory_is_meant_where_there_is_one() {
    let boxwright = Boxwright::new();
    let context = Context::new("").file("github.com/a/b/Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    let mut command = boxwright.command(&["build", "-q", "github.com/a/b"]);
    run(command.current_dir(context.path())).ok();
}
