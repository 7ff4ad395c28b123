//! `SOURCE_DATE_EPOCH`: where the time of a build is read from, and what gets it.

use boxwright_testdata::git::Repositories;
use boxwright_testdata::listing::Listing;
use boxwright_testdata::server::{Reply, Server};
use boxwright_testdata::{Ran, run, tar::Tar};

use crate::tool::{Boxwright, Context};

/// Builds and tags `x`.
fn build(boxwright: &Boxwright, context: &str, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = boxwright.command(&["build", "--progress", "plain", "-t", "x"]);
    run(command.args(args).arg(context).env_remove("SOURCE_DATE_EPOCH").envs(env.iter().copied()))
}

/// The times of the image and of its new history entries, each once.
#[track_caller]
fn times(boxwright: &Boxwright, ran: &Ran) -> Vec<String> {
    assert_eq!(ran.status, 0, "{ran}");
    let config = boxwright.inspect("x");
    let history = boxwright.ok(&["history", "--no-trunc", "--human=false", "x"]);
    let created = history.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
    let mut all: Vec<String> = created.map(|at| at[..19].to_owned()).collect();
    all.push(config["Created"].as_str().unwrap()[..19].to_owned());
    all.sort();
    all.dedup();
    all
}

#[test]
fn a_number_is_the_time_of_everything_new() {
    let boxwright = Boxwright::new();
    let context = Context::new(
        "ARG SOURCE_DATE_EPOCH=1000000000\n\
         FROM scratch\nARG SOURCE_DATE_EPOCH\nLABEL at=$SOURCE_DATE_EPOCH\nWORKDIR /made\nCOPY Dockerfile .\n",
    );
    for (args, env, at, label) in [
        (&[][..], &[][..], "2001-09-09T01:46:40", "1000000000"),
        (&["--build-arg", "SOURCE_DATE_EPOCH=1"], &[("SOURCE_DATE_EPOCH", "2")], "1970-01-01T00:00:01", "1"),
        (&[], &[("SOURCE_DATE_EPOCH", "2")], "1970-01-01T00:00:02", "2"),
    ] {
        let ran = build(&boxwright, context.path(), args, env);
        assert_eq!(times(&boxwright, &ran), [at], "{args:?}");
        assert_eq!(boxwright.inspect("x")["Config"]["Labels"]["at"], label);
    }
    let now = build(&boxwright, context.path(), &["--build-arg", "SOURCE_DATE_EPOCH="], &[]);
    assert!(times(&boxwright, &now)[0].as_str() > "2024", "an empty one takes it back");
    let tar = boxwright.scratch("x.tar");
    let output = format!("type=tar,dest={}", tar.display());
    assert_eq!(build(&boxwright, context.path(), &["-o", &output], &[]).status, 0);
    assert_eq!(Listing::of_tar(&tar).mtimes["made"], 1_000_000_000);
}

#[test]
fn a_build_is_as_old_as_its_source() {
    let boxwright = Boxwright::with_busybox();
    let archive = Tar::new()
        .mtime(50)
        .file("new", 0o644, "1")
        .mtime(40)
        .file("old", 0o644, "1")
        .mtime(60)
        .dir("d", 0o755)
        .finish();
    let far = Tar::new().pax(b'x', &[("mtime", "1099511627776")]).file("far", 0o644, "1").finish();
    let server = Server::start(move |request, _| match request.path.as_str() {
        "/dated.tar" => {
            Reply::new(200, archive.clone()).header("Last-Modified", "Thu, 01 Jan 1970 01:00:00 GMT")
        }
        "/far.tar" => Reply::new(200, far.clone()),
        _ => Reply::new(200, archive.clone()),
    });
    let context = |file: &str| {
        Context::new(&format!(
            "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD http://{}/{file} /\n\
             FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo $SOURCE_DATE_EPOCH > /epoch\n",
            server.address()
        ))
    };
    for (file, epoch) in [("dated.tar", "3600"), ("plain.tar", "50")] {
        let ran = build(&boxwright, context(file).path(), &[], &[]);
        assert_eq!(ran.status, 0, "{ran}");
        assert_eq!(boxwright.output_of("x", &["cat", "/epoch"]).trim(), epoch, "{file}");
    }
    let ran = build(&boxwright, context("far.tar").path(), &[], &[]);
    assert!(ran.status == 1 && ran.stderr.contains("no image can tell the time 1099511627776"), "{ran}");
    let repositories = Repositories::serve();
    let repository = repositories.make("r");
    repository.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    repository.commit("first");
    let url = format!("{}#main", repositories.url("r"));
    let ran = build(&boxwright, &url, &["--build-arg", "SOURCE_DATE_EPOCH=context"], &[]);
    assert_eq!(times(&boxwright, &ran), ["2020-01-01T00:00:00"], "the commit's");
    let named = Context::new("ARG SOURCE_DATE_EPOCH=other\nFROM scratch\nCOPY Dockerfile /\n");
    let ran = build(&boxwright, named.path(), &["--build-context", &format!("other={url}")], &[]);
    assert_eq!(times(&boxwright, &ran), ["2020-01-01T00:00:00"]);
}

#[test]
fn what_names_nothing_is_refused() {
    let boxwright = Boxwright::new();
    let context = Context::new("ARG SOURCE_DATE_EPOCH=noon\nFROM scratch\nCOPY Dockerfile /\n");
    let ran = build(&boxwright, context.path(), &[], &[]);
    assert!(ran.status == 1 && ran.stderr.contains("invalid SOURCE_DATE_EPOCH: noon"), "{ran}");
    assert!(ran.stderr.contains("Dockerfile:1:1"), "{ran}");
}
