//! The configuration file: what is to be known of registries. README.md describes it; a name in it that is none is an
//! error, for nothing of it is ignored.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use boxwright_cache::oci::Reference;
use boxwright_cache::registry::Host;
use serde::Deserialize;

use crate::error::{Error, Result};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    registry: BTreeMap<String, Registry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Registry {
    plain_http: bool,
    insecure: bool,
    mirrors: Vec<String>,
    ca: Vec<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

/// What the first of `files` says that is there.
pub(super) fn read(files: &[PathBuf]) -> Result<BTreeMap<String, Host>> {
    for file in files {
        match fs::read_to_string(file) {
            Ok(text) => return parse(&text, file),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(e) => return Err(Error::io("reading", file)(e)),
        }
    }
    Ok(BTreeMap::new())
}

fn parse(text: &str, file: &Path) -> Result<BTreeMap<String, Host>> {
    let wrong = |reason: String| Error::invalid(format!("{}: {reason}", file.display()));
    let read: File = toml::from_str(text).map_err(|e| wrong(e.to_string().trim_end().to_owned()))?;
    let dir = file.parent().unwrap_or(Path::new("/"));
    let hosts = read.registry.into_iter().map(|(name, registry)| {
        let host = host(&name, registry, dir).map_err(|reason| wrong(format!("{name}: {reason}")))?;
        Ok((name.to_ascii_lowercase(), host))
    });
    hosts.collect()
}

fn host(name: &str, registry: Registry, dir: &Path) -> Result<Host, String> {
    if !is_place(name) || name.contains('/') {
        return Err("not HOST[:PORT] as in the name of an image".to_owned());
    }
    if let Some(mirror) = registry.mirrors.iter().find(|mirror| !is_place(mirror)) {
        return Err(format!("the mirror {mirror:?} is not HOST[:PORT][/PATH]"));
    }
    let tls = registry.insecure || !registry.ca.is_empty() || registry.client_cert.is_some();
    if registry.plain_http && tls {
        return Err("without TLS (plain-http) there are no certificates".to_owned());
    }
    let client = match (registry.client_cert, registry.client_key) {
        (Some(cert), Some(key)) => Some((dir.join(cert), dir.join(key))),
        (None, None) => None,
        _ => return Err("client-cert and client-key need each other".to_owned()),
    };
    Ok(Host {
        plain_http: registry.plain_http,
        insecure: registry.insecure,
        mirrors: registry.mirrors,
        ca: registry.ca.iter().map(|file| dir.join(file)).collect(),
        client,
    })
}

/// Whether images can be called `PLACE/name`, with a host in front.
fn is_place(text: &str) -> bool {
    let host = text.split('/').next().unwrap_or_default();
    format!("{text}/x").parse::<Reference>().is_ok_and(|name| name.registry() == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<BTreeMap<String, Host>, String> {
        parse(text, Path::new("/etc/boxwright/config.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_registry_is_as_the_file_says() {
        let hosts = parsed(
            "[registry.\"R.example:5000\"]\nca = [\"ca.pem\"]\nclient-cert = \"/c.pem\"\nclient-key = \"k.pem\"\n\
             [registry.\"docker.io\"]\nmirrors = [\"m.example/hub\"]\n[registry.localhost]\nplain-http = true\n",
        )
        .unwrap();
        let first = &hosts["r.example:5000"];
        assert_eq!(first.ca, [Path::new("/etc/boxwright/ca.pem")]);
        assert_eq!(first.client, Some(("/c.pem".into(), "/etc/boxwright/k.pem".into())));
        assert_eq!(hosts["docker.io"].mirrors, ["m.example/hub"]);
        assert!(hosts["localhost"].plain_http);
        assert_eq!(parsed(""), Ok(BTreeMap::new()));
    }

    #[test]
    fn nothing_is_ignored() {
        for (text, reason) in [
            ("[registries]\n", "unknown field `registries`"),
            ("[registry.\"r.example\"]\nplain_http = true\n", "unknown field `plain_http`"),
            ("[registry.\"r.example\"]\nmirrors = [\"https://m.example\"]\n", "the mirror"),
            ("[registry.\"https://r.example\"]\n", "not HOST[:PORT]"),
            ("[registry.\"r.example/x\"]\n", "not HOST[:PORT]"),
            ("[registry.\"r.example\"]\nclient-key = \"k\"\n", "need each other"),
            ("[registry.\"r.example\"]\nplain-http = true\ninsecure = true\n", "without TLS"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.starts_with("/etc/boxwright/config.toml: ") && error.contains(reason), "{error}");
        }
    }
}
