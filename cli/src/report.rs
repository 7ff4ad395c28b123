//! The one place that prints errors. A failed build is shown as BuildKit does: the step's last output, the lines of the
//! Dockerfile, and what went wrong.

use std::fmt::Write as _;
use std::io::Write as _;

use boxwright_solver::Span;

use crate::engine::{Cause, Source};
use crate::error::{BuildFailure, Error, Usage};
use crate::exit;

/// Lines of the Dockerfile that are shown above and below the ones meant.
const AROUND: usize = 2;

pub(crate) fn print(error: &Error) {
    let text = text(error);
    let result = match error {
        Error::Usage(Usage::Shown(_)) => std::io::stdout().write_all(text.as_bytes()),
        _ => std::io::stderr().write_all(text.as_bytes()),
    };
    // Nobody is left who could be told.
    let _ = result;
}

fn text(error: &Error) -> String {
    match error {
        Error::Usage(Usage::Shown(text)) => text.clone(),
        Error::Usage(Usage::Flag { command, message }) => format!("{message}\nSee '{command} --help'.\n"),
        Error::Usage(Usage::Arguments { command, message }) => {
            format!("{message}\nSee '{command} --help'.\n")
        }
        Error::Several(errors) => errors.iter().map(text).collect(),
        Error::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe => String::new(),
        error if exit::is_cancelled(error) => "ERROR: canceled\n".to_owned(),
        Error::Build(failure) => build(failure),
        Error::Container { message, .. } => format!("boxwright: {message}\nSee 'boxwright run --help'.\n"),
        error => format!("Error: {error}\n"),
    }
}

fn build(failure: &BuildFailure) -> String {
    let BuildFailure::Because(causes) = failure else { return String::new() };
    let mut out = String::new();
    for cause in causes {
        if let Some((name, lines)) = &cause.log {
            let _ = writeln!(out, "------\n > {name}:");
            lines.iter().for_each(|line| out.extend([line, "\n"]));
            out.push_str("------\n");
        }
        if let Some((source, span)) = &cause.place {
            out.push_str(&frame(source, *span));
        }
        out.push_str(&verdict(cause));
    }
    out
}

fn verdict(cause: &Cause) -> String {
    let hints: String = cause.hints.iter().map(|hint| format!(" ({hint})")).collect();
    format!("ERROR: failed to solve: {}{hints}\n", cause.message)
}

/// The lines of a span with some around them; the meant ones are marked.
fn frame(source: &Source, span: Span) -> String {
    let rule = "-".repeat(20);
    let mut out = format!("{}:{}\n{rule}\n", source.name, span.first_line);
    let first = span.first_line.saturating_sub(AROUND).max(1);
    let shown = source.text.lines().enumerate().map(|(i, line)| (i + 1, line));
    for (number, line) in shown.skip(first - 1).take_while(|(number, _)| *number <= span.last_line + AROUND) {
        let mark = if (span.first_line..=span.last_line).contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(out, "{}", format!("{number:4} | {mark} {line}").trim_end());
    }
    out + &rule + "\n"
}

/// Warnings of a build that went well.
pub(crate) fn warnings(warnings: &[boxwright_frontend::Diagnostic]) {
    let mut out = String::new();
    let plural = if warnings.len() == 1 { "" } else { "s" };
    let _ = writeln!(out, " {} warning{plural} found:", warnings.len());
    for warning in warnings {
        let rule = warning.rule.map_or(String::new(), |rule| format!("{rule}: "));
        let _ = writeln!(out, " - {rule}{warning} (line {})", warning.span.first_line);
    }
    let _ = std::io::stderr().write_all(out.as_bytes());
}

/// One line beside a command's output, for the person at the terminal.
pub(crate) fn remark(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_shows_its_output_and_its_lines() {
        let source = Source {
            name: "Dockerfile".into(),
            text: "FROM x\n\nRUN a \\\n  b\nRUN c\nRUN d\nRUN e\n".into(),
        };
        let span = Span { start: 8, end: 20, first_line: 3, last_line: 4 };
        let cause = Cause {
            message: "process \"/bin/sh -c a   b\" did not complete successfully: exit code: 1".into(),
            hints: vec![],
            place: Some((source, span)),
            log: Some(("[2/5] RUN a   b".into(), vec!["sh: a: not found".into()])),
        };
        let text = text(&Error::Build(Box::new(BuildFailure::Because(vec![cause]))));
        let expected = "------\n > [2/5] RUN a   b:\nsh: a: not found\n------\nDockerfile:3\n--------------------\n   1 |     FROM x\n   2 |\n   3 | >>> RUN a \\\n   4 | >>>   b\n   5 |     RUN c\n   6 |     RUN d\n--------------------\nERROR: failed to solve: process \"/bin/sh -c a   b\" did not complete successfully: exit code: 1\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn each_error_is_one_line() {
        let several =
            Error::Several(vec![Error::NoSuchImage("a:latest".into()), Error::NoSuchObject("b".into())]);
        assert_eq!(text(&several), "Error: No such image: a:latest\nError: No such object: b\n");
        assert_eq!(text(&Error::Output(std::io::ErrorKind::BrokenPipe.into())), "");
    }
}
