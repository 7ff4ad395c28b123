//! `parser/ast.json` and `parser/parse_snippets.json`: nodes with flags, documents, comments and lines, warnings,
//! directives and errors.

use std::fs;

use boxwright_frontend::ast::{Node, dump};
use boxwright_frontend::{Diagnostic, Parsed, parse};
use serde_json::{Value, json};

use super::tables::{Mismatches, folder, rows};

#[test]
fn testfiles_parse_to_their_trees() {
    let (Some(rows), Some(folder)) = (rows("parser/ast.json"), folder()) else { return };
    let mut mismatches = Mismatches::default();
    for row in &rows {
        let name = row["name"].as_str().expect("a name");
        let path = folder.join("parser").join(name).join("Dockerfile");
        let text = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        compare(&mut mismatches, name, &parse(text), row);
    }
    mismatches.finish(&[]);
}

#[test]
fn snippets_parse_to_their_trees() {
    let Some(rows) = rows("parser/parse_snippets.json") else { return };
    let mut mismatches = Mismatches::default();
    for row in &rows {
        let name = row["name"].as_str().expect("a name");
        // The table writes one very long word as its recipe.
        let text =
            row["dockerfile"].as_str().expect("a Dockerfile").replace("<65536 x \"a\">", &"a".repeat(65_536));
        compare(&mut mismatches, name, &parse(text), row);
    }
    mismatches.finish(&[(
        "TestDetectSyntaxBOM#1",
        "the table's directives were read without skipping a BOM, which `docker build` does: see detect_syntax there",
    )]);
}

fn compare(mismatches: &mut Mismatches, name: &str, parsed: &Parsed, row: &Value) {
    for (key, ours) in [("detect_syntax", "syntax"), ("check_directive", "check")] {
        // How BuildKit lets other frontends know their files; here those are no Dockerfiles.
        if row["dockerfile"].as_str().is_none_or(|text| !text.contains("//syntax") && !text.starts_with('{'))
        {
            let found = parsed.dockerfile.directive(ours);
            let found = json!(found.map(|d| (d.span.first_line, d.value.clone())));
            let expected = row[key]["ok"] == true;
            let expected = expected.then(|| (row[key]["line"].clone(), row[key]["cmdline"].clone()));
            mismatches.check(name, key, found, json!(expected));
        }
    }
    let line_errors: Vec<&Diagnostic> = parsed.diagnostics.iter().filter(|d| d.is_error()).collect();
    if let Some(error) = row["error"].as_str() {
        mismatches.check(name, "error", line_errors.first().map(|d| d.message.as_str()), Some(error));
        return;
    }
    let dockerfile = &parsed.dockerfile;
    mismatches.check(name, "dump", dump(dockerfile), row["dump"].as_str().unwrap_or_default().to_owned());
    mismatches.check(
        name,
        "escape",
        dockerfile.escape.to_string(),
        row["escape"].as_str().unwrap_or_default().into(),
    );
    let warned = dockerfile.nodes.iter().filter(|node| node.empty_continuation.is_some());
    let warnings: Vec<Value> =
        warned.map(|n| Value::from(format!("Empty continuation line found in: {}", n.original))).collect();
    mismatches.check(name, "warnings", warnings, row["warnings"].as_array().cloned().unwrap_or_default());
    let directives = dockerfile
        .directives
        .iter()
        .map(|d| json!({"line": d.span.first_line, "name": d.name, "value": d.value}));
    mismatches.check(
        name,
        "directives",
        directives.collect(),
        row["directives"].as_array().cloned().unwrap_or_default(),
    );
    let empty = Vec::new();
    let nodes = row["ast"]["children"].as_array().unwrap_or(&empty);
    mismatches.check(name, "number of nodes", dockerfile.nodes.len(), nodes.len());
    for (ours, expected) in dockerfile.nodes.iter().zip(nodes) {
        let line = format!("{name}:{}", ours.span.first_line);
        mismatches.check(&line, "node", tree(ours), without_children(expected));
    }
}

/// A node as the table has it. What ONBUILD holds is compared through the dump.
fn tree(node: &Node) -> Value {
    let mut tree = json!({
        "value": node.keyword.text,
        "original": node.original,
        "start_line": node.span.first_line,
        "end_line": node.span.last_line,
    });
    let texts = |words: &[boxwright_frontend::ast::Word]| {
        Value::from(words.iter().map(|w| w.text.clone()).collect::<Vec<_>>())
    };
    if !node.args.is_empty() {
        tree["args"] = texts(&node.args);
    }
    if !node.flags.is_empty() {
        tree["flags"] = texts(&node.flags);
    }
    if node.json {
        tree["attributes"] = json!({"json": true});
    }
    if !node.comments.is_empty() {
        tree["prev_comment"] = Value::from(node.comments.clone());
    }
    if !node.heredocs.is_empty() {
        let documents = node.heredocs.iter().map(|h| {
            json!({"Name": h.name, "FileDescriptor": h.fd, "Expand": h.expand, "Chomp": h.chomp, "Content": h.content})
        });
        tree["heredocs"] = documents.collect();
    }
    tree
}

fn without_children(expected: &Value) -> Value {
    let mut expected = expected.clone();
    if let Some(fields) = expected.as_object_mut() {
        fields.remove("children");
        if fields.get("value").and_then(Value::as_str).is_some_and(|v| v.eq_ignore_ascii_case("onbuild")) {
            fields.remove("args");
        }
    }
    expected
}
