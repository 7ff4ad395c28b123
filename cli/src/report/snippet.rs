//! Diagnostics in the look of rustc: what is wrong, the words of the Dockerfile that are meant, and what may help.

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use boxwright_frontend::source::LineIndex;
use boxwright_frontend::{Diagnostic, Severity};
use boxwright_solver::Span;

use crate::call::visible;
use crate::engine::Source;

/// Of an instruction with a long document, the beginning tells which one it is.
const MOST_LINES: usize = 8;
/// A line that is longer is not shown: nobody wrote it by hand.
const LONGEST_LINE: usize = 4096;

/// How the text is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    /// With colours, for a terminal.
    Styled,
}

/// One diagnostic with the place in `source`, which its span refers to, under `title`.
pub(super) fn render(diagnostic: &Diagnostic, title: &str, source: Option<&Source>, look: Look) -> String {
    let level = match diagnostic.severity {
        // Docker's word, which scripts look for.
        Severity::Error => Level::ERROR.with_name("ERROR"),
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(title);
    let mut group = Group::with_title(match diagnostic.rule {
        Some(rule) => title.id(rule),
        None => title,
    });
    if let Some(excerpt) = source.and_then(|source| excerpt(source, diagnostic.span)) {
        group = group.element(excerpt);
    }
    group = group.elements(diagnostic.hints.iter().map(|hint| Level::HELP.message(visible(hint))));
    let renderer = match look {
        Look::Plain => Renderer::plain(),
        Look::Styled => Renderer::styled(),
    };
    renderer.render(&[group]) + "\n"
}

/// The lines of a Dockerfile that a span is about; none when it is about no place.
fn excerpt(source: &Source, span: Span) -> Option<Snippet<'_, Annotation<'_>>> {
    if span.first_line == 0 {
        return None;
    }
    let start = LineIndex::new(&source.text).start(span.first_line);
    let rest = source.text.get(start..)?;
    let lines = (span.last_line.saturating_sub(span.first_line) + 1).min(MOST_LINES);
    let shown: usize = rest.split_inclusive('\n').take(lines).map(str::len).sum();
    let text = rest.get(..shown)?.trim_end();
    let readable = text.lines().all(|line| line.len() <= LONGEST_LINE);
    let text = if readable { text } else { "" };
    let from = (span.start - start).min(text.len());
    let to = span.end.saturating_sub(start).clamp(from, text.len());
    let annotation = AnnotationKind::Primary.span(from..to);
    Some(Snippet::source(text).line_start(span.first_line).path(&*source.name).annotation(annotation))
}
