//! What a record of a build keeps of what steps print: all, until that is much; of steps that go on to print, the end.

use std::collections::HashMap;

use boxwright_solver::{Event, LogStream, VertexId};

/// How long a log is before anything is left out of it.
const MOST: u64 = 128 << 20;
/// What is kept of a step's output beyond that, at least.
const TAIL: usize = 32 << 10;

/// By step; only of those that run.
#[derive(Debug, Default)]
pub(super) struct Clipped(HashMap<VertexId, Tail>);

#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    left_out: usize,
}

impl Clipped {
    /// Whether the event is to be left out of a log that is this long.
    pub(super) fn takes(&mut self, event: &Event, length: u64) -> bool {
        match event {
            Event::Planned { .. } => self.0.clear(),
            // The rest of a step that something was left out of comes after that.
            Event::Log { vertex, bytes, .. } if length >= MOST || self.0.contains_key(vertex) => {
                self.0.entry(*vertex).or_default().add(bytes);
                return true;
            }
            _ => {}
        }
        false
    }

    /// What is to be in the log before an event by which a step ends.
    pub(super) fn before(&mut self, event: &Event) -> Option<Event> {
        let (Event::Finished { vertex, .. } | Event::Failed { vertex, .. } | Event::Canceled { vertex }) =
            event
        else {
            return None;
        };
        let tail = self.0.remove(vertex)?;
        Some(Event::Log { vertex: *vertex, stream: LogStream::Stdout, bytes: tail.text() })
    }
}

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Not each time, as that moves all that is kept.
        if self.bytes.len() > 2 * TAIL {
            let extra = self.bytes.len() - TAIL;
            self.bytes.drain(..extra);
            self.left_out += extra;
        }
    }

    fn text(self) -> Vec<u8> {
        if self.left_out == 0 {
            return self.bytes;
        }
        let told = format!("\n[output clipped: {} bytes left out]\n", self.left_out);
        [told.as_bytes(), &self.bytes].concat()
    }
}
