//! Runs a merge vertex: the layers of one result over those of another. No byte of either is read.

use boxwright_cache::snapshot::Snapshot;

use super::Inputs;
use super::exec::snapshot;
use crate::error::VertexError;
use crate::ir::MergeOp;

pub(crate) fn run(merge: &MergeOp, inputs: &Inputs) -> Result<Snapshot, VertexError> {
    let upper = snapshot(inputs, merge.upper)?;
    let base = snapshot(inputs, merge.base)?;
    Ok(upper.layers().iter().fold(base, |stack, layer| stack.with(layer.clone())))
}
