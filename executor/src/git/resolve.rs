//! Which commit a name means: what the remote says of its branches and tags, in BuildKit's order of preference.

use std::path::Path;

use boxwright_cache::Cancel;
use boxwright_solver::ir::GitSource;

use super::url::Place;
use super::{Git, Result, Within, check_reference, is_object, refused};

pub(super) fn pin(git: &Git, source: &GitSource, cancel: &Cancel) -> Result<String> {
    if let Some(commit) = named_commit(source)? {
        return Ok(commit);
    }
    let place = Place::parse(&source.remote, source.by_user.0)?;
    let within = Within { git, dir: Path::new("/"), place: Some(&place), cancel };
    let name = source.reference.as_deref().map(check_reference).transpose()?;
    let peeled = name.map(|name| format!("{name}^{{}}"));
    let mut args = vec!["ls-remote", "--", &place.url];
    match (name, &peeled) {
        (Some(name), Some(peeled)) => args.extend([name, peeled]),
        _ => args.push("HEAD"),
    }
    let output = within.output(&args)?;
    let found = choose(&output, name).ok_or_else(|| {
        let name = name.unwrap_or("HEAD");
        refused(format!("repository does not contain ref {name}, output: {output:?}"))
    })?;
    found.check(source.checksum.as_deref())?;
    let commit =
        if source.keep_git_dir { &found.object } else { found.commit.as_ref().unwrap_or(&found.object) };
    if is_object(commit) {
        Ok(commit.clone())
    } else {
        Err(refused(format!("invalid commit sha {commit:?}")))
    }
}

/// The commit, where it was asked for by its whole name.
fn named_commit(source: &GitSource) -> Result<Option<String>> {
    if source.fetch_by_commit {
        let commit = source.checksum.clone().filter(|sum| is_object(sum));
        let missing = || refused("fetch-by-commit needs the whole name of a commit as checksum");
        return commit.ok_or_else(missing).map(Some);
    }
    let Some(name) = source.reference.as_ref().filter(|name| is_object(name)) else { return Ok(None) };
    Found { object: name.clone(), commit: None }.check(source.checksum.as_deref())?;
    Ok(Some(name.clone()))
}

/// What a name stands for.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    object: String,
    /// What an annotated tag is about.
    commit: Option<String>,
}

impl Found {
    fn check(&self, checksum: Option<&str>) -> Result<()> {
        let Some(sum) = checksum else { return Ok(()) };
        if [Some(&self.object), self.commit.as_ref()].into_iter().flatten().any(|name| name.starts_with(sum))
        {
            return Ok(());
        }
        let also = self.commit.as_ref().map_or(String::new(), |commit| format!(" or {commit}"));
        Err(refused(format!("expected checksum to match {sum}, got {}{also}", self.object)))
    }
}

/// `output` is that of `git ls-remote`, which lists all names that end like the one asked for.
fn choose(output: &str, name: Option<&str>) -> Option<Found> {
    let lines: Vec<(&str, &str)> = output.lines().filter_map(|line| line.split_once('\t')).collect();
    let object =
        |wanted: &str| lines.iter().find(|(_, name)| *name == wanted).map(|(object, _)| (*object).to_owned());
    let Some(name) = name else { return object("HEAD").map(|object| Found { object, commit: None }) };
    let below = |dir: &str| format!("{dir}{}", name.strip_prefix(dir).unwrap_or(name));
    let plain = object(&below("refs/")).or_else(|| object(&below("refs/heads/")));
    let tag = below("refs/tags/");
    let is_tag = below("refs/") == tag;
    match plain.filter(|_| !is_tag) {
        Some(object) => Some(Found { object, commit: None }),
        None => object(&tag).map(|found| Found { object: found, commit: object(&format!("{tag}^{{}}")) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "a\tHEAD\nb\trefs/heads/main\nc\trefs/tags/main\nd\trefs/tags/v1\ne\trefs/tags/v1^{}\n\
                          f\trefs/heads/x/v1\ng\trefs/pull/1/head\n";

    #[test]
    fn branches_come_before_tags_and_whole_names_before_both() {
        let found = |name| choose(OUTPUT, name).map(|f| (f.object, f.commit));
        let one = |object: &str| Some((object.to_owned(), None));
        assert_eq!(found(None), one("a"));
        assert_eq!(found(Some("main")), one("b"));
        assert_eq!(found(Some("refs/tags/main")), one("c"));
        assert_eq!(found(Some("v1")), Some(("d".to_owned(), Some("e".to_owned()))));
        assert_eq!(found(Some("refs/tags/v1")), Some(("d".to_owned(), Some("e".to_owned()))));
        assert_eq!(found(Some("pull/1/head")), one("g"));
        assert_eq!(found(Some("refs/heads/v1")), None);
        assert_eq!(found(Some("1/head")), None);
    }

    #[test]
    fn a_checksum_is_the_beginning_of_a_tag_or_its_commit() {
        let found = Found { object: "abc".into(), commit: Some("def".into()) };
        assert!(found.check(Some("ab")).is_ok() && found.check(Some("de")).is_ok());
        let error = found.check(Some("f")).unwrap_err().to_string();
        assert_eq!(error, "expected checksum to match f, got abc or def");
    }
}
