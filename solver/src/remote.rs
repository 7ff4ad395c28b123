//! What the solver asks of whatever reaches the network: what a source is now, and its files as a snapshot.

use boxwright_cache::digest::Digest;
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::{Cancel, Error as CacheError};

use crate::ir::{GitSource, HttpSource};

/// Fetches sources. It is asked from several threads.
pub trait Remote: Send + Sync {
    /// What the URL gives now. A file that can't be told from an older one without its bytes is fetched for that.
    ///
    /// # Errors
    /// See [`FetchError`], as for all that follow.
    fn pin_http(&self, source: &HttpSource, cancel: &Cancel) -> Result<HttpPin, FetchError>;

    fn fetch_http(&self, source: &HttpSource, cancel: &Cancel) -> Result<Snapshot, FetchError>;

    /// The commit that is meant now, by its whole name.
    fn pin_git(&self, source: &GitSource, cancel: &Cancel) -> Result<String, FetchError>;

    fn fetch_git(&self, source: &GitSource, commit: &str, cancel: &Cancel) -> Result<Snapshot, FetchError>;
}

/// The identity of a file behind a URL.
#[derive(Clone, Debug)]
pub struct HttpPin {
    pub digest: Digest,
    /// When its server says that it was changed, in seconds since 1970.
    pub modified: Option<i64>,
    /// None if it has not been here.
    pub snapshot: Option<Snapshot>,
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server, or git, would not give it, or gave something else. Without credentials.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Cache(#[from] CacheError),
}
