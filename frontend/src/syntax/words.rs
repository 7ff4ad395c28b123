//! Splitting an instruction's text into raw words, quotes and escapes kept.

use std::ops::Range;

/// A slice of a logical line that knows its place in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    pub(super) str: &'a str,
    pub(super) at: usize,
}

impl<'a> Text<'a> {
    pub(super) fn range(self) -> Range<usize> {
        self.at..self.at + self.str.len()
    }

    pub(super) fn slice(self, range: Range<usize>) -> Text<'a> {
        Text { str: &self.str[range.clone()], at: self.at + range.start }
    }

    pub(super) fn trim_start(self) -> Text<'a> {
        let str = self.str.trim_start();
        Text { str, at: self.at + (self.str.len() - str.len()) }
    }

    pub(super) fn trim(self) -> Text<'a> {
        let text = self.trim_start();
        Text { str: text.str.trim_end(), at: text.at }
    }

    /// Before and after the first run of blanks.
    pub(super) fn split_blank(self) -> Option<(Text<'a>, Text<'a>)> {
        let end = self.str.find(is_blank)?;
        let rest = self.str[end..].trim_start_matches(is_blank);
        Some((self.slice(0..end), self.slice(self.str.len() - rest.len()..self.str.len())))
    }

    /// Between runs of blanks, quotes or not.
    pub(super) fn split_blanks(self) -> Vec<Text<'a>> {
        let mut parts = Vec::new();
        let mut rest = self;
        while let Some((part, after)) = rest.split_blank() {
            parts.push(part);
            rest = after;
        }
        parts.push(rest);
        parts
    }
}

/// The blanks that separate a keyword and plain words; a line end can't be among them.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0b' | '\x0c' | '\r')
}

/// Splits at white space outside of quotes and escapes, which stay in the words.
pub fn split_words(text: &str, escape: char) -> Vec<(Range<usize>, &str)> {
    let mut words = Vec::new();
    let mut chars = text.char_indices().peekable();
    loop {
        while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
        let Some(&(start, _)) = chars.peek() else { return words };
        let mut said = text.len();
        let mut quote = None;
        while let Some(&(at, c)) = chars.peek() {
            if quote.is_none() && c.is_whitespace() {
                said = at;
                break;
            }
            chars.next();
            if c == escape && quote != Some('\'') {
                // An escape that ends the text is dropped; any other keeps the next character from meaning anything.
                if chars.next().is_none() {
                    said = at;
                }
                continue;
            }
            match quote {
                None if c == '\'' || c == '"' => quote = Some(c),
                Some(q) if q == c => quote = None,
                _ => {}
            }
        }
        let end = chars.peek().map_or(text.len(), |(at, _)| *at);
        if start < said {
            words.push((start..end, &text[start..said]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        split_words(text, '\\').into_iter().map(|(_, word)| word).collect()
    }

    #[test]
    fn quotes_and_escapes_hold_words_together_and_stay() {
        assert_eq!(words(" a  'b c'd \"e \\\" f\" g\\ h "), ["a", "'b c'd", "\"e \\\" f\"", "g\\ h"]);
        assert_eq!(words("'a\\' b"), ["'a\\'", "b"]);
        assert_eq!(words("a\\"), ["a"]);
        assert_eq!(words("\"\" x"), ["\"\"", "x"]);
        assert!(words(" \t ").is_empty());
    }

    #[test]
    fn ranges_are_those_of_the_text() {
        let text = " a 'b c'";
        let ranges: Vec<&str> = split_words(text, '\\').into_iter().map(|(range, _)| &text[range]).collect();
        assert_eq!(ranges, ["a", "'b c'"]);
    }
}
