//! The straight line of a build: text, syntax tree, definition, layers, image.

use std::num::NonZero;
use std::sync::mpsc::channel;
use std::time::Instant;

use boxwright_cache as cache;
use boxwright_executor as executor;
use boxwright_frontend as frontend;
use boxwright_solver as solver;
use cache::image::Product;
use cache::oci::{Platform, Reference};
use cache::record::Outcome;
use cache::snapshot::Snapshot;
use frontend::{Diagnostic, Epoch, Lowered, LoweredImage};
use serde_json::{Value, json};
use solver::{Solved, VertexId};

use super::base::KnownBases;
use super::caches::{CacheFrom, CacheTo, Uploads};
use super::context::{self, ContextSource, DockerfileSource, Input};
use super::failure::{BuildFailure, Source};
use super::recorder::Recorder;
use super::solving::{Places, Solving};
use super::{Engine, created, epoch, output};
use crate::error::{Error, Result};
use crate::exit;
use crate::progress::{Note, Watch};

pub use super::output::{BuiltImage, ImageOptions, Output};

#[derive(Debug)]
pub struct BuildRequest {
    pub context: ContextSource,
    /// Names and values of what stands in for stages and images.
    pub contexts: Vec<(String, String)>,
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
    /// What other machines have of results, and who gets those of this build.
    pub cache_from: Vec<CacheFrom>,
    pub cache_to: Vec<CacheTo>,
    /// All layers above the base become one.
    pub squash: bool,
    /// Look up by contents, and let an equal older result stand for a new one.
    pub cutoff: bool,
    /// Remember results for later builds.
    pub record: bool,
    /// How many steps run at once; none: as many as are good for this machine.
    pub jobs: Option<NonZero<usize>>,
    /// Tell of each step why it runs or does not.
    pub explain: bool,
}

#[derive(Debug)]
pub struct Built {
    /// By which its record is found.
    pub name: String,
    /// None when the result went elsewhere.
    pub image: Option<BuiltImage>,
    pub warnings: Vec<Diagnostic>,
    /// What their spans are in.
    pub source: Source,
}

impl Engine {
    /// Builds an image.
    ///
    /// # Errors
    /// [`Error::Build`] for whatever is about the Dockerfile.
    pub fn build(&self, request: &BuildRequest, watch: &dyn Watch) -> Result<Built> {
        let recorder = Recorder::new(&self.store, about(request), request.explain, watch)?;
        let mut built = self.build_watched(request, &recorder);
        if let Err(Error::Build(failure)) = &mut built {
            failure.set_step(recorder.failed_step());
        }
        let recorded = match &built {
            Ok(built) => {
                recorder.end(Outcome::Completed, None, built.image.as_ref().map(|i| i.id.to_string()))
            }
            Err(error) if exit::is_cancelled(error) => recorder.end(Outcome::Canceled, None, None),
            Err(error) => recorder.end(Outcome::Failed, Some(&error.to_string()), None),
        };
        built.and_then(|built| recorded.map(|()| built))
    }

    fn build_watched(&self, request: &BuildRequest, recorder: &Recorder<'_>) -> Result<Built> {
        let watch: &dyn Watch = recorder;
        let solving = Solving::new(self, request, watch);
        let input = context::open(&solving)?;
        let (mut lowered, known, source) = self.lower(&solving, &input)?;
        let warnings = distinct(std::mem::take(&mut lowered.diagnostics));
        let outputs = lowered.outputs();
        let platforms: Vec<Platform> = lowered.images.iter().map(|image| image.platform.clone()).collect();
        output::check(&request.outputs, &platforms)?;
        let imports = self.imports(&request.cache_from, &platforms, watch)?;
        let (results, finished) = channel();
        let uploads = Uploads::new(self, &lowered.definition, &outputs, &request.cache_to);
        let results = (!uploads.is_empty()).then_some(results);
        let places = Places { images: known.images, locals: input.locals, imports, results };
        let solved = std::thread::scope(|scope| {
            let uploads = &uploads;
            if !uploads.is_empty() {
                scope.spawn(move || uploads.run(&finished));
            }
            solving.solve(&lowered.definition, &outputs, places, &source)
        });
        let solved = solved.map_err(|error| error.after_warnings(&warnings, &source))?;
        let keys: Vec<_> =
            solved.results.iter().map(|(vertex, result)| (*vertex, result.definition)).collect();
        let inline = request.cache_to.contains(&CacheTo::Inline);
        let mut products = Vec::new();
        for LoweredImage { platform, output, mut image, new_layers } in lowered.images {
            let files = snapshot_of(output, &solved);
            created::fill_in(&mut image, &files, new_layers.len(), lowered.epoch)?;
            if inline {
                uploads.add_inline(&mut image, files.layers(), &keys)?;
            }
            products.push(Product { platform, config: image, files });
        }
        let image = output::export(self, &products, lowered.epoch, request, watch)?;
        uploads.finish(&keys, watch)?;
        Ok(Built { name: recorder.name().to_owned(), image, warnings, source })
    }

    /// As far as a build goes without doing anything.
    pub(super) fn lower(
        &self,
        solving: &Solving<'_>,
        input: &Input,
    ) -> Result<(Lowered, KnownBases, Source)> {
        let (request, watch) = (solving.request, solving.watch);
        let parsed = frontend::parse(&input.dockerfile);
        let source = Source { name: input.name.clone(), text: parsed.text.clone() };
        let options = input.options(&request.options);
        if parsed.has_errors() {
            let warnings = frontend::check_syntax(&parsed, &options);
            let failure = failed(BuildFailure::of_syntax(&parsed.diagnostics, &source));
            return Err(failure.after_warnings(&warnings, &source));
        }
        let epoch = self.epoch(&parsed.dockerfile, &options, solving, &source)?;
        let options = options.at(epoch);
        let known = self.resolve_bases(&parsed.dockerfile, request, &options, &source, watch)?;
        let lowered = frontend::lower(&parsed.dockerfile, &options, &known.bases)
            .map_err(|diagnostics| failed(BuildFailure::of_meaning(&diagnostics, &source)))?;
        Ok((lowered, known, source))
    }

    /// The time of everything new; none if it is to be when it was made.
    fn epoch(
        &self,
        dockerfile: &frontend::Dockerfile,
        options: &frontend::Options,
        solving: &Solving<'_>,
        source: &Source,
    ) -> Result<Option<i64>> {
        let epoch = frontend::epoch(dockerfile, options)
            .map_err(|diagnostics| failed(BuildFailure::of_meaning(&diagnostics, source)))?;
        match epoch {
            Epoch::Unset => Ok(None),
            Epoch::At(at) => Ok(Some(at)),
            Epoch::Of(origin) => step(solving.watch, "[internal] resolve SOURCE_DATE_EPOCH", || {
                epoch::time_of(&origin, &solving.remote, &self.cancel)
            }),
        }
    }
}

/// What a record tells of a build besides its steps.
fn about(request: &BuildRequest) -> Value {
    let context = match &request.context {
        ContextSource::Empty => String::new(),
        ContextSource::Dir(path) => {
            std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string()
        }
        ContextSource::Archive(_) => "-".to_owned(),
        ContextSource::Remote(url) => solver::ir::redacted(url),
    };
    let dockerfile = match &request.dockerfile {
        DockerfileSource::Default => "Dockerfile".to_owned(),
        DockerfileSource::File(path) => path.display().to_string(),
        DockerfileSource::Inside(name) => name.clone(),
        DockerfileSource::Url(url) => solver::ir::redacted(url),
        DockerfileSource::Text(_) => "-".to_owned(),
    };
    json!({
        "context": context,
        "dockerfile": dockerfile,
        "target": request.options.target,
        "platform": request.options.platforms.iter().map(ToString::to_string).reduce(|all, one| all + "," + &one),
        "tags": request.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// A variable that is misspelt twice in one instruction is told once.
pub(super) fn distinct(warnings: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut told = std::collections::HashSet::new();
    warnings.into_iter().filter(|w| told.insert((w.rule, w.title(), w.lines()))).collect()
}

pub(super) fn failed(failure: BuildFailure) -> Error {
    Error::Build(Box::new(failure))
}

pub(super) fn snapshot_of(output: Option<VertexId>, solved: &Solved) -> Snapshot {
    let result = output.and_then(|output| solved.results.get(&output));
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
