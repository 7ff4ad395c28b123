//! Real container tools from Debian's packages, each with its own data directory, gone when the test is over.

mod daemon;
mod dockerd;
mod podman;
mod registry;

pub(crate) use daemon::Daemon;
pub use daemon::free_port;
pub use dockerd::Dockerd;
pub use podman::Podman;
pub use registry::{Registry, skopeo};
