//! `debug`: what a Dockerfile is read as, and what it becomes, without building it.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Session;
use super::build::Build;
use crate::args;
use crate::call::visible;
use crate::engine::DockerfileSource;
use crate::error::{Error, Result};
use crate::graph::{dot, graph, text, without_passwords};
use crate::stdin::Stdin;

/// Look into how a Dockerfile is understood
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Debug {
    Ast(Ast),
    Graph(Graph),
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
        }
    }
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
