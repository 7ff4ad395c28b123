//! Where COPY puts what: a table of bases, sources and destinations, done as a plan and written as it is read.

use super::*;

/// Entries before, sources, destination, entries after or the error.
type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str], &'a str, Result<&'a [&'a str], &'a str>);

const COPIES: &[Case<'_>] = &[
    ("a file to a new name", &["context/f=1"], &["f"], "/g", Ok(&["g=1"])),
    ("into a directory by its slash", &["context/f=1"], &["f"], "/d/", Ok(&["d/", "d/f=1"])),
    ("into a directory that is there", &["context/f=1", "base/d"], &["f"], "/d", Ok(&["d/", "d/f=1"])),
    ("missing parents", &["context/f=1"], &["f"], "/a/b/g", Ok(&["a/", "a/b/", "a/b/g=1"])),
    ("over a file", &["context/f=1", "base/g=0"], &["f"], "/g", Ok(&["g=1"])),
    (
        "a directory's content",
        &["context/d/x=1", "context/d/e/y=2"],
        &["d"],
        "/t",
        Ok(&["t/", "t/e/", "t/e/y=2", "t/x=1"]),
    ),
    ("all of the context", &["context/x=1"], &["."], "/", Ok(&["x=1"])),
    ("the empty source", &["context/x=1"], &[""], "/t/", Ok(&["t/", "t/x=1"])),
    ("merged directories", &["context/d/x=1", "base/t/y=2"], &["d"], "/t", Ok(&["t/", "t/x=1", "t/y=2"])),
    ("several sources", &["context/a=1", "context/b=2"], &["a", "b"], "/t/", Ok(&["t/", "t/a=1", "t/b=2"])),
    (
        "a pattern",
        &["context/a.c=1", "context/b.c=2", "context/b.h=3"],
        &["*.c"],
        "/",
        Ok(&["a.c=1", "b.c=2"]),
    ),
    (
        "a pattern of directories",
        &["context/p1/x=1", "context/p2/y=2"],
        &["p*"],
        "/t/",
        Ok(&["t/", "t/x=1", "t/y=2"]),
    ),
    (
        "a pattern in the middle",
        &["context/p1/x=1", "context/p2/x=2", "context/p2/y=3"],
        &["p*/y"],
        "/",
        Ok(&["y=3"]),
    ),
    ("a pattern without a match", &["context/x=1"], &["no*"], "/t/", Ok(&[])),
    ("a link is followed", &["context/l->d/f", "context/d/f=1"], &["l"], "/", Ok(&["l=1"])),
    ("a link in a tree stays one", &["context/d/l->f", "context/d/f=1"], &["d"], "/", Ok(&["f=1", "l->f"])),
    (
        "an absolute link stays in the context",
        &["context/l->/d", "context/d/f=1"],
        &["l"],
        "/t",
        Ok(&["t/", "t/f=1"]),
    ),
    (
        "through a link of the base",
        &["context/f=1", "base/usr/lib", "base/lib->usr/lib"],
        &["f"],
        "/lib/",
        Ok(&["lib->usr/lib", "usr/", "usr/lib/", "usr/lib/f=1"]),
    ),
    (
        "through a link to nowhere",
        &["context/f=1", "base/l->/var/x"],
        &["f"],
        "/l/g",
        Ok(&["l->/var/x", "var/", "var/x/", "var/x/g=1"]),
    ),
    ("onto a link", &["context/f=1", "base/l->t"], &["f"], "/l", Ok(&["l->t", "t=1"])),
    (
        "a link out of the image",
        &["context/f=1", "base/l->../../../etc"],
        &["f"],
        "/l/",
        Ok(&["etc/", "etc/f=1", "l->../../../etc"]),
    ),
    (
        "a file over a link in a directory",
        &["context/d/x=1", "base/t/x->y"],
        &["d"],
        "/t",
        Ok(&["t/", "t/x=1"]),
    ),
    ("a pattern in a missing directory", &["context/f=1"], &["no/*"], "/", Err("\"/no\": not found")),
    ("missing", &["context/f=1"], &["g"], "/", Err("\"/g\": not found")),
    ("missing below", &["context/f=1"], &["./a/../b//c"], "/", Err("\"/b/c\": not found")),
    (
        "a link out of the context",
        &["context/l->../base/secret", "base/secret=1"],
        &["l"],
        "/x",
        Err("\"/l\": not found"),
    ),
    ("a link to the host", &["context/l->/etc/passwd"], &["l"], "/x", Err("\"/l\": not found")),
    ("into a file", &["context/d/x=1", "base/t=0"], &["d"], "/t/", Err("mkdir /t: not a directory")),
    ("below a file", &["context/f=1", "base/t=0"], &["f"], "/t/u", Err("mkdir /t: not a directory")),
    (
        "a directory over a file",
        &["context/d/x=1", "base/t=0"],
        &["d"],
        "/t",
        Err("cannot copy to non-directory: /t"),
    ),
    (
        "a directory over a link",
        &["context/d/e/x=1", "base/t/e->f", "base/t/f"],
        &["d"],
        "/t",
        Err("cannot copy to non-directory: /t/e"),
    ),
    (
        "a file over a directory",
        &["context/d/x=1", "base/t/x"],
        &["d"],
        "/t",
        Err("cannot replace to directory /t/x with file"),
    ),
    ("a loop", &["context/f=1", "base/l->l"], &["f"], "/l/", Err("/l: too many levels of symbolic links")),
];

#[test]
fn copies_go_where_buildkit_puts_them() {
    for (name, entries, sources, dest, expected) in COPIES {
        let bench = Bench::new(entries);
        match (bench.try_run(vec![FileAction::Copy(bench.copy(sources, dest))]), expected) {
            (Ok(run), Ok(expected)) => {
                assert_eq!(run.list(), *expected, "{name}");
                let scanned = scan(run.layer.as_fd(), None, &Cancel::new().unwrap()).unwrap();
                assert_eq!(run.summary, Some(scanned), "{name}: the sum made in passing");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().ends_with(expected), "{name}: {error}"),
            (Ok(run), Err(expected)) => panic!("{name}: no error ({expected}), but {:?}", run.list()),
            (Err(error), Ok(_)) => panic!("{name}: {error}"),
        }
    }
}

#[test]
fn what_is_written_as_it_is_read_is_what_a_plan_gives() {
    let more: &[Case<'_>] = &[
        ("over other things", &["context/d/x/y=1", "base/t/x=0"], &["d"], "/t", Ok(&[])),
        ("a file over a directory", &["context/d/x=1", "base/t/x/y=0"], &["d"], "/t", Ok(&[])),
        ("nothing", &["context/d/", "base/t/y=0"], &["d"], "/t", Ok(&[])),
        ("nothing, to a new place", &["context/d/"], &["d"], "/a/t", Ok(&[])),
        ("directories over directories", &["context/d/a/b/c=1", "base/t/a/b/d=0"], &["d"], "/t/", Ok(&[])),
        ("a link over a directory", &["context/d/l->x", "base/t/l/x=0"], &["d"], "/t/", Ok(&[])),
    ];
    for (name, entries, sources, dest, _) in COPIES.iter().chain(more) {
        let ran = |after: &[FileAction]| {
            let bench = Bench::new(entries);
            let copy = bench.copy(sources, dest);
            let run = bench.try_run([&[FileAction::Copy(copy)], after].concat());
            run.map(|run| (run.list(), run.changed(), run.summary.is_some()))
                .map_err(|error| error.to_string())
        };
        // An action behind a copy, even one that does nothing, has it planned.
        assert_eq!(ran(&[]), ran(&[mkdir("/")]), "{name}");
    }
}
