//! What the solves of one build have in common: usually it is one; a context from elsewhere is solved before it, since
//! the Dockerfile is in there. What was pinned for the first is not asked for again.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::mpsc::Sender;

use boxwright_cache::digest::Digest;
use boxwright_cache::record::imported::Import;
use boxwright_cache::snapshot::Snapshot;
use boxwright_executor as executor;
use boxwright_frontend::Origin;
use boxwright_solver as solver;
use solver::{Definition, LocalContext, Solved, SolvedVertex, VertexId};

use super::Engine;
use super::build::{BuildRequest, failed};
use super::failure::{BuildFailure, Here, Logs, Source};
use super::remote::Fetcher;
use crate::error::Result;
use crate::progress::{Note, Watch};

/// How many steps run at once. They wait more than they compute: for the network, for compilers with threads of their
/// own.
const STEPS_PER_CPU: usize = 4;
const LEAST_STEPS: usize = 8;

pub(super) struct Solving<'a> {
    pub(super) engine: &'a Engine,
    pub(super) request: &'a BuildRequest,
    pub(super) watch: &'a dyn Watch,
    pub(super) remote: Fetcher<'a>,
}

/// What a definition's sources are in.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The layers of each image, by manifest.
    pub(super) images: HashMap<Digest, Snapshot>,
    pub(super) locals: HashMap<String, LocalContext>,
    /// What other machines have.
    pub(super) imports: Vec<Import>,
    /// Who wants results as soon as they are there.
    pub(super) results: Option<Sender<SolvedVertex>>,
}

impl<'a> Solving<'a> {
    pub(super) fn new(engine: &'a Engine, request: &'a BuildRequest, watch: &'a dyn Watch) -> Solving<'a> {
        let remote = Fetcher::new(&engine.store, &engine.client, &engine.git);
        Solving { engine, request, watch, remote }
    }

    /// The files of an origin.
    pub(super) fn load(&self, origin: &Origin, locals: HashMap<String, LocalContext>) -> Result<Snapshot> {
        let mut definition = Definition::default();
        let output = origin.add_to(&mut definition);
        let places = Places { locals, ..Places::default() };
        let solved = self.solve(&definition, &[output], places, &Source::default())?;
        Ok(solved.results.get(&output).and_then(|result| result.snapshot.clone()).unwrap_or_default())
    }

    /// `source` is what the definition's spans are in.
    pub(super) fn solve(
        &self,
        definition: &Definition,
        outputs: &[VertexId],
        places: Places,
        source: &Source,
    ) -> Result<Solved> {
        let (engine, request, watch) = (self.engine, self.request, self.watch);
        let steps = engine.settings(&request.steps);
        let networks = executor::network::Networks::new(engine.store.path());
        let executor = executor::LocalExecutor::new(engine.stubs()?, steps, networks);
        let (events, received) = solver::event::channel();
        let env = solver::Env {
            store: &engine.store,
            executor: &executor,
            remote: &self.remote,
            images: places.images,
            locals: places.locals,
            imports: &places.imports,
            results: places.results,
            jobs: request.jobs.map_or_else(steps_at_once, NonZero::get),
            cutoff: request.cutoff,
            record: request.record,
            allowed: request.allowed,
            events,
            cancel: engine.cancel.clone(),
        };
        let (result, logs) = std::thread::scope(|scope| {
            let listener = scope.spawn(move || {
                let mut logs = Logs::default();
                for event in received {
                    logs.hear(&event);
                    watch.note(Note::Vertex { definition, event: &event });
                }
                logs
            });
            let result = solver::solve(definition, outputs, &env);
            // The listener ends when nobody can send any more.
            drop(env);
            (result, listener.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        result.map_err(|error| {
            let here = Here { store: engine.store.path(), emulators: &engine.git.path };
            failed(BuildFailure::of_solve(error, definition, source, &logs, here))
        })
    }
}

impl Engine {
    /// What steps get of this machine, with what a command line says.
    pub(super) fn settings(&self, given: &executor::Settings) -> executor::Settings {
        executor::Settings { emulators: self.git.path.clone(), ..given.clone() }
    }
}

fn steps_at_once() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (processors * STEPS_PER_CPU).max(LEAST_STEPS)
}
