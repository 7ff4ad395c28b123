//! Questions to the person at the terminal. Where there is none, nothing is asked.

use std::io::{IsTerminal, Read, Write};

use boxwright_cache::{self as cache, Cancel};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::error::{Error, Result};
use crate::stdin::Stdin;

/// Ctrl-C, where it does not end the process.
const INTERRUPT: u8 = 3;

/// What is typed until Enter.
pub(crate) fn line(question: &str, cancel: &Cancel) -> Result<String> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid("Cannot perform an interactive login from a non TTY device"));
    }
    let mut err = std::io::stderr();
    let _ = err.write_all(question.as_bytes()).and_then(|()| err.flush());
    let mut line = Vec::new();
    #[expect(clippy::unbuffered_bytes, reason = "what is typed ahead belongs to the next question")]
    for byte in Stdin(cancel).bytes() {
        cancel.check().map_err(Error::Cache)?;
        match byte.map_err(Error::io("reading", "the terminal"))? {
            b'\n' => break,
            INTERRUPT => return Err(Error::Cache(cache::Error::Cancelled)),
            byte => line.push(byte),
        }
    }
    let line = String::from_utf8(line).map_err(|_| Error::invalid("what was typed is not UTF-8"))?;
    Ok(line.trim_end_matches('\r').to_owned())
}

/// The same, without showing it.
pub(crate) fn secret(question: &str, cancel: &Cancel) -> Result<String> {
    let hidden = std::io::stdin().is_terminal().then(Hidden::start).transpose()?;
    let answer = line(question, cancel);
    if hidden.is_some() {
        // The terminal did not show that one either.
        let _ = std::io::stderr().write_all(b"\n");
    }
    answer
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn start() -> Result<Hidden> {
        let terminal = rustix::stdio::stdin();
        let failed = || Error::io("setting up", "the terminal");
        let before = tcgetattr(terminal).map_err(failed())?;
        let mut quiet = before.clone();
        // Ctrl-C would leave a terminal that shows nothing, so until then it is a character that ends a line.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(terminal, OptionalActions::Flush, &quiet).map_err(failed())?;
        Ok(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}
