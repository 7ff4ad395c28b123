//! UndefinedArgInFrom: FROM with a variable that no ARG above declares.

use super::{FromWord, Rule};
use crate::diagnostic::{Diagnostic, nearest_variable};

/// FROM sees arguments that are declared before the first FROM, and those that are always there (`TARGETPLATFORM` and
/// its like). Any other is empty, which mostly is a misspelt name or an ARG at the wrong place.
///
/// Bad: `FROM node:22${VARIANT}`
///
/// Good:
/// ```text
/// ARG VARIANT=-alpine
/// FROM node:22${VARIANT}
/// ```
pub(super) const RULE: Rule =
    Rule::new("UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs");

pub(super) fn check(word: &FromWord<'_>) -> Vec<Diagnostic> {
    let undeclared = word.expansion.unmatched.iter().filter(|name| !word.known.contains(&name.as_str()));
    let found = undeclared.map(|name| {
        let message = format!("FROM argument '{name}' is not declared");
        let suggestion = nearest_variable(name, word.known.iter().copied()).map(str::to_owned);
        Diagnostic { suggestion, ..RULE.at(word.word.span, message) }
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn an_argument_is_declared_before_the_first_stage() {
        let expected = "UndefinedArgInFrom 2 FROM argument 'MYTAG' is not declared (did you mean MY_TAG?)";
        assert_eq!(found("ARG MY_TAG=a\nFROM x${MYTAG:-y}\n"), [expected]);
        assert!(found("ARG TAG\nFROM x${TAG:-y}\n").is_empty());
        assert!(found("FROM --platform=$BUILDPLATFORM x\n").is_empty());
    }
}
