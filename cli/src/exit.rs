//! The one place that chooses exit codes, as docker does: 125 when a flag is wrong or `run` fails before its process
//! starts, 126 and 127 when the process can't be started, 130 after Ctrl-C and 143 after SIGTERM, 1 for every other failure.

use std::process::ExitCode;

use boxwright_cache as cache;

use crate::error::{BuildFailure, Error, Result, Usage};
use crate::{interrupt, report};

/// A flag that there is not, and a `run` that failed before its process started.
const REFUSED: u8 = 125;
/// What the number of a signal is added to.
const SIGNALLED: u8 = 128;
const INTERRUPT: u8 = 2;
/// 128 + SIGPIPE.
const NO_READER: u8 = 141;

/// Prints what went wrong, if anything did.
pub(crate) fn conclude(result: Result<u8>) -> ExitCode {
    let code = match result {
        Ok(code) => code,
        Err(error) => {
            report::print(&error);
            code(&error)
        }
    };
    ExitCode::from(code)
}

pub(crate) fn code(error: &Error) -> u8 {
    match error {
        Error::Usage(Usage::Shown(_)) => 0,
        Error::Usage(Usage::Flag { .. }) => REFUSED,
        Error::Container { code, .. } | Error::Shell { code, .. } => *code,
        Error::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe => NO_READER,
        Error::Helped { error, .. } => code(error),
        Error::Several(errors) => errors.first().map_or(1, code),
        error if is_cancelled(error) => SIGNALLED + interrupt::cause().unwrap_or(INTERRUPT),
        _ => 1,
    }
}

pub(crate) fn is_cancelled(error: &Error) -> bool {
    match error {
        Error::Cache(cache::Error::Cancelled) => true,
        Error::Build(failure) | Error::BuildAsJson(failure) => matches!(**failure, BuildFailure::Cancelled),
        _ => false,
    }
}

/// Whatever goes wrong before the process of a `run` starts has docker's code for that.
pub(crate) fn before_start(error: Error) -> Error {
    match error {
        Error::Container { .. } | Error::Usage(_) | Error::Output(_) => error,
        error if is_cancelled(&error) => error,
        error => Error::Container { code: REFUSED, message: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dockers() {
        let flag = Usage::Flag { command: "run".into(), message: "unknown flag: --x".into() };
        let arguments = Usage::Arguments { command: "tag".into(), message: String::new() };
        assert_eq!(code(&Error::Usage(flag)), 125);
        assert_eq!(code(&Error::Usage(arguments)), 1);
        assert_eq!(code(&before_start(Error::NoSuchImage("x".into()))), 125);
        assert_eq!(code(&before_start(Error::Container { code: 127, message: String::new() })), 127);
        assert_eq!(code(&Error::NoSuchImage("x".into())), 1);
        assert_eq!(code(&before_start(Error::Cache(cache::Error::Cancelled))), 130);
        assert_eq!(code(&Error::Output(std::io::ErrorKind::BrokenPipe.into())), 141);
    }
}
