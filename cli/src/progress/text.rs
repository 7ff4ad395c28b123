//! Text of programs as a line of a terminal's: without what would drive it, and no wider than there is room.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::call::turns;

/// What is kept of a line that has not ended, in bytes.
const LONGEST: usize = 4 << 10;
const TAB: usize = 8;

pub(super) fn width_of(text: &str) -> usize {
    text.width()
}

/// The beginning that has room in so many columns. Of characters that need none, no more than that either.
pub(super) fn fitted(text: &str, room: usize) -> String {
    let mut marks = 0;
    let few = |c: &char| {
        marks += usize::from(c.width() == Some(0));
        c.width() != Some(0) || marks <= room
    };
    let text: String = text.chars().filter(few).collect();
    if text.width() <= room {
        return text;
    }
    let dots = if room > 6 { "..." } else { "" };
    let mut left = room - dots.len();
    let fits = |c: &char| {
        let rest = left.checked_sub(c.width().unwrap_or(0));
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    text.chars().take_while(fits).chain(dots.chars()).collect()
}

/// Output of a program that no newline has ended yet.
#[derive(Debug, Default)]
pub(super) struct Unended {
    bytes: Vec<u8>,
    shown: String,
}

impl Unended {
    /// The lines that these bytes end.
    pub(super) fn lines(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut ended = Vec::new();
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.add(piece);
            ended.push(as_line(&self.bytes));
            self.bytes.clear();
        }
        self.add(last);
        self.shown = as_line(&self.bytes);
        ended
    }

    /// The end of a line is what counts: what came before may be written over.
    fn add(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(&piece[piece.len().saturating_sub(LONGEST)..]);
        let surplus = self.bytes.len().saturating_sub(LONGEST);
        self.bytes.drain(..surplus);
    }

    pub(super) fn shown(&self) -> Option<&str> {
        Some(self.shown.as_str()).filter(|text| !text.is_empty())
    }
}

/// What a terminal would have on the line in the end, roughly: what was written over and all escape sequences are gone.
fn as_line(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let start = bytes.iter().rposition(|byte| *byte == b'\r').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(&bytes[start..]);
    let (mut line, mut rest, mut column) = (String::new(), text.chars().peekable(), 0);
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => skip_sequence(&mut rest),
            '\t' => {
                let spaces = TAB - column % TAB;
                line.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            '\u{8}' => column -= line.pop().and_then(UnicodeWidthChar::width).unwrap_or(0),
            c if c.is_control() || turns(c) => {}
            c => {
                line.push(c);
                column += c.width().unwrap_or(0);
            }
        }
    }
    line
}

/// What follows an escape character (ECMA-48): `[` and a final byte, a string and its end, or one or two characters.
fn skip_sequence(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match rest.next() {
        Some('[') => drop(rest.find(|c| ('\u{40}'..='\u{7e}').contains(c))),
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = rest.next() {
                if c == '\u{7}' || c == '\u{1b}' && rest.next_if_eq(&'\\').is_some() {
                    return;
                }
            }
        }
        Some('(' | ')' | '*' | '+' | '#' | '%' | ' ') => drop(rest.next()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_is_not_text() {
        for (bytes, line) in [
            (&b"plain"[..], "plain"),
            (b"\x1b[1;32mgreen\x1b[0m\x1b[K", "green"),
            (b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab"),
            (b"\x1b(Ba\x1b[?25l\x1b[2J\x1b[Hb\x07\x00", "ab"),
            (b" 10%\r 20%\r", " 20%"),
            (b"a\tb\x08c", "a       c"),
            ("漢\tb".as_bytes(), "漢      b"),
            (b"\xc2\x9b2Jx\xff\xe2\x80\xaey", "2Jx\u{fffd}y"),
            (b"\x1b[", ""),
            (b"\x1b", ""),
        ] {
            assert_eq!(as_line(bytes), line);
        }
    }

    #[test]
    fn a_line_may_come_in_pieces_and_never_end() {
        let mut unended = Unended::default();
        assert_eq!(unended.lines(b"on"), Vec::<String>::new());
        assert_eq!(unended.lines(b"e\ntwo\nth"), ["one", "two"]);
        assert_eq!(unended.shown(), Some("th"));
        unended.lines(&vec![b'x'; 3 * LONGEST]);
        assert_eq!(unended.shown().unwrap().len(), LONGEST);
        let tabs = unended.lines(&[vec![b'\t'; 1 << 20], vec![b'\n']].concat());
        assert_eq!(tabs[0].len(), LONGEST * TAB, "nor is more of it read when it ends");
    }

    #[test]
    fn a_cut_line_has_room() {
        for (text, room, cut) in [
            ("abc", 3, "abc"),
            ("abcdefghij", 8, "abcde..."),
            ("漢漢漢漢漢", 8, "漢漢..."),
            ("abc", 2, "ab"),
            ("漢", 1, ""),
            ("a\u{301}\u{301}\u{301}b", 2, "a\u{301}\u{301}b"),
        ] {
            assert_eq!(fitted(text, room), cut);
        }
    }
}
