//! ADD of what is elsewhere: which sources are URLs and repositories, and what their flags mean.

use boxwright_cache::Digest;
use boxwright_solver::Span;
use boxwright_solver::ir::{GitSource, HttpSource, VertexId};

use super::instructions::{Build, Result};
use super::origin::Origin;
use super::paths;
use crate::ast::Copy;
use crate::diagnostic::Diagnostic;
use crate::gitref::{GitRef, Mtime, unescape};

/// What a file is called whose URL names none.
const UNNAMED: &str = "__unnamed__";

/// How what is wrong with a checksum is told.
const SUMS: [&str; 2] = ["invalid checksum", "unsupported digest algorithm"];

/// The place that a source of COPY or ADD names, if it is not one of this machine. `checksum` is that of the flag.
pub(super) fn origin(
    keyword: &str,
    copy: &Copy,
    checksum: Option<&str>,
    text: &str,
    span: Span,
) -> Result<Option<Origin>> {
    let fail = |message: String| Box::new(Diagnostic::error(message, span));
    // The flag is what has to be put right.
    let wrong_sum = |message: String| {
        let flag = copy.checksum.as_ref().filter(|_| SUMS.iter().any(|words| message.starts_with(words)));
        Box::new(Diagnostic::error(message.clone(), flag.map_or(span, |flag| flag.span)))
    };
    let repository = GitRef::parse(text).map_err(fail)?.filter(|found| !found.looks_local);
    let is_url = text.starts_with("http://") || text.starts_with("https://");
    match (repository, keyword) {
        (Some(_), "COPY") => Err(Box::new(
            Diagnostic::error("source can't be a git ref for COPY", span).hint("ADD takes repositories"),
        )),
        (Some(found), _) => {
            git(found, copy.keep_git_dir, checksum).map(|git| Some(Origin::Git(git))).map_err(wrong_sum)
        }
        (None, "COPY") if is_url => {
            Err(Box::new(Diagnostic::error("source can't be a URL for COPY", span).hint("ADD takes URLs")))
        }
        (None, _) if is_url => http(text, checksum).map(|http| Some(Origin::Http(http))).map_err(wrong_sum),
        (None, _) => Ok(None),
    }
}

fn git(found: GitRef, keep: Option<bool>, checksum: Option<&str>) -> std::result::Result<GitSource, String> {
    match (keep, found.keep_git_dir) {
        (Some(flag), Some(query)) if flag != query => {
            return Err("inconsistent keep-git-dir configuration".to_owned());
        }
        _ => {}
    }
    match (checksum, &found.checksum) {
        (Some(flag), Some(query)) if flag != query => {
            return Err(format!("checksum mismatch {flag:?} != {query:?}"));
        }
        _ => {}
    }
    let found = GitRef {
        keep_git_dir: found.keep_git_dir.or(keep),
        checksum: found.checksum.or_else(|| checksum.map(str::to_owned)),
        ..found
    };
    found.source(false)
}

fn http(url: &str, checksum: Option<&str>) -> std::result::Result<HttpSource, String> {
    let checksum = checksum.map(|text| text.parse::<Digest>().map_err(|_| wrong_digest(text))).transpose()?;
    Ok(HttpSource { url: url.to_owned(), name: file_name(url), checksum })
}

/// In the words of Go's digest package, which scripts know.
fn wrong_digest(text: &str) -> String {
    let reason = match text.split_once(':') {
        Some(("sha256" | "sha512", _)) => "invalid checksum digest length",
        Some((algorithm, _)) if !algorithm.is_empty() => "unsupported digest algorithm",
        _ => "invalid checksum digest format",
    };
    format!("{reason}: {text:?}")
}

/// The last part of the URL's path, as long as it can be the name of a file.
fn file_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let decoded = unescape(path, false).unwrap_or_default();
    let name = decoded.trim_end_matches('/').rsplit('/').next().unwrap_or_default().trim();
    match name {
        "" | "." | ".." => UNNAMED.to_owned(),
        name if name.chars().any(char::is_control) || name.len() > 255 => "download".to_owned(),
        name => name.to_owned(),
    }
}

/// The vertex of an origin, and the path in it that is to be copied.
pub(super) fn fetch(build: &mut Build<'_>, origin: &Origin, span: Span) -> (VertexId, String) {
    let vertex = origin.add(&mut build.definition, Some(span));
    match origin {
        Origin::Http(http) => (vertex, paths::literal(&paths::source(&http.name))),
        _ => (vertex, "/".to_owned()),
    }
}

impl GitRef {
    /// What is to be fetched. `by_user`: see [`GitSource::by_user`].
    ///
    /// # Errors
    /// When the checksum is none of a commit.
    pub fn source(self, by_user: bool) -> std::result::Result<GitSource, String> {
        if let Some(sum) = self
            .checksum
            .as_ref()
            .filter(|sum| sum.is_empty() || sum.len() > 64 || !sum.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err(format!("invalid checksum {sum} for Git URL, expected hex commit hash"));
        }
        let subdir = self.subdir.map(|dir| paths::source(&dir)).filter(|dir| dir != "/");
        let remote = if self.looks_local { format!("https://{}", self.remote) } else { self.remote };
        Ok(GitSource {
            remote,
            reference: self.reference,
            checksum: self.checksum.map(|sum| sum.to_lowercase()),
            keep_git_dir: self.keep_git_dir == Some(true) && subdir.is_none(),
            subdir,
            submodules: self.submodules != Some(false),
            commit_times: self.mtime == Some(Mtime::Commit),
            fetch_by_commit: self.fetch_by_commit,
            by_user: boxwright_solver::ir::Unkeyed(by_user),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_as_its_url_ends() {
        for (url, name) in [
            ("https://a/b/c.txt?d=e/f#g", "c.txt"),
            ("https://a/b/", "b"),
            ("https://a", UNNAMED),
            ("https://a/", UNNAMED),
            ("https://a/b/..", UNNAMED),
            ("https://a/x%2Fy%20z", "y z"),
            ("https://a/x%00y", "download"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
    }

    #[test]
    fn flags_and_query_must_agree() {
        let parse = |text: &str| GitRef::parse(text).unwrap().unwrap();
        let both = git(parse("git://a/b?keep-git-dir=1"), Some(false), None).unwrap_err();
        assert_eq!(both, "inconsistent keep-git-dir configuration");
        let sums = git(parse("git://a/b?checksum=ab#v1"), None, Some("cd")).unwrap_err();
        assert_eq!(sums, "checksum mismatch \"cd\" != \"ab\"");
        assert!(
            git(parse("git://a/b"), None, Some("foobar")).unwrap_err().contains("expected hex commit hash")
        );
        let plain = git(parse("git://a/b#v1:/x/../../y/"), Some(true), Some("AB")).unwrap();
        assert_eq!((plain.subdir.as_deref(), plain.checksum.as_deref()), (Some("/y"), Some("ab")));
        assert!(!plain.keep_git_dir && plain.submodules);
    }

    #[test]
    fn digests_are_refused_in_known_words() {
        for (text, words) in [
            ("sha256:ab", "invalid checksum digest length"),
            ("md7:abcd", "unsupported digest algorithm"),
            ("foobar", "invalid checksum digest format"),
        ] {
            assert!(http("http://a/b", Some(text)).unwrap_err().contains(words), "{text}");
        }
    }
}
