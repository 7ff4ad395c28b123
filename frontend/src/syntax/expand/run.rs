//! One word being expanded: its quotes, escapes and variables, from left to right.

use super::words::Words;
use super::{Expansion, Mode, Wanted};
use crate::syntax::glob::Glob;

/// Deeper nesting of `${a:-${b:-…}}` is refused: each level is a level of recursion.
const MAX_DEPTH: usize = 500;

pub(super) struct Run<'a> {
    pub(super) text: &'a str,
    /// The byte that is read next.
    pub(super) at: usize,
    pub(super) escape: char,
    pub(super) mode: Mode,
    pub(super) get: &'a dyn Fn(&str) -> Option<String>,
    pub(super) wanted: Wanted,
    pub(super) expansion: Expansion,
    pub(super) words: Words,
    pub(super) depth: usize,
}

impl Run<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += c.map_or(0, char::len_utf8);
        c
    }

    fn variable(&mut self, name: &str) -> Option<String> {
        let value = (self.get)(name);
        if self.wanted != Wanted::Uses {
            return value;
        }
        let used = if value.is_some() { &mut self.expansion.matched } else { &mut self.expansion.unmatched };
        used.insert(name.to_owned());
        value
    }

    /// Expands up to `stop` (consumed) or the end.
    pub(super) fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<String, String> {
        let outer = self.mode;
        self.mode.raw_escapes |= raw_escapes;
        self.depth += 1;
        let done = std::mem::take(&mut self.words.done);
        let result =
            if self.depth > MAX_DEPTH { Err("nested too deeply".to_owned()) } else { self.until_inner(stop) };
        self.depth -= 1;
        if stop.is_some() {
            // As BuildKit has it, a nested word takes the unfinished word before it along.
            self.words = Words { done, word: String::new(), ..self.words };
        }
        self.mode = outer;
        result
    }

    fn until_inner(&mut self, stop: Option<char>) -> Result<String, String> {
        let rest = self.text.len() - self.at;
        let mut result = String::with_capacity(if stop.is_none() { rest } else { 0 });
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.next();
                return Ok(result);
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    self.words.push_value(&value);
                    result.push_str(&value);
                }
                '\'' | '"' if !self.mode.literal_quotes => {
                    let quoted = if c == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    self.words.push_quoted(&quoted);
                    result.push_str(&quoted);
                }
                c if c == self.escape => {
                    self.next();
                    if self.mode.raw_escapes {
                        self.words.push_quoted(c.encode_utf8(&mut [0; 4]));
                        result.push(c);
                    }
                    let Some(escaped) = self.next() else { break };
                    self.words.push_quoted(escaped.encode_utf8(&mut [0; 4]));
                    result.push(escaped);
                }
                c => {
                    self.next();
                    self.words.push(c);
                    result.push(c);
                }
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok(result),
        }
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        let open = self.next();
        result.extend(open.filter(|_| self.mode.raw_quotes));
        loop {
            match self.next() {
                None => {
                    return Err("unexpected end of statement while looking for matching single-quote".into());
                }
                Some('\'') => {
                    result.extend(open.filter(|_| self.mode.raw_quotes));
                    return Ok(result);
                }
                Some(c) => result.push(c),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut result = String::new();
        let open = self.next();
        result.extend(open.filter(|_| self.mode.raw_quotes));
        loop {
            match self.peek() {
                None => {
                    return Err("unexpected end of statement while looking for matching double-quote".into());
                }
                Some('"') => {
                    self.next();
                    result.extend(open.filter(|_| self.mode.raw_quotes));
                    return Ok(result);
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(c) => {
                    self.next();
                    self.in_double_quotes(c, &mut result);
                }
            }
        }
    }

    /// Within double quotes an escape only protects a quote, a dollar and itself.
    fn in_double_quotes(&mut self, c: char, result: &mut String) {
        if c != self.escape {
            result.push(c);
            return;
        }
        if self.mode.raw_escapes {
            result.push(c);
        }
        match self.peek() {
            None => {}
            Some(next) if next == '"' || next == '$' || next == self.escape => {
                self.next();
                result.push(next);
            }
            Some(_) => result.push(c),
        }
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.variable(&name) {
                None if self.mode.skip_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            Some('}') => Ok(match self.variable(&name) {
                None if self.mode.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => {
                let modifier = self.next();
                self.with_word(&name, modifier, true)
            }
            Some(c @ ('+' | '-' | '?' | '#' | '%')) => self.with_word(&name, Some(c), false),
            Some('/') => self.replace(&name),
            c => Err(unsupported("", c)),
        }
    }

    /// `${name-word}` and its like; with a colon, an empty value is as good as none.
    fn with_word(&mut self, name: &str, modifier: Option<char>, colon: bool) -> Result<String, String> {
        let prefix = if colon { ":" } else { "" };
        let pattern = matches!(modifier, Some('#' | '%'));
        if pattern && colon {
            return Err(unsupported(prefix, modifier));
        }
        let word = self.nested('}', pattern, "syntax error: missing '}'")?;
        let value = self.variable(name);
        if let (None, true, Some(modifier)) = (&value, self.mode.skip_unset, modifier) {
            return Ok(format!("${{{name}{prefix}{modifier}{word}}}"));
        }
        let Some(modifier @ ('+' | '-' | '?' | '#' | '%')) = modifier else {
            return Err(unsupported(prefix, modifier));
        };
        let usable = value.as_deref().filter(|value| !(colon && value.is_empty()));
        match modifier {
            '-' => Ok(usable.map_or(word, str::to_owned)),
            '+' => Ok(usable.map_or(String::new(), |_| word)),
            '?' => match usable {
                Some(value) => Ok(value.to_owned()),
                None if !word.is_empty() => Err(format!("{name}: {word}")),
                None if value.is_some() => Err(format!("{name}: is not allowed to be empty")),
                None => Err(format!("{name}: is not allowed to be unset")),
            },
            _ => cut(&value.unwrap_or_default(), modifier, &word),
        }
    }

    /// `${name/pattern/word}`, `${name//pattern/word}`.
    fn replace(&mut self, name: &str) -> Result<String, String> {
        let all = self.peek() == Some('/');
        self.at += usize::from(all);
        let pattern = self.nested('/', true, "syntax error: missing '/' in ${}")?;
        let replacement = self.nested('}', true, "syntax error: missing '}'")?;
        let value = self.variable(name);
        match value {
            None if self.mode.skip_unset => {
                let slashes = if all { "//" } else { "/" };
                Ok(format!("${{{name}{slashes}{pattern}/{replacement}}}"))
            }
            value => {
                let glob = Glob::parse(&pattern)
                    .map_err(|reason| format!("invalid pattern ({pattern}) in substitution: {reason}"))?;
                Ok(glob.replace(&value.unwrap_or_default(), &replacement, all))
            }
        }
    }

    fn nested(&mut self, stop: char, raw_escapes: bool, missing: &str) -> Result<String, String> {
        self.until(Some(stop), raw_escapes).map_err(|message| {
            let at_end = self.peek().is_none() && self.depth < MAX_DEPTH;
            if at_end { missing.to_owned() } else { message }
        })
    }

    /// A name, a number, or one special character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(c) = self.peek().filter(|c| c.is_numeric()) {
                    self.next();
                    name.push(c);
                }
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.next();
                name.push(c);
            }
            _ => {
                while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
                    self.next();
                    name.push(c);
                }
            }
        }
        name
    }
}

fn unsupported(prefix: &str, modifier: Option<char>) -> String {
    format!("unsupported modifier ({prefix}{}) in substitution", modifier.unwrap_or('\u{fffd}'))
}

/// `${x#p}`, `${x##p}`, `${x%p}`, `${x%%p}`: a doubled sign cuts as much as it can.
fn cut(value: &str, sign: char, word: &str) -> Result<String, String> {
    let (longest, pattern) = word.strip_prefix(sign).map_or((false, word), |pattern| (true, pattern));
    let glob = Glob::parse(pattern)?;
    Ok(if sign == '#' { glob.cut_prefix(value, longest) } else { glob.cut_suffix(value, longest) })
}
