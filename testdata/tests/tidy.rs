//! What the source tree has to look like: which crate may name which, how long a file may be, where
//! unsafe code lives. Each rule reads the files as text, so it also holds for code that cfg leaves out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each package and the packages of ours that it may depend on outside of its tests.
const ARROWS: &[(&str, &[&str])] = &[
    ("boxwright-cache", &[]),
    ("boxwright-solver", &["boxwright-cache"]),
    ("boxwright-frontend", &["boxwright-solver", "boxwright-cache"]),
    ("boxwright-executor", &["boxwright-solver", "boxwright-cache"]),
    ("boxwright-cli", &["boxwright-frontend", "boxwright-solver", "boxwright-executor", "boxwright-cache"]),
    ("boxwright-testdata", &[]),
    ("boxwright-fuzz", &["boxwright-frontend", "boxwright-solver", "boxwright-cache"]),
];

/// What the frontend may name of the cache crate: digests and OCI documents, never storage.
const FRONTEND_MAY_USE: &[&str] = &["digest", "oci", "Digest", "DiffId", "ChainId", "ContentDigest"];

const MOST_LINES: usize = 600;

struct Source {
    /// Relative to the root of the repository.
    path: PathBuf,
    text: String,
}

impl Source {
    fn is_below(&self, dir: &str) -> bool {
        self.path.starts_with(dir)
    }

    /// The lines without their comments, with their numbers. A `//` inside of a string ends the line too;
    /// that loses a little text and never invents any.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(n, l)| (n + 1, l.split("//").next().unwrap_or_default()))
    }
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the testdata crate lies in the workspace").to_owned()
}

/// Every text file of the repository but this one, which names what it forbids. Build output and version
/// control are left out.
fn files() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() && !matches!(entry.file_name().to_str(), Some("target" | ".git")) {
                open.push(path);
            } else if kind.is_file()
                && entry.file_name() != ".git"
                && let Ok(text) = fs::read_to_string(&path)
            {
                found.push(Source { path: path.strip_prefix(&root).unwrap().to_owned(), text });
            }
        }
    }
    found.retain(|f| !f.path.ends_with(file!()));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 30, "only {} files below {}", found.len(), root.display());
    found
}

fn rust() -> Vec<Source> {
    files().into_iter().filter(|f| f.path.extension().is_some_and(|e| e == "rs")).collect()
}

#[track_caller]
fn assert_none(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

/// Lines on which one of `words` stands as a whole word, outside of comments.
fn lines_with(files: &[Source], words: &[&str]) -> Vec<String> {
    let mut hits = Vec::new();
    for file in files {
        for (number, line) in file.code() {
            if words.iter().any(|w| has_word(line, w)) {
                hits.push(format!("{}:{number}: {}", file.path.display(), line.trim()));
            }
        }
    }
    hits
}

fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(part_of_name) && !line[at + word.len()..].starts_with(part_of_name)
    })
}

#[test]
fn manifests_follow_the_arrows() {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some((_, allowed)) = ARROWS.iter().find(|(n, _)| *n == name) else {
            wrong.push(format!("{name} is not in the table of crates"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            let in_tests = dependency["kind"] == "dev";
            if to.starts_with("boxwright-")
                && !allowed.contains(&to)
                && !(in_tests && to == "boxwright-testdata")
            {
                wrong.push(format!("{name} depends on {to}"));
            }
        }
    }
    assert_none("crates depend in one direction", &wrong);
    assert_eq!(packages.len(), ARROWS.len(), "a crate is missing from the workspace");
}

#[test]
fn sources_follow_the_arrows() {
    let mut wrong = Vec::new();
    for file in rust() {
        let Some((name, allowed)) = ARROWS.iter().find(|(n, _)| file.is_below(&n["boxwright-".len()..]))
        else {
            continue;
        };
        for (other, _) in ARROWS {
            let in_tests = *other == "boxwright-testdata" || name == other;
            if allowed.contains(other) || in_tests {
                continue;
            }
            let module = other.replace('-', "_");
            wrong.extend(
                file.code()
                    .filter(|(_, line)| has_word(line, &module))
                    .map(|(number, _)| format!("{}:{number} names {module}", file.path.display())),
            );
        }
    }
    assert_none("crates name each other in one direction", &wrong);
}

#[test]
fn the_frontend_knows_only_the_data_types_of_the_cache() {
    let mut wrong = Vec::new();
    for file in rust().iter().filter(|f| f.is_below("frontend")) {
        let code: String = file.code().flat_map(|(_, line)| [line, "\n"]).collect();
        for (at, found) in code.match_indices("boxwright_cache") {
            for item in first_names(&code[at + found.len()..]) {
                if !FRONTEND_MAY_USE.contains(&item) {
                    wrong.push(format!("{} uses boxwright_cache::{item}", file.path.display()));
                }
            }
        }
    }
    assert_none("the frontend does no I/O", &wrong);
}

/// The first name of each path after a crate's name: `::a::b` gives `a`, `::{a::{b, c}, d}` gives `a` and `d`.
fn first_names(rest: &str) -> Vec<&str> {
    let Some(rest) = rest.strip_prefix("::") else { return Vec::new() };
    let name = |s| -> &str {
        let s: &str = str::trim_start(s);
        &s[..s.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(s.len())]
    };
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
            }
            '}' => {
                names.push(name(&group[start..at]));
                break;
            }
            _ => {}
        }
    }
    names.retain(|n| !n.is_empty());
    names
}

#[test]
fn first_names_of_paths_and_groups() {
    assert_eq!(first_names("::oci::Manifest;"), ["oci"]);
    assert_eq!(first_names("::{Digest, oci::{A, B},\n store};"), ["Digest", "oci", "store"]);
    assert_eq!(first_names(" as cache;"), [""; 0]);
}

#[test]
fn files_are_short() {
    let long: Vec<_> = rust()
        .iter()
        .map(|f| (f.text.lines().count(), f))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .map(|(lines, f)| format!("{}: {lines} lines", f.path.display()))
        .collect();
    assert_none("a file has at most 600 lines", &long);
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<_> = rust()
        .iter()
        .filter(|f| f.text.lines().next().is_none_or(|l| !l.starts_with("//! ") || l.trim().len() < 12))
        .map(|f| f.path.display().to_string())
        .collect();
    assert_none("a Rust file begins with `//!` and what it is", &silent);
}

#[test]
fn unsafe_code_has_one_place() {
    let outside: Vec<_> = rust().into_iter().filter(|f| !f.is_below("executor/src/sys")).collect();
    assert_none("unsafe code lives in executor/src/sys", &lines_with(&outside, &["unsafe"]));
}

#[test]
fn nothing_is_left_for_later() {
    let words = ["todo!", "unimplemented!", "#[ignore"];
    let mut hits = Vec::new();
    for file in rust() {
        for (number, line) in file.code().filter(|(_, l)| words.iter().any(|w| l.contains(w))) {
            hits.push(format!("{}:{number}: {}", file.path.display(), line.trim()));
        }
    }
    assert_none("code is finished and every test runs", &hits);
}

#[test]
fn modules_have_a_subject() {
    let vague: Vec<_> = rust()
        .iter()
        .flat_map(|f| f.path.iter().map(|part| (f, part.to_string_lossy())).collect::<Vec<_>>())
        .filter(|(_, part)| {
            matches!(
                part.trim_end_matches(".rs"),
                "util" | "utils" | "common" | "helper" | "helpers" | "misc"
            )
        })
        .map(|(f, _)| f.path.display().to_string())
        .collect();
    assert_none("a module is named after what it is about", &vague);
}

#[test]
fn no_path_of_one_machine() {
    let here = root();
    let paths = [here.to_str().unwrap(), "/work/", "/root/.cargo", "/root/.rustup"];
    let mut hits = Vec::new();
    for file in files() {
        for (number, line) in file.text.lines().enumerate() {
            if paths.iter().any(|p| line.contains(p)) {
                hits.push(format!("{}:{}: {}", file.path.display(), number + 1, line.trim()));
            }
        }
    }
    assert_none("the tree works on any machine", &hits);
}
