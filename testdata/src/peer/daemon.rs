//! A background process that ends with the value that holds it.

use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts the process and returns when `ready` says so. It stays in our process group, so that whoever kills a
    /// test that hangs kills this too.
    #[track_caller]
    pub(crate) fn start(command: &mut Command, mut ready: impl FnMut() -> bool) -> Daemon {
        let text = format!("{command:?}");
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{text}: {e} (scripts/test installs what the tests need)"));
        let mut daemon = Daemon { child };
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{text}: not ready, {ended:?}");
            sleep(STEP);
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().is_ok_and(|s| s.is_none()) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            sleep(STEP);
        }
    }
}

/// The port that a daemon listens on, as it says once in a file: digits after `words`.
pub fn port_in(file: &Path, words: &str) -> Option<u16> {
    let text = std::fs::read_to_string(file).ok()?;
    let (_, rest) = text.split_once(words)?;
    // A digit may be the last one that has been written so far.
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}
