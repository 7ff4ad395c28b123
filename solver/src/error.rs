//! Errors of a solve. Which line of the Dockerfile a vertex came from is added where they are reported.

use boxwright_cache::Error as CacheError;

use crate::executor::ExecError;
use crate::ir::VertexId;
use crate::ops::file::FileError;
use crate::remote::FetchError;

#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// These vertices failed: the first one, or all of which it was known before anything ran.
    #[error("{}", .0.iter().map(|(_, error)| error.to_string()).collect::<Vec<_>>().join("; "))]
    Vertices(Vec<(VertexId, VertexError)>),
    #[error("canceled")]
    Cancelled,
    /// The store could not be used.
    #[error(transparent)]
    Cache(CacheError),
}

#[derive(Debug, thiserror::Error)]
pub enum VertexError {
    #[error("{0}")]
    Exec(#[from] ExecError),
    #[error("{0}")]
    File(#[from] FileError),
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("{0}")]
    Cache(#[from] CacheError),
    /// The build asks for what its caller did not grant.
    #[error("{entitlement} is not allowed")]
    NotAllowed { entitlement: &'static str },
    /// The definition names something that the environment does not have.
    #[error("{what} {name:?} is not part of this build")]
    Unknown { what: &'static str, name: String },
    /// What another machine promised can't be had; such promises are forgotten by now.
    #[error("{0}")]
    Lost(CacheError),
}

impl SolveError {
    /// Whether it is worth a second attempt, without other machines.
    pub(crate) fn is_lost(&self) -> bool {
        let lost = |error: &VertexError| matches!(error, VertexError::Lost(_));
        matches!(self, SolveError::Vertices(failed) if failed.iter().any(|(_, error)| lost(error)))
    }

    pub(crate) fn of(vertex: VertexId, error: VertexError) -> SolveError {
        SolveError::Vertices(vec![(vertex, error)])
    }
}

impl From<CacheError> for SolveError {
    fn from(error: CacheError) -> SolveError {
        match error {
            CacheError::Cancelled => SolveError::Cancelled,
            other => SolveError::Cache(other),
        }
    }
}

impl VertexError {
    /// What the store or the kernel said, if that is why.
    pub fn cache(&self) -> Option<&CacheError> {
        match self {
            VertexError::Cache(error)
            | VertexError::Exec(ExecError::Cache(error))
            | VertexError::File(FileError::Cache(error))
            | VertexError::Fetch(FetchError::Cache(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether the vertex was stopped rather than failed.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.cache(), Some(CacheError::Cancelled))
    }
}
