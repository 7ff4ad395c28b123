//! MultipleInstructionsDisallowed: two CMDs in one stage.

use super::{Earlier, Rule};
use crate::ast::{Instruction, Kind};
use crate::diagnostic::Diagnostic;

/// Of CMD, ENTRYPOINT and HEALTHCHECK only the last one of a stage counts. Those before it are told, for they are the
/// ones without effect.
///
/// Bad:
/// ```text
/// CMD ["one"]
/// CMD ["two"]
/// ```
/// Good: `CMD ["two"]`
pub(super) const RULE: Rule = Rule::new(
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage",
);

pub(super) fn check(instruction: &Instruction, earlier: &mut Earlier) -> Option<Diagnostic> {
    let kind = match instruction.kind {
        Kind::Cmd(_) => "CMD",
        Kind::Entrypoint(_) => "ENTRYPOINT",
        _ => "HEALTHCHECK",
    };
    let before = earlier.latest.insert(kind, instruction.span)?;
    let keyword = &instruction.keyword;
    let message = format!(
        "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
    );
    Some(RULE.at(before, message))
}

#[cfg(test)]
mod tests {
    use crate::lint::tests::found;

    #[test]
    fn the_earlier_one_is_told() {
        let expected = "MultipleInstructionsDisallowed 2 Multiple CMD instructions should not be used in the same stage because only the last one will be used";
        assert_eq!(found("FROM x\nCMD [\"a\"]\nCMD [\"b\"]\n"), [expected]);
        assert!(found("FROM x\nHEALTHCHECK CMD a\nCMD [\"b\"]\n").is_empty());
        assert!(found("FROM x AS y\nCMD [\"a\"]\nFROM y\nCMD [\"b\"]\n").is_empty());
    }
}
