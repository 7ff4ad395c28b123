//! Joins the libraries to one program: [`Engine`] does the work, `commands` read the command line and print results,
//! `report` and `exit` turn errors into text and exit codes. Logic that a library could hold is not here.

mod args;
mod call;
mod commands;
mod config;
mod doctor;
mod durability;
pub mod engine;
pub mod error;
mod exit;
mod explain;
mod format;
mod graph;
mod interrupt;
mod patient;
pub mod progress;
mod prompt;
mod report;
mod rescue;
mod stdin;

use std::ffi::OsString;
use std::process::ExitCode;

pub use engine::Engine;
pub use error::{Error, Result};

/// Runs the command that `words` (the program's name first) ask for, and says how it went.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words = words.into_iter().peekable();
    if words.next_if(|name| name == boxwright_executor::INIT).is_some() {
        return ExitCode::from(boxwright_executor::run_init(words));
    }
    if words.next_if(|name| name == boxwright_executor::SHELL).is_some() {
        return ExitCode::from(rescue::run());
    }
    exit::conclude(args::parse(words).and_then(commands::run))
}
