//! The one error type of this crate: what a command can end with, other than success.

use std::io;
use std::path::{Path, PathBuf};

use boxwright_cache as cache;
use boxwright_frontend::Diagnostic;

use crate::engine::Source;

pub use crate::engine::BuildFailure;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{0}")]
    Cache(#[source] cache::Error),
    #[error("{doing} {path}: {source}", path = path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// The command line is not one that we understand.
    #[error("{0}")]
    Usage(Usage),
    /// What was asked for can't be.
    #[error("{0}")]
    Invalid(String),
    /// What was asked for will be there one day.
    #[error("{0} is not supported yet")]
    Later(String),
    #[error("No such image: {0}")]
    NoSuchImage(String),
    #[error("No such object: {0}")]
    NoSuchObject(String),
    #[error("failed to solve: {0}")]
    Build(Box<BuildFailure>),
    /// The same, for a program to read.
    #[error("failed to solve: {0}")]
    BuildAsJson(Box<BuildFailure>),
    /// A container that did not start; the code is docker's for that.
    #[error("{message}")]
    Container { code: u8, message: String },
    /// A shell in a step that did not start.
    #[error("{message}")]
    Shell { code: u8, message: String },
    /// With what may help against it.
    #[error("{error}\nhelp: {help}")]
    Helped { error: Box<Error>, help: String },
    /// Several things were asked for, and these failed.
    #[error("{}", .0.iter().map(Error::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Error>),
    /// The checks found something, and said so.
    #[error("the checks found something")]
    Found,
    /// Whoever reads our output has gone.
    #[error("writing to standard output: {0}")]
    Output(#[source] io::Error),
}

/// Why a command line was refused, or what it asked to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Usage {
    /// `--help` or `--version`: the text asked for.
    Shown(String),
    /// A flag that there is not, or a value that it does not take.
    Flag { command: String, message: String },
    /// Too few or too many arguments, or no such command.
    Arguments { command: String, message: String },
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Usage::Shown(message) | Usage::Flag { message, .. } | Usage::Arguments { message, .. }) = self;
        f.write_str(message)
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A closure for `map_err`: an I/O error with the action and the path.
    pub(crate) fn io<E: Into<io::Error>>(
        doing: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Error {
        move |source| Error::Io { doing, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// A build's failure for a program to read, any other error as it is.
    pub(crate) fn into_json(self) -> Error {
        match self {
            Error::Build(failure) => Error::BuildAsJson(failure),
            other => other,
        }
    }

    /// A build's failure with what the checks had found before.
    pub(crate) fn after_warnings(self, warnings: &[Diagnostic], source: &Source) -> Error {
        match self {
            Error::Build(failure) => Error::Build(Box::new(failure.after_warnings(warnings, source))),
            other => other,
        }
    }

    /// A build's failure without a word of the checks.
    pub(crate) fn without_warnings(self) -> Error {
        match self {
            Error::Build(failure) => Error::Build(Box::new(failure.without_warnings())),
            other => other,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::Invalid(message.into())
    }
}

impl From<cache::Error> for Error {
    fn from(error: cache::Error) -> Error {
        Error::Cache(error)
    }
}
