//! ConsistentInstructionCasing: keywords in upper and in lower case.

use super::Rule;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;

/// Keywords may be written in any case; one file should use one. The majority decides which, capitals where there is
/// none. Arguments before the first FROM are not counted.
///
/// Bad:
/// ```text
/// FROM alpine
/// run true
/// ```
/// Good:
/// ```text
/// FROM alpine
/// RUN true
/// ```
pub(super) const RULE: Rule = Rule::new(
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
);

pub(super) fn check(nodes: &[Node]) -> Vec<Diagnostic> {
    let first = nodes.iter().position(|node| node.keyword.text.eq_ignore_ascii_case("from"));
    let keywords = || nodes.iter().skip(first.unwrap_or(nodes.len())).map(|node| &node.keyword);
    let is_lower = |text: &str| !text.chars().any(char::is_uppercase);
    let is_upper = |text: &str| !text.chars().any(char::is_lowercase);
    let lower = keywords().filter(|word| is_lower(&word.text)).count();
    let upper = keywords().filter(|word| is_upper(&word.text)).count();
    let (majority, fits): (_, &dyn Fn(&str) -> bool) =
        if lower > upper { ("lowercase", &is_lower) } else { ("uppercase", &is_upper) };
    let odd = keywords().filter(|word| !fits(&word.text));
    let message =
        |name: &str| format!("Command '{name}' should match the case of the command majority ({majority})");
    odd.map(|word| RULE.at(word.span, message(&word.text))).collect()
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn the_majority_decides() {
        let expected = "ConsistentInstructionCasing 2 Command 'run' should match the case of the command majority (uppercase)";
        assert_eq!(found("FROM x\nrun y\n"), [expected]);
        assert_eq!(found("from x\nrun y\nRUN z\n").len(), 1);
        assert_eq!(found("From x\nrun y\n").len(), 1);
        assert!(found("arg a\nFROM x\nRUN y\n").is_empty());
    }
}
