//! How many vertices run at once, and which is next of those that wait: the one with the longest way still to go from
//! it to the end of the build, by the times of earlier builds.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use boxwright_cache::Store;

use crate::ir::{Definition, Op, VertexId};
use crate::why::text;

/// What a step is expected to take of which no earlier build tells.
const UNKNOWN_EXEC: Duration = Duration::from_secs(1);
const UNKNOWN: Duration = Duration::from_millis(50);

pub(crate) struct Slots {
    state: Mutex<State>,
    changed: Condvar,
    /// By vertex: what is still to be done from its start to the end of the build.
    ways: Vec<Duration>,
}

struct State {
    free: usize,
    waiting: BTreeSet<(Duration, VertexId)>,
}

pub(crate) struct Slot<'a>(&'a Slots);

impl Slots {
    /// `running` are the vertices that will run.
    pub(crate) fn new(
        count: usize,
        definition: &Definition,
        running: &[VertexId],
        store: &Store,
    ) -> Result<Slots, boxwright_cache::Error> {
        // With a slot for each there is nothing to decide.
        let times = if running.len() > count { store.step_times()? } else { HashMap::new() };
        let by_text = times.iter().map(|(title, took)| (text(title), *took)).collect();
        let ways = ways(definition, running, &by_text);
        let state = Mutex::new(State { free: count, waiting: BTreeSet::new() });
        Ok(Slots { state, changed: Condvar::new(), ways })
    }

    pub(crate) fn way(&self, vertex: VertexId) -> Duration {
        self.ways[vertex.index()]
    }

    /// Waits until a slot is free and nobody waits who has a longer way to go.
    pub(crate) fn take(&self, vertex: VertexId) -> Slot<'_> {
        let own = (self.way(vertex), vertex);
        let mut state = self.lock();
        state.waiting.insert(own);
        while state.free == 0 || state.waiting.last() != Some(&own) {
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        state.waiting.remove(&own);
        state.free -= 1;
        drop(state);
        // Another slot may be free for the next one.
        self.changed.notify_all();
        Slot(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.lock().free += 1;
        self.0.changed.notify_all();
    }
}

fn ways(definition: &Definition, running: &[VertexId], times: &HashMap<&str, Duration>) -> Vec<Duration> {
    let mut ways = vec![Duration::ZERO; definition.len()];
    for &id in running.iter().rev() {
        // Until here it is the longest way of those that need it.
        let vertex = definition.vertex(id);
        let unknown = if matches!(vertex.op, Op::Exec(_)) { UNKNOWN_EXEC } else { UNKNOWN };
        ways[id.index()] += times.get(text(&vertex.about.name)).copied().unwrap_or(unknown);
        for input in vertex.op.inputs() {
            ways[input.index()] = ways[input.index()].max(ways[id.index()]);
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{About, FileOp, LocalSource, SourceOp};

    /// A vertex called `name` on `base`.
    fn add(definition: &mut Definition, name: &str, base: Option<VertexId>) -> VertexId {
        let about = || About { name: format!("[1/1] {name}"), ..About::default() };
        let local = LocalSource { name: name.to_owned(), ..LocalSource::default() };
        match base {
            None => definition.add(Op::Source(SourceOp::Local(local)), about()),
            Some(base) => {
                let mkdir =
                    crate::ir::MkdirAction { path: name.to_owned(), mode: 0o755, owner: None, time: None };
                let actions = vec![crate::ir::FileAction::Mkdir(mkdir)];
                definition.add(Op::File(FileOp { base: Some(base), actions }), about())
            }
        }
    }

    #[test]
    fn a_way_is_the_longest_sum_of_times_to_the_end() {
        let mut definition = Definition::default();
        let root = add(&mut definition, "root", None);
        let short = add(&mut definition, "short", Some(root));
        let long = add(&mut definition, "long", Some(root));
        let after = add(&mut definition, "after", Some(short));
        let seconds = Duration::from_secs;
        let times = [("short", seconds(1)), ("long", seconds(5)), ("after", seconds(2))].into();
        let ways = ways(&definition, &[root, short, long, after], &times);
        assert_eq!([short, long, after].map(|id| ways[id.index()]), [seconds(3), seconds(5), seconds(2)]);
        assert_eq!(ways[root.index()], UNKNOWN + seconds(5));
    }

    #[test]
    fn the_longest_way_goes_first() {
        let mut definition = Definition::default();
        let ids: Vec<VertexId> =
            ["a", "b", "c"].iter().map(|name| add(&mut definition, name, None)).collect();
        let ways = vec![Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(2)];
        let state = Mutex::new(State { free: 1, waiting: BTreeSet::new() });
        let slots = Slots { state, changed: Condvar::new(), ways };
        let order = Mutex::new(Vec::new());
        let held = slots.take(ids[0]);
        std::thread::scope(|scope| {
            for &id in &ids {
                let (slots, order) = (&slots, &order);
                scope.spawn(move || {
                    let _slot = slots.take(id);
                    order.lock().unwrap().push(id);
                });
            }
            while slots.lock().waiting.len() < 3 {
                std::thread::yield_now();
            }
            drop(held);
        });
        assert_eq!(order.into_inner().unwrap(), [ids[1], ids[2], ids[0]]);
    }
}
