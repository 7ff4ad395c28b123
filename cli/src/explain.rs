//! Why a step ran or did not, in words.

use boxwright_cache::record::FileChanges;
use boxwright_cache::record::selections::Paths;
use boxwright_solver::Ballast;
use boxwright_solver::why::{Change, Why};

use crate::format::size;

/// How much of a value is shown.
const WIDTH: usize = 60;

/// The first line says it; what follows are details, if there are several.
pub(crate) fn lines(why: &Why) -> Vec<String> {
    match why {
        Why::Given => vec!["nothing had to be done".to_owned()],
        Why::Cached { build: Some(build) } => vec![format!("cached: nothing changed since build {build}")],
        Why::Cached { build: None } => vec!["cached: nothing changed".to_owned()],
        Why::CachedByContents => {
            vec!["cached: what it stands on was made again, and is what it was".to_owned()]
        }
        Why::Imported { from } => vec![format!("cached: imported from {from}")],
        Why::Forced => vec!["runs: --no-cache".to_owned()],
        Why::Evicted { build } => vec![format!("runs: the result of build {build} was removed since")],
        Why::Inputs { steps } => vec![format!("runs: {} gave something else", listed(steps))],
        Why::New => vec!["runs: never built before".to_owned()],
        Why::Unreached => vec!["the build ended before".to_owned()],
        Why::Changed { changes, .. } => match &changes[..] {
            [] => vec!["runs: something changed".to_owned()],
            [change] => vec![format!("runs: {}", change_in_words(change))],
            several => {
                let first = format!("runs: {} things changed", several.len());
                std::iter::once(first)
                    .chain(several.iter().map(|c| format!("  {}", change_in_words(c))))
                    .collect()
            }
        },
    }
}

fn change_in_words(change: &Change) -> String {
    match change {
        Change::Step { step, .. } => format!("{step} changed"),
        Change::Files { files } => files_in_words(files),
        Change::Field { field, before, after } => {
            let what = field_in_words(field);
            match (before, after) {
                (Some(before), Some(after)) if is_digest(before) && is_digest(after) => {
                    format!("{what} changed")
                }
                (Some(before), Some(after)) => format!("{what} was {}, is {}", shown(before), shown(after)),
                (None, Some(after)) => format!("{what} is new: {}", shown(after)),
                (Some(before), None) => format!("{what} is gone, was {}", shown(before)),
                (None, None) => format!("{what} changed"),
            }
        }
    }
}

/// What makes a context large, and how to leave it out.
pub(crate) fn ballast(ballast: &Ballast) -> String {
    let Ballast { name, files, bytes, total } = ballast;
    let plural = if *files == 1 { "" } else { "s" };
    let (bytes, total) = (size(*bytes), size(*total));
    format!(
        "{bytes} of the {total} that are read lie in {name} ({files} file{plural}): **/{name} in .dockerignore leaves them out"
    )
}

fn files_in_words(files: &FileChanges) -> String {
    let FileChanges { changed, added, removed } = files;
    let kinds = [(changed, "changed"), (added, "added"), (removed, "removed")];
    let said: Vec<String> = kinds
        .iter()
        .filter(|(paths, _)| paths.count > 0)
        .map(|(paths, how)| format!("{} {how}", paths_in_words(paths)))
        .collect();
    if said.is_empty() { "files changed".to_owned() } else { said.join(", ") }
}

fn paths_in_words(paths: &Paths) -> String {
    let named = 3;
    let first: Vec<&str> = paths.first.iter().take(named).map(String::as_str).collect();
    match paths.count.saturating_sub(first.len()) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// What a field of a key is to somebody who wrote a Dockerfile.
fn field_in_words(field: &str) -> String {
    if let Some(variable) = field.strip_prefix("env.") {
        return format!("variable {variable}");
    }
    let name = field.rsplit_once('.').filter(|(rest, _)| rest.chars().all(|c| c.is_ascii_digit()));
    match name.map_or(field, |(_, name)| name) {
        "args" => "the command".to_owned(),
        "cwd" => "the working directory".to_owned(),
        "hosts" => "--add-host".to_owned(),
        "root" | "base" => "what it stands on".to_owned(),
        "chain" => "the base image".to_owned(),
        "from" => "what it copies from".to_owned(),
        "copy" => "the source".to_owned(),
        "dest" | "mkdir" | "mkfile" => "the destination".to_owned(),
        "data" => "the text".to_owned(),
        "selection" => "the files read".to_owned(),
        other => other.to_owned(),
    }
}

fn is_digest(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A list as its last element (`/bin/sh -c` says nothing), on one line, shortened.
fn shown(value: &str) -> String {
    let list: Option<Vec<String>> = serde_json::from_str(value).ok();
    let text = match list.as_deref() {
        Some([.., last]) => last.clone(),
        _ => value.to_owned(),
    };
    let text = format!("{text:?}");
    if text.chars().count() <= WIDTH { text } else { text.chars().take(WIDTH).chain(['…']).collect() }
}

fn listed(steps: &[String]) -> String {
    steps.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: Vec<Change>) -> Vec<String> {
        lines(&Why::Changed { build: "b".into(), step: "s".into(), changes })
    }

    fn field(field: &str, before: Option<&str>, after: Option<&str>) -> Change {
        let owned = |value: Option<&str>| value.map(str::to_owned);
        Change::Field { field: field.into(), before: owned(before), after: owned(after) }
    }

    #[test]
    fn a_change_is_told_in_the_words_of_dockerfiles() {
        let hex = "ab".repeat(32);
        for (change, words) in [
            (
                field("args", Some(r#"["/bin/sh","-c","a"]"#), Some(r#"["/bin/sh","-c","b\n"]"#)),
                r#"the command was "a", is "b\n""#,
            ),
            (field("env.A", None, Some("1")), r#"variable A is new: "1""#),
            (field("0.dest", Some("/a"), None), r#"the destination is gone, was "/a""#),
            (field("chain", Some(&hex), Some(&"cd".repeat(32))), "the base image changed"),
            (Change::Step { field: "root".into(), step: "[1/2] FROM x".into() }, "[1/2] FROM x changed"),
        ] {
            assert_eq!(changed(vec![change]), [format!("runs: {words}")]);
        }
        let two = vec![field("cwd", Some("/a"), Some("/b")), field("user", Some(""), Some("u"))];
        assert_eq!(
            changed(two),
            [
                "runs: 2 things changed",
                r#"  the working directory was "/a", is "/b""#,
                r#"  user was "", is "u""#
            ]
        );
    }

    #[test]
    fn files_are_named_and_counted() {
        let paths =
            |count, first: &[&str]| Paths { count, first: first.iter().map(|p| (*p).to_owned()).collect() };
        let files = FileChanges {
            changed: paths(12, &["a", "b", "c", "d"]),
            added: paths(1, &["x"]),
            ..FileChanges::default()
        };
        assert_eq!(changed(vec![Change::Files { files }]), ["runs: a, b, c and 9 more changed, x added"]);
    }
}
