//! Small programs of a test's own, for system calls that no program of an image makes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::run;

/// A static program, for as long as this lives.
#[derive(Debug)]
pub struct Program {
    dir: TempDir,
}

impl Program {
    /// Of C, by the compiler that Rust itself needs.
    #[track_caller]
    pub fn compile(source: &str, flags: &[&str]) -> Program {
        let program = Program { dir: tempfile::tempdir().unwrap() };
        let text = program.dir.path().join("program.c");
        fs::write(&text, source).unwrap();
        let mut cc = Command::new("gcc");
        run(cc.args(["-static", "-O1", "-w", "-o"]).arg(program.path()).args(flags).arg(text)).ok();
        program
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("program")
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }
}
