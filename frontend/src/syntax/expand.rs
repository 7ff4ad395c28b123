//! Expansion of variables and removal of quotes in words, with the rules of BuildKit's shell lexer.

mod run;
mod words;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::notation::quote;
use run::Run;
use words::Words;

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

/// What a caller asks for; the text comes with all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Text,
    /// Which variables are used.
    Uses,
    Words,
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
