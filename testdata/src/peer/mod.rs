//! Real container tools from Debian's packages, each with its own data directory, gone when the test is over.

mod certificates;
mod daemon;
mod dockerd;
mod podman;
mod registry;
mod tokens;

pub use certificates::Certificates;
pub use daemon::port_in;
pub use dockerd::Dockerd;
pub use podman::Podman;
pub use registry::{PASSWORD, Registry, Setup, USER, skopeo};
pub use tokens::TokenServer;
