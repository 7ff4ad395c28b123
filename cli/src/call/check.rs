//! The answer of `--call=check`, in the words and the JSON of buildx (`lint.LintResults`).

use std::fmt::Write as _;

use super::{Diagnostic, Source, Value, base64, json, location, pretty};
use crate::engine::{BuildFailure, Checked};
use boxwright_frontend::lint::Rule;

/// Lines shown around those that are meant: this many, or twice as many for a single line.
const AROUND: usize = 2;

/// Warnings in the order of their lines. Why the build would fail is not among them.
pub(crate) fn check_text(checked: &Checked) -> String {
    let mut warnings: Vec<&Diagnostic> = checked.warnings.iter().collect();
    warnings.sort_by_key(|warning| warning.lines().0);
    let mut out = match warnings.len() {
        0 if checked.failure.is_some() => return String::new(),
        0 => return "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        n => format!("Check complete, {n} warnings have been found!\n"),
    };
    for warning in warnings {
        let rule = warning.rule.unwrap_or_default();
        let url = Rule::named(rule).and_then(Rule::url).map_or(String::new(), |url| format!(" - {url}"));
        let _ = writeln!(out, "\nWARNING: {rule}{url}\n{}", warning.title());
        out.push_str(&frame(&checked.source, warning.lines()));
    }
    out
}

pub(crate) fn check_json(checked: &Checked) -> String {
    let warnings: Vec<Value> = checked.warnings.iter().map(warning).collect();
    let mut answer = json!({ "warnings": warnings, "sources": [source(&checked.source)] });
    if let Some(error) = checked.failure.as_ref().and_then(first_error) {
        answer["buildError"] = json!({ "message": error.title(), "location": location(error.lines()) });
    }
    pretty(&answer)
}

fn warning(warning: &Diagnostic) -> Value {
    let name = warning.rule.unwrap_or_default();
    let rule = Rule::named(name);
    let mut object = json!({
        "ruleName": name,
        "description": rule.map_or("", |rule| rule.description),
        "detail": warning.title(),
        "location": location(warning.lines()),
    });
    if let Some(url) = rule.and_then(Rule::url) {
        object["url"] = Value::from(url);
    }
    object
}

fn source(source: &Source) -> Value {
    json!({ "filename": source.name, "language": "Dockerfile", "data": base64(source.text.as_bytes()) })
}

fn first_error(failure: &BuildFailure) -> Option<&Diagnostic> {
    let BuildFailure::Because(causes) = failure else { return None };
    causes.iter().map(|cause| &cause.diagnostic).find(|diagnostic| diagnostic.is_error())
}

/// Lines of the Dockerfile, the meant ones marked, with a few around them.
fn frame(source: &Source, (first, last): (usize, usize)) -> String {
    let lines: Vec<&str> = source.text.split('\n').collect();
    if first == 0 || first > lines.len() {
        return String::new();
    }
    let (mut from, mut to) = (first, last.clamp(first, lines.len()));
    let wanted = if from == to { 2 * AROUND } else { AROUND };
    let mut shown = 0;
    while shown < wanted {
        if from > 1 {
            from -= 1;
            shown += 1;
        }
        if to != lines.len() {
            to += 1;
            shown += 1;
        }
        shown += 1;
    }
    let rule = "-".repeat(20);
    let mut out = format!("{}:{first}\n{rule}\n", source.name);
    for (number, line) in lines.iter().enumerate().map(|(i, line)| (i + 1, line)).take(to).skip(from - 1) {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(out, " {number:3} | {mark} {line}");
    }
    out + &rule + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use boxwright_solver::Span;

    fn checked(warnings: Vec<Diagnostic>) -> Checked {
        let text = "FROM scratch\nCOPY $foo .\nRUN a \\\n  b\n".to_owned();
        Checked { warnings, failure: None, source: Source { name: "Dockerfile".into(), text } }
    }

    fn warned(rule: &'static str, start: usize, lines: (usize, usize)) -> Diagnostic {
        let span = Span { start, end: start + 1, first_line: lines.0, last_line: lines.1 };
        Diagnostic::warning(rule, "words", span)
    }

    #[test]
    fn text_is_that_of_buildx() {
        assert_eq!(check_text(&checked(vec![])), "Check complete, no warnings found.\n");
        let text = check_text(&checked(vec![warned("Last", 25, (3, 4)), warned("UndefinedVar", 18, (2, 2))]));
        let expected = "Check complete, 2 warnings have been found!\n\n\
            WARNING: UndefinedVar - https://docs.docker.com/go/dockerfile/rule/undefined-var/\nwords\n\
            Dockerfile:2\n--------------------\n   1 |     FROM scratch\n   2 | >>> COPY $foo .\n   \
            3 |     RUN a \\\n   4 |       b\n--------------------\n\n\
            WARNING: Last\nwords\nDockerfile:3\n--------------------\n   2 |     COPY $foo .\n   \
            3 | >>> RUN a \\\n   4 | >>>   b\n   5 |     \n--------------------\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_is_that_of_buildx() {
        let mut all = checked(vec![warned("UndefinedVar", 18, (2, 2))]);
        all.failure = Some(
            BuildFailure::Because(vec![])
                .after_warnings(&[Diagnostic::error("no", Span::default())], &all.source),
        );
        let answer: Value = serde_json::from_str(&check_json(&all)).unwrap();
        let warning = &answer["warnings"][0];
        assert_eq!(warning["ruleName"], "UndefinedVar");
        assert_eq!(warning["location"]["ranges"][0], json!({"start": {"line": 2}, "end": {"line": 2}}));
        assert_eq!(answer["sources"][0]["filename"], "Dockerfile");
        assert_eq!(answer["buildError"], json!({"message": "no", "location": {}}));
    }
}
