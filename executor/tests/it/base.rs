//! What only the tests with root share: one layer for all sandboxes, and what their containers did.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::fixture::{Output, Sandbox, make_busybox, run};

/// A layer with busybox and its names, made once for all tests.
pub(crate) fn busybox() -> &'static Path {
    static LAYER: OnceLock<PathBuf> = OnceLock::new();
    LAYER.get_or_init(|| make_busybox(Path::new(env!("CARGO_TARGET_TMPDIR"))))
}

impl Sandbox {
    pub(crate) fn new() -> Sandbox {
        Sandbox::over(|_| busybox().to_owned())
    }

    /// What is in the upper directory, sorted.
    pub(crate) fn changes(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.upper())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs a shell script in a container with docker's defaults.
    pub(crate) fn sh(&self, script: &str) -> Output {
        run(self.spec(&["sh", "-c", script]))
    }
}

impl Output {
    pub(crate) fn code(&self) -> i32 {
        self.status.code()
    }
}
