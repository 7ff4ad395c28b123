//! The one error type of this crate. Each value names the action and the thing.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed while the container was prepared. `doing` is an "-ing" phrase.
    #[error("{doing} {path}: {source}", path = path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// A step inside the new container failed.
    #[error("{doing}: {reason}")]
    Setup { doing: String, reason: String },
    /// The process can't be started. `code` is what docker's exit status would be: 127 for a command that isn't there,
    /// 126 for one that can't be executed, 125 for the rest. The message is in docker's words, as scripts look for them.
    #[error("{message}")]
    Start { code: i32, message: String },
    /// Not possible on this machine or with these rights.
    #[error("{0}")]
    Unsupported(String),
    /// It ran longer than [`crate::Container::limit`] allows; nothing of the container is left.
    #[error("time limit of {limit:?} exceeded")]
    TimedOut { limit: std::time::Duration },
    /// The files of a container could not be copied, or what it left not be read.
    #[error("{0}")]
    Cache(boxwright_cache::Error),
    /// The caller's [`boxwright_cache::Cancel`] was raised; nothing of the container is left.
    #[error("canceled")]
    Cancelled,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A closure for `map_err`: an I/O error with the action and the thing.
    pub(crate) fn io<E: Into<std::io::Error>>(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Error {
        let path = path.into();
        move |source| Error::Io { doing, path, source: source.into() }
    }

    pub(crate) fn cache(error: boxwright_cache::Error) -> Error {
        match error {
            boxwright_cache::Error::Cancelled => Error::Cancelled,
            error => Error::Cache(error),
        }
    }

    pub(crate) fn start(code: i32, message: impl Into<String>) -> Error {
        Error::Start { code, message: message.into() }
    }

    /// The exit status of `run` that this error asks for.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Start { code, .. } => *code,
            _ => 125,
        }
    }
}
