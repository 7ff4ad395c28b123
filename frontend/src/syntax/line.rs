//! Physical lines, and the logical ones that continuation makes of them. Every byte of a logical line remembers
//! where it came from.

use std::ops::Range;

use super::directive::Directives;
use crate::diagnostic::Diagnostic;
use crate::source::LineIndex;

/// BuildKit refuses longer lines, and so do we: nobody wrote such a line by hand.
pub(super) const MAX_LINE: usize = 65_535;

/// The lines of a text, with their place and their line ends.
#[derive(Clone, Debug)]
pub(super) struct Physical<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Physical<'a> {
    pub(super) fn new(text: &'a str) -> Physical<'a> {
        Physical { text, at: if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 } }
    }

    /// The byte that the next line starts at.
    pub(super) fn at(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Physical<'a> {
    /// Where it starts, and the line with its end.
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<(usize, &'a str)> {
        let line = self.text[self.at..].split_inclusive('\n').next()?;
        let start = self.at;
        self.at += line.len();
        Some((start, line))
    }
}

/// An instruction's line, its continuation lines joined.
#[derive(Clone, Debug, Default)]
pub(super) struct Logical {
    pub(super) text: String,
    /// From which byte of `text` on it comes from which byte of the file, where lines were joined.
    pieces: Vec<(usize, usize)>,
    /// The comment lines since the instruction before, or since an empty comment.
    pub(super) comments: Vec<String>,
    /// An empty line sets them apart from the instruction.
    pub(super) apart: bool,
    pub(super) empty_continuation: bool,
    /// In the file, without the last line end.
    pub(super) bytes: Range<usize>,
}

impl Logical {
    fn push(&mut self, text: &str, at: usize) {
        self.pieces.push((self.text.len(), at));
        self.text.push_str(text);
    }

    /// The bytes of the file that `range` of `text` covers.
    pub(super) fn source(&self, range: Range<usize>) -> Range<usize> {
        let start = self.byte(range.start);
        let end = if range.is_empty() { start } else { self.byte(range.end - 1) + 1 };
        start..end
    }

    fn byte(&self, at: usize) -> usize {
        let behind = self.pieces.partition_point(|(logical, _)| *logical <= at);
        let piece = behind.checked_sub(1).map(|piece| self.pieces[piece]);
        let (logical, source) = piece.unwrap_or((0, self.bytes.start));
        source + (at - logical)
    }
}

/// What reading lines has to remember from one to the next.
#[derive(Debug, Default)]
pub(super) struct Reader {
    comments: Vec<String>,
    /// An empty line came after the last comment.
    apart: bool,
}

impl Reader {
    /// The next instruction's line. None at the end of the file, or after an error that makes the rest unreadable.
    pub(super) fn next(
        &mut self,
        physical: &mut Physical<'_>,
        directives: &mut Directives,
        lines: &LineIndex,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Logical> {
        loop {
            let (start, raw) = physical.next()?;
            check_length(raw, start, lines, diagnostics)?;
            let line = trim_line_end(raw);
            let trimmed = line.trim_start();
            let at = start + (line.len() - trimmed.len());
            if directives.line(trimmed, at, lines, diagnostics) {
                continue;
            }
            match comment(raw) {
                None => {}
                Some("") => {
                    self.comments.clear();
                    continue;
                }
                Some(text) => {
                    self.comments.push(text.to_owned());
                    self.apart = false;
                    continue;
                }
            }
            let continued = continuation(trimmed, directives.escape());
            if continued.is_none() && trimmed.is_empty() {
                self.apart = true;
                continue;
            }
            let mut logical = Logical {
                text: continued.unwrap_or(trimmed).to_owned(),
                comments: std::mem::take(&mut self.comments),
                apart: self.apart,
                bytes: at..at + trimmed.trim_end().len(),
                ..Logical::default()
            };
            if continued.is_some() {
                join(&mut logical, physical, directives.escape(), lines, diagnostics)?;
            }
            return Some(logical);
        }
    }
}

/// Appends lines until one is not continued. Comments and blank lines between them do not end the instruction.
fn join(
    logical: &mut Logical,
    physical: &mut Physical<'_>,
    escape: char,
    lines: &LineIndex,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<()> {
    for (start, raw) in physical.by_ref() {
        check_length(raw, start, lines, diagnostics)?;
        let line = trim_line_end(raw);
        if comment(raw).is_some() {
            continue;
        }
        if line.trim_start().is_empty() {
            logical.empty_continuation = true;
            continue;
        }
        logical.bytes.end = start + line.trim_end().len();
        let continued = continuation(line, escape);
        logical.push(continued.unwrap_or(line), start);
        if continued.is_none() {
            break;
        }
    }
    Some(())
}

fn check_length(raw: &str, start: usize, lines: &LineIndex, diagnostics: &mut Vec<Diagnostic>) -> Option<()> {
    let length = raw.strip_suffix('\n').unwrap_or(raw).len();
    if length <= MAX_LINE {
        return Some(());
    }
    let message = format!("dockerfile line greater than max allowed size of {MAX_LINE}");
    diagnostics.push(Diagnostic::error(message, lines.span(start..start + length)));
    None
}

pub(super) fn trim_line_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// The text of a comment line, without its `#`.
fn comment(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix('#').map(str::trim)
}

/// The line without its continuation mark: an escape that no other escape precedes, with blanks after it.
fn continuation(line: &str, escape: char) -> Option<&str> {
    let before = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!before.ends_with(escape)).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_escape_does_not_continue_a_line() {
        assert_eq!(continuation("a \\ \t", '\\'), Some("a "));
        assert_eq!(continuation("\\", '\\'), Some(""));
        assert_eq!(continuation("a \\\\", '\\'), None);
        assert_eq!(continuation("a `", '`'), Some("a "));
        assert_eq!(continuation("a", '\\'), None);
    }

    #[test]
    fn joined_text_knows_its_source() {
        let text = "RUN a \\\n# c\n  b\n";
        let lines = LineIndex::new(text);
        let mut physical = Physical::new(text);
        let mut diagnostics = Vec::new();
        let logical = Reader::default()
            .next(&mut physical, &mut Directives::default(), &lines, &mut diagnostics)
            .unwrap();
        assert_eq!(logical.text, "RUN a   b");
        let b = logical.text.find('b').unwrap();
        assert_eq!(&text[logical.source(b..b + 1)], "b");
        assert_eq!((logical.bytes.clone(), diagnostics.len()), (0..15, 0));
    }
}
