//! `--name=value` words in front of an instruction's arguments: taking them off, and what each instruction knows.

use std::collections::BTreeMap;

use super::words::Text;
use crate::ast::{Node, Word};
use crate::diagnostic::Diagnostic;

/// The flags at the start of `text`, quotes and escapes removed, each with its place; and what follows them.
pub(super) fn take(text: Text<'_>) -> (Vec<(Text<'_>, String)>, Text<'_>) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.str.starts_with("--") {
        let (end, word) = flag_word(rest.str);
        let after = rest.slice(end..rest.str.len());
        if word == "--" {
            return (flags, after);
        }
        if !word.is_empty() {
            flags.push((rest.slice(0..end), word));
        }
        rest = after.trim_start();
    }
    (flags, rest)
}

/// Where the first word ends, and what it says.
fn flag_word(text: &str) -> (usize, String) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (at, word),
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (_, '\\') => word.extend(chars.next().map(|(_, escaped)| escaped)),
            (_, c) => word.push(c),
        }
    }
    (text.len(), word)
}

/// What a flag of an instruction takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Bool,
    One,
    Many,
}

/// The flags of one instruction, read.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags {
    values: BTreeMap<&'static str, Vec<Word>>,
}

impl Flags {
    pub(super) fn one(&self, name: &str) -> Option<Word> {
        self.values.get(name).and_then(|words| words.first()).cloned()
    }

    pub(super) fn many(&self, name: &str) -> Vec<Word> {
        self.values.get(name).cloned().unwrap_or_default()
    }

    /// None where it was not given.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.one(name).map(|word| !word.text.eq_ignore_ascii_case("false"))
    }
}

/// Reads a node's flags by the table of its instruction.
pub(super) fn read(node: &Node, known: &[(&'static str, Takes)]) -> Result<Flags, Box<Diagnostic>> {
    let mut flags = Flags::default();
    for flag in &node.flags {
        let fail = |message: String| Err(Box::new(Diagnostic::error(message, flag.span)));
        let text = flag.text.strip_prefix("--").unwrap_or(&flag.text);
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let Some((name, takes)) = known.iter().find(|(known, _)| *known == name) else {
            let unknown = Diagnostic::error(format!("unknown flag: --{name}"), flag.span);
            return Err(Box::new(unknown.did_you_mean(name, known.iter().map(|(name, _)| *name))));
        };
        if *takes != Takes::Many && flags.values.contains_key(name) {
            return fail(format!("duplicate flag specified: --{name}"));
        }
        let value = match (takes, value) {
            (Takes::Bool, None) => "true",
            (Takes::Bool, Some("")) | (Takes::One | Takes::Many, None) => {
                return fail(format!("missing a value on flag: --{name}"));
            }
            (Takes::Bool, Some(v)) if !["true", "false"].contains(&v.to_ascii_lowercase().as_str()) => {
                return fail(format!("expecting boolean value for flag --{name}, not: {v}"));
            }
            (_, Some(v)) => v,
        };
        let word = Word { text: value.to_owned(), span: flag.span };
        flags.values.entry(name).or_default().push(word);
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_at_two_dashes_or_the_first_other_word() {
        let text = Text { str: " --a=1 --b='x y' c --d", at: 3 };
        let (flags, rest) = take(text);
        let said: Vec<&str> = flags.iter().map(|(_, word)| word.as_str()).collect();
        assert_eq!((said, rest.str, rest.at), (vec!["--a=1", "--b=x y"], "c --d", 20));
        let (flags, rest) = take(Text { str: "--a -- --b", at: 0 });
        assert_eq!((flags.len(), rest.str), (1, " --b"));
    }
}
