//! A certificate authority of one test, with a certificate for servers on this machine (and `registry.test`), and one for a
//! client; or a server's certificate that nobody but itself vouches for.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::run;

const NAMES: &str = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test";

#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

impl Certificates {
    pub fn new() -> Certificates {
        let certificates = Certificates { dir: tempfile::tempdir().unwrap() };
        certificates.request("ca", &["-x509", "-subj", "/CN=Authority of a test", "-days", "2"]);
        for (name, names) in [
            ("server", &*format!("{NAMES}\nextendedKeyUsage=serverAuth\n")),
            ("client", "extendedKeyUsage=clientAuth\n"),
        ] {
            let at = |ending: &str| certificates.path(&format!("{name}.{ending}"));
            certificates.request(name, &["-subj", &format!("/CN={name}")]);
            fs::write(at("extensions"), names).unwrap();
            let (ca, key) = (certificates.path("ca.pem"), certificates.path("ca.key"));
            let mut command = Command::new("openssl");
            command.args(["x509", "-req", "-days", "2", "-CAcreateserial"]);
            command.arg("-CA").arg(ca).arg("-CAkey").arg(key).arg("-in").arg(at("pem"));
            command.arg("-extfile").arg(at("extensions")).arg("-out").arg(at("signed"));
            run(&mut command).ok();
            fs::rename(at("signed"), at("pem")).unwrap();
        }
        certificates
    }

    /// As docker's documentation has registries certified: `server.pem` and `server.key`, and nothing else.
    pub fn self_signed() -> Certificates {
        let certificates = Certificates { dir: tempfile::tempdir().unwrap() };
        let subject = "/CN=registry.test";
        certificates.request("server", &["-x509", "-subj", subject, "-addext", NAMES, "-days", "2"]);
        certificates
    }

    /// A new key, and a request or certificate for it, as `NAME.key` and `NAME.pem`.
    fn request(&self, name: &str, args: &[&str]) {
        let mut command = Command::new("openssl");
        command.args(["req", "-newkey", "rsa:2048", "-nodes", "-sha256"]).args(args);
        command.arg("-keyout").arg(self.path(&format!("{name}.key")));
        command.arg("-out").arg(self.path(&format!("{name}.pem")));
        run(&mut command).ok();
    }

    /// `ca.pem`, `server.pem`, `server.key`, `client.pem` or `client.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}
