//! Compressed layers: as files in the store, and where else they can be had. Manifests and configs are documents
//! ([`crate::record`]), not blobs.

pub mod layout;
pub mod local;
mod verified;

use std::io::Read;
use std::path::Path;

pub(crate) use verified::{Verified, wrong_size};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::oci::Descriptor;

/// What the name of a repository begins with that is an OCI layout directory of this machine.
pub(crate) const LAYOUT: &str = "oci-layout://";

/// Fetches blobs from repositories (`docker.io/library/busybox`).
pub trait BlobFetch: Send + Sync + std::fmt::Debug {
    /// Streams the blob. The reader itself reports an error, at the latest at its end, when size or digest differ
    /// from the descriptor's.
    ///
    /// # Errors
    /// When the repository can't be reached or does not have it.
    fn fetch(&self, repository: &str, blob: &Descriptor, cancel: &Cancel) -> Result<Box<dyn Read + Send>>;
}

/// The blob of a repository in a registry, or of a layout directory, as [`BlobFetch::fetch`] gives it.
///
/// # Errors
/// When the repository can't be reached or does not have it.
pub(crate) fn fetch(
    remote: Option<&dyn BlobFetch>,
    repository: &str,
    blob: &Descriptor,
    cancel: &Cancel,
) -> Result<Box<dyn Read + Send>> {
    let missing = || Error::NotFound { what: "blob", name: format!("{} in {repository}", blob.digest) };
    match repository.strip_prefix(LAYOUT) {
        Some(dir) => {
            let file = layout::Layout::open(Path::new(dir))?.open_blob(&blob.digest)?.ok_or_else(missing)?;
            Ok(Box::new(Verified::new(file, blob)))
        }
        None => remote.ok_or_else(missing)?.fetch(repository, blob, cancel),
    }
}
