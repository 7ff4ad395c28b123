//! Images as wholes: found in the store or a registry, made of layers and a config, pulled and pushed.

pub mod annotation;
pub mod assemble;
pub mod combine;
pub mod form;
pub mod pull;
pub mod push;
pub mod resolve;

pub use annotation::{Annotation, Annotations, Holder};
pub use assemble::{Documents, Product, Shape, assemble, described};
pub use pull::{PullEvent, fetch_layers, pull};
pub use push::{Destination, PushEvent, push};
pub use resolve::{Policy, Pull, Resolved, Sources, not_for, resolve, resolve_layout};
