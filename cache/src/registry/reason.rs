//! Why an exchange failed: in the words of docker where it has some that people look for, else in the HTTP library's.

use std::error::Error as StdError;
use std::io;

use rustls::{CertificateError, InvalidMessage};

use super::verifier::CA_AS_SERVER;
use crate::error::{Error, Remedy};

const PLAIN_SERVER: &str = "http: server gave HTTP response to HTTPS client";
const UNKNOWN_AUTHORITY: &str =
    "tls: failed to verify certificate: x509: certificate signed by unknown authority";

/// The error for a reason of [`reason_of`], or another one.
pub(super) fn registry_error(registry: &str, doing: &str, reason: String) -> Error {
    // What vouches for a registry vouches for its token server as well, but that server may not be spoken to without TLS.
    let remedy = match reason.as_str() {
        PLAIN_SERVER => Some(Remedy::PlainHttp),
        reason if reason.ends_with(UNKNOWN_AUTHORITY) => Some(Remedy::Ca),
        _ => None,
    };
    Error::Registry { registry: registry.to_owned(), doing: doing.to_owned(), reason, remedy }
}

/// What the HTTP library says, without the URL (which may hold a signature) and without its own layers' names.
pub(super) fn reason_of(error: reqwest::Error) -> String {
    if let Some(words) = of_tls(&error).and_then(in_dockers_words) {
        return words.to_owned();
    }
    let error = error.without_url();
    let mut parts = vec![error.to_string()];
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !parts.iter().any(|p| p.ends_with(&text)) {
            parts.push(text);
        }
        source = cause.source();
    }
    let from = parts.len().saturating_sub(2);
    parts[from..].join(": ")
}

fn in_dockers_words(error: &rustls::Error) -> Option<&'static str> {
    match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Some(PLAIN_SERVER),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Some(UNKNOWN_AUTHORITY),
        // One that only itself vouches for is of this kind more often than not.
        rustls::Error::InvalidCertificate(CertificateError::Other(why)) => {
            (why.0.to_string() == CA_AS_SERVER).then_some(UNKNOWN_AUTHORITY)
        }
        _ => None,
    }
}

/// What the TLS library said, if it was that.
fn of_tls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // The source of an I/O error is that of the error in it, which would be passed over.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
