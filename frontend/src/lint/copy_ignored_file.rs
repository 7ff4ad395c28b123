//! CopyIgnoredFile: COPY of what the ignore file leaves out.

use super::{Rule, Scene};
use crate::ast::Copy;
use crate::diagnostic::Diagnostic;
use crate::ignore::clean_path;
use crate::notation::quote;

/// The ignore file of the build context. The language of its patterns is not the frontend's.
#[derive(Clone, Debug)]
pub struct Ignored {
    /// As [`crate::ignore::parse`] gives them.
    pub patterns: Vec<String>,
    /// Whether one of the patterns matches the path or a directory above it.
    pub matches: fn(&[String], &str) -> bool,
}

/// What the ignore file leaves out is not in the build context: the build will say that it does not exist. Where an
/// exception (`!`) may let something in at the path or below it, nothing is said.
///
/// Bad, with `tmp` in `.dockerignore`: `COPY tmp/hello /`
///
/// Good: `COPY hello /`
pub(super) const RULE: Rule = Rule::new(
    "CopyIgnoredFile",
    "copy-ignored-file",
    "Attempting to Copy file that is excluded by .dockerignore",
);

pub(super) fn check(keyword: &str, copy: &Copy, scene: &Scene<'_>) -> Vec<Diagnostic> {
    let Some(ignored) = scene.ignored else { return Vec::new() };
    let found = copy.sources.iter().filter_map(|word| {
        let text = scene.text(word);
        let remote = ["http://", "https://", "git://", "git@", "ssh://"];
        if remote.iter().any(|prefix| text.starts_with(prefix)) {
            return None;
        }
        let path = clean_path(&text);
        let message = || {
            let path = quote(&path);
            format!("Attempting to {keyword} file {path} that is excluded by .dockerignore")
        };
        (ignored.leaves_out(&path) && !ignored.may_let_in(&path)).then(|| RULE.at(word.span, message()))
    });
    found.collect()
}

impl Ignored {
    /// Whether an exception matches the path or something below it. What wildcards let in can't be told without
    /// looking at the files: they may match wherever the names before them lead.
    fn may_let_in(&self, path: &str) -> bool {
        let path = path.trim_start_matches('/');
        let anything = path.is_empty() || path == "." || is_wild(path);
        let mut exceptions = self.patterns.iter().filter_map(|pattern| pattern.strip_prefix('!'));
        exceptions.any(|exception| {
            let names = || exception.trim_start_matches('/').split('/');
            let plain = names().take_while(|name| !is_wild(name));
            let same = plain.zip(path.split('/')).all(|(name, part)| unescaped(name) == part);
            let deep_enough = names().any(is_wild) || names().count() >= path.split('/').count();
            anything || same && deep_enough
        })
    }

    /// The root of the context is left out only by patterns that leave out all that is in it.
    fn leaves_out(&self, path: &str) -> bool {
        let everything = || self.patterns.iter().any(|p| ["*", "**", "**/*"].contains(&p.as_str()));
        let root = [".", "/"].contains(&path);
        (!root || everything()) && (self.matches)(&self.patterns, path)
    }
}

fn is_wild(name: &str) -> bool {
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => _ = chars.next(),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// A name of a pattern without wildcards.
fn unescaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::tests::found_with;

    fn with(patterns: &[&str], text: &str) -> Vec<String> {
        let patterns = patterns.iter().map(|p| (*p).to_owned()).collect();
        let matches = |patterns: &[String], path: &str| {
            patterns.iter().any(|p| p == "*" || path.starts_with(p.as_str()))
        };
        let ignored = Some(Ignored { patterns, matches });
        found_with(text, crate::Options { ignored, ..crate::Options::default() })
    }

    #[test]
    fn what_is_left_out_is_found() {
        let expected =
            "CopyIgnoredFile 2 Attempting to Copy file \"tmp/x\" that is excluded by .dockerignore";
        assert_eq!(with(&["tmp"], "FROM a\nCOPY ok ./tmp//x /\n"), [expected]);
        assert!(with(&["tmp"], "FROM a\nADD tmp /\n")[0].contains("Attempting to Add file \"tmp\""));
    }

    #[test]
    fn what_may_be_there_is_not() {
        assert!(with(&["tmp", "!tmp/x"], "FROM a\nCOPY tmp /\n").is_empty());
        assert!(with(&["tmp"], "FROM a AS b\nFROM a\nCOPY --from=b tmp /\n").is_empty());
        assert!(with(&["."], "FROM a\nCOPY . /\n").is_empty());
        assert_eq!(with(&["*"], "FROM a\nCOPY . /\n").len(), 1);
    }
    #[test]
    fn an_exception_elsewhere_lets_nothing_in() {
        for exception in ["!sub/b.txt", "!other.txt", "!none/x", "!sub/a.txt.md", "!other/?.txt"] {
            assert_eq!(with(&["sub", exception], "FROM a\nCOPY sub/a.txt /\n").len(), 1, "{exception}");
        }
        assert_eq!(with(&["!sub/b.txt", "sub"], "FROM a\nCOPY sub/a.txt /\n").len(), 1);
        for (exception, source) in [
            ("!sub/a.txt", "sub"),
            ("!sub/a.txt", "sub/*.txt"),
            ("!sub/a.txt", "/"),
            ("!sub/*", "sub/a.txt"),
            ("!**/a.txt", "sub/a.txt"),
            ("!s\\\\ub/a", "sub"),
        ] {
            let text = format!("FROM a\nCOPY {source} /\n");
            let exception = exception.replace("\\\\", "\\");
            assert!(with(&["*", "sub", &exception], &text).is_empty(), "{exception} {source}");
        }
    }
}
