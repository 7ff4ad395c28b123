//! Reads git repositories with the host's git: which commit a name means, and the files of a commit as a layer. Shared
//! bare repositories in the store keep what was fetched; nothing is ever checked out into a directory of the host.

mod clone;
mod files;
mod process;
mod repository;
mod resolve;
mod submodule;
mod url;

use std::ffi::OsString;

use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::{Cancel, Store};
use boxwright_solver::FetchError;
use boxwright_solver::ir::GitSource;

use url::Place;

type Result<T> = std::result::Result<T, FetchError>;

/// What git may see of the environment; it gets nothing else.
#[derive(Clone, Debug, Default)]
pub struct Git {
    /// Where programs are.
    pub path: OsString,
    /// The socket of the user's ssh agent, for repositories that the user named.
    pub ssh_agent: Option<OsString>,
    /// Proxy variables, `NAME` and value.
    pub proxies: Vec<(String, String)>,
}

impl Git {
    /// The whole name of the commit that is meant now; of a clone that is to be kept, of the tag if it is one that has a
    /// name of its own.
    ///
    /// # Errors
    /// When the repository can't be read, has no such name, or it is not what the checksum says.
    pub fn pin(&self, source: &GitSource, cancel: &Cancel) -> Result<String> {
        resolve::pin(self, source, cancel)
    }

    /// The files of the commit.
    ///
    /// # Errors
    /// When it can't be fetched, or has what no checkout would accept.
    pub fn fetch(
        &self,
        store: &Store,
        source: &GitSource,
        commit: &str,
        cancel: &Cancel,
    ) -> Result<Snapshot> {
        files::fetch(self, store, source, commit, cancel)
    }
}

impl Git {
    /// When the commit was made, in seconds since 1970.
    ///
    /// # Errors
    /// When it can't be fetched.
    pub fn time_of(&self, store: &Store, source: &GitSource, commit: &str, cancel: &Cancel) -> Result<i64> {
        files::time_of(self, store, source, commit, cancel)
    }
}

fn refused(message: impl Into<String>) -> FetchError {
    FetchError::Refused(message.into())
}

/// Whether `text` is the whole name of an object.
fn is_object(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// A name of a branch or tag that git would accept (git-check-ref-format), and that can't be taken for an option.
fn check_reference(name: &str) -> Result<&str> {
    let strange = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let bad = name.is_empty()
        || name.len() > 1024
        || name.starts_with(['-', '/'])
        || name.ends_with(['/', '.'])
        || name.contains(strange)
        || ["..", "//", "@{", "/."].iter().any(|part| name.contains(part));
    if bad { Err(refused(format!("invalid git reference {name:?}"))) } else { Ok(name) }
}

/// Where a process runs, and which transports it may use.
#[derive(Clone, Copy, Debug)]
struct Within<'a> {
    git: &'a Git,
    /// The working directory.
    dir: &'a std::path::Path,
    /// The remote that is asked, if one is.
    place: Option<&'a Place>,
    cancel: &'a Cancel,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_can_not_be_options_or_patterns() {
        for name in ["main", "refs/tags/v1.0", "a/b-c_d", "HEAD"] {
            assert!(check_reference(name).is_ok(), "{name}");
        }
        for name in
            ["", "-x", "--upload-pack=x", "a b", "a..b", "a:b", "a*", "a^{}", "a@{1}", "/a", "a/", "a\n"]
        {
            assert!(check_reference(name).is_err(), "{name:?}");
        }
    }
}
