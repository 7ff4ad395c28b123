//! The walk over the stages that the target needs, and from each instruction to what lowers it.

use std::borrow::Cow;

use boxwright_cache::oci::Platform;
use boxwright_cache::oci::platform::{Json, OS_FEATURES, OS_VERSION};
use boxwright_solver::ir::{About, Definition, ImageSource, NetworkMode, Op, SourceOp};

use super::origin::{Files, Origin};
use super::outline::Notes;
use super::stages::{Base, Command, Graph, Node};
use super::state::{State, empty_image};
use super::{Bases, Lowered, LoweredImage, Options, ResolvedBase, config, copy, onbuild, run, scope};
use crate::ast::{Dockerfile, Instruction, Kind, MountFlag, Word};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::lint::{self, Linter};
use crate::syntax::{Lexer, Mode};

pub(super) type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// What all stages share.
pub(super) struct Build<'a> {
    pub(super) definition: Definition,
    pub(super) options: &'a Options,
    pub(super) lexer: Lexer,
    pub(super) globals: &'a scope::Env,
    pub(super) proxies: Vec<String>,
    linter: Linter<'a>,
    bases: &'a Bases,
    /// Of the stages and images lowered so far, while a stage may still start from them.
    states: Vec<Option<State>>,
    /// What is copied from each; nothing where the stage is wrong, for its errors are told.
    roots: Vec<Option<Files>>,
    /// How many stages are still to start from each.
    heirs: Vec<usize>,
    graph: &'a Graph<'a>,
    /// What each stage takes from the caller, when that is asked for.
    notes: Option<Vec<Notes>>,
    /// The names of steps say which platform they are for.
    several: bool,
}

/// The stage whose instructions are being lowered.
pub(super) struct StageRun<'a> {
    pub(super) state: State,
    pub(super) node: &'a Node<'a>,
    /// CMD was given in this very stage.
    pub(super) cmd_is_set: bool,
    pub(super) no_cache: bool,
    several: bool,
    earlier: lint::Earlier,
    on_build: bool,
    step: usize,
    steps: usize,
}

pub(super) fn lower(
    dockerfile: &Dockerfile,
    options: &Options,
    bases: &Bases,
    graph: &Graph<'_>,
    several: bool,
    into: &mut Lowered,
) -> std::result::Result<(), Diagnostics> {
    let definition = std::mem::take(&mut into.definition);
    let mut build = Build { several, definition, ..Build::new(dockerfile, options, bases, graph) };
    build.all_stages()?;
    let found = build.linter.finish();
    if found.iter().any(Diagnostic::is_error) {
        return Err(found);
    }
    let state =
        build.states[graph.target].take().expect("the target is reachable and was lowered without an error");
    into.definition = build.definition;
    into.images.push(finish(state, options));
    let told = into.diagnostics.len();
    for warning in found {
        if !into.diagnostics[..told].contains(&warning) {
            into.diagnostics.push(warning);
        }
    }
    Ok(())
}

/// What each stage takes from the caller, instead of what it becomes.
pub(super) fn outline(
    dockerfile: &Dockerfile,
    options: &Options,
    bases: &Bases,
    graph: &Graph<'_>,
) -> std::result::Result<Vec<Notes>, Diagnostics> {
    let mut build = Build::new(dockerfile, options, bases, graph);
    build.notes = Some(vec![Notes::default(); graph.nodes.len()]);
    build.all_stages()?;
    Ok(build.notes.unwrap_or_default())
}

fn finish(mut state: State, options: &Options) -> LoweredImage {
    state.image.config.labels.extend(options.labels.clone());
    if let Some(platform) = options.platforms.first() {
        let same = platform.os == state.image.os && platform.architecture == state.image.architecture;
        state.image.os.clone_from(&platform.os);
        state.image.architecture.clone_from(&platform.architecture);
        if platform.variant.is_some() || !same {
            state.image.variant.clone_from(&platform.variant);
        }
    }
    let mut made_for = options.target_platform().clone();
    for name in [OS_VERSION, OS_FEATURES] {
        if let Some(own) = state.image.extra.get(name) {
            made_for.extra.entry(name.to_owned()).or_insert_with(|| Json(own.clone()));
        } else if let Some(Json(asked)) = made_for.extra.get(name) {
            state.image.extra.insert(name.to_owned(), asked.clone());
        }
    }
    let normal = Platform::new(&state.image.os, &state.image.architecture, state.image.variant.as_deref());
    (state.image.architecture, state.image.variant) = (normal.architecture, normal.variant);
    LoweredImage {
        platform: made_for,
        output: state.root,
        new_layers: state.layers.clone(),
        image: state.finished_image(),
    }
}

impl<'a> Build<'a> {
    fn new(
        dockerfile: &'a Dockerfile,
        options: &'a Options,
        bases: &'a Bases,
        graph: &'a Graph<'a>,
    ) -> Build<'a> {
        Build {
            definition: Definition::default(),
            options,
            lexer: Lexer::new(dockerfile.escape),
            globals: &graph.globals,
            proxies: scope::proxies(options),
            linter: graph.linter.clone(),
            bases,
            states: vec![None; graph.nodes.len()],
            roots: vec![None; graph.nodes.len()],
            heirs: vec![0; graph.nodes.len()],
            graph,
            notes: None,
            several: false,
        }
    }

    /// Lowers whatever is wanted. What the checks found comes before the errors.
    fn all_stages(&mut self) -> std::result::Result<(), Diagnostics> {
        let graph = self.graph;
        let mut errors = Vec::new();
        let reachable = graph.reachable();
        let wanted = |index: &usize| reachable[*index];
        for index in (0..graph.nodes.len()).filter(wanted) {
            if let Base::Stage(base) = graph.nodes[index].base {
                self.heirs[base] += 1;
            }
        }
        // What nothing runs in is there before the stages, wherever it stands.
        let (images, stages): (Vec<usize>, Vec<usize>) =
            (0..graph.nodes.len()).filter(wanted).partition(|index| graph.nodes[*index].given);
        for index in images.into_iter().chain(stages) {
            match self.stage(index) {
                Ok(state) => {
                    self.roots[index] = Some(self.files_of(&graph.nodes[index], &state));
                    self.states[index] = Some(state);
                }
                Err(found) => {
                    self.roots[index] = Some(Files::Root(None));
                    errors.extend(found);
                }
            }
        }
        if errors.is_empty() {
            return Ok(());
        }
        errors.splice(0..0, self.linter.clone().found());
        Err(errors)
    }

    /// Lowers a stage or image. Stages that it needs were lowered before, or are wrong themselves.
    fn stage(&mut self, index: usize) -> std::result::Result<State, Diagnostics> {
        let node = &self.graph.nodes[index];
        let mut stage = StageRun {
            state: State::over(
                None,
                empty_image(self.options.target_platform()),
                self.options.target_platform().clone(),
            ),
            node,
            cmd_is_set: false,
            no_cache: self.no_cache(node),
            several: self.several,
            earlier: lint::Earlier::default(),
            on_build: false,
            step: 0,
            steps: count_steps(node),
        };
        match &node.base {
            Base::Scratch => {}
            Base::Image(name) => stage.state = self.image(name, &mut stage)?,
            Base::Files(name, origin) => stage.state = self.files(name, origin, node),
            // What the base's errors make of this stage is not worth telling.
            Base::Stage(base) => stage.state = self.inherit(*base).ok_or(Vec::new())?,
        }
        if node.given {
            return Ok(stage.state);
        }
        stage.state.begin_stage();
        let mut errors = Vec::new();
        for command in &node.commands {
            stage.on_build = command.on_build();
            let lowered = self.command(&mut stage, command);
            if let Err(error) = lowered.and_then(|()| self.note(index, &stage.state, command)) {
                errors.push(if command.on_build() {
                    onbuild::placed(*error, &command.instruction.original, node.span)
                } else {
                    *error
                });
            }
        }
        if errors.is_empty() { Ok(stage.state) } else { Err(errors) }
    }

    /// A named context as base: one layer above nothing.
    fn files(&mut self, name: &str, origin: &Origin, node: &Node<'_>) -> State {
        let platform = node.platform.as_ref().unwrap_or(self.options.target_platform());
        let mut state = State::over(None, empty_image(platform), platform.clone());
        let vertex = origin.add(&mut self.definition, Some(node.span));
        state.commit(vertex, format!("FROM {name} # context"));
        state
    }

    /// What is copied from a node: of a named context that is a directory no more than is named.
    fn files_of(&mut self, node: &Node<'_>, state: &State) -> Files {
        match &node.base {
            Base::Files(_, origin) if node.given => origin.files(&mut self.definition, node.span),
            _ => Files::Root(state.root),
        }
    }

    /// A copy of a stage's state, or the state itself if no other stage starts from it: a long chain of stages would
    /// else hold its history as often as it has stages.
    fn inherit(&mut self, base: usize) -> Option<State> {
        self.heirs[base] -= 1;
        if self.heirs[base] == 0 && base != self.graph.target {
            self.states[base].take()
        } else {
            self.states[base].clone()
        }
    }

    fn no_cache(&self, node: &Node<'_>) -> bool {
        let named =
            |name: &str| self.options.no_cache_stages.iter().any(|stage| stage.eq_ignore_ascii_case(name));
        self.options.no_cache || node.name.is_some_and(named)
    }

    fn image(&mut self, name: &str, stage: &mut StageRun<'_>) -> std::result::Result<State, Diagnostics> {
        let node = stage.node;
        let wanted = node.platform.as_ref().unwrap_or(self.options.target_platform());
        if self.bases.is_unknown(name, wanted) {
            let state = State::over(None, empty_image(wanted), wanted.clone());
            return Ok(State { unknown_base: true, ..state });
        }
        let Some(ResolvedBase { source, config }) = self.bases.get(name, wanted) else {
            let message = format!("image {name} for {wanted} has not been looked up");
            return Err(vec![Diagnostic::error(message, node.span)]);
        };
        let platform = match node.platform {
            None if self.options.platforms.is_empty() => self.detect_platform(config, wanted),
            _ => wanted.clone(),
        };
        if source.chain.is_some() {
            let actual = Platform::new(&config.os, &config.architecture, config.variant.as_deref());
            self.linter.report(&[], lint::base_platform(name, &platform, &actual, node.span));
        }
        stage.state.platform = platform.clone();
        let text = stage.step_name(&format!("FROM {}", pinned_name(source)));
        let root = source.chain.is_some().then(|| {
            let about = About { name: text, span: Some(node.span), no_cache: false };
            self.definition.add(Op::Source(SourceOp::Image(source.clone())), about)
        });
        // An image that has no other comes whatever was asked for.
        let over_windows = root.is_some() && (platform.os == "windows" || config.os == "windows");
        Ok(State { over_windows, ..State::over(root, config.clone(), platform) })
    }

    /// Without `--platform` an image that is for another machine keeps its own platform if that is one we build on.
    fn detect_platform(&self, config: &boxwright_cache::oci::ImageConfig, wanted: &Platform) -> Platform {
        let is =
            |platform: &Platform| platform.os == config.os && platform.architecture == config.architecture;
        if !is(wanted) && is(&self.options.build_platform) {
            self.options.build_platform.clone()
        } else {
            wanted.clone()
        }
    }

    fn command(&mut self, stage: &mut StageRun<'_>, command: &Command<'_>) -> Result<()> {
        let instruction = &*command.instruction;
        self.check(stage, instruction);
        let has_files = matches!(instruction.kind, Kind::Add(_) | Kind::Copy(_) | Kind::Workdir(_));
        if has_files && stage.state.over_windows {
            let message = "layers over an image for Windows are not supported yet";
            let hint = "FROM scratch they are; so are instructions that make no layer";
            return Err(Box::new(Diagnostic::error(message, instruction.span).hint(hint)));
        }
        match &instruction.kind {
            Kind::Add(_) => copy::lower(self, stage, instruction, None),
            Kind::Copy(copy) => {
                let from = match (command.sources.first(), &copy.from) {
                    (Some(Some(source)), Some(from)) => {
                        let files = self.source_state(stage, *source, from)?;
                        Some(copy::From { files, place: self.graph.nodes[*source].place() })
                    }
                    _ => None,
                };
                copy::lower(self, stage, instruction, from)
            }
            Kind::Run(run) => run::lower(self, stage, command, run),
            Kind::Workdir(path) => run::workdir(self, stage, instruction, path),
            _ => config::lower(self, stage, instruction),
        }
    }

    fn note(&mut self, index: usize, state: &State, command: &Command<'_>) -> Result<()> {
        let Some(mut notes) = self.notes.as_mut().map(|all| std::mem::take(&mut all[index])) else {
            return Ok(());
        };
        let noted = notes.note(self, state, command);
        self.notes.iter_mut().for_each(|all| all[index] = std::mem::take(&mut notes));
        noted
    }

    /// Lets the checks look at an instruction that is about to be lowered.
    fn check(&mut self, stage: &mut StageRun<'_>, instruction: &Instruction) {
        let state = &stage.state;
        let names = || state.env.names().take(lint::MOST_NAMES).collect();
        let scene = lint::Scene {
            lexer: self.lexer,
            variables: &state.env,
            names: &names,
            declared: &|name| state.args.value(name).is_some(),
            unknown_base: state.unknown_base,
            shell: state.image.config.shell.as_ref().is_some_and(|shell| !shell.is_empty()),
            workdir: state.workdir_is_set,
            windows: state.platform.os == "windows",
            ignored: self.options.ignored.as_ref(),
        };
        let mut found = lint::of_instruction(instruction, &scene, &mut stage.earlier);
        if stage.on_build {
            let placed = |found| onbuild::placed(found, &instruction.original, stage.node.span);
            found = found.into_iter().map(placed).collect();
        }
        self.linter.report(&instruction.comments, found);
        stage.state.workdir_is_set |= matches!(instruction.kind, Kind::Workdir(_));
    }

    /// The root file system of a stage that COPY reads.
    fn source_state(&self, stage: &StageRun<'_>, source: usize, from: &Word) -> Result<Files> {
        if let Some(files) = &self.roots[source] {
            return Ok(files.clone());
        }
        let message = format!(
            "cannot copy from stage {:?}, it needs to be defined before current stage {:?}",
            from.text, stage.node.label
        );
        Err(Box::new(Diagnostic::error(message, from.span)))
    }

    /// The same for a mount of RUN.
    pub(super) fn mounted_state(&self, source: usize, flag: &MountFlag, target: &str) -> Result<Files> {
        if let Some(files) = &self.roots[source] {
            return Ok(files.clone());
        }
        let from = flag.from.as_deref().unwrap_or_default();
        let message = format!(
            "cannot mount from stage {from:?} to {target:?}, stage needs to be defined before current command"
        );
        Err(Box::new(Diagnostic::error(message, flag.span)))
    }

    /// Expands one word with the variables of the stage.
    pub(super) fn expand(&self, state: &State, word: &Word) -> Result<String> {
        self.read(state, word).map(Cow::into_owned)
    }

    /// The same, without a copy of what stays as it is.
    pub(super) fn read<'w>(&self, state: &State, word: &'w Word) -> Result<Cow<'w, str>> {
        self.lexer
            .read(&word.text, &state.env)
            .map_err(|message| Box::new(Diagnostic::error(message, word.span)))
    }

    pub(super) fn expand_option(&self, state: &State, word: Option<&Word>) -> Result<Option<String>> {
        let expanded = word.map(|word| self.expand(state, word)).transpose()?;
        Ok(expanded.filter(|text| !text.is_empty()))
    }

    /// A line as progress shows it: variables expanded, the keyword in upper case.
    pub(super) fn shown(&self, state: &State, line: &str, mode: Mode) -> String {
        self.shown_with(&state.env, line, mode)
    }

    pub(super) fn shown_with(&self, env: &scope::Env, line: &str, mode: Mode) -> String {
        let line = self.lexer.mode(mode).word(line, env).unwrap_or_else(|_| line.to_owned());
        let (keyword, rest) = line.split_at(line.find(' ').unwrap_or(line.len()));
        keyword.to_uppercase() + rest
    }

    pub(super) fn network(&self, run: Option<&Word>) -> NetworkMode {
        match run.map(|word| word.text.as_str()) {
            Some("host") => NetworkMode::Host,
            Some("none") => NetworkMode::None,
            _ => self.options.network,
        }
    }
}

impl StageRun<'_> {
    /// `[build 2/5] RUN make`; counts.
    pub(super) fn step_name(&mut self, text: &str) -> String {
        if self.steps == 0 {
            return text.to_owned();
        }
        self.step += 1;
        let label = &self.node.label;
        let blank = if label.is_empty() { "" } else { " " };
        let width = self.steps.ilog10() as usize + 1;
        let trigger = if self.on_build { "ONBUILD " } else { "" };
        let platform = if self.several { self.platforms() } else { String::new() };
        format!("[{platform}{label}{blank}{:width$}/{}] {trigger}{text}", self.step, self.steps)
    }

    /// `linux/amd64->arm64 ` where the stage is for one platform and, as its arguments say, makes something for another.
    fn platforms(&self) -> String {
        let (own, env) = (&self.state.platform, &self.state.env);
        let given = |name| env.value(name).filter(|value: &&str| !value.is_empty());
        let target = match (given("TARGETPLATFORM"), given("TARGETOS"), given("TARGETARCH")) {
            (Some(platform), _, _) => platform.parse().ok(),
            (None, None, None) => None,
            (None, os, arch) => Some(Platform::new(
                os.unwrap_or(&own.os),
                arch.unwrap_or(&own.architecture),
                given("TARGETVARIANT"),
            )),
        };
        match target {
            Some(Platform { os, architecture, variant: Some(variant), .. })
                if os == own.os && architecture != own.architecture =>
            {
                format!("{own}->{architecture}/{variant} ")
            }
            Some(target) if target.os == own.os && target.architecture != own.architecture => {
                format!("{own}->{} ", target.architecture)
            }
            Some(target) if target.os != own.os => format!("{own}->{target} "),
            _ => format!("{own} "),
        }
    }

    pub(super) fn about(&mut self, text: &str, instruction: &Instruction) -> About {
        About { name: self.step_name(text), span: Some(instruction.span), no_cache: self.no_cache }
    }
}

/// FROM an image counts, and what makes a layer; every trigger does.
fn count_steps(node: &Node<'_>) -> usize {
    if node.given {
        return 0;
    }
    let counts = |command: &&Command<'_>| {
        let layer = matches!(
            command.instruction.kind,
            Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_)
        );
        command.on_build() || layer
    };
    usize::from(matches!(node.base, Base::Image(_))) + node.commands.iter().filter(counts).count()
}

fn pinned_name(source: &ImageSource) -> String {
    if source.name.contains('@') {
        source.name.clone()
    } else {
        format!("{}@{}", source.name, source.manifest)
    }
}
