//! A client of OCI registries (distribution-spec 1.1: pull, push and discovery). Blocking; HTTP runs on a thread of its own that
//! the first request starts. Every byte is verified against its digest.

mod auth;
mod blob;
mod body;
mod file;
mod hosts;
mod http;
mod listing;
mod login;
mod origin;
mod pieces;
mod reason;
mod referrers;
mod runtime;
mod session;
mod token;
mod transport;
mod upload;
mod verifier;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName};

pub use blob::BlobReader;
pub use file::{Answer, FileReader, Validators};
pub use hosts::{Host, Hosts};
pub use login::{Credentials, Kept, Logins, key_of, registry_of};
pub(crate) use referrers::subject_of;
pub use upload::Sent;

use crate::blob::BlobFetch;
use crate::cancel::Cancel;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::oci::descriptor::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::oci::manifest::MAX_DOCUMENT;
use crate::oci::{Descriptor, Reference};
use auth::Actions;
use runtime::Runtime;
use transport::{Ask, Transport};

/// How to reach registries. Nothing here reads the environment, but for one thing: the CA certificates are
/// the system's, which OpenSSL's variables `SSL_CERT_FILE` and `SSL_CERT_DIR` can move.
#[derive(Clone, Debug)]
pub struct Options {
    pub user_agent: String,
    pub proxies: Proxies,
    pub hosts: Hosts,
    /// Who we are to registries that ask for that; to none if there are no logins.
    pub logins: Option<Logins>,
    pub connect_timeout: Duration,
    /// How long a server may be silent while it is its turn.
    pub idle_timeout: Duration,
}

/// URLs of proxies for each scheme, and the hosts (in curl's `no_proxy` form) that are reached without.
/// This machine is always reached without.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    pub http: Option<String>,
    pub https: Option<String>,
    pub none_for: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            user_agent: concat!("boxwright/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxies: Proxies::default(),
            hosts: Hosts::default(),
            logins: None,
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// Reads `text` as each of the answers that we take apart ourselves.
#[cfg(feature = "fuzzing")]
pub fn fuzz_answers(text: &str) {
    for challenge in auth::Challenge::parse(text) {
        let _ = (challenge.is_basic(), challenge.is_bearer(), challenge.realm(), challenge.service());
    }
    if let Ok(answer) = serde_json::from_str::<auth::TokenAnswer>(text) {
        let _ = (answer.life(), answer.token(), answer.identity());
    }
    let _ = listing::targets_of_next(text);
    transport::fuzz_headers(text);
}

/// A manifest or index as the registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    pub bytes: Vec<u8>,
    /// The `Content-Type` without parameters; empty if the registry named none.
    pub media_type: String,
    pub digest: Digest,
}

/// Cheap to make and to clone; clones share connections and tokens.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    transport: Arc<Transport>,
    runtime: Runtime,
}

impl Client {
    pub fn new(options: Options) -> Client {
        Client(Arc::new(Inner { transport: Arc::new(Transport::new(options)), runtime: Runtime::default() }))
    }

    /// What the first mirror gives that has it, else what the registry itself says.
    fn mirrored<T>(&self, reference: &Reference, ask: impl Fn(&Reference) -> Result<T>) -> Result<T> {
        for mirror in self.0.transport.mirrors(reference)? {
            match ask(&mirror) {
                Ok(found) => return Ok(found),
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(Error::NotFound { .. }) => {}
                Err(_) => self.0.transport.give_up_mirror(&mirror),
            }
        }
        ask(reference)
    }

    /// The document that `reference` names, by its digest if it has one. What comes back has that digest.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Mismatch`], [`Error::Registry`] or [`Error::Cancelled`].
    pub fn fetch_manifest(&self, reference: &Reference, cancel: &Cancel) -> Result<Fetched> {
        self.mirrored(reference, |reference| self.fetch_manifest_at(reference, cancel))
    }

    fn fetch_manifest_at(&self, reference: &Reference, cancel: &Cancel) -> Result<Fetched> {
        let (transport, reference) = (Arc::clone(&self.0.transport), reference.clone());
        self.0.runtime.call(cancel, async move {
            let ask = manifest_ask(&transport, &reference, Method::GET, "fetching the manifest").await?;
            let (headers, bytes) = transport.fetch(&ask, MAX_DOCUMENT).await?;
            let (media_type, announced) = (content_type(&headers), announced(&headers));
            let digest = verify(&reference, &bytes, announced)?;
            Ok(Fetched { bytes, media_type, digest })
        })
    }

    /// The digest that a tag stands for now, without fetching what it names where the registry can say so.
    ///
    /// # Errors
    /// As [`Client::fetch_manifest`].
    pub fn resolve(&self, reference: &Reference, cancel: &Cancel) -> Result<Digest> {
        self.mirrored(reference, |reference| self.resolve_at(reference, cancel))
    }

    fn resolve_at(&self, reference: &Reference, cancel: &Cancel) -> Result<Digest> {
        let (transport, asked) = (Arc::clone(&self.0.transport), reference.clone());
        let digest = self.0.runtime.call(cancel, async move {
            let ask = manifest_ask(&transport, &asked, Method::HEAD, "resolving").await?;
            Ok(announced(transport.send(&ask).await?.headers()))
        })?;
        match (reference.digest(), digest) {
            (Some(digest), _) => Ok(*digest),
            (None, Some(digest)) => Ok(digest),
            (None, None) => Ok(self.fetch_manifest_at(reference, cancel)?.digest),
        }
    }

    /// Whether the registry itself, and not a mirror of it, has the manifest or index.
    ///
    /// # Errors
    /// As [`Client::fetch_manifest`].
    pub fn has_manifest(&self, reference: &Reference, cancel: &Cancel) -> Result<bool> {
        match self.resolve_at(reference, cancel) {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// A blob of the repository of `reference`. The reader ends without error only if size and digest were right,
    /// so it must be read to its end; a broken transfer is resumed.
    ///
    /// # Errors
    /// As [`Client::fetch_manifest`]; later ones come out of the reader ([`crate::registry::BlobReader`]).
    pub fn open_blob(&self, reference: &Reference, blob: &Descriptor, cancel: &Cancel) -> Result<BlobReader> {
        self.mirrored(reference, |reference| blob::open(self, reference, blob, cancel))
    }

    /// Brings a blob to the repository of `reference`, unless it has it. It is taken from the repository `from` (`HOST/NAME`)
    /// if the registry is willing to do that. `open` gives its bytes from the start, and is called again when a transfer
    /// broke.
    ///
    /// # Errors
    /// [`Error::Registry`], [`Error::Mismatch`] if the bytes are not as `blob` says, [`Error::Cancelled`],
    /// and what `open` returns.
    pub fn push_blob(
        &self,
        reference: &Reference,
        blob: &Descriptor,
        from: Option<&str>,
        open: &mut upload::Open<'_>,
        cancel: &Cancel,
    ) -> Result<Sent> {
        let Inner { transport, runtime } = self.0.as_ref();
        let job = upload::Job { runtime, transport, reference, blob, cancel };
        if job.is_there()? {
            return Ok(Sent::Present);
        }
        let own = |from: &str| from.strip_prefix(reference.registry())?.strip_prefix('/').map(str::to_owned);
        let from = from.and_then(own).filter(|from| from != reference.repository());
        upload::push(&job, from.as_deref(), open)
    }

    /// Whether `registry` (`HOST[:PORT]`) takes the credentials. Gives what should be kept: they themselves, or the
    /// identity token that the registry's token server gave for them.
    ///
    /// # Errors
    /// [`Error::Registry`] when it does not, or can't be asked; [`Error::Cancelled`].
    pub fn log_in(&self, registry: &str, credentials: Credentials, cancel: &Cancel) -> Result<Credentials> {
        let (transport, registry) = (Arc::clone(&self.0.transport), registry.to_owned());
        self.0.runtime.call(cancel, async move { transport.log_in(&registry, credentials).await })
    }

    /// Puts a manifest or index under the tag of `reference`, or under its digest (by the algorithm of that in
    /// `reference`, if there is one) if it has no tag; and into the list of what
    /// refers to its subject, if it has one and the registry keeps no such list.
    ///
    /// # Errors
    /// [`Error::Registry`] or [`Error::Cancelled`].
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Vec<u8>,
        cancel: &Cancel,
    ) -> Result<Digest> {
        let mut hasher = reference.digest().map_or(Algorithm::Sha256, Digest::algorithm).hasher();
        hasher.update(&bytes);
        let digest = hasher.finish();
        let subject = subject_of(&bytes);
        let sent = if subject.is_some() { bytes.clone() } else { Vec::new() };
        let (transport, name) = (Arc::clone(&self.0.transport), reference.clone());
        let put = upload::put_manifest(transport, name, media_type.to_owned(), bytes, digest);
        let noted = self.0.runtime.call(cancel, put)?;
        if let Some(subject) = subject.filter(|_| !noted) {
            let pushed = Descriptor::new(media_type, digest, sent.len() as u64);
            referrers::list(self, reference, &subject.digest, pushed, &sent, cancel)?;
        }
        Ok(digest)
    }
}

async fn manifest_ask(
    transport: &Transport,
    reference: &Reference,
    method: Method,
    doing: &str,
) -> Result<Ask> {
    let doing = format!("{doing} of {}", reference.familiar());
    let path = format!("manifests/{}", name_in_repository(reference));
    let mut ask = transport.ask(reference, method, Actions::Pull, &path, doing).await?;
    let accepted = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];
    ask.headers.push((ACCEPT, accepted.join(", ")));
    Ok(ask)
}

/// The digest if there is one: it says more than the tag beside it.
fn name_in_repository(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

/// The digest of `bytes`, which must be the one that was asked for, else the one that the registry announced.
fn verify(reference: &Reference, bytes: &[u8], announced: Option<Digest>) -> Result<Digest> {
    let expected = reference.digest().copied().or(announced);
    let algorithm = expected.map_or(Algorithm::Sha256, |d| d.algorithm());
    let mut hasher = algorithm.hasher();
    hasher.update(bytes);
    let actual = hasher.finish();
    match expected.filter(|e| *e != actual) {
        None => Ok(actual),
        Some(expected) => Err(Error::Mismatch {
            what: format!("manifest of {}", reference.familiar()),
            expected: expected.to_string(),
            actual: actual.to_string(),
        }),
    }
}

fn announced(headers: &HeaderMap) -> Option<Digest> {
    let header = headers.get(HeaderName::from_static("docker-content-digest"))?;
    header.to_str().ok()?.parse().ok()
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

impl BlobFetch for Client {
    fn fetch(&self, repository: &str, blob: &Descriptor, cancel: &Cancel) -> Result<Box<dyn Read + Send>> {
        let reference: Reference = repository.parse()?;
        Ok(Box::new(self.open_blob(&reference, blob, cancel)?))
    }
}
