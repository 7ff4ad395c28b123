//! The graph in the language of Graphviz' `dot`.

use std::fmt::Write as _;

use serde_json::Value;

use crate::call::visible;

pub(crate) fn dot(graph: &Value) -> String {
    let mut out = "digraph build {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for vertex in graph["vertices"].as_array().into_iter().flatten() {
        let id = &vertex["id"];
        let shape = match vertex["kind"].as_str() {
            Some("image" | "local" | "http" | "git") => ", style=rounded",
            _ => "",
        };
        let bold = if super::is_output(graph, id) { ", penwidth=2" } else { "" };
        let label = quoted(vertex["name"].as_str().unwrap_or_default());
        let _ = writeln!(out, "  v{id} [label={label}{shape}{bold}];");
        for input in vertex["inputs"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "  v{input} -> v{id};");
        }
    }
    out + "}\n"
}

/// A text that stands for itself: `dot` reads escapes twice, as a string and as a label.
fn quoted(text: &str) -> String {
    let text = visible(text).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{}\"", text.replace('\r', "").replace('\t', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_can_not_end_their_quotes() {
        assert_eq!(quoted("a \"b\" \\n \\"), "\"a \\\"b\\\" \\\\n \\\\\"");
        assert_eq!(quoted("a\nb\u{1b}"), "\"a\\nb\u{fffd}\"");
    }

    #[test]
    fn every_line_is_a_node_or_an_edge() {
        let text = dot(&super::super::tests::example());
        let body = text.strip_prefix("digraph build {\n").and_then(|t| t.strip_suffix("}\n")).unwrap();
        for line in body.lines().skip(2) {
            let edge = line.contains(" -> v") && !line.contains('"');
            assert!(
                line.starts_with("  v") && line.ends_with(';') && (edge || line.contains(" [label=\"")),
                "{line}"
            );
        }
        assert!(body.contains("echo \\\"quoted\\\"") && body.contains(", penwidth=2];"), "{body}");
    }
}
