//! Where a registry is: scheme, host and port. Decides which registries may be spoken to without TLS.

use std::fmt;
use std::net::IpAddr;

use reqwest::Url;

use crate::error::{Error, Result};

/// Scheme, host and port, in one normal form. What a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

/// The host that serves the images named `docker.io/…`.
const DOCKER_HUB: &str = "registry-1.docker.io";

impl Origin {
    /// The origin of a URL, if it is one of HTTP or HTTPS.
    pub(super) fn of_url(url: &Url) -> Option<Origin> {
        let scheme = url.scheme();
        if !matches!(scheme, "http" | "https") {
            return None;
        }
        let (host, port) = (url.host_str()?.to_owned(), url.port_or_known_default()?);
        Some(Origin { scheme: scheme.to_owned(), host, port })
    }

    /// The origin of `registry` (host and optional port, as in a reference) when it is spoken to with `scheme`.
    pub(super) fn of_registry(registry: &str, scheme: &str) -> Result<Origin> {
        let host = if registry == "docker.io" { DOCKER_HUB } else { registry };
        let url: Option<Url> = format!("{scheme}://{host}/").parse().ok();
        url.as_ref()
            .and_then(Origin::of_url)
            .ok_or_else(|| Error::invalid("registry host", registry, "not a host and port"))
    }

    /// The names that a configuration may call it by: with its port, and without if that is the usual one.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = vec![format!("{}:{}", self.host, self.port)];
        if self.port == if self.is_plain() { 80 } else { 443 } {
            names.push(self.host.clone());
            names.extend((self.host == DOCKER_HUB).then(|| "docker.io".to_owned()));
        }
        // A host from a URL could be one of these, and names become those of directories.
        names.retain(|name| !name.starts_with('.'));
        names
    }

    pub(super) fn is_plain(&self) -> bool {
        self.scheme == "http"
    }

    /// Whether it is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// The URL of `path`, which starts with `/` and is already escaped.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        let url = format!("{self}{path}");
        url.parse().map_err(|_| Error::invalid("registry URL", url, "not a URL"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// Whether a registry name or URL host is this machine: spoken to without TLS even if nobody said so.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[').and_then(|r| r.split_once(']')) {
        Some((v6, _)) => v6,
        None => registry.split(':').next().unwrap_or(registry),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for name in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:5000"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in
            ["docker.io", "127.0.0.1.example.com", "localhost.example.com:5000", "[::2]:5000", "10.0.0.1"]
        {
            assert!(!is_loopback(name), "{name}");
        }
    }

    #[test]
    fn default_ports_and_the_hub_are_normal() {
        let origin = |r: &str, s: &str| Origin::of_registry(r, s).unwrap().to_string();
        assert_eq!(origin("docker.io", "https"), "https://registry-1.docker.io:443");
        assert_eq!(origin("[::1]:5000", "http"), "http://[::1]:5000");
        let url: Url = "https://R.Example/v2/".parse().unwrap();
        assert_eq!(Origin::of_url(&url), Some(Origin::of_registry("r.example:443", "https").unwrap()));
        assert_eq!(Origin::of_url(&"file:///etc/passwd".parse().unwrap()), None);
    }
}
