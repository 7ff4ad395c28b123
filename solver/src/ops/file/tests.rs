//! File vertices over real directories: each case writes a base and sources, runs the actions into a layer directory,
//! and looks at the base with that layer on top.

mod owners;
mod places;
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
    for (name, dest) in ["/", "..", ".", ""].into_iter().flat_map(|name| [(name, "/d/"), (name, "/new/")]) {
        let bench = Bench::new(&["base/d/"]);
        let (name, data) = (name.to_owned(), b"1".to_vec());
        let file = MkfileAction { name, dest: dest.to_owned(), data, mode: None, owner: None };
        let error = bench.try_run(vec![FileAction::Mkfile(file)]).err().unwrap();
        assert_eq!(error.to_string(), format!("cannot replace to directory {dest} with file"));
    }
}

#[test]
fn a_nul_in_a_path_divides_no_names() {
    let bench = Bench::new(&["context/f=1", "context/d/f=1"]);
    for (source, dest) in [("f", "/x\0y"), ("f", "/x\0y/"), ("d", "/x\0y"), ("d", "/x/y\0")] {
        let error = bench.try_run(vec![FileAction::Copy(bench.copy(&[source], dest))]).err().unwrap();
        assert!(error.to_string().ends_with("there is a NUL in it"), "{error}");
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
