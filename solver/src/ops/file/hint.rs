//! What may explain a missing source: the ignore line that hides it, or a name that is almost the same.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use boxwright_cache::Cancel;
use boxwright_cache::fs::pattern::Matcher;
use boxwright_cache::snapshot::tree::Kind;

use super::error::Hints;
use super::resolve::shown;
use super::source::Source;

/// More suggestions than this help nobody.
const MAX_SIMILAR: usize = 3;

/// Never fails: a hint that can't be had is not given. `place` is what the source is called, if it is no directory of
/// the host.
pub(super) fn hints(source: &Source, place: &str, path: &Path, cancel: &Cancel) -> Hints {
    let (place, ignored_by) = match source {
        Source::Host(context, dir) => {
            let there = context.stat(path).is_ok_and(|found| found.is_some());
            let line = if there { deciding_line(&dir.ignore, path) } else { None };
            (format!("the build context, {}", dir.path.display()), line)
        }
        Source::Snapshot(_) => (place.to_owned(), None),
    };
    let leads_to = if ignored_by.is_some() { None } else { target(source, path) };
    let explained = ignored_by.is_some() || leads_to.is_some();
    let similar = if explained { Vec::new() } else { similar(source, path, cancel) };
    Hints { place: Some(place).filter(|place| !place.is_empty()), leads_to, ignored_by, similar }
}

/// The target of the link at `path`.
fn target(source: &Source, path: &Path) -> Option<String> {
    let kind = match source {
        Source::Host(context, _) => context.stat(path).ok()??.kind,
        Source::Snapshot(tree) => tree.lookup(path, false).ok()??.kind,
    };
    match kind {
        Kind::Symlink(target) => Some(target.display().to_string()),
        _ => None,
    }
}

/// The last line that turned the answer to "ignored".
fn deciding_line(lines: &[String], path: &Path) -> Option<String> {
    let ignored = |count: usize| Matcher::new(&lines[..count]).is_ok_and(|m| m.matches_or_parent(path));
    if !ignored(lines.len()) {
        return None;
    }
    (1..=lines.len()).rev().find(|n| ignored(*n) && !ignored(n - 1)).map(|n| lines[n - 1].clone())
}

/// Names like the first one that is missing in `path`; with what follows it, where that is there.
fn similar(source: &Source, path: &Path, cancel: &Cancel) -> Vec<String> {
    let names: Vec<&OsStr> = path.iter().collect();
    let is_there = |path: &Path| source.has(path, cancel).unwrap_or(false);
    let known = (1..=names.len()).take_while(|n| is_there(&names[..*n].iter().collect::<PathBuf>())).count();
    let parent: PathBuf = names[..known].iter().collect();
    let Some(wanted) = names.get(known).and_then(|name| name.to_str()) else { return Vec::new() };
    let rest: PathBuf = names[known + 1..].iter().collect();
    let near = |name: String| {
        let found = parent.join(&name);
        let whole = found.join(&rest);
        let best = if rest.as_os_str().is_empty() || !is_there(&whole) { found } else { whole };
        Some((distance(wanted, &name)?, shown(&best)))
    };
    let mut near: Vec<(usize, String)> =
        names_in(source, &parent, cancel).into_iter().filter_map(near).collect();
    near.sort_unstable();
    near.into_iter().take(MAX_SIMILAR).map(|(_, path)| path).collect()
}

/// What the build sees in a directory. Names that are no text are nobody's slip.
fn names_in(source: &Source, dir: &Path, cancel: &Cancel) -> Vec<String> {
    match (source, dir.to_str()) {
        (Source::Snapshot(tree), _) => {
            let entries = tree.readdir(dir).unwrap_or_default();
            entries.into_iter().filter_map(|entry| entry.name.into_string().ok()).collect()
        }
        (Source::Host(context, _), Some(dir)) => {
            let found = context.resolve(&format!("{dir}/*"), cancel).unwrap_or_default();
            found.iter().filter_map(|m| Some(m.path.file_name()?.to_str()?.to_owned())).collect()
        }
        _ => Vec::new(),
    }
}

/// How many letters must change (case does not count), if they are few enough for a slip of the hand.
fn distance(wanted: &str, name: &str) -> Option<usize> {
    let letters = |text: &str| text.to_lowercase().chars().collect::<Vec<char>>();
    let (a, b) = (letters(wanted), letters(name));
    let limit = if a.len() <= 3 { 1 } else { 2 };
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    Some(row[b.len()]).filter(|d| *d <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slips_are_similar() {
        assert_eq!(distance("Readme.md", "README.md"), Some(0));
        assert_eq!(distance("requirments.txt", "requirements.txt"), Some(1));
        assert_eq!(distance("main.c", "main.rs"), Some(2));
        assert_eq!(distance("src", "lib"), None);
        assert_eq!(distance("a", "abcdef"), None);
    }

    #[test]
    fn the_line_that_decides_is_the_last_that_hides() {
        let lines: Vec<String> = ["*.log", "build", "!build/keep", "build/keep/x"].map(String::from).to_vec();
        assert_eq!(deciding_line(&lines, Path::new("a.log")).as_deref(), Some("*.log"));
        assert_eq!(deciding_line(&lines, Path::new("build/a")).as_deref(), Some("build"));
        assert_eq!(deciding_line(&lines, Path::new("build/keep/x")).as_deref(), Some("build/keep/x"));
        assert_eq!(deciding_line(&lines, Path::new("build/keep/y")), None);
    }
}
