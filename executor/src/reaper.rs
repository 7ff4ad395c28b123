//! The first process of a container with `init`: it starts the program, passes signals on to it, and waits for whatever
//! processes are left without a parent. It is our own binary, started again from a sealed copy, so that a container that
//! reopens `/proc/1/exe` finds nothing of the host, and nothing of our memory.

use std::ffi::{CString, OsString};
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, WaitStatus, pidfd_send_signal};

use crate::error::{Error, Result};
use crate::sys;
use crate::sys::exec::Strings;
use crate::sys::process::Cloned;
use crate::sys::signal::{SIGNAL_RECORD, Set};

/// What that process is called. `main` has to hand over to [`init`] when it is started by this name.
pub const INIT: &str = "boxwright-init";

/// What our own shell is called; `main` has to become it when it is started by this name.
pub const SHELL: &str = "boxwright-shell";

/// A copy of our binary that nobody can write.
pub(crate) fn binary() -> Result<OwnedFd> {
    let doing = "copying the binary to be the first process from";
    let path = "/proc/self/exe";
    let copy = || {
        let ours = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let copy = rustix::fs::memfd_create(INIT, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        while rustix::fs::sendfile(&copy, &ours, None, CHUNK)? > 0 {}
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        rustix::fs::fcntl_add_seals(&copy, seals)?;
        Ok(copy)
    };
    copy().map_err(Error::io::<Errno>(doing, path))
}

const CHUNK: usize = 64 << 20;

/// Runs the program with these `arguments`: its path, then its arguments beginning with the one by which it is called.
/// Gives its exit code.
pub fn init(arguments: impl Iterator<Item = OsString>) -> u8 {
    // Otherwise it is called after the copy that it was started from.
    let _ = rustix::thread::set_name(c"boxwright-init");
    let ended = run(arguments.collect()).unwrap_or_else(|errno| {
        // Nobody is left to be told more.
        let _ = writeln!(std::io::stderr(), "{INIT}: {}", std::io::Error::from(errno));
        125
    });
    u8::try_from(ended & 0xff).unwrap_or(u8::MAX)
}

fn run(arguments: Vec<OsString>) -> Result<i32, Errno> {
    let c_string = |text: OsString| CString::new(text.into_vec()).map_err(|_| Errno::INVAL);
    let mut words = arguments.into_iter().map(c_string).collect::<Result<Vec<_>, _>>()?;
    if words.len() < 2 {
        return Err(Errno::INVAL);
    }
    let args = Strings::new(words.split_off(1));
    let path = words.remove(0);
    let variables = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        c_string(name)
    });
    let env = Strings::new(variables.collect::<Result<_, _>>()?);
    let before = sys::signal::block(Set::ALL)?;
    let signals = sys::signal::signalfd_that_waits(Set::ALL)?;
    let child = sys::process::clone(0, || {
        sys::signal::reset_dispositions();
        // It gets the terminal, where there is one: what is typed there is for it and not for us.
        let _ = rustix::process::setpgid(None, None);
        let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
        let _ = sys::signal::set_mask(before);
        let errno = sys::exec::execve(&path, &args, &env);
        let _ =
            writeln!(std::io::stderr(), "exec {}: {}", path.to_string_lossy(), std::io::Error::from(errno));
        sys::process::exit(if errno == Errno::NOENT { 127 } else { 126 });
    })?;
    wait(&child, &signals)
}

fn wait(child: &Cloned, signals: &OwnedFd) -> Result<i32, Errno> {
    let mut record = [0; SIGNAL_RECORD];
    loop {
        match rustix::io::read(signals.as_fd(), &mut record) {
            Ok(SIGNAL_RECORD) => {}
            Ok(_) | Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
        let number = sys::signal::signal_of(&record);
        if number == libc::SIGCHLD {
            if let Some(code) = reap(child)? {
                return Ok(code);
            }
        } else if let Some(signal) = Signal::from_named_raw(number) {
            let _ = pidfd_send_signal(&child.pidfd, signal);
        }
    }
}

/// Waits for every process that has ended; gives the code of the child, if it is among them.
fn reap(child: &Cloned) -> Result<Option<i32>, Errno> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid.as_raw_pid() == child.pid => return Ok(Some(code(status))),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}

fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(125)
}
