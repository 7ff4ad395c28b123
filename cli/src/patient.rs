//! Standard error, for whoever reads it at leisure: a pager that stands still holds what is written, but not for longer
//! than the command may go on.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;

use crate::interrupt;

/// What a pipe that has room takes at once, whoever reads it.
const PART: usize = 4096;
/// How long a reader may stand still who was asked to come to an end.
const GRACE: Duration = Duration::from_secs(1);
/// How long a terminal is left alone that has room for next to nothing.
const PAUSE: Duration = Duration::from_millis(10);

/// What is written after Ctrl-C is lost if nobody reads it.
#[derive(Debug)]
pub(crate) struct Stderr;

/// A reader who stood still too long has lost something: the rest would be told out of its place.
static LOST: AtomicBool = AtomicBool::new(false);

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        // Whoever else writes meanwhile could take the room.
        let mut stderr = std::io::stderr().lock();
        if LOST.load(Ordering::Relaxed) || !has_room() {
            return Err(lost());
        }
        let part = &bytes[..bytes.len().min(PART)];
        let Some(mut terminal) = terminal() else { return stderr.write(part) };
        match terminal.write(part) {
            // There was room for less than a character.
            Err(e) if e.kind() == ErrorKind::WouldBlock && pause() => Err(ErrorKind::Interrupted.into()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Err(lost()),
            written => written,
        }
    }

    /// Nobody else writes between its parts.
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<()> {
        let _whole = std::io::stderr().lock();
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn lost() -> Error {
    LOST.store(true, Ordering::Relaxed);
    ErrorKind::TimedOut.into()
}

/// Standard error where that is a terminal, opened once more so that no write waits: a terminal that has room may have too
/// little, and would hold whoever writes until somebody reads.
fn terminal() -> Option<&'static File> {
    static TERMINAL: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let is_one = rustix::termios::isatty(rustix::stdio::stderr());
        is_one
            .then(|| rustix::fs::open("/proc/self/fd/2", flags, Mode::empty()).ok().map(File::from))
            .flatten()
    };
    TERMINAL.get_or_init(open).as_ref()
}

/// Waits a little; false if the command is asked to end meanwhile.
fn pause() -> bool {
    let little = Timespec::try_from(PAUSE).expect("it is short");
    let mut asked: Vec<_> = interrupt::token()
        .into_iter()
        .map(|cancel| PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN))
        .collect();
    retry_on_intr(|| poll(&mut asked, Some(&little))) == Ok(0)
}

/// Waits for that; false if it does not come although the command is asked to end. A poll that fails is no reason not to
/// write.
fn has_room() -> bool {
    let stderr = rustix::stdio::stderr();
    let room = || PollFd::new(&stderr, PollFlags::OUT);
    if let Some(cancel) = interrupt::token() {
        let mut fds = [room(), PollFd::from_borrowed_fd(cancel.as_fd(), PollFlags::IN)];
        if retry_on_intr(|| poll(&mut fds, None)).is_err() || !fds[0].revents().is_empty() {
            return true;
        }
        let grace = Timespec::try_from(GRACE).expect("it is short");
        return retry_on_intr(|| poll(&mut [room()], Some(&grace))) != Ok(0);
    }
    true
}
