//! From syntax tree to build graph, with the meaning that BuildKit gives to Dockerfiles. Only stages that the target
//! needs are lowered. Several errors are reported at once where one does not follow from another.

mod add;
mod config;
mod copy;
mod epoch;
mod instructions;
mod mounts;
mod named;
mod onbuild;
mod origin;
mod outline;
mod paths;
mod ports;
mod run;
mod scope;
mod signal;
mod stages;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use boxwright_cache::oci::{ImageConfig, Platform};
use boxwright_solver::Span;
use boxwright_solver::ir::{Definition, Host, ImageSource, NetworkMode, VertexId};

use crate::ast::Dockerfile;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::lint::{Ignored, Linter};
use crate::syntax::{Parsed, syntax_image};
pub use epoch::{Epoch, can_be_told, epoch};
pub use mounts::NAMESPACE as CACHE_NAMESPACE;
pub use named::{NamedContext, NamedContexts, parse_name as parse_context_name};
pub use origin::Origin;
pub use outline::{Argument, CacheUse, Credential, Outline, outline};
pub use ports::{PortMapping, parse_ports};
pub use scope::proxies;
pub use signal::is_signal;
use stages::{Base, Graph};

/// The build argument that names the machine that steps run on.
pub const HOSTNAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";

/// As long as Linux lets it be.
const HOSTNAME_MAX: usize = 64;

/// What the command line adds to a Dockerfile.
#[derive(Clone, Debug)]
pub struct Options {
    /// A stage's name; the last stage when there is none.
    pub target: Option<String>,
    pub build_args: BTreeMap<String, String>,
    /// Labels of the result, over those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// No step is taken from the cache.
    pub no_cache: bool,
    /// The same for the stages of these names.
    pub no_cache_stages: Vec<String>,
    /// As asked for; without any the platform of the base image is kept, and `build_platform` is looked for.
    pub platforms: Vec<Platform>,
    pub build_platform: Platform,
    /// Of RUN without `--network`.
    pub network: NetworkMode,
    /// Further names in the hosts file of RUN.
    pub hosts: Vec<Host>,
    /// What COPY and ADD read.
    pub context: Origin,
    /// What stands in for stages and images.
    pub contexts: NamedContexts,
    /// The time of everything new, in seconds since 1970: what [`epoch()`] was found to mean.
    pub epoch: Option<i64>,
    /// What COPY and ADD do not find there, for the check that tells of it.
    pub ignored: Option<Ignored>,
    /// Lower every stage, whether the target needs it or not: for the checks.
    pub all_stages: bool,
}

impl Options {
    /// The same, with a build argument for the time that says what it was found to mean.
    #[must_use]
    pub fn at(mut self, epoch: Option<i64>) -> Options {
        if let Some(given) = self.build_args.get_mut(epoch::NAME) {
            *given = epoch::written(epoch);
        }
        Options { epoch, ..self }
    }

    /// What RUN finds the machine to be called, if the build says so.
    pub(crate) fn hostname(&self) -> Option<&str> {
        self.build_args.get(HOSTNAME).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The platform that images are looked for in; of several the first.
    pub fn target_platform(&self) -> &Platform {
        self.platforms.first().unwrap_or(&self.build_platform)
    }

    /// The same for each platform alone.
    fn for_each_platform(&self) -> Vec<Options> {
        if self.platforms.is_empty() {
            return vec![self.clone()];
        }
        let only = |platform: &Platform| Options { platforms: vec![platform.clone()], ..self.clone() };
        self.platforms.iter().map(only).collect()
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            no_cache: false,
            no_cache_stages: Vec::new(),
            platforms: Vec::new(),
            build_platform: Platform::host(),
            network: NetworkMode::default(),
            hosts: Vec::new(),
            context: Origin::Local("context".to_owned()),
            contexts: NamedContexts::default(),
            epoch: None,
            ignored: None,
            all_stages: false,
        }
    }
}

/// An image that a reachable stage needs to be known before it can be lowered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// As in the Dockerfile, variables expanded.
    pub name: String,
    pub platform: Platform,
    /// Where it is asked for.
    pub span: Span,
    /// The stage or the well-known image that was probably meant, if there is no such image.
    pub similar: Option<String>,
}

/// What an [`ImageRequest`] turned out to be.
#[derive(Clone, Debug)]
pub struct ResolvedBase {
    pub source: ImageSource,
    pub config: ImageConfig,
}

/// The images known so far.
#[derive(Clone, Debug, Default)]
pub struct Bases {
    images: HashMap<(String, Platform), Option<ResolvedBase>>,
}

impl Bases {
    pub fn insert(&mut self, request: &ImageRequest, base: ResolvedBase) {
        self.images.insert((request.name.clone(), request.platform.clone()), Some(base));
    }

    /// An image that could not be looked up. For the checks it will do: it counts as empty, and what is built on it can
    /// be checked but not built.
    pub fn insert_unknown(&mut self, request: &ImageRequest) {
        self.images.insert((request.name.clone(), request.platform.clone()), None);
    }

    /// One of them left instructions for what is built on it, which may need further images.
    pub fn have_triggers(&self) -> bool {
        self.images.values().flatten().any(|base| !base.config.config.on_build.is_empty())
    }

    /// None where the image is unknown or was not asked for.
    pub fn get(&self, name: &str, platform: &Platform) -> Option<&ResolvedBase> {
        self.images.get(&(name.to_owned(), platform.clone()))?.as_ref()
    }

    fn is_unknown(&self, name: &str, platform: &Platform) -> bool {
        self.images.get(&(name.to_owned(), platform.clone())).is_some_and(Option::is_none)
    }
}

/// A Dockerfile as a build.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// Of all platforms: what does not differ is there once.
    pub definition: Definition,
    /// One for each platform, in the order in which they were asked for.
    pub images: Vec<LoweredImage>,
    /// [`Options::epoch`].
    pub epoch: Option<i64>,
    /// Warnings, of all platforms.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a build gives for one platform.
#[derive(Clone, Debug)]
pub struct LoweredImage {
    /// As asked for, or the machine's own.
    pub platform: Platform,
    /// The result's root file system; none when it is empty.
    pub output: Option<VertexId>,
    /// Complete but for the layers that are still to be built: `rootfs.diff_ids` are those of the base, and new
    /// history entries have no time.
    pub image: ImageConfig,
    /// The vertices that make the layers above the base, in order: one for each new history entry that is not an
    /// empty layer.
    pub new_layers: Vec<VertexId>,
}

impl Lowered {
    /// What the results consist of.
    pub fn outputs(&self) -> Vec<VertexId> {
        let mut outputs: Vec<VertexId> = self.images.iter().filter_map(|image| image.output).collect();
        outputs.sort_unstable();
        outputs.dedup();
        outputs
    }
}

/// The images to resolve before [`lower`]. Where what was found has triggers ([`Bases::have_triggers`]), to be called
/// again with it until it asks for nothing.
///
/// # Errors
/// What is wrong with the stages: names, platforms, targets, cycles; and what the checks found until then.
pub fn needed_images(
    dockerfile: &Dockerfile,
    options: &Options,
    bases: &Bases,
) -> Result<Vec<ImageRequest>, Diagnostics> {
    check_language(dockerfile, options)?;
    check_hostname(options)?;
    let mut requests: Vec<ImageRequest> = Vec::new();
    for options in options.for_each_platform() {
        add_needed(dockerfile, &options, bases, &mut requests)?;
    }
    Ok(requests)
}

fn add_needed(
    dockerfile: &Dockerfile,
    options: &Options,
    bases: &Bases,
    requests: &mut Vec<ImageRequest>,
) -> Result<(), Diagnostics> {
    let graph = Graph::new(dockerfile, options, bases)?;
    let reachable = graph.reachable();
    for index in (0..graph.nodes.len()).filter(|index| reachable[*index]) {
        let node = &graph.nodes[index];
        let Base::Image(name) = &node.base else { continue };
        let platform = node.platform.as_ref().unwrap_or(options.target_platform()).clone();
        let known = bases.images.contains_key(&(name.clone(), platform.clone()))
            || requests.iter().any(|request| request.name == *name && request.platform == platform);
        if !known {
            let span = dockerfile.stages.get(index).map_or(node.span, |stage| stage.from.base.span);
            let similar = graph.similar_image(name);
            requests.push(ImageRequest { name: name.clone(), platform, span, similar });
        }
    }
    Ok(())
}

/// Lowers a Dockerfile whose images are all in `bases`.
///
/// # Errors
/// All that is wrong with the stages that the target needs, and what the checks found until then.
pub fn lower(dockerfile: &Dockerfile, options: &Options, bases: &Bases) -> Result<Lowered, Diagnostics> {
    check_language(dockerfile, options)?;
    check_hostname(options)?;
    let mut lowered = Lowered {
        definition: Definition::default(),
        images: Vec::new(),
        epoch: options.epoch,
        diagnostics: Vec::new(),
    };
    let several = options.platforms.len() > 1;
    for options in options.for_each_platform() {
        let graph = Graph::new(dockerfile, &options, bases)?;
        instructions::lower(dockerfile, &options, bases, &graph, several, &mut lowered)?;
    }
    Ok(lowered)
}

/// What the checks say of a text that has errors, which they can't look behind: warnings alone.
pub fn check_syntax(parsed: &Parsed, options: &Options) -> Vec<Diagnostic> {
    let Ok(mut linter) = Linter::new(&parsed.dockerfile, &options.build_args) else { return Vec::new() };
    let first = parsed.diagnostics.iter().find(|diagnostic| diagnostic.is_error());
    linter.syntax(first.map_or(usize::MAX, |error| error.span.start));
    linter.found()
}

/// It becomes a line of the hosts file, and the kernel has to take it.
fn check_hostname(options: &Options) -> Result<(), Diagnostics> {
    let Some(name) = options.hostname() else { return Ok(()) };
    if name.len() <= HOSTNAME_MAX && !name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Ok(());
    }
    let message = format!("the build argument {HOSTNAME} is no host name: {name:?}");
    let hint = format!("a host name has up to {HOSTNAME_MAX} characters and no spaces");
    Err(vec![Diagnostic::error(message, Span::default()).hint(hint)])
}

/// Another frontend than ours would be a program of its own (rule R8).
fn check_language(dockerfile: &Dockerfile, options: &Options) -> Result<(), Diagnostics> {
    let refuse = |image: &str, span: Span| {
        let message =
            format!("the frontend image {image:?} can't be used: this is a builder of Dockerfiles alone");
        Err(vec![Diagnostic::error(message, span).hint("remove the line, or name docker/dockerfile:1")])
    };
    if let Some(image) = options.build_args.get("BUILDKIT_SYNTAX") {
        let text = format!("# syntax={image}\n");
        let other = syntax_image(&crate::parse(text).dockerfile).is_some();
        return if other { refuse(image, Span::default()) } else { Ok(()) };
    }
    match syntax_image(dockerfile) {
        Some(directive) => refuse(&directive.value, directive.span),
        None => Ok(()),
    }
}
