//! `build --call`: what a Dockerfile takes and which targets it has, told without building it.

use serde_json::{Value, json};

use crate::tool::{Boxwright, Context};

const TEXT: &str = "# VERSION is what is built\nARG VERSION=1\nFROM no.such.registry.invalid/base:${VERSION} AS first\n\
    RUN --mount=type=secret,id=token,required --mount=type=ssh --mount=type=cache,target=/c true\n\
    # all makes everything\nFROM first AS all\nARG LEVEL\nRUN false\n";

#[test]
fn an_outline_tells_what_a_target_takes() {
    let boxwright = Boxwright::new();
    let context = Context::new(TEXT);
    let ran = boxwright.build(&context, &["--call=outline", "--build-arg", "LEVEL=3"]);
    let text = "TARGET:      all\nDESCRIPTION: makes everything\n\n\
        BUILD ARG   VALUE   DESCRIPTION\nVERSION     1       is what is built\nLEVEL       3       \n\n\
        SECRET   REQUIRED\ntoken    true\n\nSSH       REQUIRED\ndefault   \n\nCACHE\n/c\n\n";
    assert_eq!((ran.status, ran.stdout.as_str()), (0, text), "{}", ran.stderr);
    let ran = boxwright.build(&context, &["--print", "outline,format=json", "--target", "first"]);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&answer["name"], &answer["args"][0]["value"]), (&json!("first"), &json!("1")));
    assert_eq!(answer["secrets"][0]["location"]["ranges"][0]["start"]["line"], 4);
    assert_eq!(answer["args"].as_array().map(Vec::len), Some(1));
}

#[test]
fn targets_are_told_without_a_look_at_their_bases() {
    let boxwright = Boxwright::new();
    let context = Context::new(TEXT);
    let ran = boxwright.build(&context, &["--call=targets,format=text"]);
    let text = "TARGET        DESCRIPTION\nfirst         \nall (default) makes everything\n";
    assert_eq!((ran.status, ran.stdout.as_str()), (0, text), "{}", ran.stderr);
    let ran = boxwright.build(&context, &["--call", "targets,format=json"]);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(answer["targets"][0]["base"], "no.such.registry.invalid/base:${VERSION}");
    assert_eq!(answer["targets"][1]["default"], true);
}

#[test]
fn the_calls_tell_of_themselves() {
    let ran = Boxwright::new().build(&Context::new(TEXT), &["--call=subrequests.describe"]);
    assert!(
        ran.status == 0 && ran.stdout.contains("\ntargets              1.0.0   List all"),
        "{}",
        ran.stdout
    );
}

#[test]
fn what_can_not_be_built_can_not_be_outlined() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch AS made\nRUN --mount=type=secrets true\n");
    let ran = boxwright.build(&context, &["--call=outline"]);
    assert!(ran.status == 1 && ran.stdout.is_empty(), "{}", ran.stdout);
    assert!(ran.stderr.contains("Dockerfile:2:"), "{}", ran.stderr);
    let context = Context::new("FROM scratch AS made\n");
    let ran = boxwright.build(&context, &["--call=outline", "--target=mode"]);
    assert!(ran.status == 1 && ran.stderr.contains("did you mean made?"), "{}", ran.stderr);
    let ran = boxwright.build(&context, &["--call=outlines"]);
    assert!(ran.status == 1 && ran.stderr.contains("invalid call \"outlines\""), "{}", ran.stderr);
}

#[test]
fn an_answer_does_not_drive_the_terminal() {
    let context = Context::new("# a \u{1b}]0;title\u{7} b\nFROM scratch AS a\nMAINTAINER \u{1b}[2J\n");
    for call in ["targets", "outline", "check"] {
        let ran = Boxwright::new().build(&context, &["--call", call]);
        assert!(!ran.stdout.is_empty() && !ran.stdout.contains('\u{1b}'), "{:?}", ran.stdout);
    }
}

#[test]
fn a_check_can_be_switched_off() {
    let ran =
        Boxwright::new().build(&Context::new("FROM scratch\nMAINTAINER me\n"), &["--check=false", "-q"]);
    assert!(ran.status == 0 && ran.stdout.starts_with("sha256:"), "{}", ran.stderr);
}
