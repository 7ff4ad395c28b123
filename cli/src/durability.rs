//! Makes what a command wrote survive a power cut, without anybody waiting for the disk: a process of its own syncs.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::engine::Engine;

/// The hidden command that this process runs.
pub(crate) const COMMAND: &str = "sync-store";

/// Starts the sync if there is something to sync. Where it can't be started, as without procfs, this process syncs. That it
/// can't do that is no failure: the next command that writes tries as well, and what is not durable yet is only lost by a
/// crash of the machine.
pub(crate) fn sync_later(engine: &Engine) {
    if !engine.store().needs_sync().unwrap_or(false) {
        return;
    }
    // It keeps no directory of the user's busy, so it is told by a path that begins nowhere else.
    let Ok(root) = std::path::absolute(engine.store().path()) else { return };
    let started = Command::new("/proc/self/exe")
        .arg0("boxwright")
        .arg("--root")
        .arg(root)
        .arg(COMMAND)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .spawn();
    if started.is_err() {
        let _ = engine.store().sync();
    }
}

/// Leaves the terminal's session, so that neither Ctrl-C nor its end stops the sync.
pub(crate) fn detach() {
    let _ = rustix::process::setsid();
}
