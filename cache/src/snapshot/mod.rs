//! Snapshots: stacks of layers as the image means them.

pub mod owner;
pub mod tree;
