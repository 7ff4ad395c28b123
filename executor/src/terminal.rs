//! The user's own terminal in raw mode while a container with a terminal runs.

use std::os::fd::OwnedFd;

use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::{Error, Result};

/// Restores the terminal's modes when dropped.
#[derive(Debug)]
pub struct RawTerminal {
    terminal: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// # Errors
    /// When `terminal` is none.
    pub fn enter(terminal: OwnedFd) -> Result<RawTerminal> {
        let doing = "setting the terminal to raw mode";
        let before = tcgetattr(&terminal).map_err(Error::io(doing, ""))?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw).map_err(Error::io(doing, ""))?;
        Ok(RawTerminal { terminal, before })
    }

    /// # Errors
    /// When the terminal is gone.
    pub fn size(&self) -> Result<Winsize> {
        tcgetwinsize(&self.terminal).map_err(Error::io("asking for the size of", "the terminal"))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // The terminal may have gone; there is nothing to restore then.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
