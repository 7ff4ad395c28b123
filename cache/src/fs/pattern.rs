//! Patterns over paths: globs as Go's `filepath.Match` has them, and ordered lists of patterns as `.dockerignore` and
//! `--exclude` have them (Dockerfile reference, ".dockerignore file"): `**`, exceptions with `!`, and a match of a
//! parent that counts for what is below.

mod filter;

use std::path::Path;

pub use filter::{Filter, Judged, Verdict};

use crate::error::{Error, Result};

/// One piece of a compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    /// `?`: one character, but no slash.
    One,
    /// `*`: any characters, but no slash.
    Some,
    /// `[...]`: one character.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**` with something after it: nothing, or any number of whole components.
    Directories,
    /// `**` with a literal after it at the beginning of a pattern: anything.
    Anything,
}

/// A glob: `*`, `?`, `[a-z]`, `[^a-z]`, and `\` before a character that shall stand for itself. None of `*` and `?`
/// matches a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Piece>);

impl Glob {
    /// # Errors
    /// [`Error::Invalid`] for a class that is empty or not closed, and for a `\` at the end.
    pub fn new(pattern: &str) -> Result<Glob> {
        compile(pattern, false).map(Glob).ok_or_else(|| bad(pattern))
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: impl AsRef<Path>) -> bool {
        run(&self.0, name.as_ref().as_os_str().as_encoded_bytes())
    }

    /// Whether `text` can match other texts than one. After a backslash, no character is special.
    pub fn is_wild(text: &str) -> bool {
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' | '?' | '[' => return true,
                '\\' => drop(chars.next()),
                _ => {}
            }
        }
        false
    }

    /// Whether `text` has a character that is special in a glob.
    pub fn is_special(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }
}

/// An ordered list of patterns. The last one that matches decides.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// Cleaned, without its `!`.
    text: String,
    exception: bool,
    pieces: Vec<Piece>,
}

/// Which patterns of a [`Matcher`] match a directory or one above it. What is below needs it.
#[derive(Clone, Debug)]
pub struct ParentMatch(Vec<bool>);

impl Matcher {
    /// From patterns that are cleaned already, as the lines of an ignore file are; blank ones are left out.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a pattern that is malformed, or a `!` alone.
    pub fn new(lines: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Matcher> {
        let mut patterns = Vec::new();
        for line in lines {
            let line = line.as_ref().trim();
            if line.is_empty() {
                continue;
            }
            let cleaned = clean(line);
            let (exception, text) =
                cleaned.strip_prefix('!').map_or((false, &cleaned[..]), |rest| (true, rest));
            if text.is_empty() {
                return Err(Error::invalid("pattern", line, "an exception of nothing"));
            }
            // The syntax is that of a glob; only then has `**` its meaning.
            compile(text, false).ok_or_else(|| bad(line))?;
            let pieces =
                compile(text, true).filter(|pieces| !has_empty_range(pieces)).ok_or_else(|| bad(line))?;
            patterns.push(Pattern { text: text.to_owned(), exception, pieces });
        }
        Ok(Matcher { patterns })
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether `path` (relative, with slashes) or one of its parents matches.
    pub fn matches_or_parent(&self, path: impl AsRef<Path>) -> bool {
        let path = path.as_ref().as_os_str().as_encoded_bytes();
        let mut matched = false;
        for pattern in &self.patterns {
            // What would not change the answer is not asked.
            if pattern.exception == matched && pattern.matches_or_parent(path) {
                matched = !pattern.exception;
            }
        }
        matched
    }

    /// The same, when the answer for the parent directory is known (none: the parent is the root). Also gives what
    /// the entries below need.
    pub fn matches_below(&self, path: impl AsRef<Path>, parent: Option<&ParentMatch>) -> (bool, ParentMatch) {
        let path = path.as_ref().as_os_str().as_encoded_bytes();
        let mut matched = false;
        let mut each = vec![false; self.patterns.len()];
        for (at, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.is_some_and(|parent| parent.0[at]);
            if !inherited && pattern.exception != matched {
                continue;
            }
            each[at] =
                inherited || pattern.matches(path) || parent.is_none() && pattern.matches_or_parent(path);
            if each[at] {
                matched = !pattern.exception;
            }
        }
        (matched, ParentMatch(each))
    }

    /// Whether a pattern that is no exception could match something below the directory `dir`. As
    /// [`Matcher::may_except_below`].
    pub fn may_match_below(&self, dir: impl AsRef<Path>) -> bool {
        let dir = dir.as_ref().as_os_str().as_encoded_bytes();
        self.patterns.iter().filter(|p| !p.exception).any(|p| p.may_match_below(dir))
    }

    /// Whether an exception could match something below the directory `dir`. Sometimes true when none does.
    pub fn may_except_below(&self, dir: impl AsRef<Path>) -> bool {
        let dir = dir.as_ref().as_os_str().as_encoded_bytes();
        self.patterns.iter().filter(|p| p.exception).any(|p| p.may_match_below(dir))
    }
}

impl Pattern {
    fn matches(&self, path: &[u8]) -> bool {
        run(&self.pieces, path)
    }

    fn matches_or_parent(&self, path: &[u8]) -> bool {
        self.matches(path)
            || path
                .iter()
                .enumerate()
                .filter(|(at, b)| **b == b'/' && *at > 0)
                .any(|(at, _)| self.matches(&path[..at]))
    }

    /// Compares component by component, until one is no plain text.
    fn may_match_below(&self, dir: &[u8]) -> bool {
        let mut wanted = self.text.trim_start_matches('/').split('/');
        for name in dir.split(|b| *b == b'/') {
            match wanted.next() {
                // The exception is the directory, or one above it.
                None => return true,
                Some(plain) if Glob::is_special(plain) => return true,
                Some(plain) if plain.as_bytes() != name => return false,
                Some(_) => {}
            }
        }
        true
    }
}

/// A range whose ends are the wrong way round matches nothing in a glob, but is an error in a list of patterns.
fn has_empty_range(pieces: &[Piece]) -> bool {
    pieces.iter().any(|piece| match piece {
        Piece::Class { ranges, .. } => ranges.iter().any(|(low, high)| low > high),
        _ => false,
    })
}

fn bad(pattern: &str) -> Error {
    Error::invalid("pattern", pattern, "syntax error in pattern")
}

/// The pieces of a pattern; none if it is malformed. With `stars`, `**` crosses slashes.
fn compile(pattern: &str, stars: bool) -> Option<Vec<Piece>> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut rest = pattern.chars().peekable();
    let mut at_start = true;
    while let Some(c) = rest.next() {
        let first = std::mem::take(&mut at_start);
        match c {
            '*' if stars && rest.peek() == Some(&'*') => {
                rest.next();
                // A slash after it belongs to it: the components it stands for end with one.
                let slash = rest.next_if_eq(&'/').is_some();
                // At the beginning of what is text otherwise, `**/name` is any path that ends with the component,
                // `**name` any that ends with the text.
                let ends_anywhere = first && !slash && is_literal(&rest);
                let anything = rest.peek().is_none() || ends_anywhere;
                pieces.push(if anything { Piece::Anything } else { Piece::Directories });
            }
            '*' => pieces.push(Piece::Some),
            '?' => pieces.push(Piece::One),
            '[' => pieces.push(class(&mut rest)?),
            '\\' => push_literal(&mut pieces, rest.next()?),
            plain => push_literal(&mut pieces, plain),
        }
    }
    Some(pieces)
}

/// Whether nothing special is left. A backslash is special here, as it makes the pattern more than text.
fn is_literal(rest: &std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    !rest.clone().any(|c| matches!(c, '*' | '?' | '[' | ']' | '\\'))
}

fn push_literal(pieces: &mut Vec<Piece>, c: char) {
    let mut utf8 = [0; 4];
    let bytes = c.encode_utf8(&mut utf8).as_bytes();
    match pieces.last_mut() {
        Some(Piece::Literal(literal)) => literal.extend_from_slice(bytes),
        _ => pieces.push(Piece::Literal(bytes.to_vec())),
    }
}

/// What follows a `[`, up to its `]`.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<Piece> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            return Some(Piece::Class { negated, ranges });
        }
        let low = class_char(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() { class_char(rest)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        c => Some(c),
    }
}

/// Keeps the set of positions that the pieces so far can have reached, so that no pattern takes exponential time.
fn run(pieces: &[Piece], text: &[u8]) -> bool {
    let mut reached = vec![0];
    for (at, piece) in pieces.iter().enumerate() {
        let last = at + 1 == pieces.len();
        let mut next: Vec<usize> = Vec::new();
        for from in reached {
            match piece {
                // What a wildcard reaches from here, it has reached from an earlier position already.
                Piece::Anything if last => return true,
                Piece::Anything if next.is_empty() => next.extend(from..=text.len()),
                Piece::Anything => {}
                Piece::Directories if next.is_empty() => {
                    next.push(from);
                    next.extend((from..text.len()).filter(|i| text[*i] == b'/').map(|i| i + 1));
                }
                Piece::Directories => add(&mut next, from),
                Piece::Some if next.last().is_some_and(|reached| *reached >= from) => {}
                Piece::Some => {
                    let end = text[from..].iter().position(|b| *b == b'/').map_or(text.len(), |i| from + i);
                    next.extend(from..=end);
                }
                Piece::Literal(literal) if text[from..].starts_with(literal) => {
                    add(&mut next, from + literal.len())
                }
                Piece::Literal(_) => {}
                Piece::One | Piece::Class { .. } => {
                    if let Some(length) = one(piece, &text[from..]) {
                        add(&mut next, from + length);
                    }
                }
            }
        }
        if next.is_empty() {
            return false;
        }
        reached = next;
    }
    reached.last() == Some(&text.len())
}

/// Keeps the positions sorted, each once.
fn add(next: &mut Vec<usize>, position: usize) {
    if let Err(at) = next.binary_search(&position) {
        next.insert(at, position);
    }
}

/// The length of the character at the beginning of `text`, if the piece matches it. A byte that is not UTF-8 is a
/// character of its own.
fn one(piece: &Piece, text: &[u8]) -> Option<usize> {
    let first = *text.first()?;
    let length = text.iter().take(4).skip(1).take_while(|b| **b & 0xc0 == 0x80).count() + 1;
    let (c, length) = match std::str::from_utf8(&text[..length]) {
        Ok(utf8) => (utf8.chars().next()?, length.min(utf8.chars().next()?.len_utf8())),
        Err(_) if first.is_ascii() => (char::from(first), 1),
        Err(_) => (char::REPLACEMENT_CHARACTER, 1),
    };
    let matches = match piece {
        Piece::Class { negated, ranges } => {
            ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
        }
        _ => c != '/',
    };
    matches.then_some(length)
}

/// The shortest path that means the same, by its text alone (as Go's `filepath.Clean`).
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests;
