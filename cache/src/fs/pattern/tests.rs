//! Globs and lists of patterns.

use super::*;

fn glob(pattern: &str, name: &str) -> bool {
    Glob::new(pattern).unwrap().matches(name)
}

fn ignored(patterns: &[&str], path: &str) -> bool {
    Matcher::new(patterns).unwrap().matches_or_parent(path)
}

#[test]
fn globs_match_within_one_component() {
    for (pattern, name) in [
        ("*.rs", "lib.rs"),
        ("a?c", "aßc"),
        ("[^x]*", "abc"),
        (r"\*", "*"),
        ("a/*/c", "a/b/c"),
        ("*", ""),
        ("[a-c][0-9]", "b7"),
        ("**", "ab"),
        ("", ""),
    ] {
        assert!(glob(pattern, name), "{pattern} {name}");
    }
    for (pattern, name) in [
        ("*.rs", "src/lib.rs"),
        ("?", "/"),
        ("a*", "ba"),
        ("[z-a]", "m"),
        ("**", "a/b"),
        ("a", ""),
        ("*x", "xy"),
    ] {
        assert!(!glob(pattern, name), "{pattern} {name}");
    }
    for bad in ["[", "[]", "[a", "[a-", r"\", "[-]", "x[^"] {
        assert!(Glob::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn bytes_that_are_no_text_are_characters() {
    use std::os::unix::ffi::OsStrExt;
    let name = Path::new(std::ffi::OsStr::from_bytes(b"a\xffb"));
    for pattern in ["a?b", "a*", "a[^x]b"] {
        assert!(Glob::new(pattern).unwrap().matches(name), "{pattern}");
    }
    assert!(!Glob::new("a??b").unwrap().matches(name));
}

#[test]
fn patterns_take_no_exponential_time() {
    let pattern = "a*".repeat(50) + "b";
    assert!(!glob(&pattern, &"a".repeat(4000)));
    let pattern = "**/a".repeat(50) + "/b";
    assert!(!ignored(&[&pattern], &"a/".repeat(100)));
}

#[test]
fn the_last_match_decides() {
    assert!(ignored(&["*.md"], "README.md"));
    assert!(!ignored(&["*.md", "!README.md"], "README.md"));
    assert!(ignored(&["*.md", "!README*.md", "README-secret.md"], "README-secret.md"));
    assert!(ignored(&["!README.md", "*.md"], "README.md"));
    assert!(ignored(&["node_modules"], "node_modules/a/b"), "a parent's match counts");
    assert!(!ignored(&["*", "!src"], "src/main.rs"));
    assert!(ignored(&["**/*.o"], "a/b/c.o") && ignored(&["**/*.o"], "c.o"));
    assert!(!ignored(&["*.o"], "a/c.o"));
    assert!(!ignored(&[], "a"));
    assert!(ignored(&["", "  a/./b/../c/ "], "a/c"), "patterns are cleaned");
}

#[test]
fn malformed_patterns_are_named() {
    for bad in ["!", "[", "[z-a]", r"x\"] {
        let error = Matcher::new([bad]).unwrap_err().to_string();
        assert!(error.contains(&format!("{bad:?}")), "{error}");
    }
}

#[test]
fn knowing_the_parent_gives_the_same_answer() {
    let lists: [&[&str]; 5] =
        [&["*", "!a"], &["a", "!a/b/c"], &["**/x", "!a/x/keep"], &["!a", "**", "!**/y"], &["a/**", "!a/b"]];
    for list in lists {
        let matcher = Matcher::new(list).unwrap();
        for path in ["a", "a/b", "a/b/c", "a/b/c/d", "x", "x/y", "a/x", "a/x/keep", "q/y/z"] {
            let mut parent = None;
            let mut matched = false;
            for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
                let (now, below) = matcher.matches_below(&path[..at], parent.as_ref());
                (matched, parent) = (now, Some(below));
            }
            assert_eq!(matched, matcher.matches_or_parent(path), "{list:?} {path}");
        }
    }
}

#[test]
fn directories_without_exceptions_need_no_visit() {
    let matcher = Matcher::new(["**", "!src/lib", "!docs/*.md"]).unwrap();
    for dir in ["src", "src/lib", "src/lib/deep", "docs", "docs/x"] {
        assert!(matcher.may_except_below(dir), "{dir}");
    }
    for dir in ["node_modules", "src/bin", "lib"] {
        assert!(!matcher.may_except_below(dir), "{dir}");
    }
}

/// The published behaviour, as data that is not part of the repository (`BOXWRIGHT_CONFORMANCE`).
mod conformance {
    use super::*;
    use serde_json::Value;

    fn rows(name: &str) -> Option<Vec<Value>> {
        let Some(folder) = std::env::var_os("BOXWRIGHT_CONFORMANCE") else {
            println!("BOXWRIGHT_CONFORMANCE is not set: the conformance data is absent, nothing was checked");
            return None;
        };
        let text = std::fs::read_to_string(Path::new(&folder).join("dockerignore").join(name)).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        Some(document["rows"].as_array().unwrap().clone())
    }

    #[test]
    fn matches() {
        for row in rows("match.json").unwrap_or_default() {
            let patterns: Vec<&str> =
                row["patterns"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
            let matcher = Matcher::new(&patterns);
            if row["expected"] == "error" {
                assert!(matcher.is_err(), "{row}");
                continue;
            }
            let matched = matcher.unwrap().matches_or_parent(row["path"].as_str().unwrap());
            assert_eq!(Value::Bool(matched), row["expected"], "{row}");
        }
    }

    #[test]
    fn patterns_compile() {
        for row in rows("compile.json").unwrap_or_default() {
            assert!(Matcher::new([row["pattern"].as_str().unwrap()]).is_ok(), "{row}");
        }
    }
}
