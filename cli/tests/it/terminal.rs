//! `run -it` on a terminal: what is typed, its size, and its modes after every kind of end.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::tool::{Boxwright, Running, eventually, wrapped};

/// A terminal that a command runs on.
pub(crate) struct Terminal {
    /// Where a person would sit.
    pub(crate) person: File,
    pub(crate) terminal: File,
}

impl Terminal {
    pub(crate) fn new() -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let controller = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&controller).unwrap();
        let terminal = rustix::pty::ioctl_tiocgptpeer(&controller, flags).unwrap();
        Terminal { person: controller.into(), terminal: terminal.into() }
    }

    pub(crate) fn resize(&self, ws_row: u16, ws_col: u16) {
        tcsetwinsize(&self.person, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    }

    /// Starts the command as a login would: the terminal is its own, and its signals are for it.
    pub(crate) fn start(&self, command: &Command) -> Running {
        let mut command = wrapped(&["setsid", "--ctty"], command);
        let end = || self.terminal.try_clone().unwrap();
        Running::start(command.stdin(end()).stdout(end()).stderr(end()))
    }

    /// Reads what is printed until `text` has come.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let mut seen = String::new();
        let mut buffer = [0; 4096];
        while !seen.contains(text) {
            let mut fds = [PollFd::new(&self.person, PollFlags::IN)];
            let minute = Timespec { tv_sec: 60, tv_nsec: 0 };
            assert_eq!(poll(&mut fds, Some(&minute)), Ok(1), "in a minute: {text:?} after {seen:?}");
            let length = self.person.read(&mut buffer).unwrap();
            assert!(length > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        seen
    }

    pub(crate) fn modes(&self) -> Termios {
        tcgetattr(&self.terminal).unwrap()
    }

    pub(crate) fn has(&self, modes: &Termios) -> bool {
        same(&self.modes(), modes)
    }

    /// How many bytes were typed that nobody has read.
    pub(crate) fn typed(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.terminal).unwrap()
    }

    pub(crate) fn is_raw(&self) -> bool {
        !self.modes().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }
}

pub(crate) fn same(a: &Termios, b: &Termios) -> bool {
    (a.input_modes, a.output_modes, a.control_modes, a.local_modes)
        == (b.input_modes, b.output_modes, b.control_modes, b.local_modes)
}

const WAIT: &str = "echo rea''dy; while :; do usleep 10000; done";

#[test]
fn the_size_follows_and_what_is_typed_arrives() {
    let boxwright = Boxwright::with_busybox();
    let mut terminal = Terminal::new();
    terminal.resize(30, 100);
    let script = "stty size; until [ \"$(stty size)\" = '50 120' ]; do usleep 10000; done; \
                  echo resized; read line; echo got $line; exit 7";
    let mut running =
        terminal.start(&boxwright.command(&["run", "--rm", "-it", "busybox", "sh", "-c", script]));
    terminal.wait_for("30 100\r\n");
    terminal.resize(50, 120);
    terminal.wait_for("resized\r\n");
    terminal.person.write_all(b"hello\r").unwrap();
    // The container's terminal echoes, and ours does not.
    assert_eq!(terminal.wait_for("got hello\r\n"), "hello\r\ngot hello\r\n");
    assert_eq!(running.wait(), 7);
}

#[test]
fn keys_that_are_signals_reach_the_containers_programs() {
    let boxwright = Boxwright::with_busybox();
    for init in [&[][..], &["--init"]] {
        let mut terminal = Terminal::new();
        let script = format!("trap 'echo cau''ght; exit 3' INT; {WAIT}");
        let args = [&["run", "--rm", "-it"], init, &["busybox", "sh", "-c", &script]].concat();
        let mut running = terminal.start(&boxwright.command(&args));
        terminal.wait_for("ready\r\n");
        terminal.person.write_all(b"\x03").unwrap();
        terminal.wait_for("caught\r\n");
        assert_eq!(running.wait(), 3, "{init:?}");
    }
}

#[test]
fn the_modes_are_as_they_were_after_every_end() {
    let boxwright = Boxwright::with_busybox();
    let with = |script: &str| boxwright.command(&["run", "--rm", "-it", "busybox", "sh", "-c", script]);
    for (command, code) in [
        (with("exit 4"), 4),
        (boxwright.command(&["run", "--rm", "-it", "busybox", "/etc"]), 126),
        (boxwright.command(&["run", "--rm", "-it", "-v", "/:/", "busybox", "true"]), 125),
    ] {
        let terminal = Terminal::new();
        let before = terminal.modes();
        assert_eq!(terminal.start(&command).wait(), code);
        assert!(same(&terminal.modes(), &before));
    }
    for (signal, script) in [
        (Signal::TERM, format!("trap 'exit 9' TERM; {WAIT}")),
        (Signal::HUP, format!("trap 'exit 9' HUP; {WAIT}")),
        (Signal::ABORT, WAIT.to_owned()),
        (Signal::KILL, WAIT.to_owned()),
    ] {
        let mut terminal = Terminal::new();
        let before = terminal.modes();
        assert!(!terminal.is_raw());
        let mut running = terminal.start(&with(&script));
        terminal.wait_for("ready\r\n");
        assert!(terminal.is_raw(), "{signal:?}");
        running.signal(signal);
        running.wait();
        eventually("the modes are as before", || same(&terminal.modes(), &before));
    }
}

#[test]
fn a_terminal_without_input_leaves_ours_alone() {
    let boxwright = Boxwright::with_busybox();
    let mut terminal = Terminal::new();
    let script = format!("trap 'exit 5' INT; test -t 1 && {WAIT}");
    let mut running =
        terminal.start(&boxwright.command(&["run", "--rm", "-t", "busybox", "sh", "-c", &script]));
    terminal.wait_for("ready");
    assert!(!terminal.is_raw());
    // The key makes a signal here, and that is passed on.
    terminal.person.write_all(b"\x03").unwrap();
    assert_eq!(running.wait(), 5);
}
