//! ReservedStageName: stages named `scratch` or `context`.

use super::{Rule, stage_names};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;

const RESERVED: [&str; 2] = ["context", "scratch"];

/// `scratch` means nothing at all and `context` the build context; a stage of that name can't be told from them.
///
/// Bad: `FROM alpine AS scratch`
///
/// Good: `FROM alpine AS builder`
pub(super) const RULE: Rule =
    Rule::new("ReservedStageName", "reserved-stage-name", "Reserved words should not be used as stage names");

pub(super) fn check(nodes: &[Node]) -> Vec<Diagnostic> {
    let reserved = stage_names(nodes).filter(|(name, _)| RESERVED.contains(&name.as_str()));
    let message =
        |name: &str| format!("Stage name should not use the same name as reserved stage \"{name}\"");
    reserved.map(|(name, word)| RULE.at(word.span, message(&name))).collect()
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn a_reserved_name_is_found() {
        let expected =
            "ReservedStageName 1 Stage name should not use the same name as reserved stage \"context\"";
        assert_eq!(found("FROM x AS context\n"), [expected]);
        assert!(found("FROM x AS contexts\n").is_empty());
    }
}
