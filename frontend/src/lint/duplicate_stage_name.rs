//! DuplicateStageName: two stages of one name.

use std::collections::HashSet;

use super::{Rule, stage_names};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::notation::quote;

/// A later stage of the same name hides the earlier one from `--from` and `--target`.
///
/// Bad:
/// ```text
/// FROM debian AS builder
/// FROM golang AS builder
/// ```
/// Good:
/// ```text
/// FROM debian AS deb-builder
/// FROM golang AS go-builder
/// ```
pub(super) const RULE: Rule =
    Rule::new("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique");

pub(super) fn check(nodes: &[Node]) -> Vec<Diagnostic> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for (name, word) in stage_names(nodes) {
        if seen.contains(&name) {
            let message = format!("Duplicate stage name {}, stage names should be unique", quote(&name));
            found.push(RULE.at(word.span, message));
        }
        seen.insert(name);
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn a_name_is_there_once() {
        let expected = "DuplicateStageName 2 Duplicate stage name \"b\", stage names should be unique";
        assert_eq!(found("FROM x AS b\nFROM x AS b\n"), [expected]);
        assert!(found("FROM x AS b\nFROM x AS c\n").is_empty());
    }
}
