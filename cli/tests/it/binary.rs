//! The binary as a file: it needs nothing beside it, and finds its store.

use std::fs;
use std::process::Command;

use boxwright_testdata::run;

use crate::tool::{Boxwright, binary};

#[test]
fn the_binary_runs_in_an_empty_root() {
    let root = tempfile::tempdir().unwrap();
    fs::copy(binary(), root.path().join("boxwright")).unwrap();
    run(Command::new("chroot").arg(root.path()).args(["/boxwright", "version"])).says("Version").ok();
    run(Command::new("chroot").arg(root.path()).args(["/boxwright", "--root", "/store", "images"]))
        .says("REPOSITORY")
        .ok();
}

#[test]
fn the_store_is_named_by_flag_or_environment() {
    let boxwright = Boxwright::with_busybox();
    let list = |command: &mut Command| run(command).ok();
    let plain = || Command::new(binary());
    assert!(list(plain().env("BOXWRIGHT_ROOT", boxwright.store()).arg("images")).contains("busybox"));
    let empty = boxwright.scratch("empty");
    let both = list(plain().env("BOXWRIGHT_ROOT", boxwright.store()).arg("--root").arg(&empty).arg("images"));
    assert!(!both.contains("busybox"), "the flag goes before the environment");
}

#[test]
fn every_command_has_help() {
    let boxwright = Boxwright::new();
    let commands = [
        "build", "run", "pull", "push", "images", "tag", "rmi", "inspect", "history", "save", "load",
        "import", "info", "version", "doctor",
    ];
    let all = boxwright.ok(&["--help"]);
    for command in commands {
        assert!(all.contains(command), "{command} is not in {all}");
        boxwright.run(&[command, "--help"]).says("Usage").ok();
    }
    for command in [["image", "inspect"], ["builder", "prune"], ["system", "prune"]] {
        boxwright.run(&[command[0], command[1], "--help"]).says("Usage").ok();
    }
}
