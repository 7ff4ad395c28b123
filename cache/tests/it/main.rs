//! Tests of the crate from outside, against real and hostile counterparts. One binary, a module per subject.

mod archives;
mod blobs;
mod credentials;
mod differential;
mod discovery;
mod distribution;
mod foreign;
mod hostile;
mod images;
mod indexes;
mod peers;
mod pushing;
mod registry;
