//! A registry (distribution) on 127.0.0.1, with its files where a test can damage them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::certificates::Certificates;
use super::daemon::{Daemon, port_in};
use super::tokens::{ISSUER, SERVICE, TokenServer};
use crate::{Ran, run};

/// Who may log in to a registry with [`Setup::basic`].
pub const USER: &str = "tester";
pub const PASSWORD: &str = "secret";
/// Of `PASSWORD`.
const BCRYPT: &str = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

#[derive(Debug)]
pub struct Registry {
    // Dropped in this order: the process first, then its files.
    _daemon: Daemon,
    dir: TempDir,
    port: u16,
}

/// How a registry is set up, in the words of its configuration file.
#[derive(Debug, Default)]
pub struct Setup {
    tls: String,
    auth: String,
}

impl Setup {
    /// With TLS; whoever connects has to show a certificate if `clients`.
    #[must_use]
    pub fn tls(mut self, certificates: &Certificates, clients: bool) -> Setup {
        let at = |name: &str| certificates.path(name).display().to_string();
        let ca = if clients { format!(", clientcas: [{}]", at("ca.pem")) } else { String::new() };
        self.tls = format!(", tls: {{certificate: {}, key: {}{ca}}}", at("server.pem"), at("server.key"));
        self
    }

    /// For [`USER`] with [`PASSWORD`] alone.
    #[must_use]
    pub fn basic(mut self, htpasswd: &Path) -> Setup {
        fs::write(htpasswd, format!("{USER}:{BCRYPT}\n")).unwrap();
        self.auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", htpasswd.display());
        self
    }

    /// For whom the token server gives a token.
    #[must_use]
    pub fn tokens(mut self, server: &TokenServer, certificates: &Certificates) -> Setup {
        let (realm, ca) = (server.realm(), certificates.path("ca.pem"));
        let fields = format!("service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {}", ca.display());
        self.auth = format!("auth: {{token: {{realm: \"{realm}\", {fields}}}}}\n");
        self
    }

    pub fn start(self) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yml");
        let Setup { tls, auth } = self;
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: info}}\n\
                 storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
                 http: {{addr: \"127.0.0.1:0\", secret: test{tls}}}\n{auth}",
                dir.path().join("data").display()
            ),
        )
        .unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null());
        let said = dir.path().join("said");
        command.stdout(File::create(dir.path().join("log")).unwrap()).stderr(File::create(&said).unwrap());
        let mut port = None;
        let daemon = Daemon::start(&mut command, || {
            port = port_in(&said, "listening on 127.0.0.1:");
            port.is_some()
        });
        Registry { _daemon: daemon, dir, port: port.unwrap() }
    }
}

impl Registry {
    /// Plain HTTP, for everybody.
    pub fn start() -> Registry {
        Setup::default().start()
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `127.0.0.1:PORT/NAME`.
    pub fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// Uploads the only image of a docker archive under `name`, with skopeo, and returns the full name.
    pub fn push(&self, docker_archive: &Path, name: &str) -> String {
        let full = self.name(name);
        skopeo(&[
            "copy",
            "-q",
            "--dest-tls-verify=false",
            &source(docker_archive),
            &format!("docker://{full}"),
        ])
        .ok();
        full
    }

    /// What it was asked so far, as `GET /v2/name/blobs/sha256:…`.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
        let asked = log.lines().filter_map(|line| line.split('"').nth(1));
        asked.filter_map(|asked| asked.strip_suffix(" HTTP/1.1")).map(str::to_owned).collect()
    }

    /// Where a blob's bytes lie.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("a SHA-256 digest");
        self.dir.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

fn source(docker_archive: &Path) -> String {
    format!("docker-archive:{}", docker_archive.display())
}

/// skopeo without a signature policy of the machine.
pub fn skopeo(args: &[&str]) -> Ran {
    run(Command::new("skopeo").arg("--insecure-policy").args(args))
}
