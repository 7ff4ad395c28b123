//! Makes the HTTP library's clients: with the right proxies, certificates and limits, and without any habits of its own.

use std::fs;
use std::path::Path;

use reqwest::{Certificate, Identity};

use super::Options;
use super::hosts::Trust;
use super::transport::reason_of;

impl Options {
    /// Without TLS no certificate is loaded, so that a machine without any can still reach its own registry.
    pub(super) fn http_client(&self, trust: &Trust) -> Result<reqwest::Client, String> {
        // Another part of the process may have installed the same provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .connect_timeout(self.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .http2_adaptive_window(true)
            .no_proxy();
        let proxies = &self.proxies;
        let direct = format!("localhost,127.0.0.0/8,::1,{}", proxies.none_for);
        let direct = reqwest::NoProxy::from_string(&direct);
        if let Some(url) = &proxies.http {
            builder = builder.proxy(reqwest::Proxy::http(url).map_err(reason_of)?.no_proxy(direct.clone()));
        }
        if let Some(url) = &proxies.https {
            builder = builder.proxy(reqwest::Proxy::https(url).map_err(reason_of)?.no_proxy(direct));
        }
        if trust.alone {
            builder = builder.pool_max_idle_per_host(0);
        }
        if trust.plain {
            return builder.tls_certs_only([]).build().map_err(reason_of);
        }
        if trust.insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        if let Some((certificate, key)) = &trust.identity {
            builder = builder.identity(identity(certificate, key)?);
        }
        let mut roots = Vec::new();
        for file in &trust.roots {
            let found = Certificate::from_pem_bundle(&read(file)?);
            roots.extend(found.map_err(|e| format!("{}: {}", file.display(), reason_of(e)))?);
        }
        builder.https_only(true).tls_certs_merge(roots).build().map_err(reason_of)
    }
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, String> {
    let pem = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
    Identity::from_pem(&pem)
        .map_err(|e| format!("{} with {}: {}", certificate.display(), key.display(), reason_of(e)))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("reading {}: {e}", path.display()))
}
