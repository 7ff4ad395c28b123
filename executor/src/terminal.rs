//! The user's own terminal in raw mode while a container with a terminal runs. Whatever ends us, its modes come back: a
//! small process outlives us by a moment and restores them if we did not.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::{Error, Result};
use crate::sys;

/// Restores the terminal's modes when dropped.
#[derive(Debug)]
pub struct RawTerminal {
    terminal: OwnedFd,
    before: Termios,
    keeper: Option<Keeper>,
}

/// Our end of the process that restores the modes when this is closed without a word.
#[derive(Debug)]
struct Keeper {
    tell: OwnedFd,
    process: OwnedFd,
}

impl RawTerminal {
    /// # Errors
    /// When `terminal` is none.
    pub fn enter(terminal: OwnedFd) -> Result<RawTerminal> {
        let doing = "setting the terminal to raw mode";
        let before = tcgetattr(&terminal).map_err(Error::io(doing, ""))?;
        let mut raw = before.clone();
        raw.make_raw();
        // Without a keeper a kill leaves the terminal as it is, and nothing else is lost.
        let keeper = Keeper::start(&terminal, &before).ok();
        let entered = RawTerminal { terminal, before, keeper };
        tcsetattr(&entered.terminal, OptionalActions::Now, &raw).map_err(Error::io(doing, ""))?;
        Ok(entered)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may have gone; there is nothing to restore then.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
        if let Some(keeper) = self.keeper.take() {
            keeper.release();
        }
    }
}

impl Keeper {
    fn start(terminal: &OwnedFd, before: &Termios) -> Result<Keeper, Errno> {
        let (told, tell) = pipe_with(PipeFlags::CLOEXEC)?;
        let cloned = sys::process::clone(0, || keep(terminal.as_fd(), told.as_fd(), before))?;
        Ok(Keeper { tell, process: cloned.pidfd })
    }

    /// The modes are as they were, and others may change them from now on.
    fn release(self) {
        let _ = rustix::io::write(&self.tell, b"+");
        drop(self.tell);
        let _ = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
    }
}

/// In the new process: nothing may be allocated here.
fn keep(terminal: BorrowedFd<'_>, told: BorrowedFd<'_>, before: &Termios) {
    // Neither the terminal's signals nor its end are for this process.
    let _ = sys::signal::set_mask(sys::signal::Set::ALL);
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir(c"/");
    let _ = rustix::thread::set_name(c"boxwright-tty");
    // Nothing of ours stays open in it, least of all our own end of the pipe.
    let placed = rustix::stdio::dup2_stdin(terminal)
        .and_then(|()| rustix::stdio::dup2_stdout(told))
        .and_then(|()| sys::fd::close_from(2));
    if placed.is_err() {
        return;
    }
    let mut byte = [0u8];
    let told = loop {
        match rustix::io::read(rustix::stdio::stdout(), &mut byte) {
            Err(Errno::INTR) => {}
            result => break result,
        }
    };
    if told == Ok(0) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
    }
}
