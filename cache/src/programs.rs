//! Programs of the host that this process starts, apart in time from containers that could have others run in their place:
//! in a user namespace, who may mount may write to the kernel's list of emulators, and that counts for the whole namespace.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What runs now. While there is one of a kind, the other kind waits.
#[derive(Debug, Default)]
struct Turns {
    programs: usize,
    containers: usize,
}

#[derive(Debug)]
struct Gate {
    turns: Mutex<Turns>,
    changed: Condvar,
}

static GATE: Gate = Gate::new();
/// How soon a waiter sees that it is no longer to wait.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Program,
    Container,
}

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    gate: &'static Gate,
    kind: Kind,
}

/// To be held while a program of the host is started, and for as long as it starts others. None when `interrupted` says
/// so before it is its turn.
pub fn program(interrupted: &dyn Fn() -> bool) -> Option<Turn> {
    GATE.take(Kind::Program, interrupted)
}

/// To be held while a container runs that may mount, in a user namespace that is ours as well.
pub fn container(interrupted: &dyn Fn() -> bool) -> Option<Turn> {
    GATE.take(Kind::Container, interrupted)
}

impl Gate {
    const fn new() -> Gate {
        Gate { turns: Mutex::new(Turns { programs: 0, containers: 0 }), changed: Condvar::new() }
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&'static self, kind: Kind, interrupted: &dyn Fn() -> bool) -> Option<Turn> {
        loop {
            let mut turns = self.turns();
            let (own, others) = turns.of(kind);
            if others == 0 {
                *own += 1;
                return Some(Turn { gate: self, kind });
            }
            // Whoever is asked may take a turn, or end one.
            drop(turns);
            if interrupted() {
                return None;
            }
            let blocked = |turns: &mut Turns| turns.of(kind).1 > 0;
            drop(self.changed.wait_timeout_while(self.turns(), LOOK, blocked));
        }
    }
}

impl Turns {
    /// Those of the kind, and how many there are of the other one.
    fn of(&mut self, kind: Kind) -> (&mut usize, usize) {
        match kind {
            Kind::Program => (&mut self.programs, self.containers),
            Kind::Container => (&mut self.containers, self.programs),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.gate.turns().of(self.kind).0 -= 1;
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn those_of_a_kind_run_together_and_the_other_kind_waits() {
        let gate: &'static Gate = Box::leak(Box::new(Gate::new()));
        let now = |kind| gate.take(kind, &|| true);
        let (one, two) = (now(Kind::Container).unwrap(), now(Kind::Container).unwrap());
        assert!(now(Kind::Program).is_none());
        drop(one);
        assert!(now(Kind::Program).is_none());
        // The second one ends while a program waits.
        let (two, asked) = (Cell::new(Some(two)), Cell::new(0));
        let waited = gate.take(Kind::Program, &|| {
            asked.set(asked.get() + 1);
            drop(two.take());
            false
        });
        assert!(waited.is_some() && asked.get() == 1);
        assert!(now(Kind::Container).is_none() && now(Kind::Program).is_some());
        drop(waited);
        assert!(now(Kind::Container).is_some());
    }
}
