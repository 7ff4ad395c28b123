//! The build graph: its definition, how vertices are keyed, and how a graph is solved with the least work.
//! This crate never forks, never mounts and does not know the Dockerfile language.

pub mod event;
pub mod executor;
pub mod ir;
pub mod span;

pub use executor::Executor;
pub use ir::{Definition, Vertex, VertexId};
pub use span::Span;
