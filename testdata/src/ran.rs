//! A program that has run to its end: what it printed and how it ended.

use std::process::{Command, Output, Stdio};

/// Exit status and output. A program that a signal ended has no status, here -1.
#[derive(Debug)]
pub struct Ran {
    command: String,
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command with no input.
pub fn run(command: &mut Command) -> Ran {
    run_with(command, Stdio::null())
}

/// Runs a command with this standard input.
pub fn run_with(command: &mut Command, input: Stdio) -> Ran {
    let text = format!("{command:?}");
    let output = command
        .stdin(input)
        .output()
        .unwrap_or_else(|e| panic!("{text}: {e} (scripts/test installs what the tests need)"));
    Ran::new(text, &output)
}

impl Ran {
    pub fn new(command: String, output: &Output) -> Ran {
        Ran {
            command,
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The standard output of a program that must have succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self}");
        self.stdout
    }

    /// A program that must have ended with this status.
    #[track_caller]
    pub fn fails_with(self, status: i32) -> Ran {
        assert_eq!(self.status, status, "{self}");
        self
    }

    /// Standard output and standard error must have this text in them, one or the other.
    #[track_caller]
    pub fn says(self, text: &str) -> Ran {
        assert!(self.stderr.contains(text) || self.stdout.contains(text), "no {text:?} in {self}");
        self
    }

    #[track_caller]
    pub fn says_nothing_of(self, text: &str) -> Ran {
        assert!(!self.stderr.contains(text) && !self.stdout.contains(text), "{text:?} in {self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\n-- status {}\n-- stdout\n{}\n-- stderr\n{}",
            self.command, self.status, self.stdout, self.stderr
        )
    }
}
