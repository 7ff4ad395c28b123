//! Finding and reading the tables, and telling of all rows that fail at once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

/// The folder of the data; none, and said so, where it is absent.
#[expect(clippy::print_stdout, reason = "a test tells why it compared nothing")]
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("BOXWRIGHT_CONFORMANCE").map(PathBuf::from);
    if folder.is_none() {
        println!("conformance data is absent: BOXWRIGHT_CONFORMANCE is not set");
    }
    folder
}

pub(crate) fn table(path: &str) -> Option<Value> {
    let path = folder()?.join(path);
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Some(serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

/// The `rows` of a table; none where the data is absent.
pub(crate) fn rows(path: &str) -> Option<Vec<Value>> {
    let rows = table(path)?["rows"].as_array().unwrap_or_else(|| panic!("{path} has no rows")).clone();
    assert!(!rows.is_empty(), "{path} is empty");
    Some(rows)
}

/// What went wrong, by row.
#[derive(Debug, Default)]
pub(crate) struct Mismatches {
    found: Vec<(String, String)>,
    checked: usize,
}

impl Mismatches {
    pub(crate) fn check<T: PartialEq + std::fmt::Debug>(
        &mut self,
        row: &str,
        what: &str,
        ours: T,
        expected: T,
    ) {
        self.checked += 1;
        if ours != expected {
            self.found
                .push((row.to_owned(), format!("{what}\n      ours: {ours:?}\n  expected: {expected:?}")));
        }
    }

    /// Fails on a row that is not among `known` (name, reason), and on a known one that does not differ.
    pub(crate) fn finish(self, known: &[(&str, &str)]) {
        assert!(self.checked > 0, "nothing was compared");
        let failed: BTreeSet<&str> = self.found.iter().map(|(row, _)| row.as_str()).collect();
        let listed: BTreeSet<&str> = known.iter().map(|(row, _)| *row).collect();
        let text: String = self
            .found
            .iter()
            .filter(|(row, _)| !listed.contains(row.as_str()))
            .map(|(row, text)| format!("{row}: {text}\n"))
            .collect();
        let stale: Vec<_> = listed.difference(&failed).collect();
        assert!(text.is_empty() && stale.is_empty(), "{text}\nlisted, but no different: {stale:?}");
    }
}
