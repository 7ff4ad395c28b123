//! Any text as an ignore file, with a path after the first NUL that is matched against it.
#![no_main]

use boxwright_cache::fs::pattern::Matcher;
use boxwright_frontend::ignore;

libfuzzer_sys::fuzz_target!(|input: &str| {
    let (lines, path) = input.split_once('\0').unwrap_or((input, "a/b"));
    let lines = ignore::parse(lines.as_bytes());
    let Ok(matcher) = Matcher::new(&lines) else { return };
    let whole = matcher.matches_or_parent(path);
    // The walk of a directory asks step by step, and must be told the same.
    let mut parent = None;
    let mut at = String::new();
    let mut stepwise = false;
    for part in path.split('/') {
        at.push_str(if at.is_empty() { "" } else { "/" });
        at.push_str(part);
        let (ignored, here) = matcher.matches_below(&at, parent.as_ref());
        (stepwise, parent) = (ignored, Some(here));
    }
    if path.split('/').all(|part| !matches!(part, "" | "." | "..")) {
        assert_eq!(whole, stepwise, "{lines:?} {path:?}");
    }
});
