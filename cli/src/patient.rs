//! Standard error, for whoever reads it at leisure: a pager that stands still holds what is written, but not for longer
//! than the command may go on.

use std::io::{Result, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use crate::interrupt;

/// What a pipe that has room takes at once, whoever reads it.
const PART: usize = 4096;
/// How long a reader may stand still who was asked to come to an end.
const GRACE: Duration = Duration::from_secs(1);

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
            LOST.store(true, Ordering::Relaxed);
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stderr.write(&bytes[..bytes.len().min(PART)])
    }

    /// Nobody else writes between its parts.
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<()> {
        let _whole = std::io::stderr().lock();
        while !bytes.is_empty() {
            match self.write(bytes) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
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
