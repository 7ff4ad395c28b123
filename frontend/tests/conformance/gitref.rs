//! `gitref/*.json`: which words name git repositories, how they are taken apart and written in the short form.

use boxwright_frontend::gitref::{GitRef, Mtime};
use serde_json::{Map, Value};

use super::tables::{Mismatches, rows};

/// As the table has it: only what is not empty.
fn fields(found: &GitRef) -> Value {
    let mut map = Map::new();
    let mut text = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            map.insert(name.to_owned(), value.into());
        }
    };
    text("Remote", Some(&found.remote));
    text("ShortName", Some(found.short_name()));
    text("Ref", found.reference.as_deref());
    text("Checksum", found.checksum.as_deref());
    text("SubDir", found.subdir.as_deref());
    text("MTime", found.mtime.map(|m| if m == Mtime::Commit { "commit" } else { "checkout" }));
    let switches = [
        ("IndistinguishableFromLocal", found.looks_local),
        ("UnencryptedTCP", found.unencrypted),
        ("FetchByCommit", found.fetch_by_commit),
    ];
    for (name, _) in switches.iter().filter(|(_, on)| *on) {
        map.insert((*name).to_owned(), true.into());
    }
    map.into()
}

#[test]
fn repositories_are_told_and_taken_apart() {
    let Some(rows) = rows("gitref/parse.json") else { return };
    let mut mismatches = Mismatches::default();
    for row in &rows {
        let text = row["ref"].as_str().expect("a text");
        match (GitRef::parse(text), row["err"].as_str()) {
            (Err(message), Some(words)) => mismatches.check(text, "error", message.contains(words), true),
            (Ok(found), None) => {
                let ours = found.as_ref().map_or(Value::Null, fields);
                mismatches.check(text, "parts", ours, row["expected"].clone());
            }
            (ours, words) => mismatches.check(text, "outcome", format!("{ours:?}"), format!("{words:?}")),
        }
    }
    mismatches.finish(&[]);
}

#[test]
fn the_short_form_has_all_in_the_fragment() {
    let Some(rows) = rows("gitref/fragment.json") else { return };
    const TWO: &str = "the table has it twice, with and without the directory";
    let mut mismatches = Mismatches::default();
    for row in &rows {
        let text = row["ref"].as_str().expect("a text");
        let ours = GitRef::parse(text).ok().flatten();
        mismatches.check(text, "ok", ours.is_some(), row["ok"] == true);
        let form = ours.map_or_else(|| text.to_owned(), |found| found.fragment_form());
        mismatches.check(text, "form", form.as_str(), row["expected"].as_str().expect("a text"));
    }
    mismatches.finish(&[
        ("https://github.com/docker/docker.git?ref=v1.0.0&subdir=/subdir", TWO),
        ("https://github.com/moby/buildkit.git?subdir=/subdir#v1.0.0", TWO),
    ]);
}
