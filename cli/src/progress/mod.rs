//! How a build that runs is shown. What happens comes as [`Note`]s; a display only consumes them.

mod colours;
mod frame;
mod plain;
mod rawjson;
mod text;
mod tty;

use std::io::{BufWriter, IsTerminal as _};
use std::time::Duration;

use boxwright_solver::why::Why;
use boxwright_solver::{Definition, Event, VertexId};

pub(crate) use plain::Plain;
pub(crate) use rawjson::{remark as remark_as_rawjson, warnings as warnings_as_rawjson};

use crate::config;
use crate::error::{Error, Result};
use crate::patient::Stderr;
use crate::report;
use colours::Colours;

/// How the name begins of the step that reads the Dockerfile.
pub(crate) const LOAD_DEFINITION: &str = "[internal] load build definition";

/// What `--progress` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Plain,
    Tty,
    RawJson,
    Quiet,
}

impl Mode {
    /// `auto` is what `BUILDKIT_PROGRESS` says or else a terminal's display where there is a terminal.
    ///
    /// # Errors
    /// When there is no such mode, or no terminal for it.
    pub(crate) fn of(asked: &str) -> Result<Mode> {
        let chosen = config::variable("BUILDKIT_PROGRESS").filter(|_| matches!(asked, "" | "auto"));
        let terminal = std::io::stderr().is_terminal();
        match chosen.as_deref().unwrap_or(asked) {
            "" | "auto" if terminal && !config::is_dumb_terminal() => Ok(Mode::Tty),
            "" | "auto" | "plain" => Ok(Mode::Plain),
            "tty" if terminal => Ok(Mode::Tty),
            "tty" => Err(Error::invalid("--progress tty needs a terminal on standard error")),
            "rawjson" => Ok(Mode::RawJson),
            "quiet" | "none" => Ok(Mode::Quiet),
            other => Err(Error::invalid(format!("invalid progress mode {other:?}"))),
        }
    }

    pub(crate) fn watch(self) -> Box<dyn Watch> {
        match self {
            Mode::Plain => Box::new(Plain::new(BufWriter::new(Stderr))),
            Mode::RawJson => {
                report::speak_rawjson();
                Box::new(rawjson::RawJson::new(Stderr))
            }
            Mode::Quiet => Box::new(Quiet),
            Mode::Tty => {
                let look = config::terminal_look();
                let (colours, unknown) = match look.colours {
                    Some(chosen) => Colours::chosen(&chosen),
                    None => (Colours::none(), Vec::new()),
                };
                for choice in unknown {
                    report::remark_once(&format!("WARNING: not understood in BUILDKIT_COLORS: {choice:?}"));
                }
                Box::new(tty::Tty::start(colours, look.log_lines))
            }
        }
    }
}

/// What a build tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Note<'a> {
    /// Work that is no vertex begins (`exporting to image`); the next three are about the latest of these.
    Began {
        name: &'a str,
    },
    Line {
        text: &'a str,
    },
    Ended {
        took: Duration,
    },
    Broke {
        message: &'a str,
    },
    Vertex {
        definition: &'a Definition,
        event: &'a Event,
    },
    /// Why a vertex is about to run, or is not.
    Why {
        definition: &'a Definition,
        vertex: VertexId,
        why: &'a Why,
    },
}

/// Where notes go; from several threads.
pub trait Watch: Sync {
    fn note(&self, note: Note<'_>);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug)]
pub struct Quiet;

impl Watch for Quiet {
    fn note(&self, _: Note<'_>) {}
}
