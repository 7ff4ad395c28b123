//! What the tests of several crates share: archives made byte by byte, base images, listings of file systems,
//! and real peers (registry, dockerd, podman) that live as long as one test. Nothing here is part of the product.

pub mod archive;
pub mod base;
pub mod dropping;
pub mod git;
pub mod listing;
pub mod peer;
pub mod program;
pub mod ran;
pub mod server;
pub mod tables;
pub mod tar;

pub use ran::{Ran, run, run_with};
