//! The graph of stages: what each is built from, what it copies from, and which of them the target needs.

use std::collections::HashMap;
use std::ops::Deref;

use boxwright_cache::oci::{Platform, Reference};
use boxwright_solver::Span;

use super::scope::{self, Env};
use super::{Bases, NamedContext, NamedContexts, Options, Origin, epoch, onbuild};
use crate::ast::{Copy, Dockerfile, Instruction, Kind, MountFlag, Stage, Word};
use crate::diagnostic::{Diagnostic, Diagnostics, nearest};
use crate::lint::{self, FromWord, Linter};
use crate::notation::quote;
use crate::syntax::{Expansion, Lexer};

const SCRATCH: &str = "scratch";
/// Images whose misspelt names are recognised.
const WELL_KNOWN: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// What a stage starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Scratch,
    /// As in the Dockerfile, variables expanded.
    Image(String),
    Stage(usize),
    /// The files of the named context of this name.
    Files(String, Origin),
}

/// A stage, or an image that one copies from.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) base: Base,
    /// Shown in the names of steps; empty for an image.
    pub(super) label: String,
    /// As FROM names it, in lower case.
    pub(super) name: Option<&'a str>,
    pub(super) platform: Option<Platform>,
    pub(super) commands: Vec<Command<'a>>,
    pub(super) span: Span,
    /// Nothing runs in it: an image that is only copied from, or what stands in for a stage.
    pub(super) given: bool,
    triggered: bool,
}

impl Node<'_> {
    /// What messages call it.
    pub(super) fn place(&self) -> String {
        match &self.base {
            Base::Image(name) if self.given && self.name.is_none() => format!("image {name:?}"),
            Base::Files(name, _) if self.given => format!("context {name:?}"),
            _ => format!("stage {:?}", self.name.unwrap_or(&self.label)),
        }
    }
}

/// An instruction of a stage.
#[derive(Debug)]
pub(super) struct Command<'a> {
    pub(super) instruction: Held<'a>,
    /// What COPY `--from` names, or the `from` of each mount of RUN.
    pub(super) sources: Vec<Option<usize>>,
}

impl Command<'_> {
    pub(super) fn on_build(&self) -> bool {
        matches!(self.instruction, Held::Trigger(_))
    }
}

/// Who holds an instruction.
#[derive(Debug)]
pub(super) enum Held<'a> {
    Here(&'a Instruction),
    /// It came from the base as an ONBUILD trigger: its words have no place in this Dockerfile.
    Trigger(Box<Instruction>),
}

impl Deref for Held<'_> {
    type Target = Instruction;

    fn deref(&self) -> &Instruction {
        match self {
            Held::Here(instruction) => instruction,
            Held::Trigger(instruction) => instruction,
        }
    }
}

/// All stages in order; behind them the images that are only copied from.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) globals: Env,
    pub(super) target: usize,
    pub(super) linter: Linter<'a>,
    names: HashMap<&'a str, usize>,
    contexts: NamedContexts,
    /// For those that say none.
    platform: Platform,
    /// How many of the nodes are stages of the Dockerfile.
    stages: usize,
    /// Every stage is wanted, not only what the target needs.
    all: bool,
}

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

impl<'a> Graph<'a> {
    pub(super) fn new(
        dockerfile: &'a Dockerfile,
        options: &Options,
        bases: &Bases,
    ) -> std::result::Result<Graph<'a>, Diagnostics> {
        let mut errors = Vec::new();
        let mut linter = Linter::new(dockerfile, &options.build_args).map_err(|error| vec![*error])?;
        linter.syntax(usize::MAX);
        if dockerfile.stages.is_empty() {
            return Err(vec![Diagnostic::error("dockerfile contains no stages to build", Span::default())]);
        }
        linter.stages();
        let lexer = Lexer::new(dockerfile.escape);
        if let Some(defaults) = scope::defaults(dockerfile, options) {
            linter.report(&[], lint::default_base(&dockerfile.stages, lexer, &defaults));
        }
        let mut globals = scope::global(dockerfile, options, &mut errors);
        epoch::settle(&mut globals, options);
        let mut graph = Graph {
            nodes: Vec::new(),
            globals,
            target: 0,
            linter,
            names: HashMap::new(),
            contexts: options.contexts.clone(),
            platform: options.target_platform().clone(),
            stages: dockerfile.stages.len(),
            all: options.all_stages,
        };
        let known: Vec<String> = scope::declared(dockerfile).map(str::to_owned).collect();
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            graph.add_stage(index, stage, lexer, &known, &mut errors);
        }
        match graph.find_target(options) {
            Ok(target) => graph.target = target,
            Err(error) => errors.push(*error),
        }
        graph.add_commands(dockerfile, &mut errors);
        errors.extend(graph.cycle());
        if !errors.is_empty() {
            errors.splice(0..0, graph.linter.found());
            return Err(errors);
        }
        if let [only] = &mut graph.nodes[..] {
            only.label.clear();
        }
        match graph.add_triggers(options, bases) {
            Ok(()) => Ok(graph),
            Err(errors) => Err(graph.linter.found().into_iter().chain(errors).collect()),
        }
    }

    /// A stage whose FROM is wrong is an empty one, so that what is wrong elsewhere is found as well.
    fn add_stage(
        &mut self,
        index: usize,
        stage: &'a Stage,
        lexer: Lexer,
        declared: &[String],
        errors: &mut Vec<Diagnostic>,
    ) {
        let found = self.checked(stage, lexer, declared);
        self.linter.report(&stage.comments, found);
        let platform = self.platform(stage, lexer).unwrap_or_else(|error| {
            errors.push(*error);
            None
        });
        let base = self.base(stage, lexer, platform.as_ref()).unwrap_or_else(|error| {
            errors.push(*error);
            Base::Scratch
        });
        let name = stage.from.name.as_ref().map(|word| word.text.as_str());
        let instead = name.and_then(|name| self.named(name, platform.as_ref()));
        let given = instead.is_some();
        self.nodes.push(Node {
            base: instead.unwrap_or(base),
            label: name.map_or_else(|| format!("stage-{index}"), str::to_owned),
            name,
            platform,
            commands: Vec::new(),
            span: stage.span,
            given,
            triggered: given,
        });
        self.names.extend(name.map(|name| (name, index)));
    }

    /// What the checks say of a FROM.
    fn checked(&self, stage: &Stage, lexer: Lexer, declared: &[String]) -> Vec<Diagnostic> {
        let known: Vec<&str> = declared.iter().map(String::as_str).chain(self.globals.names()).collect();
        let expanded = |word: &Word| lexer.expand(&word.text, &self.globals).unwrap_or_default();
        let about = |word, expansion| FromWord { word, expansion, known: &known };
        let base: Expansion = expanded(&stage.from.base);
        let mut found = lint::of_base(&about(&stage.from.base, &base));
        if let Some(word) = &stage.from.platform {
            let platform = expanded(word);
            let name = stage.from.name.as_ref().map_or("", |name| name.text.as_str());
            let target = self.globals.value("TARGETPLATFORM").unwrap_or_default();
            found.extend(lint::of_platform(&about(word, &platform), name, target));
        }
        found
    }

    /// What stands in for a stage or an image.
    fn named(&self, name: &str, platform: Option<&Platform>) -> Option<Base> {
        let (name, context) = self.contexts.find(name, platform.unwrap_or(&self.platform))?;
        Some(match context {
            NamedContext::Scratch => Base::Scratch,
            NamedContext::Image(image) => Base::Image(image.clone()),
            NamedContext::Files(origin) => Base::Files(name, origin.clone()),
        })
    }

    fn base(&self, stage: &Stage, lexer: Lexer, platform: Option<&Platform>) -> Result<Base> {
        let word = &stage.from.base;
        let fail = |message: String| Box::new(Diagnostic::error(message, word.span));
        let Expansion { text: name, unmatched: unset, .. } =
            lexer.expand(&word.text, &self.globals).map_err(fail)?;
        if name.is_empty() {
            let blank = fail(format!("base name ({}) should not be blank", word.text));
            return Err(match unset.first() {
                Some(unset) => Box::new(blank.did_you_mean(unset, self.globals.names())),
                None => blank,
            });
        }
        if let Some(stage) = self.names.get(name.as_str()) {
            return Ok(Base::Stage(*stage));
        }
        if name == SCRATCH {
            return Ok(Base::Scratch);
        }
        check_image_name(&name, word.span).map_err(|error| match unset.first() {
            Some(unset) => {
                let meant = nearest(unset, self.globals.names());
                let meant = meant.map_or(String::new(), |name| format!("; did you mean {name}?"));
                Box::new(error.hint(format!("no ARG before the first FROM sets {unset}{meant}")))
            }
            None => error,
        })?;
        Ok(self.named(&name, platform).unwrap_or(Base::Image(name)))
    }

    fn platform(&self, stage: &Stage, lexer: Lexer) -> Result<Option<Platform>> {
        let Some(word) = &stage.from.platform else { return Ok(None) };
        let fail = |message: String| Box::new(Diagnostic::error(message, word.span));
        let expansion = lexer.expand(&word.text, &self.globals).map_err(|reason| {
            fail(format!("failed to process arguments for platform {}: {reason}", word.text))
        })?;
        let suggest = |error: Box<Diagnostic>| match expansion.unmatched.first() {
            Some(unset) => Box::new(error.did_you_mean(unset, self.globals.names())),
            None => error,
        };
        if expansion.text.is_empty() {
            return Err(suggest(fail(format!("empty platform value from expression {}", word.text))));
        }
        let parsed = expansion.text.parse().map(Some);
        parsed.map_err(|reason| suggest(fail(format!("failed to parse platform {}: {reason}", word.text))))
    }

    fn find_target(&self, options: &Options) -> Result<usize> {
        let Some(target) = &options.target else { return Ok(self.nodes.len() - 1) };
        self.names.get(target.to_lowercase().as_str()).copied().ok_or_else(|| {
            let message = format!("target stage {} could not be found", quote(target));
            let labels = self.nodes.iter().map(|node| node.label.as_str());
            Box::new(Diagnostic::error(message, Span::default()).did_you_mean(target, labels))
        })
    }

    fn add_commands(&mut self, dockerfile: &'a Dockerfile, errors: &mut Vec<Diagnostic>) {
        let lexer = Lexer::new(dockerfile.escape);
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            if self.nodes[index].given {
                continue;
            }
            self.nodes[index].commands.reserve_exact(stage.commands.len());
            for instruction in &stage.commands {
                match self.sources_of(instruction, lexer) {
                    Ok(sources) => {
                        let instruction = Held::Here(instruction);
                        self.nodes[index].commands.push(Command { instruction, sources });
                    }
                    Err(error) => errors.push(*error),
                }
            }
        }
    }

    /// What COPY `--from` and the mounts of RUN name: a stage, by name or index, or else an image, which becomes a
    /// node.
    pub(super) fn sources_of(
        &mut self,
        instruction: &Instruction,
        lexer: Lexer,
    ) -> Result<Vec<Option<usize>>> {
        match &instruction.kind {
            Kind::Copy(copy) => Ok(vec![self.copied_from(copy, lexer)?]),
            Kind::Run(run) => run.mounts.iter().map(|mount| self.mounted_from(mount)).collect(),
            _ => Ok(Vec::new()),
        }
    }

    /// A number that is none of a stage is taken for the name of an image, other than after COPY.
    fn mounted_from(&mut self, mount: &MountFlag) -> Result<Option<usize>> {
        let Some(from) = &mount.from else { return Ok(None) };
        let index = from.parse().ok().filter(|index| *index < self.stages);
        match index.or_else(|| self.names.get(from.to_lowercase().as_str()).copied()) {
            Some(stage) => Ok(Some(stage)),
            None => self.add_image(&Word { text: from.clone(), span: mount.span }).map(Some),
        }
    }

    fn copied_from(&mut self, copy: &Copy, lexer: Lexer) -> Result<Option<usize>> {
        let Some(from) = &copy.from else { return Ok(None) };
        let fail = |message: String| Box::new(Diagnostic::error(message, from.span));
        if lexer.word(&from.text, &Env::default()).map_err(fail)? != from.text {
            let way_out = "define a new stage with FROM using ARG from global scope as a workaround";
            return Err(fail(format!("variable expansion is not supported for --from, {way_out}")));
        }
        if let Ok(index) = from.text.parse::<i64>() {
            let known = usize::try_from(index).ok().filter(|index| *index < self.nodes.len());
            return known.map(Some).ok_or_else(|| fail(format!("invalid stage index {index}")));
        }
        if let Some(stage) = self.names.get(from.text.to_lowercase().as_str()) {
            return Ok(Some(*stage));
        }
        self.add_image(from).map(Some)
    }

    fn add_image(&mut self, from: &Word) -> Result<usize> {
        let base = if from.text == SCRATCH {
            Base::Scratch
        } else {
            let names = self.names.keys().copied();
            check_image_name(&from.text, from.span)
                .map_err(|e| Box::new(e.did_you_mean(&from.text, names)))?;
            self.named(&from.text, None).unwrap_or_else(|| Base::Image(from.text.clone()))
        };
        self.nodes.push(Node {
            base,
            label: String::new(),
            name: None,
            platform: None,
            commands: Vec::new(),
            span: from.span,
            given: true,
            triggered: true,
        });
        Ok(self.nodes.len() - 1)
    }

    /// The instructions that bases left for those who build on them come first in a stage. They may name further
    /// images, whose own triggers do not run: only FROM runs triggers.
    fn add_triggers(&mut self, options: &Options, bases: &Bases) -> std::result::Result<(), Diagnostics> {
        let mut errors = Vec::new();
        loop {
            // A trigger may copy from a stage that nothing else needs, which may have triggers of its own.
            let reachable = self.reachable();
            let pending: Vec<usize> = (0..self.nodes.len())
                .filter(|index| reachable[*index] && !self.nodes[*index].triggered)
                .collect();
            if pending.is_empty() {
                break;
            }
            pending.into_iter().for_each(|index| self.trigger(index, options, bases, &mut errors));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn trigger(&mut self, index: usize, options: &Options, bases: &Bases, errors: &mut Vec<Diagnostic>) {
        self.nodes[index].triggered = true;
        let node = &self.nodes[index];
        let texts: Vec<String> = match &node.base {
            Base::Scratch | Base::Files(..) => Vec::new(),
            Base::Image(name) => {
                let platform = node.platform.as_ref().unwrap_or(options.target_platform());
                bases.get(name, platform).map(|base| base.config.config.on_build.clone()).unwrap_or_default()
            }
            Base::Stage(base) => onbuild::of_stage(&self.nodes[*base]),
        };
        let span = node.span;
        let mut commands = Vec::new();
        for text in texts {
            match onbuild::command(self, &text, span) {
                Ok(command) => commands.push(command),
                Err(error) => errors.extend(error),
            }
        }
        self.nodes[index].commands.splice(0..0, commands);
    }

    /// The name of a stage, or of an image that everybody knows, that is almost `name`.
    pub(super) fn similar_image(&self, name: &str) -> Option<String> {
        let (repository, tag) = name.split_once(':').unwrap_or((name, ""));
        let stages = self.nodes.iter().filter_map(|node| node.name);
        if let Some(stage) = nearest(name, stages) {
            return Some(stage.to_owned());
        }
        let image = nearest(repository, WELL_KNOWN)?;
        Some(if tag.is_empty() { image.to_owned() } else { format!("{image}:{tag}") })
    }

    /// For each node, whether it is to be lowered: the target needs it, or all are wanted.
    pub(super) fn reachable(&self) -> Vec<bool> {
        let mut reachable = vec![self.all; self.nodes.len()];
        if self.all {
            return reachable;
        }
        let mut pending = vec![self.target];
        while let Some(index) = pending.pop() {
            if std::mem::replace(&mut reachable[index], true) {
                continue;
            }
            let node = &self.nodes[index];
            pending.extend(node.commands.iter().flat_map(|command| command.sources.iter().flatten()));
            pending.extend(if let Base::Stage(base) = node.base { Some(base) } else { None });
        }
        reachable
    }

    /// The first stage that copies, through others, from itself.
    fn cycle(&self) -> Option<Diagnostic> {
        let mut seen = vec![false; self.nodes.len()];
        for root in 0..self.nodes.len() {
            // The path from the root, each with what is still to be followed.
            let mut path = vec![(root, sources(&self.nodes[root]))];
            let mut on_path = vec![root];
            if std::mem::replace(&mut seen[root], true) {
                continue;
            }
            while let Some((_, named)) = path.last_mut() {
                let Some((next, command)) = named.next() else {
                    path.pop();
                    on_path.pop();
                    continue;
                };
                if on_path.contains(&next) {
                    let message =
                        format!("circular dependency detected on stage: {}", self.nodes[root].label);
                    return Some(Diagnostic::error(message, command.instruction.span));
                }
                if !std::mem::replace(&mut seen[next], true) {
                    path.push((next, sources(&self.nodes[next])));
                    on_path.push(next);
                }
            }
        }
        None
    }
}

/// What a node's commands name, each with the command that does.
fn sources<'n, 'a>(node: &'n Node<'a>) -> Box<dyn Iterator<Item = (usize, &'n Command<'a>)> + 'n> {
    let named = |command: &'n Command<'a>| command.sources.iter().flatten().map(move |at| (*at, command));
    Box::new(node.commands.iter().flat_map(named))
}

/// A name that no registry could have is refused before anything is asked.
fn check_image_name(name: &str, span: Span) -> Result<()> {
    if name.starts_with("oci-layout://") {
        return Ok(());
    }
    match name.parse::<Reference>() {
        Ok(_) => Ok(()),
        Err(reason) => {
            let message = format!("failed to parse stage name {}: {reason}", quote(name));
            Err(Box::new(Diagnostic::error(message, span)))
        }
    }
}
