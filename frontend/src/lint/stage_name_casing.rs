//! StageNameCasing: names of stages with capitals.

use super::{Rule, from_words};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;

/// Names of stages are compared in lower case, and FROM finds a stage by its lower-case name alone: capitals promise a
/// difference that is not there.
///
/// Bad: `FROM alpine AS BuilderBase`
///
/// Good: `FROM alpine AS builder-base`
pub(super) const RULE: Rule =
    Rule::new("StageNameCasing", "stage-name-casing", "Stage names should be lowercase");

pub(super) fn check(node: &Node) -> Option<Diagnostic> {
    let (_, name) = from_words(node)?.1?;
    let mixed = name.text != name.text.to_lowercase();
    mixed.then(|| RULE.at(name.span, format!("Stage name '{}' should be lowercase", name.text)))
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn capitals_in_a_name_are_found() {
        assert_eq!(found("FROM x AS Base\n"), ["StageNameCasing 1 Stage name 'Base' should be lowercase"]);
        assert!(found("FROM x AS base\n").is_empty());
    }
}
