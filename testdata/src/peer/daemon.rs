//! A background process that ends with the value that holds it.

use std::net::TcpListener;
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
    pub(crate) fn start(command: &mut Command, ready: impl Fn() -> bool) -> Daemon {
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

/// A port that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
