//! What a build would do, told instead of done: the checks, what a target takes, which targets there are.

use boxwright_cache::fs::pattern::Matcher;
use boxwright_frontend as frontend;
use frontend::lint::Ignored;
use frontend::{Diagnostic, Dockerfile, Lowered, Origin, Outline};

use super::Engine;
use super::build::{BuildRequest, DockerfileSource, failed};
use super::context::{self, Input};
use super::failure::{BuildFailure, Source};
use crate::error::Result;
use crate::progress::Watch;

/// What the checks found.
#[derive(Debug)]
pub struct Checked {
    pub warnings: Vec<Diagnostic>,
    /// Why the Dockerfile could not be built, as far as that can be told without building it.
    pub failure: Option<BuildFailure>,
    /// What the spans are in.
    pub source: Source,
}

impl Engine {
    /// Looks for what is accepted but probably not meant, in all stages or, where a target is asked for, in those that
    /// it needs. Bases that can't be found are taken for empty ones.
    ///
    /// # Errors
    /// When the Dockerfile can't be read. What is wrong with it is part of the result.
    pub fn check(&self, request: &BuildRequest, watch: &dyn Watch) -> Result<Checked> {
        let input = context::open(&self.store, request, watch)?;
        let parsed = frontend::parse(&input.dockerfile);
        let source = Source { name: input.name.clone(), text: parsed.text.clone() };
        let mut options = with_ignored(&request.options, &input);
        options.all_stages = options.target.is_none();
        if parsed.has_errors() {
            let warnings = frontend::check_syntax(&parsed, &options);
            let failure =
                Some(BuildFailure::of_syntax(&located(parsed.diagnostics, &parsed.dockerfile), &source));
            return Ok(Checked { warnings, failure, source });
        }
        let dockerfile = &parsed.dockerfile;
        let found = match self.find_bases(dockerfile, request, &options, watch)? {
            Err(found) => found,
            Ok(bases) => match frontend::lower(dockerfile, &options, &bases) {
                Ok(lowered) => lowered.diagnostics,
                Err(found) => found,
            },
        };
        let (errors, warnings): (Vec<_>, Vec<_>) = found.into_iter().partition(Diagnostic::is_error);
        let errors = located(errors, dockerfile);
        let failure = (!errors.is_empty()).then(|| BuildFailure::of_meaning(&errors, &source));
        Ok(Checked { warnings, failure, source })
    }
    /// Tells what the target takes from its caller. Bases that can't be found are taken for empty ones.
    ///
    /// # Errors
    /// When the Dockerfile can't be read or built.
    pub fn outline(&self, request: &BuildRequest, watch: &dyn Watch) -> Result<(Outline, Source)> {
        let (dockerfile, source) = self.read(request, watch)?;
        let told = match self.find_bases(&dockerfile, request, &request.options, watch)? {
            Ok(bases) => frontend::outline(&dockerfile, &request.options, &bases),
            Err(found) => Err(found),
        };
        let outline = told.map_err(|mut found| {
            found.retain(Diagnostic::is_error);
            failed(BuildFailure::of_meaning(&found, &source))
        })?;
        Ok((outline, source))
    }

    /// Reads the Dockerfile, and no more.
    ///
    /// # Errors
    /// When it is not there or not understood.
    pub fn read(&self, request: &BuildRequest, watch: &dyn Watch) -> Result<(Dockerfile, Source)> {
        let input = context::open(&self.store, request, watch)?;
        let parsed = frontend::parse(&input.dockerfile);
        let source = Source { name: input.name.clone(), text: parsed.text.clone() };
        if parsed.has_errors() {
            return Err(failed(BuildFailure::of_syntax(&parsed.diagnostics, &source)));
        }
        Ok((parsed.dockerfile, source))
    }

    /// What a build would solve, with nothing of it done but the bases looked up.
    ///
    /// # Errors
    /// As [`Engine::build`].
    pub fn graph(&self, request: &BuildRequest, watch: &dyn Watch) -> Result<Lowered> {
        let input = context::open(&self.store, request, watch)?;
        Ok(self.lower(request, &input, watch)?.0)
    }

    /// Reads a Dockerfile without a context: what was understood, and what is wrong.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn parse(&self, dockerfile: &DockerfileSource) -> Result<(Dockerfile, Option<BuildFailure>)> {
        let (name, text) = context::dockerfile(dockerfile, None)?;
        let parsed = frontend::parse(&text);
        let failure = parsed.has_errors().then(|| {
            let source = Source { name, text: parsed.text.clone() };
            BuildFailure::of_syntax(&parsed.diagnostics, &source)
        });
        Ok((parsed.dockerfile, failure))
    }
}

/// Each with the instruction that it is about.
fn located(diagnostics: Vec<Diagnostic>, dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    let node = |d: &Diagnostic| d.instruction.or_else(|| Some(dockerfile.node_at(d.span)?.span));
    diagnostics.into_iter().map(|d| Diagnostic { instruction: node(&d), ..d }).collect()
}

/// The options with what the check of ignored files needs.
pub(super) fn with_ignored(options: &frontend::Options, input: &Input) -> frontend::Options {
    let patterns = match &options.context {
        Origin::Local(name) => input.locals.get(name).map(|local| local.ignore.clone()),
        _ => None,
    };
    let ignored =
        patterns.filter(|patterns| !patterns.is_empty()).map(|patterns| Ignored { patterns, matches });
    frontend::Options { ignored, ..options.clone() }
}

/// Patterns that can't be read match nothing here; the build tells of them.
fn matches(patterns: &[String], path: &str) -> bool {
    Matcher::new(patterns).is_ok_and(|matcher| matcher.matches_or_parent(path.trim_start_matches('/')))
}
