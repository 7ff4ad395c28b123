//! RedundantTargetPlatform: `FROM --platform=$TARGETPLATFORM`.

use super::{FromWord, Rule};
use crate::diagnostic::Diagnostic;

const TARGET: &str = "TARGETPLATFORM";

/// An image is looked for in the target platform anyway; asking for it only suggests that it were otherwise.
///
/// Bad: `FROM --platform=$TARGETPLATFORM alpine`
///
/// Good: `FROM alpine`
pub(super) const RULE: Rule = Rule::new(
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
);

/// `target` is that variable's value.
pub(super) fn check(word: &FromWord<'_>, target: &str) -> Option<Diagnostic> {
    let expansion = word.expansion;
    let alone = expansion.unmatched.is_empty() && expansion.matched.iter().eq([TARGET]);
    let text = &word.word.text;
    let message = || {
        format!("Setting platform to predefined {text} in FROM is redundant as this is the default behavior")
    };
    (alone && expansion.text == target).then(|| RULE.at(word.word.span, message()))
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn the_target_platform_need_not_be_asked_for() {
        let expected = "RedundantTargetPlatform 1 Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior";
        assert_eq!(found("FROM --platform=${TARGETPLATFORM} x\n"), [expected]);
        assert!(found("FROM --platform=$TARGETOS/$TARGETARCH x\n").is_empty());
    }
}
