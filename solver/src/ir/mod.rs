//! The definition of a build: a graph of content-addressed vertices, independent of any frontend.

mod chmod;
mod op;
mod source;

pub use chmod::{BadMode, Chmod};
pub use op::{
    BindMount, CacheMount, CopyAction, Device, ExecOp, FileAction, FileOp, FileOwner, Guarded, Host,
    ImageSource, LocalSource, MergeOp, MkdirAction, MkfileAction, Mount, MountSource, NetworkMode, Op,
    OwnerSpec, SecretEnv, SecurityMode, Sharing, SourceOp, Unkeyed,
};

pub use source::{GitSource, HttpSource, redacted};

use std::collections::HashMap;
use std::hash::BuildHasher;

use crate::span::Span;

/// Names a vertex of one [`Definition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(u32);

impl VertexId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One operation, and what a person should see of it. `about` has no part in the vertex' identity.
#[derive(Clone, Debug)]
pub struct Vertex {
    pub op: Op,
    pub about: About,
}

/// How progress and errors show a vertex.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// `[build 2/5] RUN make`.
    pub name: String,
    pub span: Option<Span>,
    /// Neither looked up nor substituted; recorded all the same.
    pub no_cache: bool,
}

/// A directed acyclic graph. An op can only name vertices that were added before it, so a cycle can't be written;
/// equal ops are one vertex.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    vertices: Vec<Vertex>,
    /// By the hash of the op; the next free number where two ops have the same.
    known: HashMap<u64, VertexId>,
}

impl Definition {
    /// Adds a vertex, or finds the equal one. The first one's `about` stays; `no_cache` of either holds.
    ///
    /// # Panics
    /// When `op` names a vertex that this definition does not have.
    pub fn add(&mut self, op: Op, about: About) -> VertexId {
        assert!(
            op.inputs().iter().all(|id| id.index() < self.vertices.len()),
            "an input of another definition"
        );
        let mut hash = self.known.hasher().hash_one(&op);
        while let Some(&id) = self.known.get(&hash) {
            let vertex = &mut self.vertices[id.index()];
            if vertex.op == op {
                vertex.about.no_cache |= about.no_cache;
                return id;
            }
            hash = hash.wrapping_add(1);
        }
        let id = VertexId(u32::try_from(self.vertices.len()).expect("fewer than 2^32 vertices"));
        self.known.insert(hash, id);
        self.vertices.push(Vertex { op, about });
        id
    }

    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.index()]
    }

    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// All vertices, inputs before those that need them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (VertexId, &Vertex)> {
        self.vertices.iter().enumerate().map(|(i, v)| (VertexId(i as u32), v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(name: &str) -> Op {
        Op::Source(SourceOp::Local(LocalSource { name: name.into(), ..LocalSource::default() }))
    }

    #[test]
    fn equal_vertices_are_one() {
        let mut definition = Definition::default();
        let a = definition.add(local("a"), About::default());
        let b = definition.add(local("b"), About::default());
        let again = definition.add(local("a"), About { no_cache: true, ..About::default() });
        assert_eq!((a, definition.len()), (again, 2));
        assert_ne!(a, b);
        assert!(definition.vertex(a).about.no_cache);
    }

    #[test]
    #[should_panic(expected = "another definition")]
    fn an_unknown_input_is_a_bug() {
        let mut one = Definition::default();
        let a = one.add(local("a"), About::default());
        Definition::default().add(Op::File(FileOp { base: Some(a), actions: vec![] }), About::default());
    }
}
