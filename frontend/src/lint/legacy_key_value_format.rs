//! LegacyKeyValueFormat: `ENV key value`.

use super::Rule;
use crate::ast::{Instruction, Pair};
use crate::diagnostic::Diagnostic;

/// The form with a blank takes one pair, whose value goes to the end of the line: a second pair silently becomes part of
/// the first value.
///
/// Bad: `ENV one 1`
///
/// Good: `ENV one=1`
pub(super) const RULE: Rule = Rule::new(
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "Legacy key/value format with whitespace separator should not be used",
);

pub(super) fn check(instruction: &Instruction, pairs: &[Pair]) -> Vec<Diagnostic> {
    let keyword = &instruction.keyword;
    let message =
        || format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
    let old = pairs.iter().filter(|pair| pair.old_style);
    old.map(|pair| RULE.at(pair.key.span, message())).collect()
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn a_blank_is_no_sign_of_equality() {
        let expected = "LegacyKeyValueFormat 2 \"ENV key=value\" should be used instead of legacy \"ENV key value\" format";
        assert_eq!(found("FROM x\nENV a b=c\n"), [expected]);
        assert_eq!(found("FROM x\nLABEL a b\n").len(), 1);
        assert!(found("FROM x\nENV a=b c=\"d e\"\n").is_empty());
    }
}
