//! How the solver reaches URLs and repositories: by the registry client's connections, and by the host's git.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use boxwright_cache::registry::Client;
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::url::{self, UrlFile};
use boxwright_cache::{Cancel, Error, Store};
use boxwright_executor::git::Git;
use boxwright_solver::ir::{GitSource, HttpSource, redacted};
use boxwright_solver::{FetchError, HttpPin, Remote};

pub(super) struct Fetcher<'a> {
    store: &'a Store,
    client: &'a Client,
    git: &'a Git,
    pins: Mutex<Pins>,
}

/// What sources were found to be, so that it is the same for as long as one build lasts.
#[derive(Default)]
struct Pins {
    http: HashMap<HttpSource, HttpPin>,
    git: HashMap<GitSource, String>,
}

impl<'a> Fetcher<'a> {
    pub(super) fn new(store: &'a Store, client: &'a Client, git: &'a Git) -> Fetcher<'a> {
        Fetcher { store, client, git, pins: Mutex::default() }
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn time_of_commit(&self, source: &GitSource, cancel: &Cancel) -> Result<i64, FetchError> {
        let commit = self.pin_git(source, cancel)?;
        self.git.time_of(self.store, source, &commit, cancel)
    }

    pub(super) fn download(
        &self,
        source: &HttpSource,
        cancel: &Cancel,
    ) -> Result<url::Downloaded, FetchError> {
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
            if let Some(pin) = self.pins().http.get(source) {
                return Ok(pin.clone());
            }
            let found = self.download(source, cancel)?;
            let (digest, modified) = (found.digest, found.modified);
            let pin = HttpPin { digest, modified, snapshot: Some(found.snapshot) };
            self.pins().http.insert(source.clone(), pin.clone());
            return Ok(pin);
        };
        let known = url::known(self.store, file(source))?.map(|(found, _)| found);
        let snapshot = known.filter(|found| found.digest == checksum).map(|found| found.snapshot);
        Ok(HttpPin { digest: checksum, modified: None, snapshot })
    }

    fn fetch_http(&self, source: &HttpSource, cancel: &Cancel) -> Result<Snapshot, FetchError> {
        self.download(source, cancel).map(|found| found.snapshot)
    }

    fn pin_git(&self, source: &GitSource, cancel: &Cancel) -> Result<String, FetchError> {
        if let Some(commit) = self.pins().git.get(source) {
            return Ok(commit.clone());
        }
        let commit = self.git.pin(source, cancel)?;
        self.pins().git.insert(source.clone(), commit.clone());
        Ok(commit)
    }

    fn fetch_git(&self, source: &GitSource, commit: &str, cancel: &Cancel) -> Result<Snapshot, FetchError> {
        self.git.fetch(self.store, source, commit, cancel)
    }
}

fn file(source: &HttpSource) -> UrlFile<'_> {
    UrlFile { url: &source.url, name: &source.name, checksum: source.checksum.as_ref() }
}
