//! Parser directives: `# escape=`, `# syntax=`, `# check=` before anything else in the file.

use crate::ast::{Directive, Dockerfile};
use crate::diagnostic::Diagnostic;
use crate::source::LineIndex;

const NAMES: [&str; 3] = ["check", "escape", "syntax"];
const OURS: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// The directives found so far.
#[derive(Debug)]
pub(super) struct Directives {
    pub(super) found: Vec<Directive>,
    /// Below a `#!` line, where only what is not about reading the lines counts.
    pub(super) below_shebang: Vec<Directive>,
    escape: char,
    begun: bool,
    shebang: bool,
    done: bool,
}

impl Default for Directives {
    fn default() -> Directives {
        Directives {
            found: Vec::new(),
            below_shebang: Vec::new(),
            escape: '\\',
            begun: false,
            shebang: false,
            done: false,
        }
    }
}

impl Directives {
    pub(super) fn escape(&self) -> char {
        self.escape
    }

    /// Looks at a line (trimmed on its left). True when it is a directive; the first that is none ends them all.
    pub(super) fn line(
        &mut self,
        line: &str,
        at: usize,
        lines: &LineIndex,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> bool {
        if self.done {
            return false;
        }
        if !std::mem::replace(&mut self.begun, true) && line.starts_with("#!") {
            self.shebang = true;
            return false;
        }
        let Some((name, value)) = split(line, "#") else {
            self.done = true;
            return false;
        };
        let name = name.to_ascii_lowercase();
        if !NAMES.contains(&name.as_str()) {
            return false;
        }
        let span = lines.span(at..at + line.trim_end().len());
        if self.shebang {
            self.below_shebang(Directive { name, value: value.to_owned(), span });
            return false;
        }
        if self.found.iter().any(|d| d.name == name) {
            let message = format!("only one {name} parser directive can be used");
            diagnostics.push(Diagnostic::error(message, span));
        } else if name == "escape" {
            match value {
                "\\" => self.escape = '\\',
                "`" => self.escape = '`',
                _ => {
                    let message = format!("invalid escape token '{value}' does not match ` or \\");
                    diagnostics.push(Diagnostic::error(message, span));
                }
            }
        }
        self.found.push(Directive { name, value: value.to_owned(), span });
        true
    }

    /// Of two that are the same, none counts.
    fn below_shebang(&mut self, directive: Directive) {
        if self.below_shebang.iter().any(|d| d.name == directive.name) {
            self.below_shebang.clear();
            self.done = true;
        } else if directive.name != "escape" {
            self.below_shebang.push(directive);
        }
    }
}

/// `#name = value`, with `mark` for `#`.
pub(crate) fn split<'a>(line: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let rest = line.strip_prefix(mark)?.trim_start();
    let (name, value) = rest.split_once('=')?;
    let (name, value) = (name.trim_end(), value.trim());
    let mut letters = name.bytes();
    let is_name =
        letters.next().is_some_and(|b| b.is_ascii_alphabetic()) && letters.all(|b| b.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then_some((name, value))
}

/// The image that `# syntax=` names, when it is not the Dockerfile frontend that we stand for: another language.
pub fn syntax_image(dockerfile: &Dockerfile) -> Option<&Directive> {
    let directive = dockerfile.directive("syntax")?;
    let name = directive.value.split_whitespace().next().unwrap_or_default();
    let name =
        name.strip_prefix("docker.io/").or_else(|| name.strip_prefix("index.docker.io/")).unwrap_or(name);
    let repository = name.split(['@', ':']).next().unwrap_or_default();
    (!OURS.contains(&repository)).then_some(directive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn directives_end_at_the_first_other_line() {
        let parsed =
            parse("# ESCAPE = `\n# unknown=1\n#syntax=docker/dockerfile:1\n# plain\n#check=skip=all\nFROM a");
        let names: Vec<&str> = parsed.dockerfile.directives.iter().map(|d| d.name.as_str()).collect();
        assert_eq!((names, parsed.dockerfile.escape), (vec!["escape", "syntax"], '`'));
    }

    #[test]
    fn below_a_shebang_only_the_escape_stays_what_it_is() {
        let parsed = parse("#!/bin/x\n# escape=`\n# check=skip=all\n# syntax=evil\nFROM a\n").dockerfile;
        assert_eq!((parsed.escape, parsed.directives.len()), ('\\', 0));
        assert_eq!(parsed.directive("check").map(|d| (&*d.value, d.span.first_line)), Some(("skip=all", 3)));
        assert!(syntax_image(&parsed).is_some());
        for none in ["#!x\n\n# check=skip=all\nFROM a", "#!x\n# check=skip=all\n# check=skip=a\nFROM a"] {
            assert!(parse(none).dockerfile.directive("check").is_none(), "{none}");
        }
    }

    #[test]
    fn only_the_dockerfile_language_is_ours() {
        let other =
            |value: &str| syntax_image(&parse(format!("# syntax={value}\nFROM a")).dockerfile).is_some();
        for ours in
            ["docker/dockerfile", "docker/dockerfile:1.7-labs", "docker.io/docker/dockerfile@sha256:00"]
        {
            assert!(!other(ours), "{ours}");
        }
        for theirs in ["evil/dockerfile:1", "docker/dockerfile2", "example.com/docker/dockerfile:1"] {
            assert!(other(theirs), "{theirs}");
        }
    }
}
