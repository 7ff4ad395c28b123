//! Diagnostics for programs: one JSON object a line.
//!
//! `severity` is `error` or `warning`, `rule` the build check that found it, `suggestion` the name that was probably
//! meant, `hints` whatever else may help. `file`, `line`, `column`, `end_line`, `end_column` (lines and columns from 1,
//! columns in characters, the end exclusive) are there where it is about a place.

use boxwright_frontend::source::LineIndex;
use boxwright_frontend::{Diagnostic, Severity};
use serde_json::json;

use crate::engine::Source;

pub(super) fn line(diagnostic: &Diagnostic, source: Option<&Source>) -> String {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut object = json!({
        "severity": severity,
        "rule": diagnostic.rule,
        "message": diagnostic.message,
        "suggestion": diagnostic.suggestion,
        "hints": diagnostic.hints,
    });
    let span = diagnostic.span;
    if let Some(source) = source.filter(|_| span.first_line > 0) {
        let lines = LineIndex::new(&source.text);
        let start = lines.position(&source.text, span.start);
        let end = lines.position(&source.text, span.end);
        object["file"] = json!(source.name);
        object["line"] = json!(start.line);
        object["column"] = json!(start.column);
        object["end_line"] = json!(end.line);
        object["end_column"] = json!(end.column);
    }
    format!("{object}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxwright_solver::Span;

    #[test]
    fn a_place_counts_characters_from_one() {
        let source = Source { name: "Dockerfile".into(), text: "# \u{e9}\nRUN \u{e9} x\n".into() };
        let span = Span { start: 9, end: 13, first_line: 2, last_line: 2 };
        let diagnostic = Diagnostic::warning("Rule", "says \"so\"", span).hint("a hint");
        let text = line(&diagnostic, Some(&source));
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = json!({
            "severity": "warning", "rule": "Rule", "message": "says \"so\"", "suggestion": null, "hints": ["a hint"],
            "file": "Dockerfile", "line": 2, "column": 5, "end_line": 2, "end_column": 8,
        });
        assert_eq!(object, expected);
        assert_eq!(text.lines().count(), 1);
    }

    #[test]
    fn what_is_about_no_place_has_none() {
        let object = line(&Diagnostic::error("no", Span::default()), Some(&Source::default()));
        assert!(!object.contains("line"), "{object}");
    }
}
