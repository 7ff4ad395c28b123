//! Which checks are heard: `# check=skip=A,B;error=true;experimental=all` at the top of the file or above an
//! instruction, and the build argument that replaces the former.

use std::collections::BTreeMap;

use super::Rule;
use crate::ast::Dockerfile;
use crate::diagnostic::Diagnostic;
use crate::notation::quote;
use crate::syntax::split_directive;
use boxwright_solver::Span;

const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    skipped: Names,
    experimental: Names,
    /// Warnings fail the build.
    pub(super) error: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    All,
    These(Vec<String>),
}

impl Default for Names {
    fn default() -> Names {
        Names::These(Vec::new())
    }
}

impl Names {
    fn parse(text: &str) -> Names {
        match text.trim() {
            "all" => Names::All,
            text => Names::These(text.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Names::All => true,
            Names::These(names) => names.iter().any(|n| n == name),
        }
    }
}

impl Options {
    /// # Errors
    /// Text that says nothing.
    pub(super) fn of(
        dockerfile: &Dockerfile,
        build_args: &BTreeMap<String, String>,
    ) -> Result<Options, Box<Diagnostic>> {
        let fail = |what: &str, reason: String, span: Span| {
            Box::new(Diagnostic::error(format!("failed to parse {what}: {reason}"), span))
        };
        if let Some(text) = build_args.get(ARGUMENT) {
            let what = format!("build-arg:{ARGUMENT}");
            return parse(text).map_err(|reason| fail(&what, reason, Span::default()));
        }
        match dockerfile.directive("check") {
            Some(check) => parse(&check.value).map_err(|reason| fail("check options", reason, check.span)),
            None => Ok(Options::default()),
        }
    }

    /// What the first `check=` among an instruction's comments says. What can't be read says nothing; behind a blank
    /// there may be a remark.
    pub(super) fn of_comments(comments: &[String]) -> Option<Options> {
        let mut checks = comments.iter().filter_map(|comment| {
            let (name, value) = split_directive(comment, "")?;
            name.eq_ignore_ascii_case("check").then_some(value)
        });
        let value = checks.next()?;
        parse(value.split(' ').next().unwrap_or_default()).ok()
    }

    pub(super) fn wants(&self, rule: &Rule) -> bool {
        if rule.experimental { self.experimental.has(rule.name) } else { !self.skipped.has(rule.name) }
    }
}

fn parse(text: &str) -> Result<Options, String> {
    let mut options = Options::default();
    if text.trim().is_empty() {
        return Ok(options);
    }
    for part in text.trim().splitn(3, ';') {
        let Some((name, value)) = part.split_once('=') else {
            return Err(format!("invalid check option {}", quote(part)));
        };
        match name.trim() {
            "skip" => options.skipped = Names::parse(value),
            "experimental" => options.experimental = Names::parse(value),
            "error" => {
                options.error = boolean(value.trim()).ok_or_else(|| {
                    let value = quote(value.trim());
                    let option = quote(part);
                    format!(
                        "failed to parse check option {option}: strconv.ParseBool: parsing {value}: invalid syntax"
                    )
                })?;
            }
            name => return Err(format!("invalid check option {}", quote(name))),
        }
    }
    Ok(options)
}

/// What Go's `strconv.ParseBool` takes.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_or_refused_by_name() {
        let options = parse(" skip = A, B ; error = T ;experimental=all").unwrap();
        assert!(options.error && options.skipped.has("B") && options.experimental.has("x"));
        for (text, reason) in [
            ("skip", "invalid check option \"skip\""),
            ("skipped=a", "invalid check option \"skipped\""),
            ("error=si", "strconv.ParseBool: parsing \"si\": invalid syntax"),
        ] {
            assert!(parse(text).unwrap_err().ends_with(reason), "{text}");
        }
    }

    #[test]
    fn only_the_first_directive_of_an_instruction_counts() {
        let comments = ["note".to_owned(), "check=skip=A // why".to_owned(), "check=skip=B".to_owned()];
        let options = Options::of_comments(&comments).unwrap();
        assert!(options.skipped.has("A") && !options.skipped.has("B"));
        assert_eq!(Options::of_comments(&comments[..1]), None);
    }
}
