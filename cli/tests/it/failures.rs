//! What goes wrong, goes wrong with one clear message and the right exit code, and leaves nothing behind.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::tool::{Boxwright, Context, Running, eventually, sleeping};

/// Builds a Dockerfile that must fail, and checks that it left no image.
#[track_caller]
fn fails(dockerfile: &str, says: &[&str]) {
    let boxwright = Boxwright::with_busybox();
    let mut ran = boxwright.build(&Context::new(dockerfile), &["-t", "half"]).fails_with(1);
    for text in says {
        ran = ran.says(text);
    }
    boxwright.run(&["image", "inspect", "half"]).fails_with(1);
}

#[test]
fn a_failed_step_shows_its_line_its_code_and_its_log() {
    fails(
        "FROM busybox\nRUN echo fine\nRUN echo some output; \\\n  echo some complaint >&2; \\\n  exit 3\nRUN echo never\n",
        &["Dockerfile:3", "exit 3", "some output", "some complaint", "exit code: 3"],
    );
}

#[test]
fn a_missing_source_is_named() {
    fails("FROM busybox\nCOPY nosuch.txt /x\n", &["nosuch.txt", "Dockerfile:2", "not found"]);
}

#[test]
fn an_unknown_instruction_is_named_before_anything_runs() {
    fails("FROM busybox\nRUN echo one\nCOPPY a /x\n", &["unknown instruction: COPPY", "Dockerfile:3"]);
}

#[test]
fn no_stage_and_an_empty_file_are_said() {
    fails("RUN true\n", &["no build stage"]);
    fails("", &["no instructions"]);
}

#[test]
fn a_missing_target_and_a_missing_stage_are_named() {
    let boxwright = Boxwright::with_busybox();
    boxwright.build(&Context::new("FROM busybox\n"), &["--target", "nosuch"]).fails_with(1).says("nosuch");
}

#[test]
fn a_missing_context_or_dockerfile_is_named() {
    let boxwright = Boxwright::new();
    boxwright.run(&["build", "/nosuch/context"]).fails_with(1).says("/nosuch/context");
    boxwright.build(&Context::new(""), &["-f", "/nosuch/file"]).fails_with(1).says("/nosuch/file");
}

#[test]
fn all_errors_are_shown_at_once_with_the_words_meant() {
    let dockerfile = "FROM busybox AS a\nCOPPY x y\nRUN --mnt=z true\nCOPY --from=a\n";
    fails(
        dockerfile,
        &[
            "Dockerfile:2:1\n  |\n2 | COPPY x y\n  | ^^^^^\n",
            "(did you mean COPY?)",
            "Dockerfile:3:5\n  |\n3 | RUN --mnt=z true\n  |     ^^^^^^^\n",
            "unknown flag: --mnt",
            "Dockerfile:4:1",
            "COPY requires at least two arguments",
        ],
    );
}

#[test]
fn errors_can_be_read_by_programs() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nCOPPY x y\nEXPOSE\n");
    let ran = boxwright.build(&context, &["-q", "--diagnostics=json"]).fails_with(1);
    let objects: Vec<serde_json::Value> =
        ran.stderr.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect();
    let places: Vec<_> = objects.iter().map(|o| (&o["severity"], &o["line"], &o["column"])).collect();
    assert_eq!(objects.len(), 2, "{objects:?}");
    assert_eq!(places[0], (&"error".into(), &2.into(), &1.into()));
    assert_eq!(objects[0]["suggestion"], "COPY");
    assert_eq!(objects[1]["line"], 3);
    boxwright.build(&context, &["--diagnostics=yaml"]).fails_with(125).says("yaml");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    fails("FROM busybox\nRUN [\"/nosuch/program\"]\n", &["/nosuch/program", "Dockerfile:2"]);
}

#[test]
fn wrong_use_is_said_with_dockers_status() {
    let boxwright = Boxwright::new();
    assert_eq!(boxwright.run(&["nosuchcommand"]).status, 1);
    assert_eq!(boxwright.run(&["build", "--nosuchflag", "."]).says("--nosuchflag").status, 125);
    assert_eq!(boxwright.run(&["run"]).status, 1);
    assert_eq!(boxwright.run(&["build"]).status, 1);
}

#[test]
fn an_interrupted_build_ends_at_once_and_leaves_nothing() {
    let boxwright = Boxwright::with_busybox();
    let seconds = format!("27{}", std::process::id());
    let context = Context::new(&format!("FROM busybox\nRUN touch /half; sleep {seconds}\n"));
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command = boxwright.command(&["build", "--progress", "plain", "-t", "half", context.path()]);
        let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        eventually("the step runs", || sleeping(&seconds) > 0);
        let asked = Instant::now();
        running.signal(signal);
        let status = running.wait();
        assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
        assert_eq!(status, code);
        eventually("the step is gone", || sleeping(&seconds) == 0);
    }
    assert_no_mount_of(&boxwright);
    boxwright.run(&["image", "inspect", "half"]).fails_with(1);
    let context = Context::new("FROM busybox\nRUN ls /half 2>/dev/null || echo whole > /whole\n");
    boxwright.build(&context, &["-t", "next"]).ok();
    assert_eq!(boxwright.output_of("next", &["cat", "/whole"]), "whole\n");
}

#[test]
fn a_killed_build_leaves_a_store_that_works() {
    let boxwright = Boxwright::with_busybox();
    let seconds = format!("26{}", std::process::id());
    let context = Context::new(&format!("FROM busybox\nRUN echo first > /first\nRUN sleep {seconds}\n"));
    let mut command = boxwright.command(&["build", "--progress", "plain", context.path()]);
    let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    eventually("the step runs", || sleeping(&seconds) > 0);
    running.signal(Signal::KILL);
    running.wait();
    eventually("the step is gone", || sleeping(&seconds) == 0);
    assert_no_mount_of(&boxwright);
    let context = Context::new("FROM busybox\nRUN echo first > /first\nRUN echo second > /second\n");
    boxwright.build(&context, &["-t", "next"]).ok();
    assert_eq!(boxwright.output_of("next", &["cat", "/first", "/second"]), "first\nsecond\n");
}

#[test]
fn a_failed_stage_ends_its_siblings() {
    let boxwright = Boxwright::with_busybox();
    let seconds = format!("25{}", std::process::id());
    let context = Context::new(&format!(
        "FROM busybox AS slow\nRUN sleep {seconds}\nFROM busybox AS bad\nRUN sleep 1; exit 4\nFROM scratch\nCOPY --from=slow /bin /a\nCOPY --from=bad /bin /b\n"
    ));
    boxwright.build(&context, &[]).fails_with(1).says("exit code: 4");
    eventually("the sibling is gone", || sleeping(&seconds) == 0);
}

#[track_caller]
fn assert_no_mount_of(boxwright: &Boxwright) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let store = boxwright.store();
    assert!(!mounts.contains(store.to_str().unwrap()), "{mounts}");
}

#[test]
fn a_misspelt_stage_or_image_is_told_with_what_was_meant() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch AS build\nFROM scratch\nCOPY --from=biuld /a /b\n");
    let ran = boxwright.build(&context, &[]);
    assert!(ran.status == 1 && ran.stderr.contains(" (did you mean build?)\n"), "{}", ran.stderr);
    let ran = boxwright.build(&Context::new("FROM \\\n  bussybox:1.36\n"), &[]);
    assert!(ran.stderr.contains(" (did you mean busybox:1.36?)\n --> Dockerfile:2:3\n"), "{}", ran.stderr);
}

#[test]
fn words_of_a_dockerfile_drive_no_terminal() {
    let context = Context::new("FROM busybox AS \u{202e}a\nRUN echo \u{1b}[2J; false\n");
    let context_of_a_warning = Context::new("FROM scratch\nLABEL a \u{1b}[2Jb\nCOPY \u{1b}[2J /\n");
    for context in [context, context_of_a_warning] {
        let boxwright = Boxwright::with_busybox();
        let ran = boxwright.build(&context, &[]);
        assert_ne!(ran.status, 0, "{ran}");
        // What a step prints goes through as it is, as in docker.
        let ours: String =
            ran.stderr.lines().filter(|line| !line.ends_with(" \u{1b}[2J") && *line != "\u{1b}[2J").collect();
        assert!(!ours.contains(['\u{1b}', '\u{202e}']), "{ran}");
    }
}
