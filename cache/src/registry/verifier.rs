//! Whether a server's certificate is believed: webpki's rules, and as an exception what docker, curl and skopeo accept as
//! well, a certificate of a CA that is itself the trusted one. `openssl req -x509` makes no other kind.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// webpki's name for it; that crate is rustls's own.
pub(super) const CA_AS_SERVER: &str = "CaUsedAsEndEntity";

#[derive(Debug)]
pub(super) struct Verifier {
    trusted: Vec<CertificateDer<'static>>,
    /// None if everything is believed.
    webpki: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// One that trusts `roots`, each of which has to be a certificate, and those of the system that are.
    pub(super) fn new(
        roots: Vec<CertificateDer<'static>>,
        system: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Verifier, String> {
        let mut store = RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(|e| format!("a certificate that is to be trusted: {e}"))?;
        }
        store.add_parsable_certificates(system.iter().cloned());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
        let webpki = webpki.build().map_err(|_| "no CA certificates were found on the system".to_owned())?;
        let trusted = [roots, system].concat();
        Ok(Verifier { trusted, webpki: Some(webpki), algorithms: provider.signature_verification_algorithms })
    }

    /// One that believes any certificate, whoever shows it.
    pub(super) fn of_anybody(provider: &CryptoProvider) -> Verifier {
        let algorithms = provider.signature_verification_algorithms;
        Verifier { trusted: Vec::new(), webpki: None, algorithms }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(webpki) = &self.webpki else { return Ok(ServerCertVerified::assertion()) };
        match webpki.verify_server_cert(server, intermediates, name, ocsp_response, now) {
            // The dates were looked at before this was found. What the certificate says it may be used for was not:
            // whoever has its key could sign one for servers.
            Err(Error::InvalidCertificate(CertificateError::Other(why)))
                if why.0.to_string() == CA_AS_SERVER && self.trusted.iter().any(|root| root == server) =>
            {
                verify_server_name(&ParsedCertificate::try_from(server)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(webpki) = &self.webpki else { return Ok(HandshakeSignatureValid::assertion()) };
        webpki.verify_tls12_signature(message, server, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let Some(webpki) = &self.webpki else { return Ok(HandshakeSignatureValid::assertion()) };
        webpki.verify_tls13_signature(message, server, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use boxwright_testdata::peer::Certificates;
    use rustls::crypto::ring::{default_provider, sign::any_supported_type};
    use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
    use rustls::server::{ClientHello, ResolvesServerCert};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

    use super::*;

    fn certificate(made: &Certificates) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(made.path("server.pem")).unwrap()
    }

    fn trusting(root: &CertificateDer<'static>) -> Verifier {
        Verifier::new(vec![root.clone()], Vec::new(), &Arc::new(default_provider())).unwrap()
    }

    /// Presents its certificate with whatever key it has.
    #[derive(Debug)]
    struct Presents(Arc<CertifiedKey>);

    impl ResolvesServerCert for Presents {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    /// What the client says in the end to a server that presents `certificate` and signs with the key of `signer`.
    fn handshake(certificate: &CertificateDer<'static>, signer: &Certificates) -> Result<(), Error> {
        let provider = Arc::new(default_provider());
        let key = PrivateKeyDer::from_pem_file(signer.path("server.key")).unwrap();
        let key = CertifiedKey::new(vec![certificate.clone()], any_supported_type(&key).unwrap());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let server = server.with_cert_resolver(Arc::new(Presents(Arc::new(key))));
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_safe_default_protocol_versions().unwrap().dangerous();
        let client = client.with_custom_certificate_verifier(Arc::new(trusting(certificate)));
        let name = "registry.test".try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(client.with_no_client_auth()), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).unwrap();
            server.read_tls(&mut &*bytes).unwrap();
            server.process_new_packets().unwrap();
            bytes.clear();
            server.write_tls(&mut bytes).unwrap();
            client.read_tls(&mut &*bytes).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn what_is_trusted_may_be_the_server_s_own_and_nothing_else_may() {
        let (ours, other) = (Certificates::self_signed(), Certificates::self_signed());
        let (ours, other) = (certificate(&ours), certificate(&other));
        let now = UnixTime::now();
        let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 10 * 24 * 3600));
        let verifier = trusting(&ours);
        let verdict = |server: &CertificateDer<'_>, name: &'static str, now| {
            let verdict = verifier.verify_server_cert(server, &[], &name.try_into().unwrap(), &[], now);
            verdict.map(drop).map_err(|error| error.to_string())
        };
        verdict(&ours, "registry.test", now).unwrap();
        verdict(&ours, "127.0.0.1", now).unwrap();
        for (server, name, at, why) in [
            (&ours, "other.test", now, "not valid for name"),
            (&ours, "registry.test", later, "expired"),
            (&ours, "registry.test", UnixTime::since_unix_epoch(Duration::ZERO), "not valid yet"),
            (&other, "registry.test", now, CA_AS_SERVER),
        ] {
            let error = verdict(server, name, at).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn one_that_is_trusted_has_to_be_shown_by_whoever_has_its_key() {
        let (ours, other) = (Certificates::self_signed(), Certificates::self_signed());
        handshake(&certificate(&ours), &ours).unwrap();
        let error = handshake(&certificate(&ours), &other).unwrap_err();
        assert_eq!(error, Error::InvalidCertificate(CertificateError::BadSignature));
    }
}
