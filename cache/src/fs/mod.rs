//! Directories of the host, read without being led out of them.

pub mod pattern;
mod resolve;
pub mod walk;
pub mod whiteout;
pub mod xattr;

pub use resolve::open_resolved;
