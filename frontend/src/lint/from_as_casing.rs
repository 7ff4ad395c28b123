//! FromAsCasing: `FROM x as y`.

use super::{Rule, from_words};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;

/// AS is part of FROM; two spellings of one instruction are hard to read. Where FROM itself is of mixed case,
/// `ConsistentInstructionCasing` says so and this rule keeps quiet.
///
/// Bad: `FROM debian as builder`
///
/// Good: `FROM debian AS builder`, `from debian as builder`
pub(super) const RULE: Rule = Rule::new(
    "FromAsCasing",
    "from-as-casing",
    "The 'as' keyword should match the case of the 'from' keyword",
);

pub(super) fn check(node: &Node) -> Option<Diagnostic> {
    let (as_word, _) = from_words(node)?.1?;
    let (from, as_text) = (&node.keyword.text, &as_word.text);
    let same = if *from == from.to_lowercase() {
        *as_text == as_text.to_lowercase()
    } else {
        *from != from.to_uppercase() || *as_text == as_text.to_uppercase()
    };
    let message = || format!("'{as_text}' and '{from}' keywords' casing do not match");
    (!same).then(|| RULE.at(as_word.span, message()))
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn as_is_spelt_like_from() {
        assert_eq!(found("FROM x as y\n"), ["FromAsCasing 1 'as' and 'FROM' keywords' casing do not match"]);
        assert!(found("from x as y\n").is_empty());
        assert_eq!(found("From x as y\n").len(), 1, "only the keyword itself is told");
    }
}
