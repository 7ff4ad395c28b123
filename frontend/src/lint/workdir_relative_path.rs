//! WorkdirRelativePath: a first WORKDIR that is relative.

use super::{Rule, Scene};
use crate::ast::Word;
use crate::diagnostic::Diagnostic;
use crate::notation::quote;

/// A relative path builds on the working directory of the base image, which may change with the next version of it.
/// Once a Dockerfile has set the directory itself, relative paths are fine.
///
/// Bad: `WORKDIR usr/share/nginx`
///
/// Good: `WORKDIR /usr/share/nginx`
pub(super) const RULE: Rule = Rule::new(
    "WorkdirRelativePath",
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
);

pub(super) fn check(path: &Word, scene: &Scene<'_>) -> Option<Diagnostic> {
    let text = scene.text(path);
    if scene.workdir || is_absolute(&text, scene.windows) {
        return None;
    }
    let message =
        format!("Relative workdir {} can have unexpected results if the base image changes", quote(&text));
    Some(RULE.at(path.span, message))
}

fn is_absolute(path: &str, windows: bool) -> bool {
    let drive = |path: &str| path.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    match path.get(1..2) {
        Some(":") if windows && drive(path) => path[2..].starts_with(['/', '\\']),
        _ => path.starts_with('/') || (windows && path.starts_with('\\')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::tests::found;

    #[test]
    fn the_first_path_is_absolute() {
        let expected = "WorkdirRelativePath 2 Relative workdir \"a/\" can have unexpected results if the base image changes";
        assert_eq!(found("FROM x\nWORKDIR a/\nWORKDIR b\n"), [expected]);
        assert!(found("FROM x AS y\nWORKDIR /a\nFROM y\nWORKDIR b\n").is_empty());
        assert!(found("FROM x\nENV root=/r\nWORKDIR $root/b\n").is_empty());
    }

    #[test]
    fn windows_has_drives() {
        assert!(is_absolute("C:\\x", true) && is_absolute("/x", true) && !is_absolute("C:x", true));
        assert!(!is_absolute("C:/x", false));
    }
}
