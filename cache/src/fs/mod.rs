//! Directories of the host, read without being led out of them.

pub mod pattern;
pub mod walk;
pub mod whiteout;
pub mod xattr;
