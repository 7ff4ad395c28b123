//! Tests of the crate from outside, against real and hostile counterparts. One binary, a module per subject.

mod distribution;
mod registry;
mod server;
