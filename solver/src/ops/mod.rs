//! How each op runs: one file an op.

pub(crate) mod exec;
pub mod file;
pub(crate) mod merge;

pub use crate::schedule::{Input, Inputs};
