//! The one place that prints errors. A failed build is shown as BuildKit does: the step's output, the lines of the
//! Dockerfile, and what went wrong.

mod json;
mod output;
mod snippet;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use boxwright_frontend::Diagnostic;

use crate::call::visible;
use crate::engine::Source;
use crate::error::{BuildFailure, Error, Usage};
use crate::patient::Stderr;
use crate::{config, exit, progress};
use snippet::Look;

pub(crate) fn print(error: &Error) {
    let text = text(error);
    let result = match error {
        Error::Usage(Usage::Shown(_)) => std::io::stdout().write_all(text.as_bytes()),
        _ => Stderr.write_all(text.as_bytes()),
    };
    // Nobody is left who could be told.
    let _ = result;
}

fn text(error: &Error) -> String {
    match error {
        Error::Usage(Usage::Shown(text)) => text.clone(),
        Error::Usage(Usage::Flag { command, message }) => {
            format!("{}\nSee '{command} --help'.\n", visible(message))
        }
        Error::Usage(Usage::Arguments { command, message }) => {
            format!("{}\nSee '{command} --help'.\n", visible(message))
        }
        // Told on standard output.
        Error::Found => String::new(),
        Error::Several(errors) => errors.iter().map(text).collect(),
        Error::Output(e) if e.kind() == std::io::ErrorKind::BrokenPipe => String::new(),
        error if exit::is_cancelled(error) => "ERROR: canceled\n".to_owned(),
        Error::Build(failure) => {
            build(failure, matches!(*beside(), Beside::RawJson), look(&std::io::stderr()))
        }
        Error::BuildAsJson(failure) => json_of(failure),
        Error::Container { message, .. } => {
            format!("boxwright: {}\nSee 'boxwright run --help'.\n", visible(message))
        }
        error => format!("Error: {}\n", visible(&error.to_string())),
    }
}

/// With `rawjson` the warnings are for a program, which has the step's output already.
fn build(failure: &BuildFailure, rawjson: bool, look: Look) -> String {
    let BuildFailure::Because(causes) = failure else { return String::new() };
    let mut out = String::new();
    let warned: Vec<Diagnostic> =
        causes.iter().filter(|c| !c.diagnostic.is_error()).map(|c| c.diagnostic.clone()).collect();
    let source = causes.iter().find_map(|cause| cause.source.as_ref());
    if rawjson {
        out.push_str(&progress::warnings_as_rawjson(&warned));
    } else if let Some(source) = source.filter(|_| !warned.is_empty()) {
        out.push_str(&warnings_text(&warned, source, look));
        out.push('\n');
    }
    for (n, cause) in causes.iter().filter(|c| c.diagnostic.is_error()).enumerate() {
        out.push_str(if n == 0 { "" } else { "\n" });
        if let Some(log) = cause.log.as_ref().filter(|_| !rawjson) {
            out.push_str(&output::block(log, cause.kept.as_ref(), IN_PLACE.load(Ordering::Relaxed)));
        }
        let title = format!("failed to solve: {}", cause.diagnostic.title());
        out.push_str(&snippet::render(&cause.diagnostic, &title, cause.source.as_ref(), look));
    }
    out
}

fn json_of(failure: &BuildFailure) -> String {
    let BuildFailure::Because(causes) = failure else { return String::new() };
    causes.iter().map(|cause| json::line(&cause.diagnostic, cause.source.as_ref())).collect()
}

/// Warnings of a build, for a program to read.
pub(crate) fn warnings_as_json(warnings: &[Diagnostic], source: &Source) {
    let out: String = warnings.iter().map(|warning| json::line(warning, Some(source))).collect();
    as_it_is(&out);
}

/// For programs: what a terminal would be driven by is kept.
pub(crate) fn as_it_is(text: &str) {
    let _ = Stderr.write_all(text.as_bytes());
}

/// Warnings of a build that went well: each with its place, then all of them in docker's short form.
pub(crate) fn warnings(warnings: &[Diagnostic], source: &Source) {
    let look = look(&std::io::stderr());
    let _ = Stderr.write_all(warnings_text(warnings, source, look).as_bytes());
}

fn warnings_text(warnings: &[Diagnostic], source: &Source, look: Look) -> String {
    let mut out = String::new();
    for warning in warnings {
        out.push_str(&snippet::render(warning, &warning.title(), Some(source), look));
        out.push('\n');
    }
    let plural = if warnings.len() == 1 { "" } else { "s" };
    let _ = writeln!(out, " {} warning{plural} found:", warnings.len());
    for warning in warnings {
        let rule = warning.rule.map_or(String::new(), |rule| format!("{rule}: "));
        let _ = writeln!(out, " - {rule}{} (line {})", visible(&warning.title()), warning.lines().0);
    }
    out
}

/// Colours are for people: for a terminal, unless `NO_COLOR` (no-color.org) is set.
fn look(stream: &impl IsTerminal) -> Look {
    if stream.is_terminal() && !config::no_color() { Look::Styled } else { Look::Plain }
}

/// What becomes of remarks.
#[derive(Debug)]
enum Beside {
    Line,
    /// They wait for a display that has the terminal.
    Held(Vec<String>),
    /// A program reads statuses as BuildKit writes them, and nothing else before an error that ends the command.
    RawJson,
}

static BESIDE: Mutex<Beside> = Mutex::new(Beside::Line);

fn beside() -> MutexGuard<'static, Beside> {
    BESIDE.lock().unwrap_or_else(|e| e.into_inner())
}

/// One line beside a command's output, for the person at the terminal.
pub(crate) fn remark(line: &str) {
    match &mut *beside() {
        Beside::Line => drop(writeln!(Stderr, "{}", visible(line))),
        Beside::Held(held) => held.push(visible(line)),
        Beside::RawJson => as_it_is(&progress::remark_as_rawjson(line)),
    }
}

/// From here on remarks are for a program.
pub(crate) fn speak_rawjson() {
    *beside() = Beside::RawJson;
}

/// Whether a display had the terminal, on which nothing stays of what steps said.
static IN_PLACE: AtomicBool = AtomicBool::new(false);

/// From now on remarks wait until somebody takes what is [`held`].
pub(crate) fn hold() {
    IN_PLACE.store(true, Ordering::Relaxed);
    let mut beside = beside();
    if !matches!(*beside, Beside::Held(_)) {
        *beside = Beside::Held(Vec::new());
    }
}

pub(crate) fn held() -> Vec<String> {
    if let Beside::Held(held) = &mut *beside() { std::mem::take(held) } else { Vec::new() }
}

/// Undoes [`hold`].
pub(crate) fn release() {
    let before = std::mem::replace(&mut *beside(), Beside::Line);
    if let Beside::Held(held) = before {
        held.iter().for_each(|line| remark(line));
    }
}

/// The same, unless it was said before.
pub(crate) fn remark_once(line: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(|e| e.into_inner()).insert(line.to_owned()) {
        remark(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Cause, StepLog};
    use boxwright_solver::Span;

    fn dockerfile(text: &str) -> Source {
        Source { name: "Dockerfile".into(), text: text.into() }
    }

    fn failed(cause: Cause) -> String {
        build(&BuildFailure::Because(vec![cause]), false, Look::Plain)
    }

    #[test]
    fn a_failed_step_shows_its_output_and_its_lines() {
        let source = dockerfile("FROM x\n\nRUN a \\\n  b\nRUN c\n");
        let span = Span { start: 8, end: 19, first_line: 3, last_line: 4 };
        let message = "process \"/bin/sh -c a   b\" did not complete successfully: exit code: 1";
        let text = failed(Cause {
            diagnostic: Diagnostic::error(message, span),
            source: Some(source),
            log: Some(StepLog {
                name: "[2/5] RUN a   b".into(),
                lines: vec!["sh: a: not found".into()],
                earlier: 0,
            }),
            kept: None,
        });
        let expected = format!(
            "------\n > [2/5] RUN a   b:\nsh: a: not found\n------\nERROR: failed to solve: {message}\n --> Dockerfile:3:1\n  |\n3 | / RUN a \\\n4 | |   b\n  | |___^\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn an_error_points_at_the_words_and_says_what_may_help() {
        let source = dockerfile("FROM x\nCOPPY a b\n");
        let span = Span { start: 7, end: 12, first_line: 2, last_line: 2 };
        let diagnostic = Diagnostic::error("unknown instruction: COPPY", span)
            .did_you_mean("COPPY", ["RUN", "COPY"])
            .hint("keywords come first");
        let text = failed(Cause { diagnostic, source: Some(source), log: None, kept: None });
        let expected = "ERROR: failed to solve: unknown instruction: COPPY (did you mean COPY?)\n --> Dockerfile:2:1\n  |\n2 | COPPY a b\n  | ^^^^^\n  |\n  = help: keywords come first\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_error_about_no_place_is_one_line() {
        let diagnostic = Diagnostic::error("target stage \"x\" could not be found", Span::default());
        let text = failed(Cause { diagnostic, source: None, log: None, kept: None });
        assert_eq!(text, "ERROR: failed to solve: target stage \"x\" could not be found\n");
    }

    #[test]
    fn what_a_dockerfile_holds_can_not_drive_the_terminal() {
        let source = dockerfile("FROM x\nRUN \u{1b}]0;title\u{7}\u{202e} x\n");
        let span = Span { start: 7, end: 20, first_line: 2, last_line: 2 };
        let diagnostic = Diagnostic::error("no \u{1b}[2J", span);
        let log = StepLog {
            name: "\u{1b}[2J".into(),
            lines: vec!["\u{1b}]0;title\u{7}\u{202e}\u{1b}[2J".into()],
            earlier: 0,
        };
        let text = failed(Cause { diagnostic, source: Some(source), log: Some(log), kept: None });
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{text:?}");
    }

    #[test]
    fn a_line_that_nobody_could_read_is_named_and_not_shown() {
        let source = dockerfile(&format!("FROM x\nRUN {}\n", "y".repeat(1 << 20)));
        let span = Span { start: 7, end: 1 << 20, first_line: 2, last_line: 2 };
        let text = failed(Cause {
            diagnostic: Diagnostic::error("no", span),
            source: Some(source),
            log: None,
            kept: None,
        });
        assert!(text.len() < 200 && text.contains("Dockerfile:2:1"), "{}", text.len());
    }

    #[test]
    fn a_long_document_is_shown_by_its_beginning() {
        let source = dockerfile(&format!("FROM x\nRUN <<E\n{}E\n", "y\n".repeat(1000)));
        let span = Span { start: 7, end: 2015, first_line: 2, last_line: 1003 };
        let text = failed(Cause {
            diagnostic: Diagnostic::error("no", span),
            source: Some(source),
            log: None,
            kept: None,
        });
        assert!(text.lines().count() < 15 && text.contains("RUN <<E"), "{text}");
    }

    #[test]
    fn warnings_have_their_places_and_dockers_list() {
        let source = dockerfile("FROM x\nMAINTAINER me\n");
        let span = Span { start: 7, end: 20, first_line: 2, last_line: 2 };
        let warning = Diagnostic::warning("MaintainerDeprecated", "MAINTAINER is deprecated", span);
        let text = warnings_text(&[warning], &source, Look::Plain);
        assert_eq!(
            text,
            "warning[MaintainerDeprecated]: MAINTAINER is deprecated\n --> Dockerfile:2:1\n  |\n2 | MAINTAINER me\n  | ^^^^^^^^^^^^^\n\n 1 warning found:\n - MaintainerDeprecated: MAINTAINER is deprecated (line 2)\n"
        );
    }

    #[test]
    fn a_failure_comes_after_the_warnings() {
        let source = dockerfile("FROM x\nRUN a\n");
        let span = Span { start: 0, end: 4, first_line: 1, last_line: 1 };
        let warning = Diagnostic::warning("Rule", "careful", span);
        let error = Diagnostic::error("no", Span { start: 7, end: 12, first_line: 2, last_line: 2 });
        let causes = [warning, error]
            .map(|d| Cause { diagnostic: d, source: Some(source.clone()), log: None, kept: None })
            .into();
        let text = build(&BuildFailure::Because(causes), false, Look::Plain);
        let list = text.find(" 1 warning found:\n - Rule: careful (line 1)\n\nERROR: failed to solve: no\n");
        assert!(text.starts_with("warning[Rule]: careful\n") && list.is_some(), "{text}");
    }

    #[test]
    fn each_error_is_one_line() {
        let several =
            Error::Several(vec![Error::NoSuchImage("a:latest".into()), Error::NoSuchObject("b".into())]);
        assert_eq!(text(&several), "Error: No such image: a:latest\nError: No such object: b\n");
        assert_eq!(text(&Error::Output(std::io::ErrorKind::BrokenPipe.into())), "");
    }
}
