//! What may explain a missing source: the ignore line that hides it, or a name that is almost the same.

use std::path::Path;

use boxwright_cache::Cancel;
use boxwright_cache::fs::pattern::Matcher;

use super::error::Hints;
use super::resolve::shown;
use super::source::Source;

/// More suggestions than this help nobody.
const MAX_SIMILAR: usize = 3;

/// Never fails: a hint that can't be had is not given.
pub(super) fn hints(source: &Source, path: &Path, cancel: &Cancel) -> Hints {
    let ignored_by = match source {
        Source::Host(context, lines) if context.stat(path).is_ok_and(|found| found.is_some()) => {
            deciding_line(lines, path)
        }
        _ => None,
    };
    let similar = if ignored_by.is_some() { Vec::new() } else { similar(source, path, cancel) };
    Hints { ignored_by, similar }
}

/// The last line that turned the answer to "ignored".
fn deciding_line(lines: &[String], path: &Path) -> Option<String> {
    let ignored = |count: usize| Matcher::new(&lines[..count]).is_ok_and(|m| m.matches_or_parent(path));
    if !ignored(lines.len()) {
        return None;
    }
    (1..=lines.len()).rev().find(|n| ignored(*n) && !ignored(n - 1)).map(|n| lines[n - 1].clone())
}

fn similar(source: &Source, path: &Path, cancel: &Cancel) -> Vec<String> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let Some(wanted) = path.file_name().and_then(|n| n.to_str()) else { return Vec::new() };
    let names: Vec<String> = match (source, parent.to_str()) {
        (Source::Snapshot(tree), _) => {
            let entries = tree.readdir(parent).unwrap_or_default();
            entries.into_iter().filter_map(|entry| entry.name.into_string().ok()).collect()
        }
        (Source::Host(context, _), Some(parent)) => {
            let found = context.resolve(&format!("{parent}/*"), cancel).unwrap_or_default();
            found.iter().filter_map(|m| Some(m.path.file_name()?.to_str()?.to_owned())).collect()
        }
        _ => Vec::new(),
    };
    let near = |name: String| Some((distance(wanted, &name)?, shown(&parent.join(name))));
    let mut near: Vec<(usize, String)> = names.into_iter().filter_map(near).collect();
    near.sort_unstable();
    near.into_iter().take(MAX_SIMILAR).map(|(_, path)| path).collect()
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
