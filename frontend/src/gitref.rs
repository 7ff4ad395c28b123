//! Which words name a git repository, and how they are taken apart: the forms of build contexts and of ADD sources
//! (`https://host/x.git#ref:dir`, `git@host:x`, `?tag=v1&subdir=dir`). Nothing here asks a repository anything.

/// A repository and what of it is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitRef {
    /// What git is to be given; credentials may be in it.
    pub remote: String,
    /// A branch, tag or commit; the default branch if there is none.
    pub reference: Option<String>,
    /// The commit that the reference must turn out to be, or the beginning of its name.
    pub checksum: Option<String>,
    pub subdir: Option<String>,
    /// `github.com/user/repository`: could be a path as well, so only a build context is read that way.
    pub looks_local: bool,
    /// Anybody on the way can change what is transferred.
    pub unencrypted: bool,
    pub keep_git_dir: Option<bool>,
    pub submodules: Option<bool>,
    /// Where files get their times from.
    pub mtime: Option<Mtime>,
    /// Ask for the commit that `checksum` names, whatever the reference is now.
    pub fetch_by_commit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mtime {
    /// The time of writing.
    Checkout,
    /// The time of the commit.
    Commit,
}

impl GitRef {
    /// None if `text` names no repository.
    ///
    /// # Errors
    /// What is wrong with a text that does name one.
    pub fn parse(text: &str) -> Result<Option<GitRef>, String> {
        let Some((address, looks_local)) = Address::of(text) else { return Ok(None) };
        let Address { scheme, remote, query, fragment } = address;
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment.as_str(), ""));
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut found = GitRef {
            remote: if looks_local { text_after_scheme(&remote) } else { remote },
            reference: given(reference),
            subdir: given(subdir),
            looks_local,
            unencrypted: matches!(scheme.as_str(), "http" | "git"),
            ..GitRef::default()
        };
        found.load(&query)?;
        Ok(Some(found))
    }

    /// The directory that a clone would get.
    pub fn short_name(&self) -> &str {
        let last = self.remote.rsplit('/').next().unwrap_or_default();
        last.strip_suffix(".git").unwrap_or(last)
    }

    /// The repository and what of it is meant, all in the fragment.
    pub fn fragment_form(&self) -> String {
        let reference = self.checksum.as_deref().or(self.reference.as_deref()).unwrap_or_default();
        let subdir = self.subdir.as_deref().unwrap_or_default().trim_start_matches('/');
        match (reference, subdir) {
            ("", "") => self.remote.clone(),
            (reference, "") => format!("{}#{reference}", self.remote),
            (reference, subdir) => format!("{}#{reference}:{subdir}", self.remote),
        }
    }

    fn load(&mut self, query: &[(String, String)]) -> Result<(), String> {
        let (mut tag, mut branch) = (None, None);
        for (n, (key, value)) in query.iter().enumerate() {
            if query[..n].iter().any(|(other, _)| other == key) {
                return Err(format!("query {key:?} has multiple values"));
            }
            let boolean = || match value.as_str() {
                "" => Ok(true),
                text => parse_bool(text).ok_or_else(|| format!("invalid {key} value: {value:?}")),
            };
            match key.as_str() {
                "keep-git-dir" => self.keep_git_dir = Some(boolean()?),
                "submodules" => self.submodules = Some(boolean()?),
                "fetch-by-commit" => self.fetch_by_commit = boolean()?,
                _ if value.is_empty() => return Err(format!("query {key:?} has no value")),
                "ref" => agree("ref", &mut self.reference, value.clone())?,
                "subdir" => agree("subdir", &mut self.subdir, value.clone())?,
                "tag" => tag = Some(value),
                "branch" => branch = Some(value),
                "checksum" | "commit" => self.checksum = Some(value.clone()),
                "mtime" => {
                    self.mtime = Some(match value.as_str() {
                        "checkout" => Mtime::Checkout,
                        "commit" => Mtime::Commit,
                        _ => return Err(format!("invalid mtime value: {value:?}")),
                    });
                }
                _ => return Err(format!("unexpected query {key:?}")),
            }
        }
        if let Some(tag) = tag {
            agree("ref", &mut self.reference, below("refs/tags/", tag))?;
        }
        if let Some(branch) = branch {
            if tag.is_some() {
                return Err("branch conflicts with tag".to_owned());
            }
            agree("ref", &mut self.reference, below("refs/heads/", branch))?;
        }
        // The beginning of a commit's name can't be asked for: it is only compared.
        if self.reference.is_none() && !self.fetch_by_commit {
            self.reference = self.checksum.clone().filter(|sum| is_commit(sum));
        }
        Ok(())
    }
}

/// Whether `text` is the whole name of a commit.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

fn below(directory: &str, name: &str) -> String {
    if name.starts_with(directory) { name.to_owned() } else { format!("{directory}{name}") }
}

fn agree(what: &str, slot: &mut Option<String>, value: String) -> Result<(), String> {
    match slot {
        Some(known) if *known != value => Err(format!("{what} conflicts: {known:?} vs {value:?}")),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

/// What Go's `strconv.ParseBool` takes.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn text_after_scheme(url: &str) -> String {
    url.split_once("://").map_or(url, |(_, rest)| rest).to_owned()
}

struct Address {
    scheme: String,
    remote: String,
    query: Vec<(String, String)>,
    fragment: String,
}

impl Address {
    /// And whether it could be a path of this machine.
    fn of(text: &str) -> Option<(Address, bool)> {
        if text.starts_with("./") || text.starts_with("../") || text.chars().any(char::is_control) {
            return None;
        }
        if text.starts_with("github.com/") {
            return Some((Address::of_url("https", &format!("https://{text}"))?, true));
        }
        let url = text.split_once("://").map(|(scheme, _)| scheme);
        let url = url.filter(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric()));
        let Some(scheme) = url.map(str::to_lowercase) else { return Some((Address::of_scp(text)?, false)) };
        let rest = &text[scheme.len()..];
        let address = Address::of_url(&scheme, &format!("{scheme}{rest}"))?;
        let is_repository = match scheme.as_str() {
            // Any file could be behind such a URL.
            "http" | "https" => rest["://".len()..].contains('/') && address.remote.ends_with(".git"),
            "ssh" | "git" => true,
            _ => false,
        };
        is_repository.then_some((address, false))
    }

    fn of_url(scheme: &str, url: &str) -> Option<Address> {
        let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        let fragment = unescape(fragment, false)?;
        Some(Address { scheme: scheme.to_owned(), remote: remote.to_owned(), query: pairs(query)?, fragment })
    }

    /// `user@host:path`.
    fn of_scp(text: &str) -> Option<Address> {
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (place, _) = remote.split_once(':')?;
        let (user, host) = place.split_once('@')?;
        let of = |text: &str, more: char| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == more)
        };
        let is_scp = of(user, '_') && of(host, '.');
        is_scp.then_some(())?;
        let (remote, fragment) = (remote.to_owned(), fragment.to_owned());
        Some(Address { scheme: "ssh".to_owned(), remote, query: pairs(query)?, fragment })
    }
}

fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((unescape(key, true)?, unescape(value, true)?))
    });
    pairs.collect()
}

/// Undoes percent encoding; none if it is broken.
pub(crate) fn unescape(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok().filter(|d| !d.starts_with('+'))?;
                u8::from_str_radix(digits, 16).ok()?
            }
            b'+' if plus_is_blank => b' ',
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> GitRef {
        GitRef::parse(text).unwrap().unwrap_or_else(|| panic!("{text} is a repository"))
    }

    #[test]
    fn paths_and_plain_urls_are_no_repositories() {
        for text in [
            "",
            "a",
            "a:b",
            "C:\\x",
            "./git@a:b",
            "https://a/b",
            "file:///a.git",
            "ext::sh.git",
            "a@b",
            "https://a.git",
        ] {
            assert_eq!(GitRef::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn fragment_and_query_say_the_same() {
        let plain = parse("https://a/b.git#v1:d/e");
        let query = parse("HTTPS://a/b.git?subdir=d%2Fe&ref=v1");
        assert_eq!((plain.reference.as_deref(), plain.subdir.as_deref()), (Some("v1"), Some("d/e")));
        assert_eq!(plain, query);
        let scp = parse("git@a:b/c.git?tag=v2#:d");
        assert_eq!((scp.remote.as_str(), scp.short_name()), ("git@a:b/c.git", "c"));
        assert!(GitRef::parse("git@a:b?tag=v2#v2").unwrap_err().contains("ref conflicts"));
        assert_eq!(scp.fragment_form(), "git@a:b/c.git#refs/tags/v2:d");
    }

    #[test]
    fn only_a_whole_commit_is_asked_for() {
        let whole = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(parse(&format!("git://a/b?commit={whole}")).reference.as_deref(), Some(whole));
        let short = parse("git://a/b?commit=0123abc");
        assert_eq!((short.reference, short.checksum.as_deref()), (None, Some("0123abc")));
        assert!(short.unencrypted);
    }

    #[test]
    fn switches_need_no_value_and_other_keys_do() {
        let both = parse("ssh://a/b?keep-git-dir&submodules=0");
        assert_eq!((both.keep_git_dir, both.submodules), (Some(true), Some(false)));
        for (query, words) in [
            ("ref", "query \"ref\" has no value"),
            ("ref=a&ref=b", "query \"ref\" has multiple values"),
            ("keep-git-dir=maybe", "invalid keep-git-dir value: \"maybe\""),
        ] {
            assert_eq!(GitRef::parse(&format!("ssh://a/b?{query}")).unwrap_err(), words);
        }
    }
}
