//! Compressed layers: as files in the store, and where else they can be had. Manifests and configs are documents
//! ([`crate::record`]), not blobs.

pub mod layout;
pub mod local;

use std::io::Read;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::oci::Descriptor;

/// Fetches blobs from repositories (`docker.io/library/busybox`).
pub trait BlobFetch: Send + Sync + std::fmt::Debug {
    /// Streams the blob. The reader itself reports an error, at the latest at its end, when size or digest differ
    /// from the descriptor's.
    ///
    /// # Errors
    /// When the repository can't be reached or does not have it.
    fn fetch(&self, repository: &str, blob: &Descriptor, cancel: &Cancel) -> Result<Box<dyn Read + Send>>;
}
