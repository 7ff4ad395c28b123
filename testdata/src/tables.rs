//! Tables that say which test shows what: whether the tests that they name are there.

use std::fs;
use std::path::Path;

/// Whether `FILE::NAME` is a test; `by_both` is one for root and one for a user.
pub fn is_test(test: &str, by_both: bool) -> bool {
    let Some((file, name)) = test.split_once("::") else { return false };
    let Some(root) = Path::new(env!("CARGO_MANIFEST_DIR")).parent() else { return false };
    let Ok(text) = fs::read_to_string(root.join(file)) else { return false };
    let alone = |line: &str| line.trim().starts_with(&format!("fn {name}("));
    let marked =
        text.lines().zip(text.lines().skip(1)).any(|(above, line)| above.trim() == "#[test]" && alone(line));
    let listed = text
        .split_once("by_both!(")
        .and_then(|(_, rest)| rest.split_once(");"))
        .is_some_and(|(list, _)| list.split(',').any(|listed| listed.trim() == name))
        && text.lines().any(alone);
    listed || marked && !by_both
}
