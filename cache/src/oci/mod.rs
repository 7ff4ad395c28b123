//! OCI and Docker image documents: descriptors, manifests, indexes, configs, platforms and references.

pub mod config;
pub mod descriptor;
pub mod manifest;
pub mod platform;
pub mod reference;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::{Descriptor, MediaType};
pub use manifest::{Document, Index, Manifest};
pub use platform::Platform;
pub use reference::Reference;
