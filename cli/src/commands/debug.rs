//! `debug`: what a Dockerfile is read as, and what it becomes, without building it; and a shell in a step that was built.

use std::ffi::OsString;
use std::path::PathBuf;

use boxwright_cache::record::BuildStep;

use super::Session;
use super::build::Build;
use crate::args::{self, StepFlags, env};
use crate::call::visible;
use crate::engine::{DockerfileSource, Engine, Kept, ShellRequest};
use crate::error::{Error, Result};
use crate::graph::{dot, graph, text, without_passwords};
use crate::stdin::Stdin;
use crate::{config, report};

/// Look into how a Dockerfile is understood
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Debug {
    Ast(Ast),
    Graph(Graph),
    Shell(Shell),
}

/// Open a shell in what a step of a build left, with the step's user, variables, directory and mounts
///
/// What is changed there is thrown away. Steps that failed can be looked into like all others.
#[derive(Debug, clap::Args)]
pub(crate) struct Shell {
    #[command(flatten)]
    steps: StepFlags,
    /// The beginning of the build's id, or `^` for the newest, `^1` for the one before
    #[arg(value_name = "BUILD")]
    build: String,
    /// The step's number, or a part of its instruction
    #[arg(value_name = "STEP")]
    step: String,
    /// What to run instead of a shell
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Print what a Dockerfile is read as, an instruction a line
#[derive(Debug, clap::Args)]
pub(crate) struct Ast {
    /// The Dockerfile, `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Print what a Dockerfile becomes: the steps, and what each needs
#[derive(Debug, clap::Args)]
pub(crate) struct Graph {
    /// text, json, or dot for Graphviz
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json", "dot"])]
    format: String,
    /// Where the Dockerfile is, `-` for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<OsString>,
    /// Stage to show [default: the last one]
    #[arg(long, value_name = "STAGE")]
    target: Option<OsString>,
    /// Value of an ARG; without `=`, that of the variable of the same name
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<OsString>,
    /// What stands in for a stage or image, as that of `build`
    #[arg(long, value_name = "NAME=VALUE")]
    build_context: Vec<OsString>,
    /// Platform of the result [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<OsString>,
    /// As that of `build`
    #[arg(value_name = "CONTEXT")]
    context: OsString,
}

impl Debug {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        match self {
            Debug::Ast(ast) => ast.execute(session),
            Debug::Graph(graph) => graph.execute(session),
            Debug::Shell(_) => unreachable!("its exit code is the program's"),
        }
    }
}

impl Shell {
    /// Gives the exit code of the shell.
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<u8> {
        let signals = session.signals.take().expect("held for every command that runs something");
        let build = session.engine.past_build(Some(&self.build))?;
        let steps = session.engine.store().build_steps(&build)?;
        let number: Option<usize> = self.step.parse().ok();
        let means = |(i, step): &(usize, &BuildStep)| match number {
            Some(number) => i + 1 == number,
            None => step.title.contains(&self.step),
        };
        let found: Vec<usize> = steps.iter().enumerate().filter(means).map(|(i, _)| i + 1).collect();
        let step = match &found[..] {
            [step] => *step,
            [] => {
                return Err(Error::invalid(format!("build {} has no step {:?}", build.name, self.step)));
            }
            several => {
                let numbers: Vec<String> = several.iter().map(usize::to_string).collect();
                let numbers = numbers.join(", ");
                return Err(Error::invalid(format!("several steps have {:?}: {numbers}", self.step)));
            }
        };
        let request = ShellRequest {
            build,
            step,
            command: self.command,
            allowed: self.steps.allowed(false)?,
            steps: self.steps.settings()?,
            // Those of the build's own arguments are known to nobody any more.
            proxies: env::variables(&[], &[])?,
            hosts: self.steps.hosts()?,
        };
        session.engine.shell(&request, &signals, greet)
    }
}

/// Tells a person where they are.
pub(super) fn greet(title: &str, missing: &[String]) {
    if !missing.is_empty() {
        report::remark(&format!("What was mounted at {} is not kept", missing.join(", ")));
    }
    if rustix::termios::isatty(rustix::stdio::stdin()) {
        report::remark(&format!("In {title:?}; what is changed here is thrown away"));
    }
}

/// What to type for a shell in this step.
pub(super) fn shell_command(engine: &Engine, kept: &Kept) -> String {
    let usual = config::variable("BOXWRIGHT_ROOT").map(PathBuf::from).or_else(|| config::default_root().ok());
    let path = engine.store().path();
    let root =
        if usual.as_deref() == Some(path) { String::new() } else { format!(" --root {}", path.display()) };
    format!("boxwright{root} debug shell {} {}", kept.build, kept.step)
}

impl Ast {
    /// Where there are errors, what was understood comes first.
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let source = if self.file.as_os_str() == "-" {
            let mut input = Stdin(session.engine.cancel());
            DockerfileSource::Text(super::build::read_dockerfile(&mut input, &session.engine)?)
        } else {
            DockerfileSource::File(self.file)
        };
        let (dockerfile, failure) = session.engine.parse(&source)?;
        let dump = boxwright_frontend::ast::dump(&dockerfile);
        if !dump.is_empty() {
            session.print(visible(&without_passwords(&dump)))?;
        }
        failure.map_or(Ok(()), |failure| Err(Error::Build(Box::new(failure))))
    }
}

impl Graph {
    fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let format = self.format.clone();
        let request = self.build()?.request(&session.engine)?;
        let lowered = session.engine.graph(&request, &crate::progress::Quiet)?;
        let graph = graph(&lowered.definition, &lowered.images);
        match format.as_str() {
            "json" => session.print(serde_json::to_string_pretty(&graph).expect("a value always serialises")),
            "dot" => session.write(dot(&graph)),
            _ => session.write(visible(&text(&graph))),
        }
    }

    /// The build that these flags ask for, read as `build` reads them.
    fn build(self) -> Result<Build> {
        let mut words: Vec<OsString> = vec!["boxwright".into(), "build".into()];
        let given = |flag: &str, value: OsString| [OsString::from(flag), value];
        words.extend(self.file.into_iter().flat_map(|file| given("--file", file)));
        words.extend(self.target.into_iter().flat_map(|target| given("--target", target)));
        words.extend(self.build_arg.into_iter().flat_map(|arg| given("--build-arg", arg)));
        let contexts = self.build_context.into_iter();
        words.extend(contexts.flat_map(|context| given("--build-context", context)));
        words.extend(self.platform.into_iter().flat_map(|platform| given("--platform", platform)));
        words.extend(["--".into(), self.context]);
        let build = args::parse(words)?.command.build();
        build.ok_or_else(|| Error::invalid("the flags are not those of a build"))
    }
}
