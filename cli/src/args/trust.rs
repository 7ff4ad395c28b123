//! `--ca-cert`: which authorities containers trust besides those of their image.

use std::io::Read as _;
use std::path::Path;

use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub(crate) struct TrustFlags {
    /// A file of certificates (PEM) that are trusted besides the image's, and stay out of it; `host`: this machine's
    #[arg(long, value_name = "FILE|host")]
    ca_cert: Vec<String>,
}

/// Where systems keep what all programs trust.
const OF_HOST: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const MAX: u64 = 8 << 20;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

impl TrustFlags {
    /// The certificates, one after the other, and nothing else that may be in the files.
    pub(crate) fn certificates(&self) -> Result<Vec<u8>> {
        let mut all = String::new();
        for flag in &self.ca_cert {
            for certificate in if flag == "host" { of_host()? } else { read(Path::new(flag))? } {
                if !all.contains(&certificate) {
                    all.push_str(&certificate);
                }
            }
        }
        Ok(all.into_bytes())
    }
}

fn of_host() -> Result<Vec<String>> {
    match OF_HOST.iter().find(|path| Path::new(path).exists()) {
        Some(path) => read(Path::new(path)),
        None => Err(Error::Helped {
            error: Box::new(Error::invalid("--ca-cert host: this machine has no certificates")),
            help: format!("they are looked for in {}", OF_HOST.join(", ")),
        }),
    }
}

fn read(path: &Path) -> Result<Vec<String>> {
    let doing = "reading the certificates of";
    let file = std::fs::File::open(path).map_err(Error::io(doing, path))?;
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes).map_err(Error::io(doing, path))?;
    let none = |reason: &str| Error::invalid(format!("--ca-cert {}: {reason}", path.display()));
    if bytes.len() as u64 > MAX {
        return Err(none("it is larger than 8 MiB"));
    }
    match certificates(&String::from_utf8_lossy(&bytes)) {
        None => Err(none("a certificate in it is cut off or no PEM")),
        Some(found) if found.is_empty() => Err(none("it has no certificate in PEM")),
        Some(found) => Ok(found),
    }
}

/// Those in the text; none if one of them is damaged.
fn certificates(text: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for rest in text.split(BEGIN).skip(1) {
        let (body, _) = rest.split_once(END)?;
        let odd = |c: char| !(c.is_ascii_alphanumeric() || "+/=".contains(c) || c.is_ascii_whitespace());
        if body.trim().is_empty() || body.contains(odd) {
            return None;
        }
        let lines: Vec<&str> = body.split_whitespace().collect();
        found.push(format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_are_taken_and_each_once() {
        let one = format!("{BEGIN}\nAAAA\nBB==\n{END}\n");
        let two = format!("{BEGIN}\nCCCC\n{END}\n");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem").display().to_string();
        let key = "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n";
        std::fs::write(&path, format!("words\n{one}{key}{}more", two.replace('\n', "\r\n"))).unwrap();
        let flags = TrustFlags { ca_cert: vec![path.clone(), path.clone()] };
        assert_eq!(String::from_utf8(flags.certificates().unwrap()).unwrap(), format!("{one}{two}"));
        for (text, words) in [
            ("nothing", "no certificate in PEM"),
            (key, "no certificate in PEM"),
            (&one[..40], "cut off"),
            (&one.replace("AAAA", "A\u{0}A"), "cut off"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = TrustFlags { ca_cert: vec![path.clone()] }.certificates().unwrap_err();
            assert!(error.to_string().contains(words) && error.to_string().contains(&path), "{error}");
        }
    }
}
