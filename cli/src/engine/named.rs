//! Named contexts of the command line: what the value of each stands for. Directories are opened here; everything else
//! is only looked at once something needs it.

use std::collections::HashMap;
use std::path::Path;

use boxwright_frontend as frontend;
use boxwright_solver::LocalContext;
use boxwright_solver::ir::HttpSource;
use frontend::gitref::GitRef;
use frontend::{NamedContext, NamedContexts, Origin, parse_context_name};

use super::base::{IMAGE, LAYOUT};
use super::context::{self, DOWNLOADED};
use crate::error::{Error, Result};

/// Image that stands for no image.
const SCRATCH: &str = "scratch";

/// `contexts` are names and values; of two with one name the later counts. The directories are by the names that the
/// frontend has for them; one called `context` is not the build context, and nothing ever names it.
pub(super) fn open(contexts: &[(String, String)]) -> Result<(NamedContexts, HashMap<String, LocalContext>)> {
    let (mut named, mut locals) = (NamedContexts::default(), HashMap::new());
    for (name, value) in contexts {
        let parsed = parse_context_name(name)
            .map_err(|reason| Error::invalid(format!("invalid context name {name}: {reason}")))?;
        let context = if let Some(context) = elsewhere(name, value)? {
            context
        } else {
            // The same name for another platform is another directory.
            let key = if parsed.1.is_none() { parsed.0.clone() } else { name.clone() };
            locals.insert(key.clone(), directory(name, Path::new(value))?);
            NamedContext::Files(Origin::Local(key))
        };
        named.insert(parsed, context);
    }
    Ok((named, locals))
}

/// None for a directory of this machine.
fn elsewhere(name: &str, value: &str) -> Result<Option<NamedContext>> {
    let wrong = |reason: String| Error::invalid(format!("invalid context {name}: {reason}"));
    if let Some(image) = value.strip_prefix(IMAGE) {
        if image == SCRATCH {
            return Ok(Some(NamedContext::Scratch));
        }
        super::reference(image)?;
        return Ok(Some(NamedContext::Image(image.to_owned())));
    }
    if value.starts_with(LAYOUT) {
        return Ok(Some(NamedContext::Image(value.to_owned())));
    }
    if let Some(found) = GitRef::parse(value).map_err(wrong)?
        && !(found.looks_local && Path::new(value).is_dir())
    {
        return Ok(Some(NamedContext::Files(Origin::Git(found.source(true).map_err(wrong)?))));
    }
    if value.starts_with("http://") || value.starts_with("https://") {
        let file = HttpSource { url: value.to_owned(), name: DOWNLOADED.to_owned(), checksum: None };
        return Ok(Some(NamedContext::Files(Origin::Http(file))));
    }
    match value.split_once(':') {
        Some((kind @ ("target" | "input" | "local" | "docker-image" | "oci-layout"), _)) => {
            Err(Error::invalid(format!("unsupported context source {kind} for {name}")))
        }
        _ => Ok(None),
    }
}

fn directory(name: &str, path: &Path) -> Result<LocalContext> {
    let failed = |reason: String| Error::invalid(format!("failed to get build context {name}: {reason}"));
    let stat = std::fs::metadata(path).map_err(|e| failed(format!("stat {}: {e}", path.display())))?;
    if !stat.is_dir() {
        return Err(failed(format!("{}: not a directory", path.display())));
    }
    let (dir, ignore) = (context::open_dir(path)?, context::ignored(path, None)?);
    Ok(LocalContext { dir, path: path.to_owned(), ignore })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_apart_by_how_they_begin() {
        let kind = |value: &str| match elsewhere("x", value) {
            Ok(Some(NamedContext::Scratch)) => "scratch".to_owned(),
            Ok(Some(NamedContext::Image(name))) => format!("image {name}"),
            Ok(Some(NamedContext::Files(Origin::Git(git)))) => format!("git {}", git.remote),
            Ok(Some(NamedContext::Files(Origin::Http(http)))) => format!("http {}", http.url),
            Ok(Some(other)) => format!("{other:?}"),
            Ok(None) => "directory".to_owned(),
            Err(error) => error.to_string(),
        };
        for (value, expected) in [
            ("docker-image://scratch", "scratch"),
            ("docker-image://alpine@sha256:ab", "invalid"),
            ("docker-image://alpine:3", "image alpine:3"),
            ("oci-layout://a/b:c", "image oci-layout://a/b:c"),
            ("https://a/b.git#v1", "git https://a/b.git"),
            ("https://a/b.git?x=1", "invalid context x: unexpected query \"x\""),
            ("git@a:b", "git git@a:b"),
            ("ssh://git@a/b", "git ssh://git@a/b"),
            ("github.com/a/b", "git https://github.com/a/b"),
            ("http://a/b.tar", "http http://a/b.tar"),
            ("target:other", "unsupported context source target for x"),
            ("a:b", "directory"),
            ("../a", "directory"),
            ("", "directory"),
        ] {
            let found = kind(value);
            assert!(found.starts_with(expected), "{value}: {found}");
        }
    }

    #[test]
    fn directories_have_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let value = |path: &Path| path.to_str().unwrap().to_owned();
        std::fs::write(dir.path().join("file"), "").unwrap();
        std::fs::write(dir.path().join(".dockerignore"), "x\n").unwrap();
        let open = |name: &str, path: &str| open(&[(name.to_owned(), value(&dir.path().join(path)))]);
        assert_eq!(open("a:latest", "").unwrap().1["a"].ignore, ["x"]);
        for (name, path, words) in [
            ("a", "nosuch", "failed to get build context a: stat"),
            ("a", "file", "file: not a directory"),
            ("A", "", "invalid context name A"),
        ] {
            let error = open(name, path).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
