//! What is known beforehand of registries: which are spoken to without TLS, whom to trust as one, who we are to it, and
//! its mirrors. The caller reads the configuration; docker's `certs.d` directories are looked into here.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::origin::Origin;
use crate::error::{Error, Result};
use crate::oci::Reference;

/// How one registry is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// It is spoken to without TLS.
    pub plain_http: bool,
    /// Its certificate may be anybody's.
    pub insecure: bool,
    /// Asked before it when something is fetched: `HOST[:PORT][/PATH]` each.
    pub mirrors: Vec<String>,
    /// PEM files of certificates that vouch for it, besides the system's.
    pub ca: Vec<PathBuf>,
    /// PEM files of the certificate that we show to it, and of its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// All registries that something is known of.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// By `HOST[:PORT]` in lower case, as it stands in an image's name.
    pub known: BTreeMap<String, Host>,
    /// Directories as docker's `/etc/docker/certs.d`; the first that has one for a host counts.
    pub certs: Vec<PathBuf>,
    /// Another one, which is looked into last. It is the machine's: what we may not read there is not meant for us.
    pub system_certs: Option<PathBuf>,
    /// Gets told, in a line, what was passed over; the same line more than once.
    pub remark: Option<fn(&str)>,
}

/// What a connection is made with. Equal ones can share connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    pub(super) plain: bool,
    pub(super) insecure: bool,
    pub(super) roots: Vec<PathBuf>,
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// Each request has a connection of its own.
    pub(super) alone: bool,
}

impl Hosts {
    pub(super) fn of(&self, origin: &Origin) -> Option<&Host> {
        origin.names().iter().find_map(|name| self.known.get(name))
    }

    pub(super) fn is_plain(&self, origin: &Origin) -> bool {
        self.of(origin).is_some_and(|host| host.plain_http)
    }

    /// Whether something is known of how `origin` is spoken to with TLS.
    pub(super) fn has_tls(&self, origin: &Origin) -> Result<bool> {
        let known = |host: &Host| host.insecure || !host.ca.is_empty() || host.client.is_some();
        Ok(self.of(origin).is_some_and(known) || self.found_trust(origin)?.is_some())
    }

    /// Whom to trust as `origin` when it is asked on behalf of `registry`. What vouches for a registry may vouch for the
    /// servers that it names. But no registry can make us show our certificate to another host, nor believe any certificate.
    pub(super) fn trust(&self, origin: &Origin, registry: &Origin) -> Result<Trust> {
        if origin.is_plain() {
            return Ok(Trust { plain: true, ..Trust::default() });
        }
        let mut trust = self.own_trust(origin)?;
        if origin != registry {
            (trust.insecure, trust.identity) = (false, None);
            if !registry.is_plain() {
                trust.roots.extend(self.own_trust(registry)?.roots);
            }
        }
        trust.roots.sort();
        trust.roots.dedup();
        Ok(trust)
    }

    fn own_trust(&self, origin: &Origin) -> Result<Trust> {
        let mut trust = self.found_trust(origin)?.unwrap_or_default();
        if let Some(host) = self.of(origin) {
            trust.insecure = host.insecure;
            trust.roots.extend(host.ca.iter().cloned());
            trust.identity = host.client.clone().or(trust.identity);
        }
        Ok(trust)
    }

    /// What the first directory of certificates that there is for `origin` says.
    fn found_trust(&self, origin: &Origin) -> Result<Option<Trust>> {
        let names = origin.names();
        let own = self.certs.iter().flat_map(|dir| names.iter().map(move |name| certs_of(&dir.join(name))));
        let system = self.system_certs.iter();
        let system =
            system.flat_map(|dir| names.iter().map(move |name| self.system_certs_of(&dir.join(name))));
        own.chain(system).find_map(Result::transpose).transpose()
    }

    fn system_certs_of(&self, dir: &Path) -> Result<Option<Trust>> {
        let found = certs_of(dir);
        let Err(error) = &found else { return found };
        if error.kind() != Some(ErrorKind::PermissionDenied) {
            return found;
        }
        if let Some(remark) = self.remark {
            remark(&format!("WARNING: going on without the machine's certificates: {error}"));
        }
        Ok(None)
    }

    /// The names under which the mirrors of its registry have what `reference` names.
    pub(super) fn mirrors(&self, reference: &Reference) -> Result<Vec<Reference>> {
        let origin = Origin::of_registry(reference.registry(), "https")?;
        let mirrors = self.of(&origin).map_or(&[][..], |host| &host.mirrors);
        let at = |mirror: &String| {
            let tag = reference.tag().map_or(String::new(), |tag| format!(":{tag}"));
            let digest = reference.digest().map_or(String::new(), |digest| format!("@{digest}"));
            format!("{mirror}/{}{tag}{digest}", reference.repository()).parse()
        };
        mirrors.iter().map(at).collect()
    }
}

/// What docker finds in a host's directory: `*.crt` vouch for it, `*.cert` with the `*.key` of the same name is shown.
fn certs_of(dir: &Path) -> Result<Option<Trust>> {
    let failed = || Error::io("reading", dir);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(failed()(e)),
    };
    let files: Result<Vec<PathBuf>> = entries.map(|e| e.map(|e| e.path()).map_err(failed())).collect();
    let files = files?;
    let ending = |ending: &str| {
        let ending = Some(OsStr::new(ending));
        let mut found: Vec<PathBuf> = files.iter().filter(|f| f.extension() == ending).cloned().collect();
        found.sort();
        found
    };
    let (certs, keys) = (ending("cert"), ending("key"));
    for (one, other) in [(&certs, "key"), (&keys, "cert")] {
        for file in one {
            let partner = file.with_extension(other);
            if !files.contains(&partner) {
                let reason = format!("{} is missing; certificates of a CA end with .crt", partner.display());
                return Err(Error::malformed(file.display().to_string(), reason));
            }
        }
    }
    let mut certs = certs.into_iter();
    let identity = certs.next().map(|cert| (cert.clone(), cert.with_extension("key")));
    if certs.next().is_some() {
        return Err(Error::malformed(dir.display().to_string(), "more than one client certificate"));
    }
    Ok(Some(Trust { roots: ending("crt"), identity, ..Trust::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(registry: &str) -> Origin {
        Origin::of_registry(registry, "https").unwrap()
    }

    #[test]
    fn a_mirror_has_the_same_repository_below_its_path() {
        let host = Host { mirrors: vec!["m.example:5000/hub".to_owned()], ..Host::default() };
        let hosts = Hosts { known: [("docker.io".to_owned(), host)].into(), ..Hosts::default() };
        let mirrors = |name: &str| {
            let found = hosts.mirrors(&name.parse().unwrap()).unwrap();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(mirrors("busybox:1"), ["m.example:5000/hub/library/busybox:1"]);
        assert!(mirrors("other.example/busybox:1").is_empty());
    }

    #[test]
    fn certificates_are_found_by_host_and_port_and_shown_to_their_host_alone() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("r.example:5000");
        fs::create_dir(&host).unwrap();
        for name in ["ca.crt", "me.cert", "me.key", "note.txt"] {
            fs::write(host.join(name), "").unwrap();
        }
        let hosts = Hosts { certs: vec![dir.path().join("none"), dir.path().into()], ..Hosts::default() };
        let (registry, other) = (origin("r.example:5000"), origin("r.example:5001"));
        let own = hosts.trust(&registry, &registry).unwrap();
        assert_eq!(own.roots, [host.join("ca.crt")]);
        assert_eq!(own.identity, Some((host.join("me.cert"), host.join("me.key"))));
        let named = hosts.trust(&other, &registry).unwrap();
        assert_eq!((named.roots.len(), named.identity), (1, None));
        assert_eq!(hosts.trust(&other, &other).unwrap(), Trust::default());
        let sent_by_another = hosts.trust(&registry, &other).unwrap();
        assert_eq!((sent_by_another.roots.len(), sent_by_another.identity), (1, None));
        fs::remove_file(host.join("me.key")).unwrap();
        let error = hosts.trust(&registry, &registry).unwrap_err().to_string();
        assert!(error.contains("me.key is missing"), "{error}");
    }

    #[test]
    fn what_may_not_be_read_counts_as_absent_in_the_machine_s_directory_alone() {
        use std::os::unix::fs::PermissionsExt;
        if rustix::process::geteuid().is_root() {
            // It may read everything.
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o000)).unwrap();
        let (certs, r) = (dir.path().join("certs.d"), origin("r.example"));
        let own = Hosts { certs: vec![certs.clone()], ..Hosts::default() };
        assert_eq!(own.trust(&r, &r).unwrap_err().kind(), Some(ErrorKind::PermissionDenied));
        let system = Hosts { system_certs: Some(certs), ..Hosts::default() };
        assert_eq!(system.trust(&r, &r).unwrap(), Trust::default());
    }

    #[test]
    fn a_host_without_a_port_is_the_one_with_the_usual_port() {
        let host = Host { insecure: true, ..Host::default() };
        let hosts = Hosts { known: [("r.example".to_owned(), host)].into(), ..Hosts::default() };
        let insecure =
            |host: &str, registry: &str| hosts.trust(&origin(host), &origin(registry)).unwrap().insecure;
        assert!(insecure("r.example:443", "r.example"));
        assert!(!insecure("r.example:444", "r.example:444"));
        assert!(!insecure("r.example", "another.example"), "another registry cannot make use of it");
    }
}
