//! The straight line of a build: text, syntax tree, definition, layers, image.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use boxwright_cache as cache;
use boxwright_executor as executor;
use boxwright_frontend as frontend;
use boxwright_solver as solver;
use cache::oci::Reference;
use cache::record::ImageRecord;
use cache::snapshot::Snapshot;
use frontend::{Diagnostic, Lowered};
use solver::Solved;

use super::base::KnownBases;
use super::context::Input;
use super::failure::{BuildFailure, Logs, Source};
use super::remote::Fetcher;
use super::{Engine, check, context, created, output, settings};
use crate::error::{Error, Result};
use crate::progress::{Note, Watch};

pub use super::output::Output;

/// Where the Dockerfile is.
#[derive(Clone, Debug)]
pub enum DockerfileSource {
    /// `Dockerfile` in the context.
    Default,
    File(PathBuf),
    /// Standard input, read already.
    Text(Vec<u8>),
}

#[derive(Debug)]
pub struct BuildRequest {
    /// The directory that COPY and ADD read; none when there is nothing to copy.
    pub context: Option<PathBuf>,
    pub dockerfile: DockerfileSource,
    pub options: frontend::Options,
    /// Ask registries for bases although the store has them.
    pub pull: bool,
    pub allowed: solver::Allowed,
    /// What RUN gets besides what the Dockerfile says.
    pub steps: executor::Settings,
    pub tags: Vec<Reference>,
    /// Where the result goes. The store when there is none.
    pub outputs: Vec<Output>,
}

#[derive(Debug)]
pub struct Built {
    /// None when the result went elsewhere.
    pub image: Option<ImageRecord>,
    pub warnings: Vec<Diagnostic>,
    /// What their spans are in.
    pub source: Source,
}

/// How many steps run at once. They wait more than they compute: for the network, for compilers with threads of their
/// own.
const STEPS_PER_CPU: usize = 4;
const LEAST_STEPS: usize = 8;

impl Engine {
    /// Builds an image.
    ///
    /// # Errors
    /// [`Error::Build`] for whatever is about the Dockerfile.
    pub fn build(&self, request: &BuildRequest, watch: &dyn Watch) -> Result<Built> {
        let input = context::open(&self.store, request, watch)?;
        let (mut lowered, known, source) = self.lower(request, &input, watch)?;
        let warnings = distinct(std::mem::take(&mut lowered.diagnostics));
        let solved = self
            .solve(request, &lowered, known, input.locals, &source, watch)
            .map_err(|error| error.after_warnings(&warnings, &source))?;
        let result = snapshot_of(&lowered, &solved);
        created::fill_in(&mut lowered.image, &result, lowered.new_layers.len(), lowered.epoch)?;
        let image = output::export(self, &lowered.image, &result, request, watch)?;
        Ok(Built { image, warnings, source })
    }

    /// As far as a build goes without doing anything.
    pub(super) fn lower(
        &self,
        request: &BuildRequest,
        input: &Input,
        watch: &dyn Watch,
    ) -> Result<(Lowered, KnownBases, Source)> {
        let parsed = frontend::parse(&input.dockerfile);
        let source = Source { name: input.name.clone(), text: parsed.text.clone() };
        if parsed.has_errors() {
            return Err(failed(BuildFailure::of_syntax(&parsed.diagnostics, &source)));
        }
        let options = check::with_ignored(&request.options, input);
        let known = self.resolve_bases(&parsed.dockerfile, request, &options, &source, watch)?;
        let lowered = frontend::lower(&parsed.dockerfile, &options, &known.bases)
            .map_err(|diagnostics| failed(BuildFailure::of_meaning(&diagnostics, &source)))?;
        Ok((lowered, known, source))
    }

    fn solve(
        &self,
        request: &BuildRequest,
        lowered: &Lowered,
        known: KnownBases,
        locals: HashMap<String, solver::LocalContext>,
        source: &Source,
        watch: &dyn Watch,
    ) -> Result<Solved> {
        let definition = &lowered.definition;
        let resolv_conf = settings::of_host("/etc/resolv.conf")?;
        let steps = executor::Settings { resolv_conf, ..request.steps.clone() };
        let executor = executor::LocalExecutor::new(self.stubs()?, steps);
        let (events, received) = std::sync::mpsc::channel();
        let remote = Fetcher { store: &self.store, client: &self.client, git: &self.git };
        let env = solver::Env {
            store: &self.store,
            executor: &executor,
            remote: &remote,
            images: known.images,
            locals,
            jobs: steps_at_once(),
            cutoff: true,
            allowed: request.allowed,
            events,
            cancel: self.cancel.clone(),
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
            let outputs: Vec<solver::VertexId> = lowered.output.into_iter().collect();
            let result = solver::solve(definition, &outputs, &env);
            // The listener ends when nobody can send any more.
            drop(env);
            (result, listener.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        result.map_err(|error| failed(BuildFailure::of_solve(error, definition, source, &logs)))
    }
}

/// A variable that is misspelt twice in one instruction is told once.
fn distinct(warnings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut told = std::collections::HashSet::new();
    warnings.into_iter().filter(|w| told.insert((w.rule, w.title(), w.lines()))).collect()
}

pub(super) fn failed(failure: BuildFailure) -> Error {
    Error::Build(Box::new(failure))
}

fn steps_at_once() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (processors * STEPS_PER_CPU).max(LEAST_STEPS)
}

fn snapshot_of(lowered: &Lowered, solved: &Solved) -> Snapshot {
    let result = lowered.output.and_then(|output| solved.results.get(&output));
    result.and_then(|r| r.snapshot.clone()).unwrap_or_default()
}

/// Runs `work` as a step of its own in the progress.
pub(super) fn step<T>(watch: &dyn Watch, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    watch.note(Note::Began { name });
    let result = work();
    match &result {
        Ok(_) => watch.note(Note::Ended { took: started.elapsed() }),
        Err(error) => watch.note(Note::Broke { message: &error.to_string() }),
    }
    result
}
