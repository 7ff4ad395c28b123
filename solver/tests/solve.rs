//! What runs, what is found, and in which order: graphs of exec vertices over a real store, with an executor that
//! counts its calls and writes one file.

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Barrier, Mutex};

use boxwright_cache::digest::Digest;
use boxwright_cache::oci::Platform;
use boxwright_cache::record::local::Lookup;
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::store::ActiveLayer;
use boxwright_cache::{Cancel, Store};
use boxwright_solver::executor::{ExecError, ExecSpec, Executor, Left};
use boxwright_solver::ir::{
    About, BindMount, Definition, ExecOp, GitSource, HttpSource, Mount, MountSource, NetworkMode, Op,
    SecurityMode, SourceOp, Unkeyed, VertexId,
};
use boxwright_solver::{
    Env, Event, FetchError, How, HttpPin, LogStream, Material, Remote, SolveError, Solved, SolvedVertex,
    solve,
};
use rustix::fs::{Mode, OFlags};

/// Runs `write NAME CONTENT`, `take NAME CONTENT` (from where no key tells of), `fail`, `wait` (until cancelled) and `meet`
/// (until another one meets it).
#[derive(Default)]
struct Counting {
    ran: Mutex<Vec<String>>,
    meeting: Option<Barrier>,
}

impl Executor for Counting {
    fn run(
        &self,
        spec: &ExecSpec,
        layer: &mut ActiveLayer,
        log: &mut (dyn FnMut(LogStream, &[u8]) + Send),
        cancel: &Cancel,
    ) -> Result<Left, ExecError> {
        self.ran.lock().unwrap().push(spec.args.join(" "));
        log(LogStream::Stdout, b"hello\n");
        match spec.args[0].as_str() {
            "fail" => return Err(ExecError::Exit { code: 7 }),
            "wait" => loop {
                cancel.check()?;
                std::thread::yield_now();
            },
            "meet" => {
                self.meeting.as_ref().unwrap().wait();
            }
            _ => {}
        }
        let name = spec.args.get(1).map_or("file", String::as_str);
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(layer.fs().as_fd(), name, flags, Mode::from_raw_mode(0o644)).unwrap();
        let content = spec.args.get(2).map_or("", String::as_str);
        rustix::io::write(&file, content.as_bytes()).unwrap();
        Ok(if spec.args[0] == "take" { Left::ForThisBuild } else { Left::ForAll })
    }
}

/// Has a repository and a URL, which are what `now` says, and counts what it is asked.
struct Elsewhere<'a> {
    store: &'a Store,
    now: &'a Mutex<String>,
    asked: &'a Mutex<Vec<&'static str>>,
}

impl Elsewhere<'_> {
    fn layer(&self, asked: &'static str, content: &str, cancel: &Cancel) -> Snapshot {
        self.asked.lock().unwrap().push(asked);
        let layer = self.store.new_layer().unwrap();
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(layer.fs(), "file", flags, Mode::from_raw_mode(0o644)).unwrap();
        rustix::io::write(&file, content.as_bytes()).unwrap();
        Snapshot::default().with(layer.commit(cancel).unwrap())
    }
}

impl Remote for Elsewhere<'_> {
    fn pin_http(&self, source: &HttpSource, cancel: &Cancel) -> Result<HttpPin, FetchError> {
        let now = self.now.lock().unwrap();
        if *now == "gone" {
            return Err(FetchError::Refused("gone".into()));
        }
        let snapshot = source.checksum.is_none().then(|| self.layer("pin http", &now, cancel));
        let digest = source.checksum.unwrap_or_else(|| Digest::of(now.as_bytes()));
        Ok(HttpPin { digest, modified: None, snapshot })
    }

    fn fetch_http(&self, _: &HttpSource, cancel: &Cancel) -> Result<Snapshot, FetchError> {
        Ok(self.layer("fetch http", &self.now.lock().unwrap(), cancel))
    }

    fn pin_git(&self, _: &GitSource, _: &Cancel) -> Result<String, FetchError> {
        Ok(self.now.lock().unwrap().clone())
    }

    fn fetch_git(&self, _: &GitSource, commit: &str, cancel: &Cancel) -> Result<Snapshot, FetchError> {
        Ok(self.layer("fetch git", commit, cancel))
    }
}

fn exec(definition: &mut Definition, root: Option<VertexId>, args: &str) -> VertexId {
    exec_with(definition, root, args, Vec::new(), false)
}

fn exec_with(
    definition: &mut Definition,
    root: Option<VertexId>,
    args: &str,
    mounts: Vec<Mount>,
    no_cache: bool,
) -> VertexId {
    let op = Op::Exec(ExecOp {
        root,
        args: args.split(' ').map(str::to_owned).collect(),
        env: Vec::new(),
        unkeyed_env: Unkeyed::default(),
        cwd: "/".into(),
        user: String::new(),
        mounts,
        secret_env: Vec::new(),
        network: NetworkMode::Default,
        security: SecurityMode::Sandbox,
        devices: Vec::new(),
        hostname: None,
        hosts: Vec::new(),
        platform: Platform::host(),
    });
    definition.add(op, About { name: args.into(), no_cache, ..About::default() })
}

fn bind(from: VertexId) -> Mount {
    let source = MountSource::Bind(BindMount { from: Some(from), selector: "/".into() });
    Mount { target: "/from".into(), source, read_only: true }
}

struct Bench {
    dir: tempfile::TempDir,
    executor: Counting,
    now: Mutex<String>,
    asked: Mutex<Vec<&'static str>>,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            dir: tempfile::tempdir().unwrap(),
            executor: Counting::default(),
            now: Mutex::default(),
            asked: Mutex::default(),
        }
    }

    fn solve(&self, definition: &Definition, output: VertexId) -> Result<(Solved, Vec<Event>), SolveError> {
        self.solve_telling(definition, output, None)
    }

    fn solve_telling(
        &self,
        definition: &Definition,
        output: VertexId,
        results: Option<Sender<SolvedVertex>>,
    ) -> Result<(Solved, Vec<Event>), SolveError> {
        let store = Store::open(self.dir.path()).unwrap();
        let (events, received) = boxwright_solver::event::channel();
        let env = Env {
            store: &store,
            executor: &self.executor,
            remote: &Elsewhere { store: &store, now: &self.now, asked: &self.asked },
            images: HashMap::new(),
            locals: HashMap::new(),
            imports: &[],
            results,
            jobs: 2,
            cutoff: true,
            record: true,
            allowed: boxwright_solver::Allowed::default(),
            events,
            cancel: Cancel::new().unwrap(),
        };
        let solved = solve(definition, &[output], &env);
        drop(env);
        solved.map(|s| (s, received.collect()))
    }

    /// What was fetched since the last call, while things elsewhere were as `now` says.
    fn fetched(&self, now: &str, definition: &Definition, output: VertexId) -> Vec<&'static str> {
        now.clone_into(&mut self.now.lock().unwrap());
        self.solve(definition, output).unwrap();
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// What ran since the last call.
    fn ran(&self) -> Vec<String> {
        let mut ran = std::mem::take(&mut *self.executor.ran.lock().unwrap());
        ran.sort();
        ran
    }
}

#[test]
fn a_second_build_runs_nothing_and_asks_only_for_the_output() {
    let bench = Bench::new();
    let mut definition = Definition::default();
    let a = exec(&mut definition, None, "write a 1");
    let b = exec(&mut definition, Some(a), "write b 2");
    let (first, events) = bench.solve(&definition, b).unwrap();
    assert_eq!(bench.ran(), ["write a 1", "write b 2"]);
    assert!(
        events
            .iter()
            .any(|e| matches!(e, Event::Log { vertex, bytes, .. } if *vertex == a && bytes == b"hello\n"))
    );
    let (second, events) = bench.solve(&definition, b).unwrap();
    assert!(bench.ran().is_empty());
    assert_eq!((second.results[&b].how, second.results[&a].how), (How::Cached, How::Free));
    let diff_ids = |s: &Solved| s.results[&b].snapshot.as_ref().unwrap().diff_ids();
    assert_eq!(diff_ids(&first), diff_ids(&second));
    assert_eq!(events.iter().filter(|e| matches!(e, Event::Cached { .. })).count(), 2);
}

#[test]
fn what_no_key_tells_of_and_what_stands_on_it_is_for_one_build() {
    let bench = Bench::new();
    let mut definition = Definition::default();
    let before = exec(&mut definition, None, "write a 1");
    let taken = exec(&mut definition, Some(before), "take b 2");
    let after = exec(&mut definition, Some(taken), "write c 3");
    let (sender, told) = channel();
    let store = Store::open(bench.dir.path()).unwrap();
    let beside = exec_with(&mut definition, None, "write d 4", vec![bind(taken)], false);
    let output = exec_with(&mut definition, Some(after), "write e 5", vec![bind(beside)], false);
    bench.solve_telling(&definition, output, Some(sender)).unwrap();
    assert_eq!(bench.ran(), ["take b 2", "write a 1", "write c 3", "write d 4", "write e 5"]);
    assert_eq!(told.iter().map(|result| result.vertex).collect::<Vec<_>>(), [before]);
    let (solved, _) = bench.solve(&definition, output).unwrap();
    assert_eq!(bench.ran(), ["take b 2", "write c 3", "write d 4", "write e 5"]);
    for (vertex, result) in &solved.results {
        let kept = store.record(Lookup::Definition(result.definition)).unwrap();
        assert_eq!(kept.is_some(), *vertex == before, "{vertex:?}");
    }
}

#[test]
fn what_changed_and_what_stands_on_it_runs() {
    let bench = Bench::new();
    let graph = |line: &str| {
        let mut definition = Definition::default();
        let a = exec(&mut definition, None, "write a 1");
        let b = exec(&mut definition, Some(a), line);
        let c = exec(&mut definition, Some(b), "write c 3");
        (definition, c)
    };
    let (definition, output) = graph("write b 2");
    bench.solve(&definition, output).unwrap();
    bench.ran();
    let (definition, output) = graph("write b changed");
    bench.solve(&definition, output).unwrap();
    assert_eq!(bench.ran(), ["write b changed", "write c 3"]);
}

#[test]
fn an_equal_result_cuts_the_rebuild_off() {
    let bench = Bench::new();
    let graph = |line: &str| {
        let mut definition = Definition::default();
        let b = exec(&mut definition, None, line);
        let c = exec(&mut definition, Some(b), "write c 3");
        (definition, b, c)
    };
    let (definition, _, output) = graph("write b same");
    let (first, _) = bench.solve(&definition, output).unwrap();
    bench.ran();
    let (definition, b, output) = graph("write b same --comment");
    let (second, _) = bench.solve(&definition, output).unwrap();
    assert_eq!(bench.ran(), ["write b same --comment"]);
    assert_eq!(second.results[&b].how, How::Substituted);
    assert_eq!(second.results[&output].how, How::CachedByContents);
    let diff_ids = |s: &Solved| s.results[&output].snapshot.as_ref().unwrap().diff_ids();
    assert_eq!(first.results.len(), 2);
    assert_eq!(diff_ids(&second).len(), 2);
}

#[test]
fn no_cache_runs_but_records() {
    let bench = Bench::new();
    let graph = |no_cache: bool| {
        let mut definition = Definition::default();
        let a = exec_with(&mut definition, None, "write a 1", Vec::new(), no_cache);
        (definition, a)
    };
    for (no_cache, runs) in [(true, 1), (true, 1), (false, 0)] {
        let (definition, output) = graph(no_cache);
        bench.solve(&definition, output).unwrap();
        assert_eq!(bench.ran().len(), runs);
    }
}

#[test]
fn a_vertex_that_no_output_needs_never_runs() {
    let bench = Bench::new();
    let mut definition = Definition::default();
    exec(&mut definition, None, "write unneeded 1");
    let b = exec(&mut definition, None, "write b 2");
    bench.solve(&definition, b).unwrap();
    assert_eq!(bench.ran(), ["write b 2"]);
}

#[test]
fn independent_vertices_run_at_the_same_time() {
    let mut bench = Bench::new();
    bench.executor.meeting = Some(Barrier::new(2));
    let mut definition = Definition::default();
    let a = exec(&mut definition, None, "meet a");
    let b = exec(&mut definition, None, "meet b");
    let both = exec_with(&mut definition, Some(a), "write c 3", vec![bind(b)], false);
    // Each waits for the other inside its run: this ends only if they run at the same time.
    bench.solve(&definition, both).unwrap();
    assert_eq!(bench.ran(), ["meet a", "meet b", "write c 3"]);
}

#[test]
fn a_failure_names_its_vertex_and_stops_what_runs_beside_it() {
    let bench = Bench::new();
    let mut definition = Definition::default();
    let failing = exec(&mut definition, None, "fail");
    let waiting = exec(&mut definition, None, "wait");
    let both = exec_with(&mut definition, Some(failing), "write c 3", vec![bind(waiting)], false);
    let error = bench.solve(&definition, both).unwrap_err();
    assert!(matches!(&error, SolveError::Vertices(failed) if failed[0].0 == failing));
    assert_eq!(error.to_string(), "exit code: 7");
    assert!(!bench.ran().contains(&"write c 3".to_owned()));
    // What the failed step left, where the disk has room for it.
    assert!(std::fs::read_dir(bench.dir.path().join("layers")).unwrap().count() <= 1);
    let litter = std::fs::read_dir(bench.dir.path().join("tmp")).unwrap().count();
    assert_eq!(litter, 0, "what was being made is gone");
}

#[test]
fn two_builds_at_once_run_a_shared_step_once() {
    let bench = Bench::new();
    let mut definition = Definition::default();
    let a = exec(&mut definition, None, "write a 1");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| bench.solve(&definition, a).unwrap());
        }
    });
    assert_eq!(bench.ran(), ["write a 1"]);
}

#[test]
fn every_vertex_leaves_its_field_list() {
    let bench = Bench::new();
    let mut definition = Definition::default();
    let a = exec(&mut definition, None, "write a 1");
    bench.solve(&definition, a).unwrap();
    let fields = recorded_fields(bench.dir.path());
    assert!(
        fields.contains(r#""kind":"exec/2""#) && fields.contains(r#"["args","[\"write\",\"a\",\"1\"]"]"#),
        "{fields}"
    );
}

fn recorded_fields(root: &Path) -> String {
    let store = Store::open(root).unwrap();
    store.record_fields().unwrap().join("\n")
}

#[test]
fn a_commit_is_fetched_once_and_not_at_all_for_what_is_cached() {
    let bench = Bench::new();
    let mut definition = Definition::default();
    let git = GitSource { remote: "https://u:p@host/x.git".into(), ..GitSource::default() };
    let source = definition.add(Op::Source(SourceOp::Git(git)), About::default());
    let step = exec_with(&mut definition, None, "write a 1", vec![bind(source)], false);
    assert_eq!(bench.fetched("one", &definition, step), ["fetch git"]);
    assert_eq!(bench.ran(), ["write a 1"]);
    assert_eq!(bench.fetched("one", &definition, step), [""; 0]);
    assert_eq!(bench.fetched("two", &definition, step), ["fetch git"]);
    assert_eq!(bench.ran(), ["write a 1"]);
    let (solved, _) = bench.solve(&definition, step).unwrap();
    let material = Material::Git { remote: "https://xxxxx@host/x.git".into(), commit: "two".into() };
    assert_eq!(solved.materials, [material]);
    let store = Store::open(bench.dir.path()).unwrap();
    assert!(store.record_fields().unwrap().iter().all(|fields| !fields.contains("u:p")));
}

#[test]
fn a_url_with_a_checksum_is_fetched_when_it_is_needed_and_others_when_they_are_pinned() {
    let bench = Bench::new();
    let graph = |checksum: Option<Digest>| {
        let mut definition = Definition::default();
        let http = HttpSource { url: "http://host/f".into(), name: "f".into(), checksum };
        let source = definition.add(Op::Source(SourceOp::Http(http)), About::default());
        let step = exec_with(&mut definition, None, "write a 1", vec![bind(source)], false);
        (definition, step)
    };
    let (definition, step) = graph(Some(Digest::of(b"one")));
    assert_eq!(bench.fetched("one", &definition, step), ["fetch http"]);
    assert_eq!(bench.fetched("other", &definition, step), [""; 0]);
    let (definition, step) = graph(None);
    assert_eq!(bench.fetched("three", &definition, step), ["pin http"]);
    assert_eq!(bench.fetched("three", &definition, step), ["pin http"]);
    assert_eq!(bench.ran(), ["write a 1", "write a 1"]);
    "gone".clone_into(&mut bench.now.lock().unwrap());
    assert!(matches!(bench.solve(&definition, step), Err(SolveError::Vertices(_))));
}

#[test]
fn what_stands_on_a_step_without_cache_is_found_by_contents_alone() {
    let bench = Bench::new();
    let graph = |content: &str, no_cache: bool| {
        let mut definition = Definition::default();
        let a = exec_with(&mut definition, None, &format!("write a {content}"), Vec::new(), no_cache);
        let b = exec(&mut definition, Some(a), "write b 2");
        (definition, b)
    };
    for (no_cache, ran) in [(false, &["write a 1", "write b 2"][..]), (true, &["write a 1"]), (false, &[])] {
        let (definition, output) = graph("1", no_cache);
        bench.solve(&definition, output).unwrap();
        assert_eq!(bench.ran(), ran);
    }
}
