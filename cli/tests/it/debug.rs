//! `debug ast` and `debug graph`: a Dockerfile looked into, and nothing built.

use serde_json::Value;

use crate::tool::{Boxwright, Context};

const TEXT: &str = "# check=skip=all\nFROM busybox AS base\nARG WHO=all\nRUN --network=none echo \\\n  \"$WHO\"\n\
    FROM base AS other\nCOPY [\"a b\", \"c\"]\nADD https://me:secret@no.such.host.invalid/f /\n";

#[test]
fn a_tree_is_printed_as_buildkit_dumps_it() {
    let boxwright = Boxwright::new();
    let context = Context::new(TEXT);
    let ran = boxwright.run(&["debug", "ast", context.join("Dockerfile").to_str().unwrap()]);
    let expected = "(from \"busybox\" \"AS\" \"base\")\n(arg \"WHO=all\")\n\
        (run [\"--network=none\"] \"echo   \\\"$WHO\\\"\")\n(from \"base\" \"AS\" \"other\")\n(copy \"a b\" \"c\")\n\
        (add \"https://xxxxx@no.such.host.invalid/f\" \"/\")\n";
    assert_eq!((ran.status, ran.stdout.as_str()), (0, expected), "{}", ran.stderr);
    context.write("bad", b"FROM x\nRUNN a\nRUN \x1b[2J\nCMD [\"a\"]\n");
    let input = std::fs::File::open(context.join("bad")).unwrap();
    let output = boxwright.command(&["debug", "ast", "-"]).stdin(input).output().unwrap();
    let ran = boxwright_testdata::Ran::new("debug ast -".to_owned(), &output);
    assert_eq!(ran.status, 1);
    assert_eq!(ran.stdout, "(from \"x\")\n(runn \"\")\n(run \"\\x1b[2J\")\n(cmd \"a\")\n");
    assert!(ran.stderr.contains("unknown instruction: RUNN (did you mean RUN?)"), "{}", ran.stderr);
    let ran = boxwright.run(&["debug", "ast", "/no/such/file"]);
    assert!(ran.status == 1 && ran.stderr.contains("/no/such/file"), "{}", ran.stderr);
}

#[test]
fn a_graph_is_printed_and_nothing_is_done() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(TEXT);
    let path = context.path();
    let ran = boxwright.run(&["debug", "graph", "--format=json", "--build-arg", "WHO=us", path]);
    let graph: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stderr));
    let vertices = graph["vertices"].as_array().unwrap();
    let kinds: Vec<&str> = vertices.iter().filter_map(|vertex| vertex["kind"].as_str()).collect();
    assert_eq!(kinds, ["image", "exec", "local", "file", "http", "file"]);
    assert_eq!((&graph["output"], &vertices[1]["network"]), (&Value::from(5), &Value::from("none")));
    assert_eq!(vertices[1]["lines"], serde_json::json!([4, 5]));
    assert!(ran.stdout.contains("WHO=us") && !ran.stdout.contains("secret"), "{}", ran.stdout);
    let ran = boxwright.run(&["debug", "graph", "--target=base", path]);
    assert!(ran.status == 0 && ran.stdout.ends_with("\noutput #1\n"), "{}{}", ran.stdout, ran.stderr);
    let ran = boxwright.run(&["debug", "graph", "--format=dot", path]);
    assert!(
        ran.stdout.starts_with("digraph build {\n") && ran.stdout.contains("\n  v0 -> v1;\n"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("\\\"all\\\"") && !ran.stdout.contains("secret"), "{}", ran.stdout);
}

#[test]
fn what_can_not_be_lowered_is_told_as_a_build_tells_it() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch AS made\nCOPY --from=9 a b\n");
    let path = context.path();
    let ran = boxwright.run(&["debug", "graph", path]);
    assert!(ran.status == 1 && ran.stderr.contains("Dockerfile:2:6"), "{}", ran.stderr);
    let ran = boxwright.run(&["debug", "graph", "--format=svg", path]);
    assert!(ran.status == 125 && ran.stderr.contains("--format"), "{}", ran.stderr);
}
