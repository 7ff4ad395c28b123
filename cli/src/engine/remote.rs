//! How the solver reaches URLs and repositories: by the registry client's connections, and by the host's git.

use boxwright_cache::registry::Client;
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::url::{self, UrlFile};
use boxwright_cache::{Cancel, Error, Store};
use boxwright_executor::git::Git;
use boxwright_solver::ir::{GitSource, HttpSource, redacted};
use boxwright_solver::{FetchError, HttpPin, Remote};

pub(super) struct Fetcher<'a> {
    pub(super) store: &'a Store,
    pub(super) client: &'a Client,
    pub(super) git: &'a Git,
}

impl Fetcher<'_> {
    fn download(&self, source: &HttpSource, cancel: &Cancel) -> Result<url::Downloaded, FetchError> {
        url::fetch(self.store, self.client, file(source), cancel).map_err(|error| match error {
            Error::Mismatch { expected, actual, .. } => FetchError::Refused(format!(
                "digest mismatch for {}: {actual} (expected: {expected})",
                redacted(&source.url)
            )),
            other => FetchError::Cache(other),
        })
    }
}

impl Remote for Fetcher<'_> {
    /// With a checksum the server's word for the file's time is not waited for, so it is in no key either.
    fn pin_http(&self, source: &HttpSource, cancel: &Cancel) -> Result<HttpPin, FetchError> {
        let Some(checksum) = source.checksum else {
            let found = self.download(source, cancel)?;
            let (digest, modified) = (found.digest, found.modified);
            return Ok(HttpPin { digest, modified, snapshot: Some(found.snapshot) });
        };
        let known = url::known(self.store, file(source))?.map(|(found, _)| found);
        let snapshot = known.filter(|found| found.digest == checksum).map(|found| found.snapshot);
        Ok(HttpPin { digest: checksum, modified: None, snapshot })
    }

    fn fetch_http(&self, source: &HttpSource, cancel: &Cancel) -> Result<Snapshot, FetchError> {
        self.download(source, cancel).map(|found| found.snapshot)
    }

    fn pin_git(&self, source: &GitSource, cancel: &Cancel) -> Result<String, FetchError> {
        self.git.pin(source, cancel)
    }

    fn fetch_git(&self, source: &GitSource, commit: &str, cancel: &Cancel) -> Result<Snapshot, FetchError> {
        self.git.fetch(self.store, source, commit, cancel)
    }
}

fn file(source: &HttpSource) -> UrlFile<'_> {
    UrlFile { url: &source.url, name: &source.name, checksum: source.checksum.as_ref() }
}
