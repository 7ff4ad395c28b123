//! Where a repository is: the transport, the URL without credentials, and these apart from it.

use super::{Result, refused};

/// A remote that git may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) scheme: Scheme,
    /// Without a password; what git gets, and what is shown.
    pub(super) url: String,
    /// Name and password, still escaped, of a server that is asked by HTTP.
    pub(super) login: Option<String>,
    /// The user's own keys may be used.
    pub(super) by_user: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
    Ssh,
    Git,
}

impl Place {
    pub(super) fn parse(remote: &str, by_user: bool) -> Result<Place> {
        let shown = boxwright_solver::ir::redacted(remote);
        let fail = |reason: &str| refused(format!("invalid git remote {shown:?}: {reason}"));
        if remote.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(fail("it has blanks or control characters"));
        }
        let Some((scheme, rest)) = remote.split_once("://") else {
            // `user@host:path`.
            let (host, path) = remote.split_once(':').ok_or_else(|| fail("it is no URL"))?;
            if host.contains('/') || path.starts_with(':') {
                return Err(fail("it is no URL"));
            }
            check_host(host.rsplit('@').next().unwrap_or_default(), &fail)?;
            return Ok(Place { scheme: Scheme::Ssh, url: remote.to_owned(), login: None, by_user });
        };
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "ssh" => Scheme::Ssh,
            "git" => Scheme::Git,
            _ => return Err(fail("its transport is none of https, http, ssh and git")),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        check_host(host, &fail)?;
        let name = scheme.name();
        if matches!(scheme, Scheme::Http | Scheme::Https) {
            let url = format!("{name}://{host}{path}");
            return Ok(Place { scheme, url, login: login.map(str::to_owned), by_user });
        }
        // ssh takes the user's name from the URL, and no password.
        let user = login.and_then(|login| login.split(':').next()).filter(|user| !user.is_empty());
        let url = match user {
            Some(user) if user.starts_with('-') => return Err(fail("a strange user name")),
            Some(user) => format!("{name}://{user}@{host}{path}"),
            None => format!("{name}://{host}{path}"),
        };
        Ok(Place { scheme, url, login: None, by_user })
    }

    /// `https://host:port/`, for settings that are for this server alone.
    pub(super) fn origin(&self) -> Option<String> {
        let rest = self.url.split_once("://")?.1;
        let host = rest.split('/').next().unwrap_or_default();
        Some(format!("{}://{host}/", self.scheme.name()))
    }

    /// What a submodule's URL means beside this one; the login goes along to the same server.
    pub(super) fn join(&self, url: &str) -> Result<Place> {
        let mut place = if url.starts_with("./") || url.starts_with("../") {
            Place::parse(&beside(&self.url, url)?, self.by_user)?
        } else {
            Place::parse(url, self.by_user)?
        };
        if place.login.is_none() && place.origin() == self.origin() {
            place.login.clone_from(&self.login);
        }
        Ok(place)
    }
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Ssh => "ssh",
            Scheme::Git => "git",
        }
    }

    /// The value of `GIT_ALLOW_PROTOCOL`. What began in private does not go on in public.
    pub(super) fn allowed(self) -> &'static str {
        match self {
            Scheme::Http => "http:https",
            other => other.name(),
        }
    }
}

fn check_host(host: &str, fail: &dyn Fn(&str) -> boxwright_solver::FetchError) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]%".contains(c) || !c.is_ascii();
    if host.is_empty() || host.starts_with('-') || !host.chars().all(plain) {
        return Err(fail("a strange host name"));
    }
    Ok(())
}

/// A relative URL in the way of git-submodule: each `../` takes away a part of the path, or what is behind the colon.
fn beside(base: &str, url: &str) -> Result<String> {
    let host_end = base.find("://").map_or(0, |at| at + 3);
    let mut base = base.trim_end_matches('/').to_owned();
    let mut separator = '/';
    let mut rest = url;
    loop {
        if let Some(after) = rest.strip_prefix("../") {
            rest = after;
            let cut = base[host_end..].rfind(['/', ':']).map(|at| at + host_end);
            let cut = cut.ok_or_else(|| refused(format!("submodule URL {url:?} leads out of its host")))?;
            separator = if base[cut..].starts_with(':') { ':' } else { '/' };
            base.truncate(cut);
        } else if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else {
            return Ok(format!("{base}{separator}{}", rest.trim_end_matches('/')));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_apart_and_options_are_refused() {
        let place = Place::parse("https://u:p%40@a:8443/b.git", false).unwrap();
        assert_eq!((place.url.as_str(), place.login.as_deref()), ("https://a:8443/b.git", Some("u:p%40")));
        assert_eq!(place.origin().as_deref(), Some("https://a:8443/"));
        assert_eq!(Place::parse("ssh://git:p@a/b", true).unwrap().url, "ssh://git@a/b");
        assert_eq!(Place::parse("git@a:b", true).unwrap().scheme, Scheme::Ssh);
        for bad in [
            "ssh://-oProxyCommand=x/b",
            "ssh://-x@a/b",
            "-u:x",
            "ext::sh -c x",
            "file:///etc",
            "/etc",
            "https://a b/c",
            "git@a::b",
            "https:///b",
        ] {
            assert!(Place::parse(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn submodules_beside_their_parent() {
        let join = |base: &str, url: &str| Place::parse(base, false).unwrap().join(url).map(|p| p.url).ok();
        assert_eq!(join("https://a/b/c.git", "../d.git").as_deref(), Some("https://a/b/d.git"));
        assert_eq!(join("https://a/b/c.git/", "./d").as_deref(), Some("https://a/b/c.git/d"));
        assert_eq!(join("git@a:b/c", "../../d/e").as_deref(), Some("git@a:d/e"));
        assert_eq!(join("https://a/b", "../../../c"), None);
        assert_eq!(join("https://a/b", "/etc"), None);
        let login = |base: &str, url: &str| Place::parse(base, false).unwrap().join(url).unwrap().login;
        assert_eq!(login("https://u:p@a/b", "https://a/c").as_deref(), Some("u:p"));
        assert_eq!(login("https://u:p@a/b", "https://x/c"), None);
        assert_eq!(login("https://u:p@a/b", "http://a/c"), None);
    }
}
