//! Keeps a record of a build while it runs: what became of each step, by which key, and what was shown. Everything
//! is passed on to whoever watches.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufWriter;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use boxwright_cache::Store;
use boxwright_cache::record::{BuildLog, BuildStep, CacheKey, FileChanges, NewBuild, Outcome, local::Lookup};
use boxwright_solver::key::{KeyFields, Purpose};
use boxwright_solver::why::{self, Became, PastStep};
use boxwright_solver::{Definition, Event, How, VertexId};
use serde_json::Value;

use super::clipped::Clipped;
use super::past;
use crate::error::Result;
use crate::progress::{Note, Plain, Watch};

pub(super) struct Recorder<'a> {
    store: &'a Store,
    shown: &'a dyn Watch,
    started: (SystemTime, Instant),
    about: Value,
    log: BuildLog,
    printed: Plain<BufWriter<File>>,
    clipped: Mutex<Clipped>,
    steps: Mutex<Steps>,
    /// The steps of builds before, if each step is to be explained as it comes.
    earlier: Option<Vec<PastStep>>,
}

#[derive(Default)]
struct Steps {
    all: Vec<PastStep>,
    facts: Vec<(Option<usize>, Duration)>,
    /// Of the definition that is being solved.
    vertices: HashMap<VertexId, usize>,
    pinned: HashSet<VertexId>,
    begun: bool,
}

impl<'a> Recorder<'a> {
    /// `about` tells what is built; `explain` has each step explained as it comes.
    pub(super) fn new(
        store: &'a Store,
        about: Value,
        explain: bool,
        shown: &'a dyn Watch,
    ) -> Result<Recorder<'a>> {
        let log = store.new_build_log()?;
        let printed = Plain::new(BufWriter::new(log.writer()?));
        let earlier = if explain { Some(past::steps_before(store, None)?) } else { None };
        let started = (SystemTime::now(), Instant::now());
        let (steps, clipped) = (Mutex::default(), Mutex::default());
        Ok(Recorder { store, shown, started, about, log, printed, clipped, steps, earlier })
    }

    /// The build's name.
    pub(super) fn name(&self) -> &str {
        self.log.name()
    }

    /// The build's name, and the number of the step that failed, if it is kept what that left.
    pub(super) fn failed_step(&self) -> Option<(String, usize)> {
        let steps = self.steps.lock().unwrap_or_else(|e| e.into_inner());
        let at = steps.all.iter().position(|step| step.became == Became::Failed)?;
        let key = steps.all[at].fields.key(Purpose::Failed);
        let kept = self.store.record(Lookup::Definition(key)).is_ok_and(|record| record.is_some());
        kept.then(|| (self.log.name().to_owned(), at + 1))
    }

    /// Remembers the build. `image` is what came of it.
    pub(super) fn end(mut self, outcome: Outcome, error: Option<&str>, image: Option<String>) -> Result<()> {
        if let Some(error) = error {
            self.printed.say(&format!("ERROR: {error}"));
        }
        if let Some(image) = image {
            self.about["image"] = image.into();
        }
        let steps = self.steps.into_inner().unwrap_or_else(|e| e.into_inner());
        let rows: Vec<BuildStep> = steps
            .all
            .into_iter()
            .zip(steps.facts)
            .map(|(step, (line, took))| row(step, line, took))
            .collect();
        let about = self.about.to_string();
        let build = NewBuild { about: &about, started: milliseconds(self.started.0) };
        Ok(self.store.end_build(&self.log, &build, (outcome, error, self.started.1.elapsed()), &rows)?)
    }

    fn hear(&self, definition: &Definition, event: &Event) {
        let mut steps = self.steps.lock().unwrap_or_else(|e| e.into_inner());
        match event {
            Event::Planned { .. } => {
                steps.vertices.clear();
                steps.pinned.clear();
            }
            Event::Keyed { vertex, key, fields, files } => {
                steps.add(definition, *vertex, *key, fields.clone(), files.clone());
            }
            Event::Started { vertex, .. } if steps.vertices.contains_key(vertex) => {
                if !std::mem::replace(&mut steps.begun, true) {
                    self.begin();
                }
                self.explain(&steps, definition, *vertex, None);
            }
            Event::Cached { vertex, how, origin } => {
                if let Some(&at) = steps.vertices.get(vertex) {
                    steps.all[at].origin.clone_from(origin);
                }
                self.explain(&steps, definition, *vertex, Some(Became::Done(*how)));
                steps.ended(*vertex, Became::Done(*how), Duration::ZERO);
            }
            Event::Finished { vertex, took, how } => steps.ended(*vertex, Became::Done(*how), *took),
            Event::Failed { vertex, took, .. } => steps.ended(*vertex, Became::Failed, *took),
            Event::Canceled { vertex } => steps.ended(*vertex, Became::Canceled, Duration::ZERO),
            Event::Started { .. } | Event::Log { .. } | Event::Lost { .. } | Event::Ballast { .. } => {}
        }
    }

    /// So that a build whose process is killed has left a record, too. That it can't be written is told at the end.
    fn begin(&self) {
        let about = self.about.to_string();
        let build = NewBuild { about: &about, started: milliseconds(self.started.0) };
        let _ = self.store.begin_build(&self.log, &build);
    }

    fn explain(&self, steps: &Steps, definition: &Definition, vertex: VertexId, became: Option<Became>) {
        let (Some(earlier), Some(&at)) = (&self.earlier, steps.vertices.get(&vertex)) else { return };
        let forced = definition.vertex(vertex).about.no_cache;
        let running = if forced { How::Forced } else { How::Ran };
        let step = PastStep { became: became.unwrap_or(Became::Done(running)), ..steps.all[at].clone() };
        let why = why::explain(&step, &steps.all, earlier);
        self.pass_on(Note::Why { definition, vertex, why: &why });
    }

    fn pass_on(&self, note: Note<'_>) {
        self.shown.note(note);
        self.keep(note);
    }

    fn keep(&self, note: Note<'_>) {
        if let Note::Vertex { definition, event } = note {
            let mut clipped = self.clipped.lock().unwrap_or_else(|e| e.into_inner());
            if clipped.takes(event, self.log.length()) {
                return;
            }
            if let Some(rest) = clipped.before(event) {
                self.printed.note(Note::Vertex { definition, event: &rest });
            }
        }
        self.printed.note(note);
    }
}

impl Watch for Recorder<'_> {
    fn note(&self, note: Note<'_>) {
        if let Note::Vertex { definition, event } = note {
            self.hear(definition, event);
        }
        self.pass_on(note);
    }
}

impl Steps {
    fn add(
        &mut self,
        definition: &Definition,
        vertex: VertexId,
        key: CacheKey,
        fields: KeyFields,
        files: Option<FileChanges>,
    ) {
        let about = &definition.vertex(vertex).about;
        let pinned = self.pinned.contains(&vertex);
        let became = if pinned { Became::Done(How::Free) } else { Became::Unreached };
        let build = String::new();
        self.vertices.insert(vertex, self.all.len());
        self.all.push(PastStep {
            build,
            title: about.name.clone(),
            key,
            fields,
            became,
            files,
            origin: None,
        });
        self.facts.push((about.span.map(|span| span.first_line), Duration::ZERO));
    }

    fn ended(&mut self, vertex: VertexId, became: Became, took: Duration) {
        match self.vertices.get(&vertex) {
            Some(&at) => {
                self.all[at].became = became;
                self.facts[at].1 = took;
            }
            None => {
                self.pinned.insert(vertex);
            }
        }
    }
}

fn row(step: PastStep, line: Option<usize>, took: Duration) -> BuildStep {
    let files = step.files.map(|files| serde_json::to_string(&files).expect("names serialise"));
    let (how, fields) = (step.became.as_str().to_owned(), step.fields.to_json());
    BuildStep { key: step.key, fields, title: step.title, line, how, took, files, origin: step.origin }
}

fn milliseconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
