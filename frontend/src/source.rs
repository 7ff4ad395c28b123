//! Where bytes of a text are: the one place that computes lines and columns.

use std::ops::Range;

use boxwright_solver::Span;

/// The starts of the lines of a text.
#[derive(Clone, Debug)]
pub struct LineIndex {
    starts: Vec<usize>,
}

/// 1-based, columns counted in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

impl LineIndex {
    pub fn new(text: &str) -> LineIndex {
        let after_newlines = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at + 1);
        LineIndex { starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    /// The line (1-based) that byte `at` is on.
    pub fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// The byte that line `line` (1-based) starts at.
    pub fn start(&self, line: usize) -> usize {
        self.starts[line - 1]
    }

    pub fn span(&self, bytes: Range<usize>) -> Span {
        self.span_from(self.line(bytes.start), bytes)
    }

    /// The same for bytes that are on line `line` or behind it: mostly there, and then nothing has to be searched.
    pub(crate) fn span_from(&self, line: usize, bytes: Range<usize>) -> Span {
        let last = bytes.end.saturating_sub(1).max(bytes.start);
        let first_line = self.line_from(line, bytes.start);
        let last_line = self.line_from(first_line, last);
        Span { start: bytes.start, end: bytes.end, first_line, last_line }
    }

    fn line_from(&self, line: usize, at: usize) -> usize {
        let is_there = self.starts.get(line).is_none_or(|next| at < *next);
        if is_there { line } else { self.line(at) }
    }

    /// # Panics
    /// When `at` is not between two characters of `text`.
    pub fn position(&self, text: &str, at: usize) -> Position {
        let line = self.line(at);
        Position { line, column: text[self.starts[line - 1]..at].chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let text = "FROM é\nRUN x\n";
        let lines = LineIndex::new(text);
        assert_eq!(lines.position(text, 0), Position { line: 1, column: 1 });
        assert_eq!(lines.position(text, 7), Position { line: 1, column: 7 });
        assert_eq!(lines.position(text, 8), Position { line: 2, column: 1 });
        assert_eq!(lines.position(text, text.len()), Position { line: 3, column: 1 });
    }

    #[test]
    fn a_span_ends_on_the_line_of_its_last_byte() {
        let text = "a\nbc\nd";
        let span = LineIndex::new(text).span(0..5);
        assert_eq!((span.first_line, span.last_line), (1, 2));
        let empty = LineIndex::new(text).span(5..5);
        assert_eq!((empty.first_line, empty.last_line), (3, 3));
    }
}
