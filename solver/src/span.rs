//! Where in a source text a vertex comes from. Travels beside the graph, never in a digest.

/// A range of bytes of the Dockerfile, with the lines it covers (1-based, inclusive).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
    pub first_line: usize,
    pub last_line: usize,
}
