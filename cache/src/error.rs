//! The one error type of this crate. Each value names the action and the thing; hints are added above.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What can go wrong with stored or transferred data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed. `doing` is an "-ing" phrase ("creating layer directory").
    #[error("{doing} {path}: {source}", path = path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    /// Text that should be a digest, reference, platform or document is not.
    #[error("invalid {what} {text:?}: {reason}")]
    Invalid { what: &'static str, text: String, reason: String },
    /// Bytes did not have the digest or the size they were announced with.
    #[error("{what}: expected {expected}, got {actual}")]
    Mismatch { what: String, expected: String, actual: String },
    /// Nothing of that name or digest is known.
    #[error("{what} not found: {name}")]
    NotFound { what: &'static str, name: String },
    /// An archive, layer or document breaks its format or a limit; nothing of it was kept.
    #[error("{what}: {reason}")]
    Malformed { what: String, reason: String },
    /// The database refused a statement.
    #[error("{doing} in the store's database: {source}")]
    Database { doing: &'static str, source: rusqlite::Error },
    /// A file that only holds what is more than memory should can't be written or read.
    #[error("{doing} in a temporary file of the store: {source}")]
    Spool { doing: &'static str, source: rusqlite::Error },
    /// A registry answered with an error, or not at all.
    #[error("{registry}: {doing}: {reason}")]
    Registry { registry: String, doing: String, reason: String, remedy: Option<Remedy> },
    /// The thing is still needed and was therefore not removed.
    #[error("{0}")]
    InUse(String),
    /// The caller's [`crate::Cancel`] was raised.
    #[error("canceled")]
    Cancelled,
}

/// What has to be known beforehand of a registry that could not be spoken to ([`crate::registry::Host`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// That it is spoken to without TLS, which is what it does.
    PlainHttp,
    /// Whom to trust as it.
    Ca,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A closure for `map_err`: an I/O error with the action and the path. An error of ours that a reader or writer
    /// of ours had to pass as an I/O error comes out as it was.
    pub fn io<E: Into<std::io::Error>>(
        doing: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(E) -> Error {
        move |source| match source.into().downcast::<Error>() {
            Ok(ours) => ours,
            Err(source) => Error::Io { doing, path: path.as_ref().to_owned(), source },
        }
    }

    /// What kind of failure the kernel or the database told.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Error::Io { source, .. } => Some(source.kind()),
            Error::Database { source, .. } | Error::Spool { source, .. } => {
                match source.sqlite_error_code()? {
                    rusqlite::ErrorCode::DiskFull => Some(ErrorKind::StorageFull),
                    rusqlite::ErrorCode::ReadOnly => Some(ErrorKind::ReadOnlyFilesystem),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    pub fn invalid(what: &'static str, text: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Invalid { what, text: text.into(), reason: reason.into() }
    }

    pub fn malformed(what: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Malformed { what: what.into(), reason: reason.into() }
    }

    /// A closure for `map_err` on database calls.
    pub fn db(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
        move |source| Error::Database { doing, source }
    }
}
