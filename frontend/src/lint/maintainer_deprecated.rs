//! MaintainerDeprecated: MAINTAINER.

use super::Rule;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;

/// MAINTAINER sets a field that few tools read. A label has a standard name and can be inspected and filtered by.
///
/// Bad: `MAINTAINER me@example.org`
///
/// Good: `LABEL org.opencontainers.image.authors="me@example.org"`
pub(super) const RULE: Rule = Rule::new(
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
);

pub(super) fn check(node: &Node) -> Option<Diagnostic> {
    let keyword = &node.keyword;
    keyword.text.eq_ignore_ascii_case("maintainer").then(|| {
        RULE.at(keyword.span, "Maintainer instruction is deprecated in favor of using label")
            .hint("LABEL org.opencontainers.image.authors=\"...\" says the same")
    })
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn a_maintainer_is_found() {
        let expected = "MaintainerDeprecated 2 Maintainer instruction is deprecated in favor of using label";
        assert_eq!(found("FROM a\nMAINTAINER me\n"), [expected]);
        assert!(found("FROM a\nLABEL maintainer=me\n").is_empty());
    }
}
