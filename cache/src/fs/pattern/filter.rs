//! [`Filter`]: what COPY's `--parents` and `--exclude` leave of what lies below a directory. Paths are relative to
//! that directory, and a parent is judged before what is in it.

use std::path::Path;

use super::{Matcher, ParentMatch};
use crate::error::Result;

/// Wants everything if it has no patterns.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Option<Matcher>,
    exclude: Matcher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wanted,
    /// Not wanted itself; if it is a directory, something in it may be.
    Passing,
    Unwanted,
}

/// What was found out about a directory. What is in it needs that.
#[derive(Clone, Debug)]
pub struct Judged {
    include: Option<ParentMatch>,
    exclude: ParentMatch,
}

impl Filter {
    /// With `include`, only what it matches; never what `exclude` matches. Both are patterns of ignore files.
    ///
    /// # Errors
    /// When a pattern is malformed.
    pub fn new(include: Option<&str>, exclude: &[String]) -> Result<Filter> {
        Ok(Filter {
            include: include.map(|pattern| Matcher::new([pattern])).transpose()?,
            exclude: Matcher::new(exclude)?,
        })
    }

    pub fn is_empty(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }

    /// `parent` is none for what lies in the directory itself.
    pub fn judge(&self, path: &Path, parent: Option<&Judged>) -> (Verdict, Judged) {
        let inherited = parent.and_then(|parent| parent.include.as_ref());
        let included = self.include.as_ref().map(|include| (include, include.matches_below(path, inherited)));
        let (excluded, exclude) = self.exclude.matches_below(path, parent.map(|parent| &parent.exclude));
        let is_included = included.as_ref().is_none_or(|(_, (matched, _))| *matched);
        let may_hold = (is_included || included.as_ref().is_some_and(|(m, _)| m.may_match_below(path)))
            && (!excluded || self.exclude.may_except_below(path));
        let verdict = match (is_included && !excluded, may_hold) {
            (true, _) => Verdict::Wanted,
            (false, true) => Verdict::Passing,
            (false, false) => Verdict::Unwanted,
        };
        (verdict, Judged { include: included.map(|(_, (_, below))| below), exclude })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What of `paths` (parents first) is wanted; what is only passed through is in brackets.
    fn wanted(include: Option<&str>, exclude: &[&str], paths: &[&str]) -> Vec<String> {
        let exclude: Vec<String> = exclude.iter().map(|p| (*p).to_owned()).collect();
        let filter = Filter::new(include, &exclude).unwrap();
        let mut judged: std::collections::HashMap<&Path, Judged> = std::collections::HashMap::new();
        let mut shown = Vec::new();
        for path in paths.iter().map(Path::new) {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            if parent.is_some_and(|p| !judged.contains_key(p)) {
                continue;
            }
            let (verdict, below) = filter.judge(path, parent.map(|p| &judged[p]));
            match verdict {
                Verdict::Wanted => shown.push(path.display().to_string()),
                Verdict::Passing => shown.push(format!("({})", path.display())),
                Verdict::Unwanted => continue,
            }
            judged.insert(path, below);
        }
        shown
    }

    const PATHS: &[&str] = &["bar", "bar/baz", "bar/baz/foo3", "bar/foo", "foo2"];

    #[test]
    fn a_filter_without_patterns_wants_everything() {
        assert_eq!(wanted(None, &[], PATHS), PATHS);
        assert!(Filter::default().is_empty());
    }

    #[test]
    fn included_directories_bring_all_that_is_in_them() {
        for (pattern, expected) in [
            ("bar", &["bar", "bar/baz", "bar/baz/foo3", "bar/foo"][..]),
            ("bar/foo", &["(bar)", "bar/foo"]),
            ("bar/*/foo3", &["(bar)", "(bar/baz)", "bar/baz/foo3", "(bar/foo)"]),
            ("**/baz", &["(bar)", "bar/baz", "bar/baz/foo3", "(bar/foo)", "(foo2)"]),
            ("foo*", &["(bar)", "(bar/baz)", "(bar/baz/foo3)", "(bar/foo)", "foo2"]),
            ("nothing", &[]),
            ("", &[]),
        ] {
            assert_eq!(wanted(Some(pattern), &[], PATHS), expected, "{pattern}");
        }
    }

    #[test]
    fn what_is_excluded_is_left_out_unless_an_exception_follows() {
        for (patterns, expected) in [
            (&["bar/baz"][..], &["bar", "bar/foo", "foo2"][..]),
            (&["*"], &[]),
            (&["bar*", "!bar/baz"], &["(bar)", "bar/baz", "bar/baz/foo3", "foo2"]),
            (&["**", "!bar/baz", "bar/baz/foo3"], &["(bar)", "bar/baz", "(bar/baz/foo3)"]),
            (&["!nothing"], PATHS),
        ] {
            assert_eq!(wanted(None, patterns, PATHS), expected, "{patterns:?}");
        }
        assert_eq!(wanted(Some("bar"), &["**/foo3"], PATHS), ["bar", "bar/baz", "bar/foo"]);
        assert!(Filter::new(None, &["[".to_owned()]).is_err());
    }
}
