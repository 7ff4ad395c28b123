//! InvalidDefaultArgInFrom: FROM that is no image without build arguments.

use boxwright_cache::oci::Reference;

use super::Rule;
use crate::ast::Stage;
use crate::diagnostic::Diagnostic;
use crate::syntax::{Lexer, Variables};

/// A Dockerfile should build with no arguments given: the defaults of its global ARGs should make names of images.
///
/// Bad:
/// ```text
/// ARG TAG
/// FROM busybox:${TAG}
/// ```
/// Good:
/// ```text
/// ARG TAG=latest
/// FROM busybox:${TAG}
/// ```
pub(super) const RULE: Rule = Rule::new(
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name",
);

/// `defaults` are the arguments as they are when none is given.
pub(crate) fn check(stages: &[Stage], lexer: Lexer, defaults: &dyn Variables) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for stage in stages {
        let word = &stage.from.base;
        let Ok(name) = lexer.word(&word.text, defaults) else { return found };
        // A layout is told from an image by its prefix.
        if name.starts_with("oci-layout://") || name.parse::<Reference>().is_ok() {
            continue;
        }
        let text = &word.text;
        let message = format!("Default value for ARG {text} results in empty or invalid base image name");
        found.push(RULE.at(word.span, message));
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found_with;

    #[test]
    fn defaults_make_a_name() {
        let options = || {
            let build_args = [("TAG".to_owned(), "1".to_owned())].into();
            crate::Options { build_args, ..crate::Options::default() }
        };
        let expected = "InvalidDefaultArgInFrom 2 Default value for ARG x:$TAG results in empty or invalid base image name";
        assert_eq!(found_with("ARG TAG\nFROM x:$TAG\n", options()), [expected]);
        assert!(found_with("ARG TAG=2\nFROM x:$TAG\n", options()).is_empty());
        assert!(found_with("ARG TAG\nFROM x:${TAG:-2}\n", options()).is_empty());
    }
}
