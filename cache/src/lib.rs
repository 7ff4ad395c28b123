//! Content-addressed data: digests, OCI documents, blobs, layers, snapshots, build records, images,
//! and where they come from and go to. This crate never mounts, knows no build vertex and prints nothing.

pub mod cancel;
pub mod digest;
pub mod error;
pub mod fs;
pub mod layer;
pub mod oci;
pub mod snapshot;

pub use cancel::Cancel;
pub use digest::{ChainId, ContentDigest, DiffId, Digest};
pub use error::{Error, Result};
