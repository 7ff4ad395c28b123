//! What happens during a solve, for progress and reports. Closed, ordered, only ever consumed.

use std::time::{Duration, SystemTime};

use boxwright_cache::record::{CacheKey, FileChanges};

use crate::How;
use crate::ir::VertexId;
use crate::key::KeyFields;
use crate::ops::file::Ballast;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

#[derive(Clone, Debug)]
pub enum Event {
    /// The vertices that the outputs need, in the order they are shown.
    Planned {
        vertices: Vec<VertexId>,
    },
    /// All sources are pinned: this is the key of one of the vertices that were planned.
    Keyed {
        vertex: VertexId,
        key: CacheKey,
        fields: KeyFields,
        /// Of a directory of the host: what differs from the build before.
        files: Option<FileChanges>,
    },
    Started {
        vertex: VertexId,
        at: SystemTime,
    },
    /// A directory of the host is large because of something that need not be read.
    Ballast {
        vertex: VertexId,
        ballast: Ballast,
    },
    /// Found in the cache, or here anyway; nothing ran.
    Cached {
        vertex: VertexId,
        how: How,
        /// The cache of another machine that had it.
        origin: Option<String>,
    },
    /// What another machine promised can't be had: the build goes on without that.
    Lost {
        message: String,
    },
    /// Output of the step's process; whole, in order, not split at line ends.
    Log {
        vertex: VertexId,
        stream: LogStream,
        bytes: Vec<u8>,
    },
    Finished {
        vertex: VertexId,
        took: Duration,
        how: How,
    },
    /// The step failed; `message` is the error's own text.
    Failed {
        vertex: VertexId,
        took: Duration,
        message: String,
    },
    /// Stopped because another step failed or the user gave up.
    Canceled {
        vertex: VertexId,
    },
}

/// Where events go. Sending never blocks; a receiver that is gone is not an error.
pub type Events = std::sync::mpsc::Sender<Event>;
