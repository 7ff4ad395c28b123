//! The time of a build that is to be as old as something else: a commit, a file of a server, or what its archive holds.

use std::io::Read as _;
use std::path::Path;

use boxwright_cache::layer::Compression;
use boxwright_cache::layer::compress::{MAGIC, decompressor};
use boxwright_cache::layer::tar::{EntryKind, Limits, Reader};
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::{Cancel, Error as CacheError};
use boxwright_frontend::{Origin, can_be_told};
use boxwright_solver::FetchError;

use super::remote::Fetcher;
use crate::error::{Error, Result};

/// In seconds since 1970; none of what does not say.
pub(super) fn time_of(origin: &Origin, remote: &Fetcher<'_>, cancel: &Cancel) -> Result<Option<i64>> {
    match said(origin, remote, cancel)? {
        // Anything may be in an archive.
        Some(at) if !can_be_told(at) => Err(Error::invalid(format!(
            "failed to resolve SOURCE_DATE_EPOCH: no image can tell the time {at}"
        ))),
        found => Ok(found),
    }
}

fn said(origin: &Origin, remote: &Fetcher<'_>, cancel: &Cancel) -> Result<Option<i64>> {
    match origin {
        Origin::Git(source) => remote.time_of_commit(source, cancel).map(Some).map_err(refused),
        Origin::Http(source) => {
            let found = remote.download(source, cancel).map_err(refused)?;
            match found.modified {
                Some(modified) => Ok(Some(modified)),
                None => newest(&found.snapshot, Path::new(&source.name), cancel),
            }
        }
        Origin::Local(_) | Origin::Archive(..) => Ok(None),
    }
}

fn refused(error: FetchError) -> Error {
    match error {
        FetchError::Cache(error) => error.into(),
        FetchError::Refused(reason) => {
            Error::invalid(format!("failed to resolve SOURCE_DATE_EPOCH: {reason}"))
        }
    }
}

/// The time of the newest file in an archive; none if it is no archive, or not a whole one.
fn newest(snapshot: &Snapshot, name: &Path, cancel: &Cancel) -> Result<Option<i64>> {
    let tree = snapshot.tree(cancel)?;
    let Some(node) = tree.lookup(name, false)? else { return Ok(None) };
    let mut start = Vec::new();
    let extent = tree.open(&node)?;
    extent.reader().take(MAGIC as u64).read_to_end(&mut start).map_err(CacheError::io("reading", name))?;
    let Ok(content) = decompressor(Compression::detect(&start), extent.reader()) else { return Ok(None) };
    let mut reader = Reader::new(content, Limits::default());
    let mut newest = None;
    loop {
        cancel.check()?;
        match reader.next_entry() {
            Ok(Some(entry)) if matches!(entry.kind, EntryKind::File { .. }) => {
                newest = newest.max(Some(entry.meta.mtime.secs));
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(newest),
            Err(_) => return Ok(None),
        }
    }
}
