//! JSONArgsRecommended: CMD and ENTRYPOINT as a line for the shell.

use super::{Rule, Scene};
use crate::ast::{CommandLine, Instruction};
use crate::diagnostic::Diagnostic;

/// A line for the shell makes the shell the first process of the container. It does not hand signals on: the program
/// sees no Ctrl-C, and `stop` waits and kills. Where SHELL was given, the shell is meant.
///
/// Bad: `CMD my-program start`
///
/// Good: `CMD ["my-program", "start"]`
pub(super) const RULE: Rule = Rule::new(
    "JSONArgsRecommended",
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
);

pub(super) fn check(instruction: &Instruction, line: &CommandLine, scene: &Scene<'_>) -> Option<Diagnostic> {
    if !line.shell || scene.shell {
        return None;
    }
    let keyword = &instruction.keyword;
    let message = format!(
        "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
    );
    Some(RULE.at(instruction.span, message))
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn a_shell_that_nobody_asked_for_is_told() {
        let expected = "JSONArgsRecommended 2 JSON arguments recommended for CMD to prevent unintended behavior related to OS signals";
        assert_eq!(found("FROM x\nCMD a b\n"), [expected]);
        assert!(found("FROM x\nENTRYPOINT [\"a\"]\n").is_empty());
        assert!(found("FROM x AS y\nSHELL [\"sh\"]\nFROM y\nENTRYPOINT a\n").is_empty());
    }
}
