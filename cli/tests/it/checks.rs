//! `build --check`, and the warnings of builds.

use serde_json::Value;

use crate::tool::{Boxwright, Context};

const WARNED: &str = "FROM busybox\nMAINTAINER me\nCOPY $src \\\n  /\n";

#[test]
fn a_check_tells_and_fails_without_building() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(WARNED);
    let ran = boxwright.build(&context, &["--check", "-t", "never"]);
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(
        ran.stdout.starts_with("Check complete, 2 warnings have been found!\n\nWARNING: Maint"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("   3 | >>> COPY $src \\\n   4 | >>>   /\n"), "{}", ran.stdout);
    assert!(!ran.stderr.contains("ERROR"), "{}", ran.stderr);
    assert!(boxwright.run(&["image", "inspect", "never"]).status != 0, "nothing is built");
    let ran = boxwright.build(&context, &["--call=check,ignorestatus=true"]);
    assert_eq!(ran.status, 0);
}

#[test]
fn a_check_answers_programs_in_json() {
    let boxwright = Boxwright::with_busybox();
    let ran = boxwright.build(&Context::new(WARNED), &["--call=check,format=json"]);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    let last = &answer["warnings"][1];
    assert_eq!((&last["ruleName"], ran.status), (&Value::from("UndefinedVar"), 1));
    let range = &last["location"]["ranges"][0];
    assert_eq!((&range["start"]["line"], &range["end"]["line"]), (&Value::from(3), &Value::from(4)));
    assert!(answer.get("buildError").is_none());
}

#[test]
fn a_clean_file_is_said_to_be_so() {
    let boxwright = Boxwright::with_busybox();
    let ran = boxwright.build(&Context::new("FROM busybox\nRUN true\n"), &["--check"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "Check complete, no warnings found.\n"));
}

#[test]
fn what_can_not_be_built_is_part_of_the_answer() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch\nMAINTAINER me\nCOPPY a b\n");
    let ran = boxwright.build(&context, &["--call=check,format=json"]);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((answer["warnings"].as_array().unwrap().len(), ran.status), (1, 1));
    let error = &answer["buildError"];
    assert!(error["message"].as_str().unwrap().contains("unknown instruction: COPPY"), "{error}");
    assert_eq!(error["location"]["ranges"][0]["start"]["line"], 3);
    assert!(ran.stderr.contains("ERROR: failed to solve: dockerfile parse error"), "{}", ran.stderr);
}

#[test]
fn a_base_that_is_nowhere_does_not_spoil_the_check() {
    let boxwright = Boxwright::new();
    let context =
        Context::new("FROM 127.0.0.1:1/nowhere\nENV A=$VERSION B=$nothing\nFROM 127.0.0.1:1/nowhere:2\n");
    let ran = boxwright.build(&context, &["--call=check,format=json"]);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    let warnings = answer["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "what a base may set is not told: {answer}");
    assert_eq!(warnings[0]["detail"], "Usage of undefined variable '$nothing'");
    assert!(ran.stderr.contains("nowhere"), "the image is named: {}", ran.stderr);
}

#[test]
fn builds_tell_what_they_need_and_can_be_made_to_fail() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox AS unused\nWORKDIR rel\nFROM busybox\nLABEL a b\n# check=skip=JSONArgsRecommended\nCMD x\n",
    );
    let ran = boxwright.build(&context, &[]);
    let expected = " 1 warning found:\n - LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format (line 4)\n";
    assert!(ran.status == 0 && ran.stderr.contains(expected), "{}", ran.stderr);
    assert!(!boxwright.build(&context, &["-q"]).stderr.contains("warning"));
    let ran = boxwright.build(&context, &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"]);
    let fatal = "ERROR: failed to solve: lint violation found for rules: LegacyKeyValueFormat";
    assert!(ran.status == 1 && ran.stderr.contains(fatal), "{}", ran.stderr);
    let ran = boxwright.build(&context, &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"]);
    assert!(ran.status == 0 && !ran.stderr.contains("warning"), "{}", ran.stderr);
}

#[test]
fn what_the_ignore_file_leaves_out_is_told_before_the_build_fails() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch\nCOPY logs/a /\n");
    context.write(".dockerignore", "log?\n");
    let ran = boxwright.build(&context, &["--check"]);
    let expected = "Attempting to Copy file \"logs/a\" that is excluded by .dockerignore";
    assert!(ran.stdout.contains(expected) && ran.stdout.contains("1 warning has"), "{}", ran.stdout);
    let context = Context::new("FROM scratch\nCOPY a /\n");
    context.write(".dockerignore", "a\n");
    context.write("a", "");
    let ran = boxwright.build(&context, &[]);
    let (warned, failed) =
        (ran.stderr.find("warning[CopyIgnoredFile]"), ran.stderr.find("ERROR: failed to solve"));
    assert!(warned.is_some() && warned < failed, "{}", ran.stderr);
}

#[test]
fn what_is_found_before_the_first_error_is_told_with_it() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch AS Bad\nMAINTAINER me\nBADCMD\nMAINTAINER you\n");
    let ran = boxwright.build(&context, &[]);
    let at = |words: &str| ran.stderr.find(words).unwrap_or_else(|| panic!("{words:?} in {ran}"));
    assert!(at("warning[StageNameCasing]") < at("warning[MaintainerDeprecated]"), "{ran}");
    assert!(at("(line 2)") < at("unknown instruction: BADCMD"), "{ran}");
    assert!(ran.status == 1 && !ran.stderr.contains("(line 4)"), "{ran}");
    assert!(!boxwright.build(&context, &["-q"]).stderr.contains("warning"));
}
