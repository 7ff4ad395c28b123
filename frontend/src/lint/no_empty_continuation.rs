//! NoEmptyContinuation: empty lines within a continued instruction.

use super::Rule;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;

/// An empty line among continuation lines is skipped today, and announced to end the instruction one day. It mostly
/// comes from a line that was deleted by half.
///
/// Bad:
/// ```text
/// RUN make \\
///
///     install
/// ```
/// Good (a comment may stand there):
/// ```text
/// RUN make \\
/// # with its manual
///     install
/// ```
pub(super) const RULE: Rule = Rule::new(
    "NoEmptyContinuation",
    "no-empty-continuation",
    "Empty continuation lines will become errors in a future release",
);

/// The place is the instruction's last line, as BuildKit has it.
pub(super) fn check(node: &Node) -> Option<Diagnostic> {
    let last = node.empty_continuation?;
    Some(Diagnostic { instruction: Some(last), ..RULE.at(last, "Empty continuation line") })
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn an_empty_line_is_found_and_a_comment_is_not() {
        assert_eq!(found("FROM a\nRUN x \\\n\n  y\n"), ["NoEmptyContinuation 4 Empty continuation line"]);
        assert!(found("FROM a\nRUN x \\\n# c\n  y\n").is_empty());
    }
}
