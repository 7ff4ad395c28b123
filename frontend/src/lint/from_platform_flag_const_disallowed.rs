//! FromPlatformFlagConstDisallowed: `FROM --platform=linux/amd64`.

use boxwright_cache::oci::Platform;

use super::{FromWord, Rule};
use crate::diagnostic::Diagnostic;
use crate::notation::quote;

/// A constant platform ties the stage to one kind of machine, whatever the build asks for. Where that is meant, the
/// stage's name says so (`AS build_amd64`), and the rule keeps quiet.
///
/// Bad: `FROM --platform=linux/amd64 alpine AS base`
///
/// Good: `FROM alpine AS base`, `FROM --platform=$BUILDPLATFORM alpine AS base`
pub(super) const RULE: Rule = Rule::new(
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "FROM --platform flag should not use a constant value",
);

pub(super) fn check(word: &FromWord<'_>, stage: &str) -> Option<Diagnostic> {
    let expansion = word.expansion;
    if !expansion.matched.is_empty() || !expansion.unmatched.is_empty() {
        return None;
    }
    let platform: Platform = expansion.text.parse().ok()?;
    if stage.contains(&platform.os) || stage.contains(&platform.architecture) {
        return None;
    }
    let value = quote(&expansion.text);
    Some(RULE.at(word.word.span, format!("FROM --platform flag should not use constant value {value}")))
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn a_constant_is_found_unless_the_name_tells_it() {
        let expected = "FromPlatformFlagConstDisallowed 1 FROM --platform flag should not use constant value \"linux/amd64\"";
        assert_eq!(found("FROM --platform=linux/amd64 x AS base\n"), [expected]);
        assert!(found("FROM --platform=linux/x86_64 x AS build_amd64\n").is_empty());
        assert!(found("FROM --platform=$BUILDPLATFORM x\n").is_empty());
    }
}
