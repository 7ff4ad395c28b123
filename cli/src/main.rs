//! The `boxwright` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    boxwright_cli::main(std::env::args_os())
}
