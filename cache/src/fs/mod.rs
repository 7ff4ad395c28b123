//! Directories of the host, read without being led out of them.

pub mod pattern;
mod remove;
mod resolve;
mod size;
pub mod walk;
pub mod whiteout;
pub mod xattr;

pub(crate) use remove::remove_tree;
pub use resolve::open_resolved;
pub(crate) use size::allocated;
