//! One run of a program that is given a short text and gives a short answer. It ends with its caller's patience.

use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Of each of its outputs no more than this is read; a program that says more finds nobody listening.
const MAX_OUTPUT: usize = 64 << 10;
/// Longer than anybody takes to unlock something.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) struct Ran {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// Runs `command` until it ends by itself, `cancel` is raised, or nobody would wait any longer.
pub(super) fn run(command: &mut Command, input: &[u8], cancel: &Cancel) -> Result<Ran> {
    cancel.check()?;
    crate::ids::needed();
    let name = command.get_program().to_owned();
    // At a terminal it stays in the group of which the terminal takes input, and which gets Ctrl-C.
    let grouped = !io::stderr().is_terminal();
    if grouped {
        command.process_group(0);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = crate::programs::prepared(command).spawn().map_err(Error::io("running", &name))?;
    let ran = attend(&mut child, input, cancel);
    if ran.is_err() {
        if grouped {
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    ran.map_err(Error::io("running", &name))
}

fn attend(child: &mut Child, input: &[u8], cancel: &Cancel) -> io::Result<Ran> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut feed = Feed { to: child.stdin.take(), rest: input };
    let (mut out, mut err) = (Listen::to(child.stdout.take())?, Listen::to(child.stderr.take())?);
    feed.to.as_ref().map_or(Ok(()), |to| ioctl_fionbio(to, true))?;
    let end = Instant::now() + PATIENCE;
    loop {
        // What it left behind may hold its outputs open: what is in them when it ended is all that counts.
        let ended = child.try_wait()?;
        feed.go_on();
        out.go_on();
        err.go_on();
        if let Some(status) = ended {
            return Ok(Ran { status, stdout: out.heard, stderr: err.heard });
        }
        cancel.check().map_err(io::Error::other)?;
        let left = end.checked_duration_since(Instant::now()).ok_or(ErrorKind::TimedOut)?;
        let mut fds = vec![PollFd::new(&process, PollFlags::IN), PollFd::new(cancel, PollFlags::IN)];
        fds.extend(feed.to.as_ref().map(|to| PollFd::new(to, PollFlags::OUT)));
        fds.extend(out.from.as_ref().map(|from| PollFd::new(from, PollFlags::IN)));
        fds.extend(err.from.as_ref().map(|from| PollFd::new(from, PollFlags::IN)));
        let left = Timespec { tv_sec: left.as_secs().try_into().unwrap_or(0), tv_nsec: 1_000_000 };
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// What is still to be written to it.
struct Feed<'a> {
    to: Option<ChildStdin>,
    rest: &'a [u8],
}

impl Feed<'_> {
    /// Writes what it takes now. A program that does not read says with its exit code whether that was right.
    fn go_on(&mut self) {
        while let Some(to) = &mut self.to {
            match to.write(self.rest) {
                Ok(n @ 1..) => self.rest = &self.rest[n..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                _ => self.to = None,
            }
        }
    }
}

/// What one of its outputs said so far.
struct Listen<R> {
    from: Option<R>,
    heard: Vec<u8>,
}

impl<R: Read + AsFd> Listen<R> {
    fn to(from: Option<R>) -> io::Result<Listen<R>> {
        from.as_ref().map_or(Ok(()), |from| ioctl_fionbio(from, true))?;
        Ok(Listen { from, heard: Vec::new() })
    }

    /// Reads what is there now.
    fn go_on(&mut self) {
        let mut buffer = [0; 4096];
        while let Some(from) = &mut self.from {
            match from.read(&mut buffer) {
                Ok(n @ 1..) if self.heard.len() + n <= MAX_OUTPUT => self.heard.extend(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                _ => self.from = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &[u8], cancel: &Cancel) -> Result<Ran> {
        run(Command::new("sh").args(["-c", script]), input, cancel)
    }

    #[test]
    fn a_program_that_talks_without_end_finds_nobody_listening() {
        let ran = shell("exec yes", b"", &Cancel::new().unwrap()).unwrap();
        assert!(!ran.status.success() && ran.stdout.len() <= MAX_OUTPUT, "{}", ran.status);
        let ran = shell("yes >&2", b"", &Cancel::new().unwrap()).unwrap();
        assert!(ran.stderr.len() <= MAX_OUTPUT);
    }

    #[test]
    fn input_and_output_can_be_larger_than_a_pipe() {
        let input = vec![b'x'; 200_000];
        let ran = shell("head -c 60000 /dev/zero; wc -c", &input, &Cancel::new().unwrap()).unwrap();
        assert!(ran.stdout.ends_with(b"\x00200000\n") && ran.stdout.len() == 60_007);
        let ran = shell("exit 3", &input, &Cancel::new().unwrap()).unwrap();
        assert_eq!(ran.status.code(), Some(3));
    }

    #[test]
    fn what_a_program_leaves_behind_is_not_waited_for() {
        let start = Instant::now();
        let ran = shell("sleep 60 & echo answer; echo $!", b"", &Cancel::new().unwrap()).unwrap();
        let said = String::from_utf8(ran.stdout).unwrap();
        let left: i32 = said.strip_prefix("answer\n").unwrap().trim().parse().unwrap();
        assert!(start.elapsed() < Duration::from_secs(30));
        rustix::process::kill_process(Pid::from_raw(left).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn a_program_that_hangs_ends_with_the_cancellation() {
        let cancel = Cancel::new().unwrap();
        let raise = cancel.clone();
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", pid.display());
        let ran = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !pid.exists() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                raise.raise();
            });
            shell(&script, b"", &cancel)
        });
        assert!(matches!(ran, Err(Error::Cancelled)));
        if !io::stderr().is_terminal() {
            let pid = std::fs::read_to_string(pid).unwrap();
            let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            let gone = || state().map_or(true, |state| state.contains(") Z "));
            let end = Instant::now() + Duration::from_secs(10);
            while !gone() {
                assert!(Instant::now() < end, "its child is alive");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
