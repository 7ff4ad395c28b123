//! What a record of a build keeps of what steps print: all, until that is much; of steps that go on to print, the end.

use std::collections::HashMap;

use boxwright_solver::{Event, LogStream, VertexId};

use super::tail::Tail;

/// How long a log is before anything is left out of it.
const MOST: u64 = 128 << 20;
/// What is kept of a step's output beyond that.
const TAIL: usize = 32 << 10;

/// By step; only of those that run.
#[derive(Debug, Default)]
pub(super) struct Clipped(HashMap<VertexId, Tail>);

impl Clipped {
    /// Whether the event is to be left out of a log that is this long.
    pub(super) fn takes(&mut self, event: &Event, length: u64) -> bool {
        match event {
            Event::Planned { .. } => self.0.clear(),
            // The rest of a step that something was left out of comes after that.
            Event::Log { vertex, bytes, .. } if length >= MOST || self.0.contains_key(vertex) => {
                self.0.entry(*vertex).or_insert_with(|| Tail::of(TAIL)).add(bytes);
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
        Some(Event::Log { vertex: *vertex, stream: LogStream::Stdout, bytes: text(&tail) })
    }
}

fn text(tail: &Tail) -> Vec<u8> {
    match tail.before().bytes {
        0 => tail.bytes(),
        left_out => {
            let told = format!("\n[output clipped: {left_out} bytes left out]\n");
            [told.as_bytes(), &tail.bytes()].concat()
        }
    }
}
