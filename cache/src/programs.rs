//! Programs of the host that this process starts.

use std::process::Command;
use std::sync::OnceLock;

static PREPARE: OnceLock<fn(&mut Command)> = OnceLock::new();

/// Says what is to be done to every program before it is started: by who does with this process what a program must not
/// inherit, such as to hold signals back. The first word counts.
pub fn prepare_by(prepare: fn(&mut Command)) {
    let _ = PREPARE.set(prepare);
}

pub(crate) fn prepared(command: &mut Command) -> &mut Command {
    if let Some(prepare) = PREPARE.get() {
        prepare(command);
    }
    command
}
