//! Makes the HTTP library's clients: with the right proxies, certificates and limits, and without any habits of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Options;
use super::hosts::Trust;
use super::reason::reason_of;
use super::verifier::Verifier;

impl Options {
    /// Without TLS no certificate is loaded, so that a machine without any can still reach its own registry.
    pub(super) fn http_client(&self, trust: &Trust) -> Result<reqwest::Client, String> {
        let provider = rustls::crypto::ring::default_provider();
        // Another part of the process may have installed the same provider already.
        let _ = provider.clone().install_default();
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
        let config = tls(trust, Arc::new(provider))?;
        builder.https_only(true).tls_backend_preconfigured(config).build().map_err(reason_of)
    }
}

fn tls(trust: &Trust, provider: Arc<CryptoProvider>) -> Result<ClientConfig, String> {
    let mut roots = Vec::new();
    for file in &trust.roots {
        roots.extend(certificates(file)?);
    }
    let verifier = if trust.insecure {
        Verifier::of_anybody(&provider)
    } else {
        // A file of the system that can't be read takes nothing from what the others vouch for.
        let system = rustls_native_certs::load_native_certs().certs;
        Verifier::new(roots, system, &provider)?
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?.dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &trust.identity {
        Some(identity) => {
            let (certificates, key) = self::identity(identity)?;
            let failed = |e| format!("{} with {}: {e}", identity.0.display(), identity.1.display());
            builder.with_client_auth_cert(certificates, key).map_err(failed)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity((certificate, key): &(PathBuf, PathBuf)) -> Result<Identity, String> {
    let failed = |e| format!("a private key in {}: {e}", key.display());
    Ok((certificates(certificate)?, PrivateKeyDer::from_pem_slice(&read(key)?).map_err(failed)?))
}

/// Those in a PEM file, where there may be none.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    found.map_err(|e| format!("{}: {e}", file.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("reading {}: {e}", path.display()))
}
