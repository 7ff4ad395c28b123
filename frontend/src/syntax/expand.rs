//! Expansion of variables and removal of quotes in words, with the rules of BuildKit's shell lexer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::glob::Glob;
use crate::notation::quote;

/// Where values of variables come from.
pub trait Variables {
    fn get(&self, name: &str) -> Option<String>;
}

/// Nothing is set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoVariables;

impl Variables for NoVariables {
    fn get(&self, _: &str) -> Option<String> {
        None
    }
}

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }
}

/// Later pairs win.
impl Variables for [(String, String)] {
    fn get(&self, name: &str) -> Option<String> {
        self.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }
}

/// How quotes, escapes and unset variables are treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escapes stay in the result.
    pub raw_escapes: bool,
    /// Expressions of unset variables stay in the result.
    pub skip_unset: bool,
    /// Quotes are characters like others: the content of here-documents.
    pub literal_quotes: bool,
}

impl Mode {
    pub const PLAIN: Mode =
        Mode { raw_quotes: false, raw_escapes: false, skip_unset: false, literal_quotes: false };
}

/// A word after expansion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    pub text: String,
    /// The variables used that are set, and those that are not.
    pub matched: BTreeSet<String>,
    pub unmatched: BTreeSet<String>,
}

/// Expands words with one escape character.
#[derive(Clone, Copy, Debug)]
pub struct Lexer {
    escape: char,
    mode: Mode,
}

impl Lexer {
    pub fn new(escape: char) -> Lexer {
        Lexer { escape, mode: Mode::PLAIN }
    }

    #[must_use]
    pub fn mode(self, mode: Mode) -> Lexer {
        Lexer { mode, ..self }
    }

    /// One word in, one word out, whatever blanks the values hold.
    ///
    /// # Errors
    /// Bad syntax, or what `${x:?message}` says.
    pub fn word(&self, word: &str, variables: &(impl Variables + ?Sized)) -> Result<String, String> {
        self.read(word, variables).map(Cow::into_owned)
    }

    /// As [`Lexer::word`], without a copy of what stays as it is: most words.
    pub(crate) fn read<'w>(
        &self,
        word: &'w str,
        variables: &(impl Variables + ?Sized),
    ) -> Result<Cow<'w, str>, String> {
        if self.is_plain(word) {
            return Ok(Cow::Borrowed(word));
        }
        self.run(word, variables, Wanted::Text).map(|(expansion, _)| Cow::Owned(expansion.text))
    }

    /// As [`Lexer::word`], telling which variables were used.
    ///
    /// # Errors
    /// As [`Lexer::word`].
    pub fn expand(&self, word: &str, variables: &(impl Variables + ?Sized)) -> Result<Expansion, String> {
        if self.is_plain(word) {
            return Ok(Expansion { text: word.to_owned(), ..Expansion::default() });
        }
        self.run(word, variables, Wanted::Uses).map(|(expansion, _)| expansion)
    }

    fn is_plain(&self, word: &str) -> bool {
        word.bytes().all(|b| !matches!(b, b'$' | b'\'' | b'"') && char::from(b) != self.escape)
    }

    /// One word in, any number out: split at blanks outside of quotes, those of values included.
    ///
    /// # Errors
    /// As [`Lexer::word`].
    pub fn words(&self, word: &str, variables: &(impl Variables + ?Sized)) -> Result<Vec<String>, String> {
        self.run(word, variables, Wanted::Words).map(|(_, words)| words)
    }

    fn run(
        &self,
        word: &str,
        variables: &(impl Variables + ?Sized),
        wanted: Wanted,
    ) -> Result<(Expansion, Vec<String>), String> {
        let get = |name: &str| variables.get(name);
        let mut run = Run {
            text: word,
            at: 0,
            escape: self.escape,
            mode: self.mode,
            get: &get,
            wanted,
            expansion: Expansion::default(),
            words: Words { wanted: wanted == Wanted::Words, ..Words::default() },
            depth: 0,
        };
        match run.until(None, false) {
            Ok(text) => {
                run.expansion.text = text;
                Ok((run.expansion, run.words.finish()))
            }
            Err(message) => Err(format!("failed to process {}: {message}", quote(word))),
        }
    }
}

/// Deeper nesting of `${a:-${b:-…}}` is refused: each level is a level of recursion.
const MAX_DEPTH: usize = 500;

/// What a caller asks for; the text comes with all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Text,
    /// Which variables are used.
    Uses,
    Words,
}

struct Run<'a> {
    text: &'a str,
    /// The byte that is read next.
    at: usize,
    escape: char,
    mode: Mode,
    get: &'a dyn Fn(&str) -> Option<String>,
    wanted: Wanted,
    expansion: Expansion,
    words: Words,
    depth: usize,
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
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<String, String> {
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

/// Collects words as characters arrive.
#[derive(Debug, Default)]
struct Words {
    /// Else nothing is collected.
    wanted: bool,
    done: Vec<String>,
    word: String,
}

impl Words {
    fn push(&mut self, c: char) {
        if !self.wanted {
            return;
        }
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn push_value(&mut self, text: &str) {
        if self.wanted {
            text.chars().for_each(|c| self.push(c));
        }
    }

    fn push_quoted(&mut self, text: &str) {
        if self.wanted {
            self.word.push_str(text);
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(word: &str) -> Result<String, String> {
        let variables =
            [("a", "x y"), ("p", "/usr/foo/bar.txt"), ("e", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        Lexer::new('\\').word(word, &variables[..])
    }

    #[test]
    fn every_form_of_a_variable() {
        for (word, text) in [
            ("$a-${a}", "x y-x y"),
            ("${u:-d}${e:-d}${e-d}|${u-$a}", "dd|x y"),
            ("${a:+s}${e:+s}${e+t}${u+t}", "st"),
            ("${p#*/}|${p##*/}|${p%/*}|${p%%/*}", "usr/foo/bar.txt|bar.txt|/usr/foo|"),
            ("${p/\\//_}|${p//o/0}", "_usr/foo/bar.txt|/usr/f00/bar.txt"),
            ("'$a' \"$a\" \\$a \"\\$a\\b\"", "$a x y $a $a\\b"),
            ("${u:-'q'}$", "q$"),
        ] {
            assert_eq!(expand(word).as_deref(), Ok(text), "{word}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (word, message) in [
            ("${u:?gone}", "u: gone"),
            ("${e:?}", "e: is not allowed to be empty"),
            ("${}", "syntax error: bad substitution"),
            ("${a", "unsupported modifier (\u{fffd}) in substitution"),
            ("${a:-", "syntax error: missing '}'"),
            ("'a", "unexpected end of statement while looking for matching single-quote"),
        ] {
            assert_eq!(expand(word), Err(format!("failed to process {}: {message}", quote(word))));
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_an_overflow() {
        let word = format!("{}{}", "${u:-".repeat(10_000), "}".repeat(10_000));
        assert!(expand(&word).unwrap_err().ends_with("nested too deeply"));
        let word = format!("{}x{}", "${u:-".repeat(400), "}".repeat(400));
        assert_eq!(expand(&word).as_deref(), Ok("x"));
    }
}
