//! What a build would do, told instead of done: the checks, what a target takes, which targets there are.

use boxwright_frontend as frontend;
use frontend::{Diagnostic, Dockerfile, Lowered, Outline};

use super::Engine;
use super::build::{BuildRequest, failed};
use super::context::{self, DockerfileSource, Input};
use super::failure::{BuildFailure, Source};
use super::solving::Solving;
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
        let input = context::open(&Solving::new(self, request, watch))?;
        let parsed = frontend::parse(&input.dockerfile);
        let source = Source { name: input.name.clone(), text: parsed.text.clone() };
        let mut options = input.options(&request.options);
        options.all_stages = options.target.is_none();
        if parsed.has_errors() {
            let warnings = frontend::check_syntax(&parsed, &options);
            let failure =
                Some(BuildFailure::of_syntax(&located(parsed.diagnostics, &parsed.dockerfile), &source));
            return Ok(Checked { warnings, failure, source });
        }
        let dockerfile = &parsed.dockerfile;
        let mut found = match self.find_bases(dockerfile, request, &options, watch)? {
            Err(found) => found,
            Ok(bases) => match frontend::lower(dockerfile, &options, &bases) {
                Ok(lowered) => lowered.diagnostics,
                Err(found) => found,
            },
        };
        // Its time is not asked for, but what says it has to make sense.
        found.extend(frontend::epoch(dockerfile, &options).err().unwrap_or_default());
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
        let (input, dockerfile, source) = self.opened(request, watch)?;
        let options = input.options(&request.options);
        let told = match self.find_bases(&dockerfile, request, &options, watch)? {
            Ok(bases) => frontend::outline(&dockerfile, &options, &bases),
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
        self.opened(request, watch).map(|(_, dockerfile, source)| (dockerfile, source))
    }

    fn opened(&self, request: &BuildRequest, watch: &dyn Watch) -> Result<(Input, Dockerfile, Source)> {
        let input = context::open(&Solving::new(self, request, watch))?;
        let parsed = frontend::parse(&input.dockerfile);
        let source = Source { name: input.name.clone(), text: parsed.text.clone() };
        if parsed.has_errors() {
            return Err(failed(BuildFailure::of_syntax(&parsed.diagnostics, &source)));
        }
        Ok((input, parsed.dockerfile, source))
    }

    /// What a build would solve, with nothing of it done but the bases looked up.
    ///
    /// # Errors
    /// As [`Engine::build`].
    pub fn graph(&self, request: &BuildRequest, watch: &dyn Watch) -> Result<Lowered> {
        let solving = Solving::new(self, request, watch);
        let input = context::open(&solving)?;
        Ok(self.lower(&solving, &input)?.0)
    }

    /// Reads a Dockerfile without a context: what was understood, and what is wrong.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn parse(&self, dockerfile: &DockerfileSource) -> Result<(Dockerfile, Option<BuildFailure>)> {
        let (name, text) = context::lone_dockerfile(dockerfile)?;
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
