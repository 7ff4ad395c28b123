//! File vertices over real directories: each case writes a base and sources, runs the actions into a layer directory,
//! and looks at the base with that layer on top.

mod select;
mod since;
mod unpack;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use boxwright_cache::fs::walk::Context;
use boxwright_cache::layer::{DirSink, LayerSummary, Summing, scan};
use boxwright_cache::snapshot::owner::OwnerView;
use boxwright_cache::snapshot::tree::Kind;

use super::source::HostDir;
use super::*;
use crate::ir::{About, Definition, LocalSource, Op, SourceOp};

/// A base, a context and the layer that is made.
struct Bench {
    dir: tempfile::TempDir,
    ignore: Vec<String>,
    from: VertexId,
}

/// What one run gave.
struct Run {
    tree: Tree,
    layer: OwnedFd,
    summary: Option<LayerSummary>,
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

impl Bench {
    /// Each line makes an entry in one of the two: `base/dir/`, `base/file=content`, `context/link->target`.
    fn new(entries: &[&str]) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        for top in ["base", "context", "layer", "spool"] {
            fs::create_dir(dir.path().join(top)).unwrap();
        }
        let bench = Bench { dir, ignore: Vec::new(), from: vertex() };
        entries.iter().for_each(|entry| bench.make(entry));
        bench
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    fn make(&self, entry: &str) {
        let parents = |path: &Path| fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some((path, target)) = entry.split_once("->") {
            parents(&self.path(path));
            symlink(target, self.path(path)).unwrap();
        } else if let Some((path, content)) = entry.split_once('=') {
            parents(&self.path(path));
            fs::write(self.path(path), content).unwrap();
        } else {
            fs::create_dir_all(self.path(entry)).unwrap();
        }
    }

    fn sources(&self) -> HashMap<VertexId, Source> {
        let context = Context::new(open(&self.path("context")), &self.ignore).unwrap();
        let dir = HostDir { path: "/context".into(), ignore: self.ignore.clone(), since: None };
        HashMap::from([(self.from, Source::Host(Arc::new(context), Arc::new(dir)))])
    }

    fn try_run(&self, actions: Vec<FileAction>) -> Result<Run, FileError> {
        self.try_run_from(actions, &self.sources())
    }

    fn try_run_from(
        &self,
        actions: Vec<FileAction>,
        sources: &HashMap<VertexId, Source>,
    ) -> Result<Run, FileError> {
        let base = || open(&self.path("base"));
        let layer = open(&self.path("layer"));
        let mut sink = DirSink::new(layer.try_clone().unwrap(), OwnerView::current());
        let mut summing = Summing::new(&mut sink);
        let op = FileOp { base: None, actions };
        let cancel = Cancel::new().unwrap();
        let tree = Arc::new(Tree::merged(vec![base()]));
        execute(&op, tree, sources, open(&self.path("spool")).as_fd(), &mut summing, &cancel)?;
        let summary = summing.finish().unwrap();
        let implied = sink.finish().unwrap();
        assert_eq!(implied, boxwright_cache::layer::Implied::default(), "a plan leaves nothing open");
        Ok(Run { tree: Tree::merged(vec![base(), layer.try_clone().unwrap()]), layer, summary })
    }

    fn run(&self, actions: Vec<FileAction>) -> Run {
        self.try_run(actions).unwrap_or_else(|e| panic!("{e}"))
    }

    fn copy(&self, sources: &[&str], dest: &str) -> CopyAction {
        CopyAction {
            from: Some(self.from),
            sources: sources.iter().map(|s| (*s).to_owned()).collect(),
            dest: dest.to_owned(),
            allow_empty_wildcard: true,
            ..CopyAction::default()
        }
    }
}

impl Run {
    /// Everything that is there: `dir/`, `file=content`, `link->target`; what is not of the plain mode and owner has
    /// them behind it.
    fn list(&self) -> Vec<String> {
        self.tree.walk("").unwrap().skip(1).map(|node| self.show(&node.unwrap())).collect()
    }

    /// The same, of what the layer itself holds.
    fn changed(&self) -> Vec<String> {
        let layer = Tree::plain(self.layer.try_clone().unwrap());
        layer.walk("").unwrap().skip(1).map(|node| node.unwrap().path.display().to_string()).collect()
    }

    fn show(&self, node: &boxwright_cache::snapshot::tree::Node) -> String {
        let path = node.path.display();
        let (text, usual) = match &node.kind {
            Kind::Dir => (format!("{path}/"), 0o755),
            Kind::Symlink(target) => return format!("{path}->{}", target.display()),
            Kind::File => {
                let content = self.tree.read_file(&node.path, 1 << 20).unwrap().unwrap();
                (format!("{path}={}", String::from_utf8_lossy(&content)), 0o644)
            }
            other => (format!("{path} {other:?}"), 0o644),
        };
        let mode = if node.meta.mode == usual { String::new() } else { format!(" {:o}", node.meta.mode) };
        let owner = match (node.meta.uid, node.meta.gid) {
            (0, 0) => String::new(),
            (uid, gid) => format!(" {uid}:{gid}"),
        };
        text + &mode + &owner
    }
}

fn vertex() -> VertexId {
    Definition::default().add(Op::Source(SourceOp::Local(LocalSource::default())), About::default())
}

fn mkdir(path: &str) -> FileAction {
    FileAction::Mkdir(MkdirAction { path: path.into(), mode: 0o755, owner: None, time: None })
}

fn owner(text: &str) -> Option<OwnerSpec> {
    Some(OwnerSpec(text.into()))
}

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

#[test]
fn only_what_changes_is_in_the_layer() {
    let bench = Bench::new(&["context/f=1", "base/a/b/old=0", "base/other=0"]);
    let run = bench.run(vec![mkdir("/a/b"), FileAction::Copy(bench.copy(&["f"], "/a/b/"))]);
    assert_eq!(run.changed(), ["a", "a/b", "a/b/f"]);
    let kept = Tree::plain(open(&bench.path("base"))).lookup("a/b", false).unwrap().unwrap().meta;
    assert_eq!(
        run.tree.lookup("a/b", false).unwrap().unwrap().meta,
        kept,
        "parents keep mode, owner and time"
    );
}

#[test]
fn a_directory_that_is_there_is_no_change() {
    let bench = Bench::new(&["base/srv/app", "base/l->srv"]);
    assert!(bench.run(vec![mkdir("/srv/app"), mkdir("/l/app"), mkdir("/")]).changed().is_empty());
    assert_eq!(bench.run(vec![mkdir("/l/new/er")]).changed(), ["srv", "srv/new", "srv/new/er"]);
    let bench = Bench::new(&["base/f=1"]);
    let error = bench.try_run(vec![mkdir("/f/d")]).err().unwrap();
    assert_eq!(error.to_string(), "mkdir /f: not a directory");
}

#[test]
fn modes_times_and_groups_of_names_are_kept() {
    let bench = Bench::new(&["context/d/sub/f=1", "context/d/run=2", "base/t/sub/old=0"]);
    fs::set_permissions(bench.path("context/d/sub"), fs::Permissions::from_mode(0o2770)).unwrap();
    fs::set_permissions(bench.path("context/d/run"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(bench.path("context/d/run"), bench.path("context/d/again")).unwrap();
    let run = bench.run(vec![FileAction::Copy(bench.copy(&["d"], "/t"))]);
    assert_eq!(
        run.list(),
        ["t/", "t/again=2 4755", "t/run=2 4755", "t/sub/ 2770", "t/sub/f=1", "t/sub/old=0"]
    );
    let node = |path: &str| run.tree.lookup(path, false).unwrap().unwrap();
    assert!(node("t/run").group.is_some() && node("t/run").group == node("t/again").group);
    let source = Tree::plain(open(&bench.path("context"))).lookup("d/sub/f", false).unwrap().unwrap();
    assert_eq!(node("t/sub/f").meta.mtime, source.meta.mtime);
}

#[test]
fn chown_and_chmod_are_set_on_everything_that_is_made() {
    let passwd = "base/etc/passwd=root:x:0:0::/:\napp:x:1000:1001::/:\n1000:x:0:0::/:\n";
    let bench = Bench::new(&["context/d/x=1", "context/d/e/y=2", passwd, "base/etc/group=web:x:33:\n"]);
    let run = |spec: &str, mode: Option<&str>| {
        let mode = mode.map(|mode| mode.parse().unwrap());
        let action = CopyAction { owner: owner(spec), mode, ..bench.copy(&["d"], "/new/t") };
        bench
            .try_run(vec![FileAction::Copy(action)])
            .map(|run| run.list().split_off(3))
            .map_err(|e| e.to_string())
    };
    let all = |who: &str| {
        vec![
            format!("new/ {who}"),
            format!("new/t/ {who}"),
            format!("new/t/e/ {who}"),
            format!("new/t/e/y=2 {who}"),
            format!("new/t/x=1 {who}"),
        ]
    };
    assert_eq!(run("app", None).unwrap(), all("1000:1001"));
    assert_eq!(run("app:web", None).unwrap(), all("1000:33"));
    assert_eq!(run("7", None).unwrap(), all("7:7"));
    assert_eq!(run("1000:8", None).unwrap(), all("1000:8"), "a user that is called 1000 is not asked");
    let modes =
        ["new/ 700 7:7", "new/t/ 700 7:7", "new/t/e/ 700 7:7", "new/t/e/y=2 700 7:7", "new/t/x=1 700 7:7"];
    assert_eq!(run("7", Some("0700")).unwrap(), modes);
    assert_eq!(run("nobody", None).unwrap()[0], "new/", "who is not there is root, as in BuildKit");
    assert_eq!(run("app:nogroup", None).unwrap(), all("1000:1001"));
    for bad in ["2147483648", "-1", "0:4294967296"] {
        assert!(run(bad, None).unwrap_err().starts_with(&format!("invalid owner {bad:?}")), "{bad}");
    }
}

#[test]
fn hostile_passwd_files_are_refused_at_once() {
    let bench = Bench::new(&["context/f=1", "base/etc"]);
    let run = || {
        let action = CopyAction { owner: owner("app"), ..bench.copy(&["f"], "/f") };
        bench.try_run(vec![FileAction::Copy(action)])
    };
    let attempt = || run().err().unwrap().to_string();
    let path = bench.path("base/etc/passwd");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    assert!(attempt().contains("not a regular file"), "{}", attempt());
    fs::remove_file(&path).unwrap();
    fs::File::create(&path).unwrap().set_len(2 << 30).unwrap();
    assert!(attempt().contains("too large"), "{}", attempt());
    fs::remove_file(&path).unwrap();
    symlink("/canary", &path).unwrap();
    bench.make("base/canary=app:x:8:9::/:\n");
    assert!(run().unwrap().list().contains(&"f=1 8:9".to_owned()), "a link leads into the image");
}

#[test]
fn what_is_ignored_is_not_there() {
    let mut bench = Bench::new(&["context/a/keep=1", "context/a/drop=2", "context/b/x=3", "context/l->b/x"]);
    bench.ignore = ["a", "!a/keep", "b"].map(String::from).to_vec();
    let run = bench.run(vec![FileAction::Copy(bench.copy(&["."], "/t/"))]);
    assert_eq!(run.list(), ["t/", "t/a/", "t/a/keep=1", "t/l->b/x"]);
    for (source, line) in [("b", "b"), ("b/x", "b"), ("a/drop", "a")] {
        let error = bench.try_run(vec![FileAction::Copy(bench.copy(&[source], "/t/"))]).err();
        let Some(FileError::NotFound { path, hints }) = error else { panic!("{source}: {error:?}") };
        assert_eq!((path, hints.ignored_by.as_deref()), (format!("/{source}"), Some(line)));
    }
    let error = bench.try_run(vec![FileAction::Copy(bench.copy(&["l"], "/t/"))]).err();
    assert!(
        matches!(error, Some(FileError::NotFound { .. })),
        "a link to what is ignored leads nowhere: {error:?}"
    );
}

#[test]
fn a_slip_of_the_hand_gets_a_hint() {
    let bench = Bench::new(&["context/src/requirements.txt=1"]);
    let error = bench.try_run(vec![FileAction::Copy(bench.copy(&["src/requirments.txt"], "/"))]).err();
    let Some(FileError::NotFound { hints, .. }) = error else { panic!("{error:?}") };
    assert_eq!(hints.similar, ["/src/requirements.txt"]);
}

#[test]
fn from_a_snapshot_owners_are_kept() {
    let bench = Bench::new(&["context/d/f=1", "context/d/l->f"]);
    std::os::unix::fs::chown(bench.path("context/d/f"), Some(5), Some(6)).unwrap();
    let tree = Arc::new(Tree::merged(vec![open(&bench.path("context"))]));
    let sources = HashMap::from([(bench.from, Source::Snapshot(tree))]);
    let run =
        bench.try_run_from(vec![FileAction::Copy(bench.copy(&["/d/l", "/d/*"], "/t/"))], &sources).unwrap();
    assert_eq!(run.list(), ["t/", "t/f=1 5:6", "t/l=1 5:6"]);
    let error =
        bench.try_run_from(vec![FileAction::Copy(bench.copy(&["/x"], "/t/"))], &sources).err().unwrap();
    assert!(error.to_string().ends_with("\"/x\": not found"));
}

#[test]
fn an_empty_stage_has_nothing_to_copy() {
    let bench = Bench::new(&[]);
    let copy = |source| vec![FileAction::Copy(CopyAction { from: None, ..bench.copy(&[source], "/t/") })];
    let error = bench.try_run(copy("/x")).err().unwrap();
    assert!(error.to_string().ends_with("\"/x\": not found"), "{error}");
    assert!(bench.run(copy("/*")).changed().is_empty());
}

#[test]
fn a_name_of_a_document_is_no_path() {
    for name in ["n", "/n", "../../n", "x/n"] {
        let bench = Bench::new(&["base/d/"]);
        let (name, data) = (name.to_owned(), b"1".to_vec());
        let file = MkfileAction { name, dest: "/d".into(), data, mode: None, owner: None };
        assert_eq!(bench.run(vec![FileAction::Mkfile(file)]).changed(), ["d", "d/n"]);
    }
}

#[test]
fn a_raised_token_stops_a_copy() {
    let bench = Bench::new(&["context/f=1"]);
    let cancel = Cancel::new().unwrap();
    let op = FileOp { base: None, actions: vec![FileAction::Copy(bench.copy(&["f"], "/f"))] };
    let mut sink = DirSink::new(open(&bench.path("layer")), OwnerView::current());
    cancel.raise();
    let (tree, spool) = (Arc::new(Tree::merged(Vec::new())), open(&bench.path("spool")));
    let error = execute(&op, tree, &bench.sources(), spool.as_fd(), &mut sink, &cancel).unwrap_err();
    assert!(matches!(error, FileError::Cache(boxwright_cache::Error::Cancelled)));
}

#[test]
fn later_actions_see_earlier_ones() {
    let bench = Bench::new(&["context/a/f=1", "context/b/f=2", "base/x->y"]);
    let file = MkfileAction {
        name: "n".into(),
        dest: "/x".into(),
        data: b"3".to_vec(),
        mode: Some("0600".parse().unwrap()),
        owner: owner("4:5"),
    };
    let run = bench.run(vec![
        mkdir("/y"),
        FileAction::Copy(bench.copy(&["a"], "/x")),
        FileAction::Copy(bench.copy(&["b"], "/y/")),
        FileAction::Mkfile(file),
    ]);
    assert_eq!(run.list(), ["x->y", "y/", "y/f=2", "y/n=3 600 4:5"]);
    assert_eq!(run.changed(), ["y", "y/f", "y/n"]);
}

/// Nothing outside of the layer was written by any of this: the canary is what it was.
#[test]
fn the_base_and_the_context_are_left_alone() {
    let entries = &["context/d/x=1", "base/t->/", "base/etc/x=0"];
    let bench = Bench::new(entries);
    let before = snapshot(&bench);
    bench.run(vec![FileAction::Copy(bench.copy(&["d"], "/t/etc/"))]);
    assert_eq!(snapshot(&bench), before);
}

fn snapshot(bench: &Bench) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for top in ["base", "context"] {
        for node in Tree::plain(open(&bench.path(top))).walk("").unwrap() {
            let node = node.unwrap();
            all.insert(format!("{top}/{}", node.path.display()), format!("{:?} {:?}", node.kind, node.meta));
        }
    }
    all
}
