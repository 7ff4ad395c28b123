//! Content-addressed data: digests, OCI documents, blobs, layers, snapshots, build records, images,
//! and where they come from and go to. This crate never mounts, knows no build vertex and prints nothing.

pub mod blob;
pub mod cancel;
pub mod check;
pub mod digest;
pub mod error;
pub mod export;
pub mod fs;
pub mod gc;
mod held;
pub mod ids;
pub mod image;
pub mod import;
pub mod layer;
pub mod lease;
pub mod lock;
pub mod mount;
pub mod oci;
pub mod ordered;
mod parallel;
pub mod programs;
pub mod record;
pub mod registry;
pub mod snapshot;
pub mod store;
pub mod url;
pub mod usage;
pub mod volume;

/// What the bytes of images are like that come of builds: with the same one, the same input gives the same digests.
/// Raised when the tar of a layer, its compressed form, a config, manifest or archive would have other bytes than before.
pub const COMPATIBILITY: i64 = 2;

pub use cancel::Cancel;
pub use digest::{ChainId, ContentDigest, DiffId, Digest};
pub use error::{Error, Result};
pub use store::Store;
