//! InvalidBaseImagePlatform: an image for another machine than it was asked for.

use boxwright_cache::oci::Platform;
use boxwright_solver::Span;

use super::{Rule, same_machine};
use crate::diagnostic::Diagnostic;
use crate::notation::quote;

/// A name that holds one image alone gives that one, whatever platform is asked for; its programs may not run.
///
/// Bad: `FROM arm64v8/alpine` in a build for `linux/amd64`
///
/// Good: `FROM alpine`, which has an image for each platform
pub(super) const RULE: Rule = Rule {
    page: None,
    ..Rule::new("InvalidBaseImagePlatform", "", "Base image platform does not match expected target platform")
};

pub(crate) fn check(name: &str, expected: &Platform, actual: &Platform, span: Span) -> Option<Diagnostic> {
    if same_machine(expected, actual) {
        return None;
    }
    let (expected, actual) = (quote(&expected.to_string()), quote(&actual.to_string()));
    let message =
        format!("Base image {name} was pulled with platform {actual}, expected {expected} for current build");
    Some(RULE.at(span, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_is_told() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let found = check("x", &platform("linux/amd64"), &platform("linux/arm64"), Span::default()).unwrap();
        let expected = "Base image x was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build";
        assert_eq!(found.message, expected);
        assert!(check("x", &platform("linux/arm/v6"), &platform("linux/arm/v7"), Span::default()).is_none());
    }
}
