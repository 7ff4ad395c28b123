//! How a build that runs is shown. What happens comes as [`Note`]s; a display only consumes them.

mod plain;

use std::time::Duration;

use boxwright_solver::why::Why;
use boxwright_solver::{Definition, Event, VertexId};

pub(crate) use plain::Plain;

/// What a build tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Note<'a> {
    /// Work that is no vertex begins (`exporting to image`); the next three are about the latest of these.
    Began {
        name: &'a str,
    },
    Line {
        text: &'a str,
    },
    Ended {
        took: Duration,
    },
    Broke {
        message: &'a str,
    },
    Vertex {
        definition: &'a Definition,
        event: &'a Event,
    },
    /// Why a vertex is about to run, or is not.
    Why {
        definition: &'a Definition,
        vertex: VertexId,
        why: &'a Why,
    },
}

/// Where notes go; from several threads.
pub trait Watch: Sync {
    fn note(&self, note: Note<'_>);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug)]
pub struct Quiet;

impl Watch for Quiet {
    fn note(&self, _: Note<'_>) {}
}
