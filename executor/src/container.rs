//! A running container: started from a [`Spec`], waited for, signalled. Dropping it ends it.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use boxwright_cache::Cancel;
use boxwright_solver::event::LogStream;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};
use rustix::termios::Winsize;

use crate::cgroup::{Groups, OutOfMemory};
use crate::error::{Error, Result};
use crate::failure::explain;
use crate::init::{Failure, Plan, Stage};
use crate::prepare::{MountPoints, prepare};
use crate::signals::Signals;
use crate::spawner;
use crate::spec::Spec;
use crate::streams::Streams;

/// The first process of a container, and with it all others.
#[derive(Debug)]
pub struct Container {
    process: OwnedFd,
    id: i32,
    status: Option<ExitStatus>,
    streams: Streams,
    mount_points: MountPoints,
    /// When it has to have ended, and what that was said to be.
    deadline: Option<(Instant, Duration)>,
    groups: Option<Groups>,
    out_of_memory: Option<OutOfMemory>,
}

/// How the first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

/// Takes output as it comes; an error closes the stream, as when a pipe's reader goes away.
pub type Sink<'a> = &'a mut (dyn FnMut(LogStream, &[u8]) -> std::io::Result<()> + Send);

impl Container {
    /// Starts the process; when this returns, the program itself runs.
    ///
    /// # Errors
    /// [`Error::Start`] where the program, the user or a mount target is at fault, others where the machine is.
    /// Nothing is left of the container then.
    pub fn spawn(mut spec: Spec) -> Result<Container> {
        let mut groups = Groups::new(&spec.resources, spec.devices.rules())?;
        let prepared = prepare(&mut spec, groups.entrances()?)?;
        let (cloned, plan) = spawner::clone(prepared.plan, prepared.namespaces)?;
        let streams = Streams::new(prepared.ends, spec.stdin.take());
        let mount_points = prepared.mount_points;
        let mut container = Container {
            process: cloned.pidfd,
            id: cloned.pid,
            status: None,
            streams,
            mount_points,
            groups: Some(groups),
            out_of_memory: None,
            deadline: None,
        };
        let Plan { status: writing_end, mounts, program, .. } = plan;
        // While it is open the pipe does not end.
        drop(writing_end);
        match read_failure(prepared.status)? {
            None => Ok(container),
            Some(failure) => {
                container.reap()?;
                Err(explain(failure, &program, &mounts, &spec, &prepared.targets))
            }
        }
    }

    /// Copies the streams and passes `signals` on until the first process has ended and its output is read.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when the token was raised, [`Error::TimedOut`] after the time that [`Container::limit`] gives:
    /// every process of the container has been killed and is gone, and what it printed has been passed on.
    pub fn wait(&mut self, cancel: &Cancel, signals: Option<&Signals>, sink: Sink<'_>) -> Result<ExitStatus> {
        let (mut cancelled, mut late) = (false, None);
        let pending = signals.map(Signals::pending);
        while self.status.is_none() {
            let deadline = self.deadline.filter(|_| late.is_none() && !cancelled);
            let end = deadline.map(|(at, _)| at);
            let woken = self.streams.wait(&self.process, (!cancelled).then_some(cancel), pending, end)?;
            if woken.cancelled {
                cancelled = true;
                self.kill();
            } else if let Some((at, limit)) = deadline
                && !woken.ended
                && at <= Instant::now()
            {
                late = Some(limit);
                self.kill();
            }
            self.streams.copy(sink);
            for signal in woken.signals {
                self.pass_on(signal);
            }
            if woken.ended {
                self.reap()?;
            }
        }
        self.streams.drain(sink);
        match (self.status, late) {
            _ if cancelled => Err(Error::Cancelled),
            (_, Some(limit)) => Err(Error::TimedOut { limit }),
            (Some(status), None) => Ok(status),
            (None, None) => unreachable!("the loop ends with a status"),
        }
    }

    /// Makes the upper directory hold what the container changed, and nothing else, where it ran in a copy of its layers.
    /// To be called once it has ended.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; when what it left can't be read or written.
    pub fn leave_changes(&mut self, cancel: &Cancel) -> Result<()> {
        match self.mount_points.copied.take() {
            Some(copied) => copied.reduce(cancel).map_err(Error::cache),
            None => Ok(()),
        }
    }

    /// Why it runs in a copy of its layers, where the kernel refused an overlay of them.
    pub fn without_overlay(&self) -> Option<&str> {
        self.mount_points.refused.as_deref()
    }

    /// The number of its first process, which nobody else has until [`Container::wait`] returns.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// How long it may still run.
    pub fn limit(&mut self, limit: Option<Duration>) {
        self.deadline = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
    }

    /// That its memory was used up, once it has ended.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.out_of_memory
    }

    /// Sends a signal to the first process; false when that has ended.
    pub fn signal(&self, number: i32) -> bool {
        match Signal::from_named_raw(number) {
            Some(signal) => pidfd_send_signal(&self.process, signal).is_ok(),
            None => false,
        }
    }

    /// Tells the container's terminal, if it has one, how large it is now.
    pub fn resize(&self, size: Winsize) {
        self.streams.resize(size);
    }

    fn pass_on(&self, number: i32) {
        if number != libc::SIGWINCH || !self.streams.has_terminal() {
            self.signal(number);
        } else if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin())
            .or_else(|_| rustix::termios::tcgetwinsize(rustix::stdio::stdout()))
        {
            self.resize(size);
        }
    }

    fn kill(&self) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }

    /// Waits for the end. The kernel has killed every other process of the container by then.
    fn reap(&mut self) -> Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        let ended = loop {
            match waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result.map_err(Error::io("waiting for", "the container"))?,
            }
        };
        self.status = Some(ended.as_ref().map_or(ExitStatus::Code(0), ExitStatus::of));
        self.mount_points.take_back();
        if let Some(groups) = self.groups.take() {
            self.out_of_memory = groups.out_of_memory();
        }
        Ok(())
    }
}

/// None when the program was executed.
fn read_failure(status: OwnedFd) -> Result<Option<Failure>> {
    let mut record = Vec::new();
    let read = std::fs::File::from(status).read_to_end(&mut record);
    read.map_err(Error::io("starting", "the container"))?;
    match <[u8; Failure::SIZE]>::try_from(record.as_slice()) {
        Ok(record) => Ok(Failure::decode(&record)),
        Err(_) if record.is_empty() => Ok(None),
        Err(_) => Ok(Some(Failure { stage: Stage::Parent, index: 0, errno: rustix::io::Errno::IO })),
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.kill();
            // A process that can't be waited for is not ours any more.
            let _ = self.reap();
        }
    }
}

impl ExitStatus {
    /// As a shell has it: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128 + signal,
        }
    }

    pub fn success(self) -> bool {
        self == ExitStatus::Code(0)
    }

    fn of(status: &WaitIdStatus) -> ExitStatus {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => ExitStatus::Code(code),
            (None, Some(signal)) => ExitStatus::Signal(signal),
            (None, None) => ExitStatus::Code(255),
        }
    }
}
