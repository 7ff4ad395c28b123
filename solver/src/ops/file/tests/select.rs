//! What `--exclude`, `--parents` and `--chmod` make of a copy, from a directory of the host and from a snapshot alike.

use super::*;

/// Runs `copy` with the context as a directory of the host, and again with it as a snapshot: both must do the same.
fn both(bench: &Bench, copy: impl Fn() -> CopyAction) -> Result<Vec<String>, String> {
    let show = |run: Result<Run, FileError>| run.map(|run| run.list()).map_err(|error| error.to_string());
    let clear = || {
        fs::remove_dir_all(bench.path("layer")).unwrap();
        fs::create_dir(bench.path("layer")).unwrap();
    };
    clear();
    let host = show(bench.try_run(vec![FileAction::Copy(copy())]));
    clear();
    let tree = Arc::new(Tree::merged(vec![open(&bench.path("context"))]));
    let sources = HashMap::from([(bench.from, Source::Snapshot(tree))]);
    let snapshot = show(bench.try_run_from(vec![FileAction::Copy(copy())], &sources));
    assert_eq!(host, snapshot);
    host
}

/// Entries before, source, patterns, entries after.
type Case<'a> = (&'a [&'a str], &'a str, &'a [&'a str], &'a [&'a str]);

const TREE: &[&str] =
    &["context/d/a.o=1", "context/d/a.c=2", "context/d/s/b.o=3", "context/d/s/b.c=4", "context/e.o=5"];

#[test]
fn what_is_excluded_is_not_copied() {
    let cases: &[Case<'_>] = &[
        (TREE, "d", &["*.o"], &["t/", "t/a.c=2", "t/s/", "t/s/b.c=4", "t/s/b.o=3"]),
        (TREE, "d", &["**/*.o"], &["t/", "t/a.c=2", "t/s/", "t/s/b.c=4"]),
        (TREE, "d", &["s", "*.c"], &["t/", "t/a.o=1"]),
        (TREE, "d", &["s/*"], &["t/", "t/a.c=2", "t/a.o=1", "t/s/"]),
        (TREE, "d", &["*", "!s/b.c"], &["t/", "t/s/", "t/s/b.c=4"]),
        (TREE, ".", &["d", "!d/s"], &["t/", "t/d/", "t/d/s/", "t/d/s/b.c=4", "t/d/s/b.o=3", "t/e.o=5"]),
        (TREE, "d", &["*"], &["t/"]),
        // Patterns are relative to the source, so a source that is a file is out of their reach.
        (TREE, "e.o", &["*"], &["t/", "t/e.o=5"]),
        (TREE, "d/*", &["b.o", "*.c"], &["t/", "t/a.c=2", "t/a.o=1"]),
    ];
    for (entries, source, exclude, expected) in cases {
        let bench = Bench::new(entries);
        let exclude: Vec<String> = exclude.iter().map(|p| (*p).to_owned()).collect();
        let copied = both(&bench, || CopyAction { exclude: exclude.clone(), ..bench.copy(&[source], "/t/") });
        assert_eq!(copied.unwrap(), *expected, "{source} without {exclude:?}");
    }
    let bench = Bench::new(TREE);
    let bad = both(&bench, || CopyAction { exclude: vec!["[".into()], ..bench.copy(&["d"], "/t/") });
    assert!(bad.unwrap_err().contains("syntax error in pattern"));
}

/// Source, pattern below it, entries after or the error.
type ParentsCase<'a> = (&'a str, &'a str, Result<&'a [&'a str], &'a str>);

#[test]
fn parents_bring_the_directories_between() {
    let cases: &[ParentsCase<'_>] = &[
        ("/", "d/s/b.c", Ok(&["t/", "t/d/", "t/d/s/ 700", "t/d/s/b.c=4"])),
        ("/", "d/*/b.*", Ok(&["t/", "t/d/", "t/d/s/ 700", "t/d/s/b.c=4", "t/d/s/b.o=3"])),
        ("/", "**/*.c", Ok(&["t/", "t/d/", "t/d/a.c=2", "t/d/s/ 700", "t/d/s/b.c=4"])),
        ("/d", "s", Ok(&["t/", "t/s/ 700", "t/s/b.c=4", "t/s/b.o=3"])),
        ("/d", "*.c", Ok(&["t/", "t/a.c=2"])),
        ("/*", "s/b.c", Ok(&["t/", "t/s/ 700", "t/s/b.c=4"])),
        ("/", "no*", Ok(&["t/"])),
        ("/no*", "x", Ok(&[])),
        ("/", "no/x", Err("\"/no/x\": not found")),
        ("/d", "no", Err("\"/d/no\": not found")),
        ("/no", "x", Err("\"/no/x\": not found")),
        ("/", "", Err("\"/\": not found")),
        ("/", "l/b.c", Err("\"/l/b.c\": not found")),
        ("/l", "b.c", Ok(&["t/", "t/b.c=4"])),
    ];
    for (source, below, expected) in cases {
        let bench = Bench::new(TREE);
        fs::set_permissions(bench.path("context/d/s"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("d/s", bench.path("context/l")).unwrap();
        let below = Some((*below).to_owned());
        // A pattern before the pivot finds files, too, and they are copied as they are.
        fs::remove_file(bench.path("context/e.o")).unwrap();
        let copied = both(&bench, || CopyAction { below: below.clone(), ..bench.copy(&[source], "/t/") });
        match expected {
            Ok(expected) => {
                let usual = |list: Vec<String>| -> Vec<String> {
                    list.into_iter().filter(|entry| source != &"/*" || !entry.starts_with("t/l")).collect()
                };
                assert_eq!(
                    copied.map(usual).as_deref(),
                    Ok(&expected.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()[..]),
                    "{source} {below:?}"
                );
            }
            Err(expected) => assert!(
                copied.as_ref().is_err_and(|e| e.ends_with(expected)),
                "{source} {below:?}: {copied:?}"
            ),
        }
    }
}

#[test]
fn parents_that_are_there_keep_their_owner_and_get_the_mode() {
    let bench = Bench::new(&["context/d/s/f=1", "base/t/d/old=0"]);
    fs::set_permissions(bench.path("context/d"), fs::Permissions::from_mode(0o2750)).unwrap();
    std::os::unix::fs::chown(bench.path("base/t/d"), Some(3), Some(4)).unwrap();
    let copy = || CopyAction {
        below: Some("d/s/f".into()),
        exclude: vec!["d/s/no".into()],
        owner: owner("7"),
        ..bench.copy(&["/"], "/t")
    };
    let expected = ["t/", "t/d/ 2750 3:4", "t/d/old=0", "t/d/s/ 7:7", "t/d/s/f=1 7:7"];
    assert_eq!(both(&bench, copy).unwrap(), expected);
    let everything = CopyAction { exclude: vec!["d".into()], ..copy() };
    assert_eq!(both(&bench, || everything.clone()).unwrap(), ["t/", "t/d/ 3:4", "t/d/old=0"]);
}

#[test]
fn modes_change_each_file_by_itself() {
    let bench = Bench::new(&["context/d/x=1", "context/d/s/y=2", "context/d/l->x"]);
    fs::set_permissions(bench.path("context/d/x"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::set_permissions(bench.path("context/d/s"), fs::Permissions::from_mode(0o700)).unwrap();
    let run = |mode: &str| {
        both(&bench, || CopyAction { mode: Some(mode.parse().unwrap()), ..bench.copy(&["d"], "/n/t") })
            .unwrap()
    };
    let expected = ["n/", "n/t/", "n/t/l->x", "n/t/s/ 755", "n/t/s/y=2 644", "n/t/x=1 4755"];
    let shown = |list: &[&str]| -> Vec<String> {
        list.iter().map(|e| e.replace("s/ 755", "s/").replace(" 644", "")).collect()
    };
    assert_eq!(run("go+rX"), shown(&expected));
    assert_eq!(run("a=r,u+w"), ["n/", "n/t/", "n/t/l->x", "n/t/s/ 644", "n/t/s/y=2", "n/t/x=1"]);
    assert_eq!(
        run("4750"),
        ["n/ 750", "n/t/ 750", "n/t/l->x", "n/t/s/ 4750", "n/t/s/y=2 4750", "n/t/x=1 4750"]
    );
}

#[test]
fn hints_tell_where_and_what_was_meant() {
    let mut bench =
        Bench::new(&["context/src/main/app.c=1", "context/secret/key=2", "context/l->secret/key"]);
    bench.ignore = vec!["secret".into()];
    let hints = |source: &str, below: Option<&str>, sources: &HashMap<VertexId, Source>| {
        let copy = CopyAction {
            below: below.map(str::to_owned),
            place: crate::ir::Unkeyed("stage \"made\"".into()),
            ..bench.copy(&[source], "/")
        };
        match bench.try_run_from(vec![FileAction::Copy(copy)], sources) {
            Err(FileError::NotFound { hints, .. }) => hints,
            other => panic!("{source}: {:?}", other.map(|run| run.list())),
        }
    };
    let host = bench.sources();
    let place = Some("the build context, /context".to_owned());
    let of = |hints: Hints| (hints.place, hints.similar, hints.ignored_by);
    let similar = |paths: &[&str]| paths.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        of(hints("/src/mian/app.c", None, &host)),
        (place.clone(), similar(&["/src/main/app.c"]), None)
    );
    assert_eq!(of(hints("/src/mian/x*", None, &host)), (place.clone(), similar(&["/src/main"]), None));
    assert_eq!(
        of(hints("/", Some("src/main/ap.c"), &host)),
        (place.clone(), similar(&["/src/main/app.c"]), None)
    );
    assert_eq!(of(hints("/secret/key", None, &host)), (place, vec![], Some("secret".into())));
    assert_eq!(hints("/l", None, &host).leads_to.as_deref(), Some("secret/key"));
    assert_eq!(hints("/l*", None, &host).leads_to.as_deref(), Some("secret/key"));
    let tree = Arc::new(Tree::merged(vec![open(&bench.path("context"))]));
    let snapshot = HashMap::from([(bench.from, Source::Snapshot(tree))]);
    let place = Some("stage \"made\"".to_owned());
    assert_eq!(of(hints("/SRC", None, &snapshot)), (place, similar(&["/src"]), None));
}
