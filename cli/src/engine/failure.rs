//! Why a build failed, with what a report needs: the place in the Dockerfile and the step's last output.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;

use boxwright_frontend::Diagnostic;
use boxwright_frontend::source::LineIndex;
use boxwright_solver::executor::ExecError;
use boxwright_solver::ir::Op;
use boxwright_solver::ops::file::{FileError, Hints};
use boxwright_solver::{Definition, Event, SolveError, Span, VertexError, VertexId};

use super::tail::Tail;
use super::{foreign, shortage};

/// A Dockerfile as it was read.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// For messages.
    pub name: String,
    pub text: String,
}

#[derive(Debug)]
pub enum BuildFailure {
    Cancelled,
    /// One of them at least is an error; what the checks had found before comes first.
    Because(Vec<Cause>),
}

/// One reason.
#[derive(Clone, Debug)]
pub struct Cause {
    pub diagnostic: Diagnostic,
    /// What its span is in; none when it is about no place.
    pub source: Option<Source>,
    /// What the failed step said.
    pub log: Option<StepLog>,
    /// Whether what a step left is kept.
    pub kept: Option<Kept>,
}

/// The output of a step, as far as it was kept.
#[derive(Clone, Debug, Default)]
pub struct StepLog {
    pub name: String,
    pub lines: Vec<String>,
    /// How many lines came before these.
    pub earlier: usize,
}

/// The place of a step among those of builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub build: String,
    /// From 1.
    pub step: usize,
}

/// What of this machine may be why.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here<'a> {
    pub(super) store: &'a Path,
    /// Where emulators are looked for.
    pub(super) emulators: &'a OsStr,
}

impl std::fmt::Display for BuildFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BuildFailure::Cancelled => f.write_str("canceled"),
            BuildFailure::Because(causes) => {
                let errors = causes.iter().filter(|c| c.diagnostic.is_error());
                f.write_str(&errors.map(|c| c.diagnostic.title()).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

impl BuildFailure {
    /// What the parser found wrong.
    pub(super) fn of_syntax(diagnostics: &[Diagnostic], source: &Source) -> BuildFailure {
        let worded = |d: &Diagnostic| match d.span.first_line {
            0 => d.message.clone(),
            line => format!("dockerfile parse error on line {line}: {}", d.message),
        };
        of(diagnostics, source, worded)
    }

    /// What can't be lowered.
    pub(super) fn of_meaning(diagnostics: &[Diagnostic], source: &Source) -> BuildFailure {
        of(diagnostics, source, |d| d.message.clone())
    }

    pub(crate) fn after_warnings(self, warnings: &[Diagnostic], source: &Source) -> BuildFailure {
        match self {
            BuildFailure::Cancelled => BuildFailure::Cancelled,
            BuildFailure::Because(causes) => {
                let warned = warnings.iter().map(|warning| Cause::new(warning.clone(), source));
                BuildFailure::Because(warned.chain(causes).collect())
            }
        }
    }

    /// Which step of which build it was, if what it left is kept.
    pub(super) fn set_step(&mut self, step: Option<(String, usize)>) {
        if let BuildFailure::Because(causes) = self
            && let Some(kept) = causes.iter_mut().map(|cause| &mut cause.kept).find(|kept| kept.is_some())
        {
            *kept = step.map(|(build, step)| Kept { build, step });
        }
    }

    /// The step of which it is kept what it left.
    pub(crate) fn kept(&self) -> Option<Kept> {
        match self {
            BuildFailure::Cancelled => None,
            BuildFailure::Because(causes) => causes.iter().find_map(|cause| cause.kept.clone()),
        }
    }

    /// Another thing that may help.
    pub(crate) fn add_hint(&mut self, hint: String) {
        if let BuildFailure::Because(causes) = self
            && let Some(cause) = causes.iter_mut().find(|cause| cause.diagnostic.is_error())
        {
            cause.diagnostic.hints.push(hint);
        }
    }

    pub(crate) fn without_warnings(mut self) -> BuildFailure {
        if let BuildFailure::Because(causes) = &mut self {
            causes.retain(|cause| cause.diagnostic.is_error());
        }
        self
    }

    pub(super) fn of_solve(
        error: SolveError,
        definition: &Definition,
        source: &Source,
        logs: &Logs,
        here: Here<'_>,
    ) -> BuildFailure {
        let cause = |(vertex, error): &(VertexId, VertexError)| {
            let span = span_of(definition, *vertex).unwrap_or_default();
            let span = missing(error).and_then(|path| word(source, span, path)).unwrap_or(span);
            let mut diagnostic = Diagnostic::error(message_of(definition, *vertex, error), span);
            let log = logs.of(*vertex, &definition.vertex(*vertex).about.name);
            diagnostic.hints = hints_of(&definition.vertex(*vertex).op, error, here.emulators);
            diagnostic.hints.extend(lack_of_room(error, log.as_ref(), here.store));
            let kept = matches!(error, VertexError::Exec(error) if error.is_of_process()).then(Kept::default);
            Cause { log, kept, ..Cause::new(diagnostic, source) }
        };
        match error {
            SolveError::Cancelled => BuildFailure::Cancelled,
            SolveError::Cache(error) => {
                let mut diagnostic = Diagnostic::error(error.to_string(), Span::default());
                diagnostic.hints.extend(shortage::help(&error, here.store));
                BuildFailure::Because(vec![Cause::new(diagnostic, source)])
            }
            SolveError::Vertices(failed) if failed.iter().any(|(_, error)| error.is_cancelled()) => {
                BuildFailure::Cancelled
            }
            SolveError::Vertices(failed) => BuildFailure::Because(failed.iter().map(cause).collect()),
        }
    }
}

impl Cause {
    fn new(diagnostic: Diagnostic, source: &Source) -> Cause {
        let source = (diagnostic.span.first_line > 0).then(|| source.clone());
        Cause { diagnostic, source, log: None, kept: None }
    }
}

fn of(diagnostics: &[Diagnostic], source: &Source, words: impl Fn(&Diagnostic) -> String) -> BuildFailure {
    let worded = |d: &Diagnostic| if d.is_error() { words(d) } else { d.message.clone() };
    let causes =
        diagnostics.iter().map(|d| Cause::new(Diagnostic { message: worded(d), ..d.clone() }, source));
    BuildFailure::Because(causes.collect())
}

/// Where a vertex comes from; a source that several steps share, where the first of them does.
fn span_of(definition: &Definition, vertex: VertexId) -> Option<Span> {
    let own = definition.vertex(vertex).about.span;
    own.or_else(|| {
        let users = definition.iter().filter(|(_, v)| v.op.inputs().contains(&vertex));
        users.filter_map(|(_, v)| v.about.span).next()
    })
}

fn message_of(definition: &Definition, vertex: VertexId, error: &VertexError) -> String {
    let message = match error {
        // No process ran that could have given a code.
        VertexError::Exec(error @ ExecError::Start { .. }) if !error.is_of_process() => error.to_string(),
        VertexError::Exec(ExecError::Start { code, message }) => format!("exit code: {code}: {message}"),
        VertexError::Exec(
            error @ (ExecError::Exit { .. } | ExecError::Killed { .. } | ExecError::TimedOut { .. }),
        ) => error.to_string(),
        other => return other.to_string(),
    };
    unsuccessful(definition, vertex, &message)
}

/// The source that is not there.
fn missing(error: &VertexError) -> Option<&str> {
    match error {
        VertexError::File(FileError::NotFound { path, .. }) => Some(path.trim_start_matches('/')),
        _ => None,
    }
}

/// Where within `span` the Dockerfile has the word `path`, if it is written there as it is.
fn word(source: &Source, span: Span, path: &str) -> Option<Span> {
    let text = source.text.get(span.start..span.end)?;
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_whitespace() || "\"',".contains(c));
    let (at, _) = text.match_indices(path).filter(|(_, found)| !found.is_empty()).find(|(at, _)| {
        let before = text[..*at].trim_end_matches(['.', '/']);
        ends(before.chars().next_back())
            && ends(text[at + path.len()..].trim_start_matches('/').chars().next())
    })?;
    let lines = LineIndex::new(&source.text);
    Some(lines.span(span.start + at..span.start + at + path.len()))
}

/// What may explain the error.
fn hints_of(op: &Op, error: &VertexError, emulators: &OsStr) -> Vec<String> {
    match (op, error) {
        (_, VertexError::File(FileError::NotFound { hints, .. })) => hints_of_missing(hints),
        (_, VertexError::Exec(ExecError::TimedOut { .. })) => {
            vec!["--step-timeout says how long a step may run".to_owned()]
        }
        (Op::Exec(exec), VertexError::Exec(ExecError::Start { message, .. })) => {
            foreign::help(message, &exec.platform, emulators).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// What a file system lacks, if that is why; a process tells it in the words of the C library.
fn lack_of_room(error: &VertexError, log: Option<&StepLog>, store: &Path) -> Option<String> {
    let lines = log.map_or(&[][..], |log| log.last(LAST_WORDS));
    match error {
        VertexError::Exec(ExecError::Exit { .. })
            if lines.iter().any(|line| line.contains("No space left on device")) =>
        {
            shortage::help_at(ErrorKind::StorageFull, store, store)
        }
        error => shortage::help(error.cache()?, store),
    }
}

fn hints_of_missing(hints: &Hints) -> Vec<String> {
    let place = hints.place.iter().map(|place| format!("it was looked for in {place}"));
    let ignored = hints.ignored_by.iter().map(|line| format!("the ignore file excludes it by {line:?}"));
    let link =
        hints.leads_to.iter().map(|to| format!("it is a link to {to}, and there is nothing for this build"));
    let similar = hints.similar.iter().map(|name| format!("did you mean {name}?"));
    place.chain(ignored).chain(link).chain(similar).collect()
}

/// BuildKit's words for a process that failed; scripts look for them.
pub(crate) fn failed_process(definition: &Definition, vertex: VertexId, message: &str) -> String {
    if message.starts_with("exit code: ") {
        return unsuccessful(definition, vertex, message);
    }
    message.to_owned()
}

fn unsuccessful(definition: &Definition, vertex: VertexId, message: &str) -> String {
    match &definition.vertex(vertex).op {
        Op::Exec(exec) => {
            format!("process {:?} did not complete successfully: {message}", exec.args.join(" "))
        }
        _ => message.to_owned(),
    }
}

/// How many of a step's last lines may tell why it failed.
const LAST_WORDS: usize = 12;
/// How many lines of a step's output are kept, for the report of its failure.
const LINES: usize = 1000;
/// And how many bytes of them.
const BYTES: usize = 256 << 10;

/// The last output of each step.
#[derive(Debug, Default)]
pub(super) struct Logs {
    tails: HashMap<VertexId, Tail>,
}

impl Logs {
    pub(super) fn hear(&mut self, event: &Event) {
        match event {
            Event::Log { vertex, bytes, .. } => {
                self.tails.entry(*vertex).or_insert_with(|| Tail::of(BYTES)).add(bytes);
            }
            // The log of a step that went well is of no use any more.
            Event::Finished { vertex, .. } => {
                self.tails.remove(vertex);
            }
            _ => {}
        }
    }

    fn of(&self, vertex: VertexId, name: &str) -> Option<StepLog> {
        let tail = self.tails.get(&vertex)?;
        let lines: Vec<String> = String::from_utf8_lossy(&tail.bytes()).lines().map(str::to_owned).collect();
        let log = StepLog { name: name.to_owned(), lines, earlier: tail.before().lines };
        let surplus = log.lines.len() - log.last(LINES).len();
        Some(StepLog { lines: log.last(LINES).to_vec(), earlier: log.earlier + surplus, ..log })
    }
}

impl StepLog {
    /// So many lines at most.
    pub(crate) fn last(&self, lines: usize) -> &[String] {
        &self.lines[self.lines.len().saturating_sub(lines)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxwright_solver::LogStream;
    use boxwright_solver::ir::{About, ExecOp, NetworkMode, SecurityMode};

    fn run(args: &[&str]) -> (Definition, VertexId) {
        let exec = ExecOp {
            root: None,
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            env: vec![],
            unkeyed_env: boxwright_solver::ir::Unkeyed::default(),
            cwd: "/".into(),
            user: String::new(),
            mounts: vec![],
            secret_env: vec![],
            network: NetworkMode::Default,
            security: SecurityMode::Sandbox,
            devices: vec![],
            hostname: None,
            hosts: vec![],
            platform: boxwright_cache::oci::Platform::host(),
        };
        let mut definition = Definition::default();
        let span = Some(Span { start: 0, end: 1, first_line: 2, last_line: 2 });
        let id =
            definition.add(Op::Exec(exec), About { name: "[2/2] RUN false".into(), span, no_cache: false });
        (definition, id)
    }

    #[test]
    fn a_failed_process_is_told_in_buildkits_words() {
        let (definition, id) = run(&["/bin/sh", "-c", "false"]);
        let mut logs = Logs::default();
        let output: String = (0..LINES + 40).map(|n| format!("line {n}\n")).collect();
        logs.hear(&Event::Log { vertex: id, stream: LogStream::Stderr, bytes: output.into_bytes() });
        let error = SolveError::Vertices(vec![(id, VertexError::Exec(ExecError::Exit { code: 1 }))]);
        let here = Here { store: Path::new("/"), emulators: OsStr::new("") };
        let failure = BuildFailure::of_solve(error, &definition, &Source::default(), &logs, here);
        assert_eq!(
            failure.to_string(),
            "process \"/bin/sh -c false\" did not complete successfully: exit code: 1"
        );
        let BuildFailure::Because(causes) = failure else { panic!("a cause") };
        let log = causes[0].log.clone().unwrap();
        assert_eq!((log.name.as_str(), log.lines.len(), log.earlier), ("[2/2] RUN false", LINES, 40));
        assert_eq!((log.lines[0].as_str(), log.lines[LINES - 1].as_str()), ("line 40", "line 1039"));
        assert_eq!(causes[0].diagnostic.span.first_line, 2);
    }

    #[test]
    fn what_kept_a_process_from_being_one_has_no_exit_code() {
        let (definition, id) = run(&["/bin/sh", "-c", "true"]);
        let told = |error| message_of(&definition, id, &VertexError::Exec(error));
        assert_eq!(told(ExecError::NotLent("secret a: not found".into())), "secret a: not found");
        let nobody = ExecError::Start { code: 125, message: "unable to find user x".into() };
        let process = "process \"/bin/sh -c true\" did not complete successfully";
        assert_eq!(told(nobody), format!("{process}: unable to find user x"));
        let none = ExecError::Start { code: 127, message: "no such file".into() };
        assert_eq!(told(none), format!("{process}: exit code: 127: no such file"));
    }

    #[test]
    fn a_missing_source_is_found_among_the_words() {
        let text = "FROM x\nCOPY --from=a/b b \\\n  ./a/b /c a/b\n";
        let source = Source { name: "Dockerfile".into(), text: text.into() };
        let span = Span { start: 7, end: text.len() - 1, first_line: 2, last_line: 3 };
        let found = |path: &str| word(&source, span, path).map(|s| (s.first_line, &text[s.start - 1..s.end]));
        assert_eq!(found("a/b"), Some((3, "/a/b")));
        assert_eq!(found("b"), Some((2, " b")));
        assert_eq!(found("c"), Some((3, "/c")));
        assert_eq!(found("d"), None);
        assert_eq!(found(""), None);
    }

    #[test]
    fn only_the_tail_of_an_endless_log_is_kept() {
        let (_, id) = run(&["x"]);
        let mut logs = Logs::default();
        for _ in 0..4 {
            let bytes = "y\n".repeat(BYTES / 4).into_bytes();
            logs.hear(&Event::Log { vertex: id, stream: LogStream::Stdout, bytes });
        }
        assert_eq!(logs.tails[&id].bytes().len(), BYTES);
        let log = logs.of(id, "").unwrap();
        assert_eq!(
            (log.lines.len(), log.earlier),
            (LINES, BYTES - LINES),
            "and it is known how many there were"
        );
    }
}
