//! Layers: the entries of a layer archive, the archive format itself, directories in overlayfs's own layout, and
//! the ways between them. Nothing here mounts.

pub mod apply;
pub mod compare;
pub mod compress;
pub mod diff;
pub mod sink;
mod spill;
mod summing;
pub mod tar;

pub use apply::{Applied, apply, apply_with};
pub use compress::Compression;
pub use diff::{LayerSummary, scan, write_tar};
pub use sink::{DirSink, Implied, LayerSink, Metadata, NodeKind, Timestamp, Xattrs};
pub use summing::Summing;
