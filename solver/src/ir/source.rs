//! What is fetched from elsewhere: files behind URLs and git repositories. What they are asked for is part of a vertex'
//! identity; what they turn out to be is pinned before anything runs.

use boxwright_cache::digest::Digest;

use super::Unkeyed;

/// One file, mode 0600, in an otherwise empty root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpSource {
    /// Credentials may be in it: it is part of no key and is shown by [`redacted`] alone.
    pub url: String,
    /// What the file is called.
    pub name: String,
    /// What it must be; then nobody is asked while a copy is here.
    pub checksum: Option<Digest>,
}

/// The files of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GitSource {
    /// As git takes it; credentials may be in it, as in [`HttpSource::url`].
    pub remote: String,
    /// A branch, tag or commit; the default branch if there is none.
    pub reference: Option<String>,
    /// The name, or the beginning of the name, of the commit or tag that `reference` must be.
    pub checksum: Option<String>,
    /// Only what is in this directory.
    pub subdir: Option<String>,
    /// With the `.git` directory of a clone; not with `subdir`.
    pub keep_git_dir: bool,
    /// With what submodules bring, and theirs.
    pub submodules: bool,
    /// Files have the time of the commit, else that of writing.
    pub commit_times: bool,
    /// Ask for the commit `checksum`, whatever `reference` is.
    pub fetch_by_commit: bool,
    /// A person named it, rather than a Dockerfile: their own keys may be used to read it.
    pub by_user: Unkeyed<bool>,
}

/// A URL without the credentials that may be in it.
pub fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        // A name alone is no secret, and ssh can't do without one.
        Some((user, _)) if !user.contains(':') && matches!(scheme, "ssh" | "git") => url.to_owned(),
        Some((_, host)) => format!("{scheme}://xxxxx@{host}{}", &rest[end..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credentials_are_shown() {
        for (url, shown) in [
            ("https://u:p@a/b?c=d@e", "https://xxxxx@a/b?c=d@e"),
            ("https://token@a:80/b", "https://xxxxx@a:80/b"),
            ("https://u:p@x@a", "https://xxxxx@a"),
            ("ssh://git@a/b", "ssh://git@a/b"),
            ("ssh://git:p@a/b", "ssh://xxxxx@a/b"),
            ("https://a/b@c", "https://a/b@c"),
            ("git@a:b", "git@a:b"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
