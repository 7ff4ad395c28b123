//! The submodules of a commit: where `.gitmodules` says that they come from, and which of their commits is meant.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::{Result, Within, is_object, refused};

/// More than any repository has, and fewer than would hurt.
const MOST: usize = 1000;

#[derive(Debug)]
pub(super) struct Submodule {
    pub(super) path: PathBuf,
    /// As it is written there; relative ones are beside the parent.
    pub(super) url: String,
    pub(super) commit: String,
}

#[derive(Debug, Default)]
struct Section {
    path: Option<String>,
    url: Option<String>,
    is_off: bool,
}

/// Those of the tree of `commit`, in the order of their paths.
pub(super) fn list(within: &Within<'_>, commit: &str) -> Result<Vec<Submodule>> {
    let listed = within.output(&["--git-dir=.", "ls-tree", "-z", commit, "--", ".gitmodules"])?;
    // A link in its place would be read as what it points to.
    let Some((blob, _)) = entries(&listed).find_map(|(mode, rest)| mode.starts_with("100").then_some(rest))
    else {
        return Ok(Vec::new());
    };
    let text = within.output(&["--git-dir=.", "config", "-z", "--no-includes", "--blob", blob, "--list"])?;
    let sections: Vec<Section> = sections(&text).into_values().filter(|section| !section.is_off).collect();
    let paths: Vec<&str> = sections.iter().filter_map(|section| section.path.as_deref()).collect();
    if paths.len() > MOST {
        return Err(refused(format!("more than {MOST} submodules")));
    }
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    for path in &paths {
        let plain = Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(name) if name != ".git"));
        if !plain || path.is_empty() {
            return Err(refused(format!("submodule path {path:?} is not a path in the repository")));
        }
    }
    let mut args = vec!["--git-dir=.", "ls-tree", "-z", commit, "--"];
    args.extend(&paths);
    let listed = within.output(&args)?;
    let mut found = Vec::new();
    for (_, (object, path)) in entries(&listed).filter(|(mode, _)| *mode == "160000") {
        let section = sections.iter().find(|section| section.path.as_deref() == Some(path));
        let url = section.and_then(|section| section.url.clone());
        let url =
            url.ok_or_else(|| refused(format!("no url found for submodule path {path:?} in .gitmodules")))?;
        if !is_object(object) {
            return Err(refused(format!("submodule {path:?} names no commit")));
        }
        found.push(Submodule { path: PathBuf::from(path), url, commit: object.to_owned() });
    }
    Ok(found)
}

/// Mode, object and path of each entry of `git ls-tree -z`.
fn entries(listed: &str) -> impl Iterator<Item = (&str, (&str, &str))> {
    listed.split('\0').filter_map(|entry| {
        let (about, path) = entry.split_once('\t')?;
        let mut words = about.split(' ');
        let (mode, _, object) = (words.next()?, words.next()?, words.next()?);
        Some((mode, (object, path)))
    })
}

/// By name; `text` is what `git config -z --list` writes.
fn sections(text: &str) -> BTreeMap<&str, Section> {
    let mut sections: BTreeMap<&str, Section> = BTreeMap::new();
    for entry in text.split('\0') {
        let (key, value) = entry.split_once('\n').unwrap_or((entry, ""));
        let Some((name, field)) = key.strip_prefix("submodule.").and_then(|key| key.rsplit_once('.')) else {
            continue;
        };
        let section = sections.entry(name).or_default();
        match field {
            "path" => section.path = Some(value.trim_end_matches('/').to_owned()),
            "url" => section.url = Some(value.to_owned()),
            "update" => section.is_off = value == "none",
            _ => {}
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_read_by_name() {
        let text =
            "submodule.a.b.path\nx/y/\0submodule.a.b.url\n../z\0submodule.off.update\nnone\0core.x\n1\0";
        let sections = sections(text);
        assert_eq!(sections["a.b"].path.as_deref(), Some("x/y"));
        assert_eq!(sections["a.b"].url.as_deref(), Some("../z"));
        assert!(sections["off"].is_off && sections.len() == 2);
        let listed = "160000 commit 0a\tx y\x00100644 blob 0b\tz\0";
        let entries: Vec<_> = entries(listed).collect();
        assert_eq!(entries, [("160000", ("0a", "x y")), ("100644", ("0b", "z"))]);
    }
}
