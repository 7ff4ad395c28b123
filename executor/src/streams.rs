//! The container's standard streams: copied in one loop, with bounded buffers, together with everything else that can
//! end a wait.

use std::os::fd::OwnedFd;
use std::time::Instant;

use boxwright_cache::Cancel;
use boxwright_solver::event::LogStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::Winsize;

use crate::container::Sink;
use crate::error::{Error, Result};
use crate::prepare::Ends;
use crate::signals::Pending;

#[derive(Debug)]
pub(crate) struct Streams {
    outputs: Vec<Output>,
    input: Option<Input>,
    /// Only to be resized; what it reads and writes is in the two above.
    terminal: Option<OwnedFd>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Output {
    from: OwnedFd,
    stream: LogStream,
    ready: bool,
}

#[derive(Debug)]
struct Input {
    from: OwnedFd,
    to: OwnedFd,
    pending: Vec<u8>,
    ready: bool,
    /// The source has ended; the rest of `pending` is still to be written.
    ended: bool,
}

/// What a wait found.
#[derive(Debug, Default)]
pub(crate) struct Woken {
    pub(crate) ended: bool,
    pub(crate) cancelled: bool,
    pub(crate) signals: Vec<i32>,
}

const CHUNK: usize = 64 << 10;
const FAR: Timespec = Timespec { tv_sec: 1 << 30, tv_nsec: 0 };

impl Streams {
    pub(crate) fn new(ends: Ends, source: Option<OwnedFd>) -> Streams {
        let input = |to, from| Input { from, to, pending: Vec::new(), ready: false, ended: false };
        let output = |from, stream| Output { from, stream, ready: false };
        let mut streams =
            Streams { outputs: Vec::new(), input: None, terminal: None, buffer: Vec::with_capacity(CHUNK) };
        match ends {
            Ends::Pipes { stdin, stdout, stderr } => {
                streams.outputs = vec![output(stdout, LogStream::Stdout), output(stderr, LogStream::Stderr)];
                streams.input = stdin.zip(source).map(|(to, from)| input(to, from));
            }
            Ends::Terminal(terminal) => {
                let copy = |fd: &OwnedFd| fd.try_clone().ok();
                streams.input = copy(&terminal).zip(source).map(|(to, from)| input(to, from));
                streams.outputs.extend(copy(&terminal).map(|fd| output(fd, LogStream::Stdout)));
                streams.terminal = Some(terminal);
            }
        }
        streams
    }

    /// Sleeps until there is something to do, or `end` has come.
    pub(crate) fn wait(
        &mut self,
        process: &OwnedFd,
        cancel: Option<&Cancel>,
        signals: Option<&Pending>,
        end: Option<Instant>,
    ) -> Result<Woken> {
        let mut fds = vec![PollFd::new(process, PollFlags::IN)];
        let cancel_at = cancel.map(|c| push(&mut fds, PollFd::new(c, PollFlags::IN)));
        let signals_at = signals.map(|s| push(&mut fds, PollFd::new(s, PollFlags::IN)));
        let outputs_at = fds.len();
        fds.extend(self.outputs.iter().map(|o| PollFd::new(&o.from, PollFlags::IN)));
        let input_at = self.input.as_ref().map(|input| push(&mut fds, input.poll_fd()));
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        // What is too long for the kernel is waited for in parts.
        let left = left.map(|left| Timespec::try_from(left).unwrap_or(FAR));
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Woken::default()),
            Err(errno) => return Err(Error::io("waiting for", "the container")(errno)),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        for (output, ready) in self.outputs.iter_mut().zip(&ready[outputs_at..]) {
            output.ready = *ready;
        }
        if let (Some(input), Some(at)) = (&mut self.input, input_at) {
            input.ready = ready[at];
        }
        let is = |at: Option<usize>| at.is_some_and(|at| ready[at]);
        let signals =
            if is(signals_at) { signals.map(Pending::take).unwrap_or_default() } else { Vec::new() };
        Ok(Woken { ended: ready[0], cancelled: is(cancel_at), signals })
    }

    /// Moves what is ready.
    pub(crate) fn copy(&mut self, sink: Sink<'_>) {
        let buffer = &mut self.buffer;
        self.outputs.retain_mut(|output| {
            !std::mem::take(&mut output.ready) || {
                match read(&output.from, buffer) {
                    Ok(0) => false,
                    Ok(_) => sink(output.stream, buffer).is_ok(),
                    Err(errno) => matches!(errno, Errno::INTR | Errno::AGAIN),
                }
            }
        });
        if let Some(input) = &mut self.input
            && !input.step(buffer)
        {
            self.input = None;
        }
    }

    /// Reads what the ended container left in the pipes. Nobody is left to write, so nothing is waited for: a pipe
    /// that was handed to somebody outside would never end.
    pub(crate) fn drain(&mut self, sink: Sink<'_>) {
        self.input = None;
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while !self.outputs.is_empty() {
            for output in &mut self.outputs {
                let mut fds = [PollFd::new(&output.from, PollFlags::IN)];
                output.ready = poll(&mut fds, Some(&now)) == Ok(1);
            }
            self.outputs.retain(|output| output.ready);
            self.copy(sink);
        }
    }

    pub(crate) fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    pub(crate) fn resize(&self, size: Winsize) {
        if let Some(terminal) = &self.terminal {
            // A terminal whose other end is closed has no size to be set.
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
    }
}

/// Puts what comes into `buffer`, in place of what was there: memory that is never written to costs nothing.
fn read(from: &OwnedFd, buffer: &mut Vec<u8>) -> rustix::io::Result<usize> {
    buffer.clear();
    rustix::io::read(from, rustix::buffer::spare_capacity(buffer))
}

impl Input {
    fn poll_fd(&self) -> PollFd<'_> {
        if self.pending.is_empty() {
            PollFd::new(&self.from, PollFlags::IN)
        } else {
            PollFd::new(&self.to, PollFlags::OUT)
        }
    }

    /// False when there is nothing more to be copied.
    fn step(&mut self, buffer: &mut Vec<u8>) -> bool {
        if !std::mem::take(&mut self.ready) {
            return true;
        }
        if self.pending.is_empty() {
            match read(&self.from, buffer) {
                Ok(0) => self.ended = true,
                Ok(_) => self.pending.extend_from_slice(buffer),
                Err(errno) => return matches!(errno, Errno::INTR | Errno::AGAIN),
            }
        }
        if !self.pending.is_empty() {
            match rustix::io::write(&self.to, &self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => return false,
            }
        }
        !(self.ended && self.pending.is_empty())
    }
}

fn push<'a>(fds: &mut Vec<PollFd<'a>>, fd: PollFd<'a>) -> usize {
    fds.push(fd);
    fds.len() - 1
}
