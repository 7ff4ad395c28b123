//! Third pass: runs what the plan says. One loop owns all state and learns everything by messages; each vertex that
//! is ready gets a thread, and waits for its lock before it takes one of the slots: a wait occupies no worker.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Scope, scope};
use std::time::{Duration, Instant, SystemTime};

use boxwright_cache::Cancel;
use boxwright_cache::digest::ContentDigest;
use boxwright_cache::image::fetch_layers;
use boxwright_cache::record::local::Lookup;
use boxwright_cache::record::{CacheKey, Compared, NewRecord};
use boxwright_cache::snapshot::{Layer, Snapshot};

use crate::error::{SolveError, VertexError};
use crate::event::Event;
use crate::executor::Left;
use crate::ir::{Definition, Mount, Op, SourceOp, VertexId};
use crate::key::{InputKey, KeyFields, Purpose};
use crate::ops;
use crate::pin::{Pin, Pins};
use crate::plan::{Fate, Plan};
use crate::slots::Slots;
use crate::{Env, How, Solved, SolvedVertex, VertexResult};

/// All that a thread ever tells the loop.
#[derive(Debug)]
enum Message {
    Finished { vertex: VertexId, outcome: Result<Outcome, VertexError>, took: Duration },
}

#[derive(Debug)]
struct Outcome {
    snapshot: Snapshot,
    how: How,
    took: Duration,
    /// The cache of another machine that had it.
    origin: Option<String>,
    left: Left,
}

/// What an op may read: the result of each of its inputs.
pub type Inputs = HashMap<VertexId, Input>;

#[derive(Clone, Debug)]
pub enum Input {
    Snapshot(Snapshot),
    /// Read from the host; named by the op itself. With how it differs from what was read before.
    Local(ContentDigest, Option<Arc<Compared>>),
}

struct Loop<'a, 'env> {
    definition: &'a Definition,
    env: &'a Env<'env>,
    plan: &'a Plan,
    pins: &'a Pins,
    cancel: &'a Cancel,
    slots: &'a Slots,
    results: HashMap<VertexId, Input>,
    /// Those whose results are for this build alone: what stands on them is, too.
    own: HashSet<VertexId>,
    missing: HashMap<VertexId, usize>,
    solved: Solved,
    running: usize,
    failed: Option<SolveError>,
}

pub(crate) fn run(
    definition: &Definition,
    outputs: &[VertexId],
    pins: &Pins,
    plan: Plan,
    env: &Env<'_>,
) -> Result<Solved, SolveError> {
    let cancel = env.cancel.child()?;
    let running: Vec<VertexId> =
        plan.needed.iter().copied().filter(|id| matches!(plan.fate[id], Fate::Run)).collect();
    let slots = Slots::new(env.jobs.max(1), definition, &running, env.store)?;
    let mut this = Loop {
        definition,
        env,
        plan: &plan,
        pins,
        cancel: &cancel,
        slots: &slots,
        results: HashMap::new(),
        own: HashSet::new(),
        missing: HashMap::new(),
        solved: Solved { materials: pins.materials.clone(), ..Solved::default() },
        running: 0,
        failed: None,
    };
    this.tell_keys();
    this.settle_known();
    this.look_for_sources()?;
    let (sender, receiver) = channel();
    scope(|scope| this.work(scope, &sender, &receiver))?;
    debug_assert!(outputs.iter().all(|id| this.results.contains_key(id)));
    Ok(this.solved)
}

impl<'a> Loop<'a, '_> {
    fn tell_keys(&self) {
        for &vertex in &self.plan.needed {
            let (fields, key) = &self.plan.keys[&vertex];
            let files = match self.pins.of.get(&vertex) {
                Some(Pin::Local(_, compared)) => compared.as_ref().map(|compared| compared.changes.clone()),
                _ => None,
            };
            let event = Event::Keyed { vertex, key: *key, fields: fields.clone(), files };
            self.env.events.send(event);
        }
    }

    /// Everything that needs no run.
    fn settle_known(&mut self) {
        let (plan, pins) = (self.plan, self.pins);
        for &id in &plan.needed {
            let definition = plan.keys[&id].1;
            let result = |snapshot, how, took| VertexResult { snapshot, definition, how, took };
            match &plan.fate[&id] {
                Fate::Run => {
                    let missing = self.definition.vertex(id).op.inputs();
                    let missing = missing.iter().filter(|i| !self.results.contains_key(i)).count();
                    self.missing.insert(id, missing);
                }
                Fate::Given => {
                    let input = match &pins.of[&id] {
                        Pin::Local(content, compared) => Input::Local(*content, compared.clone()),
                        Pin::Image(snapshot) | Pin::Http { snapshot: Some(snapshot), .. } => {
                            Input::Snapshot(snapshot.clone())
                        }
                        Pin::Http { snapshot: None, .. } | Pin::Git { .. } => {
                            unreachable!("what is not here is fetched")
                        }
                    };
                    let snapshot = if let Input::Snapshot(s) = &input { Some(s.clone()) } else { None };
                    self.results.insert(id, input);
                    self.solved.results.insert(id, result(snapshot, How::Free, Duration::ZERO));
                    self.announce_free(id);
                }
                Fate::Cached { snapshot, took, origin } => {
                    let how = if origin.is_some() { How::Imported } else { How::Cached };
                    self.results.insert(id, Input::Snapshot(snapshot.clone()));
                    self.solved.results.insert(id, result(Some(snapshot.clone()), how, *took));
                    self.env.events.send(Event::Cached { vertex: id, how, origin: origin.clone() });
                }
                Fate::Unneeded => {
                    self.solved.results.insert(id, result(None, How::Free, Duration::ZERO));
                    self.announce_free(id);
                }
            }
        }
    }

    /// What is to be copied from the host has to be there: that is told before anything runs, and of all steps.
    fn look_for_sources(&self) -> Result<(), SolveError> {
        let mut missing = Vec::new();
        for &vertex in self.plan.needed.iter().filter(|id| self.missing.contains_key(id)) {
            let Op::File(file) = &self.definition.vertex(vertex).op else { continue };
            let context = ops::file::Context { definition: self.definition, env: self.env, forced: false };
            match ops::file::look_for_sources(file, &context, self.cancel) {
                Err(error) if error.is_cancelled() => return Err(SolveError::Cancelled),
                Err(error) => missing.push((vertex, error)),
                Ok(()) => {}
            }
        }
        for (vertex, error) in &missing {
            let (took, message) = (Duration::ZERO, error.to_string());
            self.env.events.send(Event::Failed { vertex: *vertex, took, message });
        }
        if missing.is_empty() { Ok(()) } else { Err(SolveError::Vertices(missing)) }
    }

    /// A local source told of itself when it was pinned, and so did a download.
    fn announce_free(&self, id: VertexId) {
        let told = match &self.definition.vertex(id).op {
            Op::Source(SourceOp::Http(http)) => http.checksum.is_none(),
            op => matches!(op, Op::Source(SourceOp::Local(_))),
        };
        if !told {
            self.env.events.send(Event::Cached { vertex: id, how: How::Free, origin: None });
        }
    }

    fn work<'scope>(
        &mut self,
        scope: &'scope Scope<'scope, '_>,
        sender: &Sender<Message>,
        receiver: &Receiver<Message>,
    ) -> Result<(), SolveError>
    where
        'a: 'scope,
    {
        self.start_ready(scope, sender);
        while self.running > 0 {
            let Ok(message) = receiver.recv() else { break };
            self.running -= 1;
            match message {
                Message::Finished { vertex, outcome: Ok(outcome), .. } => {
                    self.finish(vertex, outcome);
                    if self.failed.is_none() && !self.cancel.is_raised() {
                        self.start_ready(scope, sender);
                    }
                }
                Message::Finished { vertex, outcome: Err(error), took } => self.fail(vertex, error, took),
            }
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None if self.env.cancel.is_raised() => Err(SolveError::Cancelled),
            None => Ok(()),
        }
    }

    fn start_ready<'scope>(&mut self, scope: &'scope Scope<'scope, '_>, sender: &Sender<Message>)
    where
        'a: 'scope,
    {
        let mut ready: Vec<VertexId> =
            self.missing.iter().filter(|(_, missing)| **missing == 0).map(|(id, _)| *id).collect();
        ready.sort_unstable_by_key(|id| (std::cmp::Reverse(self.slots.way(*id)), *id));
        for id in ready {
            self.missing.remove(&id);
            self.running += 1;
            let task = self.task(id);
            let sender = sender.clone();
            scope.spawn(move || {
                let started = Instant::now();
                let outcome = task.run();
                // The loop only stops listening when nothing runs.
                let _ = sender.send(Message::Finished { vertex: id, outcome, took: started.elapsed() });
            });
        }
    }

    fn task(&self, id: VertexId) -> Task<'a> {
        let op = &self.definition.vertex(id).op;
        let inputs: Inputs =
            op.inputs().into_iter().map(|input| (input, self.results[&input].clone())).collect();
        Task {
            id,
            op,
            pin: self.pins.of.get(&id),
            no_cache: self.definition.vertex(id).about.no_cache,
            unsure: self.plan.unsure[id.index()],
            left: match inputs.keys().any(|input| self.own.contains(input)) {
                true => Left::ForThisBuild,
                false => Left::ForAll,
            },
            imports: self.plan.imports,
            definition: self.definition,
            fields: &self.plan.keys[&id].0,
            key: self.plan.keys[&id].1,
            inputs,
            env: self.env,
            cancel: self.cancel,
            slots: self.slots,
        }
    }

    fn finish(&mut self, vertex: VertexId, outcome: Outcome) {
        let event = match outcome.how {
            how @ (How::Cached | How::CachedByContents | How::Imported) => {
                Event::Cached { vertex, how, origin: outcome.origin }
            }
            how => Event::Finished { vertex, took: outcome.took, how },
        };
        self.env.events.send(event);
        if outcome.left == Left::ForThisBuild {
            self.own.insert(vertex);
        } else if let Some(results) = &self.env.results {
            let (snapshot, took) = (outcome.snapshot.clone(), outcome.took);
            let _ = results.send(SolvedVertex { vertex, snapshot, took });
        }
        self.results.insert(vertex, Input::Snapshot(outcome.snapshot.clone()));
        let result = VertexResult {
            snapshot: Some(outcome.snapshot),
            definition: self.plan.keys[&vertex].1,
            how: outcome.how,
            took: outcome.took,
        };
        self.solved.results.insert(vertex, result);
        for (user, missing) in &mut self.missing {
            if self.definition.vertex(*user).op.inputs().contains(&vertex) {
                *missing -= 1;
            }
        }
    }

    /// The first failure is the build's; it stops everything else.
    fn fail(&mut self, vertex: VertexId, error: VertexError, took: Duration) {
        if error.is_cancelled() {
            self.env.events.send(Event::Canceled { vertex });
            return;
        }
        self.cancel.raise();
        let message = error.to_string();
        let lost = matches!(error, VertexError::Lost(_));
        let event = if lost { Event::Lost { message } } else { Event::Failed { vertex, took, message } };
        self.env.events.send(event);
        self.failed.get_or_insert(SolveError::of(vertex, error));
    }
}

/// One vertex, with everything its thread needs.
struct Task<'a> {
    id: VertexId,
    op: &'a Op,
    /// Of a source.
    pin: Option<&'a Pin>,
    no_cache: bool,
    /// See [`Plan::unsure`].
    unsure: bool,
    /// For whom what it reads is what it is.
    left: Left,
    /// Whether other machines are asked.
    imports: bool,
    definition: &'a Definition,
    fields: &'a KeyFields,
    key: CacheKey,
    inputs: Inputs,
    env: &'a Env<'a>,
    cancel: &'a Cancel,
    slots: &'a Slots,
}

impl Task<'_> {
    fn run(self) -> Result<Outcome, VertexError> {
        let content_key = self.content_key();
        if self.no_cache {
            return self.execute(content_key);
        }
        let _lock = self.env.store.lock("vertex", &self.key.to_string(), self.cancel)?;
        // Another process may have run it since the plan was made, or while this one waited.
        if !self.unsure
            && let Some(found) = self.env.store.record(Lookup::Definition(self.key))?
        {
            return Ok(Outcome {
                snapshot: found.snapshot,
                how: How::Cached,
                took: found.took,
                origin: None,
                left: Left::ForAll,
            });
        }
        if let (true, Some(key)) = (self.env.cutoff, content_key)
            && let Some(found) = self.env.store.record(Lookup::Contents(key))?
        {
            self.record(content_key, &found.snapshot, found.took, self.left)?;
            let (how, left) = (How::CachedByContents, self.left);
            return Ok(Outcome { snapshot: found.snapshot, how, took: found.took, origin: None, left });
        }
        let asked = self.imports && self.left == Left::ForAll;
        if let (true, true, Some(key)) = (asked, self.env.cutoff, content_key) {
            let fields = self.fields.to_json();
            let lookup = Lookup::Contents(key);
            if let Some(found) = self.env.store.import_record(self.env.imports, lookup, self.key, &fields)? {
                let (snapshot, how) = (found.snapshot, How::Imported);
                let (took, origin, left) = (found.took, found.origin, Left::ForAll);
                return Ok(Outcome { snapshot, how, took, origin, left });
            }
        }
        self.execute(content_key)
    }

    /// None while the content of an input is not known, and where something besides it may be written to: what a step
    /// made of that is not told by what it was.
    fn content_key(&self) -> Option<CacheKey> {
        if matches!(self.op, Op::Exec(exec) if exec.mounts.iter().any(Mount::is_written_input)) {
            return None;
        }
        let known = |input: &Input| match input {
            Input::Snapshot(snapshot) => snapshot.layers().is_empty() || snapshot.content().is_some(),
            Input::Local(..) => true,
        };
        // What a source holds is told by its own key.
        if matches!(self.op, Op::Source(_)) || !self.inputs.values().all(known) {
            return None;
        }
        let fields = KeyFields::of(self.op, &|id| {
            InputKey::Contents(match &self.inputs[&id] {
                Input::Snapshot(snapshot) => snapshot.content(),
                Input::Local(content, _) => Some(*content),
            })
        });
        Some(fields.key(Purpose::Contents))
    }

    fn execute(&self, content_key: Option<CacheKey>) -> Result<Outcome, VertexError> {
        // Whoever waits for a cache keeps nobody from working.
        let caches = match self.op {
            Op::Exec(exec) => ops::exec::caches(exec, &self.inputs, self.no_cache, self.env, self.cancel)?,
            _ => ops::exec::Caches::default(),
        };
        let _slot = self.slots.take(self.id);
        self.cancel.check()?;
        self.bring_inputs()?;
        let (at, started) = (SystemTime::now(), Instant::now());
        self.env.events.send(Event::Started { vertex: self.id, at });
        let mut left = self.left;
        let mut snapshot = match self.op {
            Op::Exec(exec) => {
                let (env, cancel) = (self.env, self.cancel);
                let keep = |left: &Snapshot| self.keep_failure(left, started.elapsed());
                let (snapshot, its) =
                    ops::exec::run(self.id, exec, &self.inputs, &caches, env, cancel, keep)?;
                left = if its == Left::ForThisBuild { its } else { left };
                snapshot
            }
            Op::File(file) => {
                let (definition, env, forced) = (self.definition, self.env, self.no_cache);
                let context = ops::file::Context { definition, env, forced };
                ops::file::run(file, &self.inputs, &context, self.cancel)?
            }
            Op::Merge(merge) => ops::merge::run(merge, &self.inputs)?,
            Op::Source(source) => self.fetch(source)?,
        };
        let took = started.elapsed();
        let mut how = if self.no_cache { How::Forced } else { How::Ran };
        if let (true, false, Some(content)) = (self.env.cutoff, self.no_cache, snapshot.content()) {
            // The older snapshot keeps the digests that images and registries know already.
            if let Some(older) = self.env.store.record(Lookup::Result(content))? {
                snapshot = older.snapshot;
                how = How::Substituted;
            }
        }
        self.record(content_key, &snapshot, took, left)?;
        Ok(Outcome { snapshot, how, took, origin: None, left })
    }

    /// Fetches and unpacks the layers that the op reads. A merge reads none.
    fn bring_inputs(&self) -> Result<(), VertexError> {
        if matches!(self.op, Op::Merge(_)) {
            return Ok(());
        }
        let mut absent: Vec<Layer> = Vec::new();
        for input in self.inputs.values() {
            let Input::Snapshot(snapshot) = input else { continue };
            for layer in snapshot.layers() {
                if !layer.is_here()? {
                    absent.push(layer.clone());
                }
            }
        }
        match fetch_layers(&absent, &|_| {}, self.cancel) {
            Ok(()) => Ok(()),
            Err(error) => Err(crate::lost(error, self.env)),
        }
    }

    fn fetch(&self, source: &SourceOp) -> Result<Snapshot, VertexError> {
        Ok(match (source, self.pin) {
            (SourceOp::Http(http), _) => self.env.remote.fetch_http(http, self.cancel)?,
            (SourceOp::Git(git), Some(Pin::Git { commit, .. })) => {
                self.env.remote.fetch_git(git, commit, self.cancel)?
            }
            _ => unreachable!("these are here as soon as they are pinned"),
        })
    }

    /// A failure that can't be kept is told all the same.
    fn keep_failure(&self, left: &Snapshot, took: Duration) {
        if !self.env.record {
            return;
        }
        let (key, fields) = (self.fields.key(Purpose::Failed), self.fields.to_json());
        let _ = self.env.store.keep_failure(key, &fields, left, took);
    }

    fn record(
        &self,
        content_key: Option<CacheKey>,
        snapshot: &Snapshot,
        took: Duration,
        left: Left,
    ) -> Result<(), VertexError> {
        if !self.env.record || left == Left::ForThisBuild {
            return Ok(());
        }
        let fields = self.fields.to_json();
        let record =
            NewRecord { definition: self.key, content_key, snapshot, fields: &fields, took, origin: None };
        Ok(self.env.store.put_record(&record)?)
    }
}
