//! What a repository has: tags, and what refers to a manifest, from registries that tell it in pages, keep no lists, or lie.

use std::io::{Cursor, Read};
use std::time::Duration;

use boxwright_cache::digest::Algorithm;
use boxwright_cache::image::combine::{Combined, look_up};
use boxwright_cache::oci::descriptor::{OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST};
use boxwright_cache::oci::{Descriptor, Index, Manifest, Reference};
use boxwright_cache::registry::{Client, Options};
use boxwright_cache::{Cancel, Digest, Error};
use boxwright_testdata::peer::Registry;
use boxwright_testdata::server::{Reply, Server};
use serde_json::{Value, json};

const KIND: &str = "application/x.signature";

struct Asking {
    client: Client,
    cancel: Cancel,
}

impl Asking {
    fn new() -> Asking {
        let options = Options { idle_timeout: Duration::from_secs(20), ..Options::default() };
        Asking { client: Client::new(options), cancel: Cancel::new().unwrap() }
    }

    fn tags(&self, repository: &str) -> Result<Vec<String>, Error> {
        self.client.tags(&repository.parse().unwrap(), &self.cancel)
    }

    fn referrers(
        &self,
        repository: &str,
        subject: &Digest,
        kind: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        self.client.referrers(&repository.parse().unwrap(), subject, kind, &self.cancel)
    }

    fn push_blob(&self, name: &str, kind: &str) -> Descriptor {
        let blob = Descriptor::new(kind, Digest::of(b"{}"), 2);
        let mut open = || Ok(Box::new(Cursor::new(b"{}")) as Box<dyn Read + Send>);
        self.client.push_blob(&name.parse().unwrap(), &blob, None, &mut open, &self.cancel).unwrap();
        blob
    }

    /// Pushes a manifest with a config of this kind; gives its descriptor.
    fn push(&self, name: &str, kind: &str, subject: Option<&Descriptor>) -> Descriptor {
        let config = self.push_blob(name, kind);
        let name: Reference = name.parse().unwrap();
        let mut manifest = Manifest::oci(config, Vec::new());
        if let Some(subject) = subject {
            manifest.extra.insert("subject".to_owned(), serde_json::to_value(subject).unwrap());
        }
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let (digest, size) = (Digest::of(&manifest), manifest.len() as u64);
        let place = if subject.is_some() { name.by_digest(digest) } else { name };
        self.client.push_manifest(&place, OCI_MANIFEST, manifest, &self.cancel).unwrap();
        Descriptor::new(OCI_MANIFEST, digest, size)
    }
}

fn digests(entries: &[Descriptor]) -> Vec<Digest> {
    entries.iter().map(|entry| entry.digest).collect()
}

fn words(error: Result<impl std::fmt::Debug, Error>) -> String {
    error.unwrap_err().to_string()
}

#[test]
fn a_real_registry_tells_its_tags_and_what_clients_noted_as_referring() {
    let (registry, asking) = (Registry::start(), Asking::new());
    let repository = registry.name("some/thing");
    assert!(matches!(asking.tags(&repository), Err(Error::NotFound { what: "repository", .. })));
    let subject = asking.push(&format!("{repository}:v1"), OCI_CONFIG, None);
    assert!(asking.referrers(&repository, &subject.digest, None).unwrap().is_empty());
    asking.push(&format!("{repository}:v2"), OCI_CONFIG, None);
    assert_eq!(asking.tags(&repository).unwrap(), ["v1", "v2"]);
    let signature = asking.push(&repository, KIND, Some(&subject));
    let other = asking.push(&repository, "application/x.other", Some(&subject));
    let of = |kind| digests(&asking.referrers(&repository, &subject.digest, kind).unwrap());
    assert_eq!(of(None), [signature.digest, other.digest]);
    assert_eq!(of(Some(KIND)), [signature.digest]);
    assert!(of(Some("application/x.none")).is_empty());
}

#[test]
fn a_copy_takes_along_what_refers_to_it_if_that_is_asked_for() {
    let (registry, asking) = (Registry::start(), Asking::new());
    let subject = asking.push(&registry.name("from:1"), OCI_CONFIG, None);
    let signature = asking.push(&registry.name("from"), KIND, Some(&subject));
    let of_signature = asking.push(&registry.name("from"), KIND, Some(&signature));
    let found = look_up(&asking.client, &registry.name("from:1").parse().unwrap(), &asking.cancel).unwrap();
    let copy = Combined::of(&[found], true).unwrap();
    for (name, all) in [("bare", false), ("whole", true)] {
        let to = registry.name(&format!("{name}:1")).parse().unwrap();
        assert_eq!(copy.push(&asking.client, &to, all, &asking.cancel).unwrap().digest, subject.digest);
        let of = |digest: &Digest| digests(&asking.referrers(&registry.name(name), digest, None).unwrap());
        assert_eq!(of(&subject.digest), if all { vec![signature.digest] } else { vec![] });
        assert_eq!(of(&signature.digest), if all { vec![of_signature.digest] } else { vec![] });
    }
}

fn list(entries: &[Value]) -> String {
    json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries }).to_string()
}

fn entry(n: u8, kind: &str) -> Value {
    let digest = Digest::of(&[n]);
    json!({ "mediaType": OCI_MANIFEST, "digest": digest, "size": 7, "artifactType": kind })
}

#[test]
fn lists_are_read_page_by_page() {
    let server = Server::start(|request, _| match request.path.as_str() {
        "/v2/a/tags/list" => Reply::new(200, r#"{"name":"a","tags":["a","b"]}"#)
            .header("Link", r#"</v2/a/tags/list?last=b>; rel="next""#),
        "/v2/a/tags/list?last=b" => Reply::new(200, r#"{"name":"a","tags":["b","c"]}"#),
        "/v2/none/tags/list" => Reply::new(200, r#"{"name":"none","tags":null}"#),
        path if path.ends_with("?page=2") => {
            Reply::new(200, list(&[entry(2, "x"), entry(1, KIND)])).header("Content-Type", OCI_INDEX)
        }
        path => Reply::new(200, list(&[entry(1, KIND)]))
            .header("Content-Type", OCI_INDEX)
            .header("Link", format!(r#"<{path}?page=2>; rel="next""#)),
    });
    let asking = Asking::new();
    let (a, none) = (format!("{}/a", server.address()), format!("{}/none", server.address()));
    assert_eq!(asking.tags(&a).unwrap(), ["a", "b", "c"]);
    assert!(asking.tags(&none).unwrap().is_empty());
    let found = asking.referrers(&a, &Digest::of(b"x"), None).unwrap();
    assert_eq!(digests(&found), [Digest::of(&[1]), Digest::of(&[2])]);
    // The registry did not filter.
    let found = asking.referrers(&a, &Digest::of(b"x"), Some(KIND)).unwrap();
    assert_eq!(digests(&found), [Digest::of(&[1])]);
}

#[test]
fn a_server_that_answers_anything_to_anything_keeps_no_list() {
    let server = Server::start(|request, _| match request.path.contains("/referrers/") {
        true => Reply::new(200, "<html>").header("Content-Type", "text/html"),
        false => Reply::new(200, list(&[entry(1, KIND)])).header("Content-Type", OCI_INDEX),
    });
    let subject = Digest::of(b"x");
    let found = Asking::new().referrers(&format!("{}/a", server.address()), &subject, None).unwrap();
    assert_eq!(digests(&found), [Digest::of(&[1])]);
    let tag = format!("/v2/a/manifests/{}", subject.to_string().replace(':', "-"));
    assert_eq!(server.requests().last().unwrap().path, tag);
}

#[test]
fn what_refers_is_listed_by_the_digest_that_it_was_pushed_by() {
    let server = Server::start(|request, _| match request.method.as_str() {
        "GET" => Reply::new(404, ""),
        _ => Reply::new(201, ""),
    });
    let subject = Descriptor::new(OCI_MANIFEST, Digest::of(b"x"), 1);
    let mut manifest = Manifest::oci(Descriptor::new(KIND, Digest::of(b"{}"), 2), Vec::new());
    manifest.extra.insert("subject".to_owned(), serde_json::to_value(&subject).unwrap());
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut hasher = Algorithm::Sha512.hasher();
    hasher.update(&manifest);
    let digest = hasher.finish();
    let name: Reference = format!("{}/a", server.address()).parse().unwrap();
    let asking = Asking::new();
    asking.client.push_manifest(&name.by_digest(digest), OCI_MANIFEST, manifest, &asking.cancel).unwrap();
    let list = server.requests().pop().unwrap();
    assert_eq!(list.path, format!("/v2/a/manifests/{}", subject.digest.to_string().replace(':', "-")));
    let list: Index = serde_json::from_slice(&list.body).unwrap();
    assert_eq!(digests(&list.manifests), [digest]);
}

#[test]
fn no_list_leads_elsewhere_or_on_for_ever() {
    let elsewhere = Server::start(|_, _| Reply::new(200, r#"{"tags":["stolen"]}"#));
    let target = format!("http://{}/v2/a/tags/list", elsewhere.address());
    let server = Server::start(move |request, before| {
        let page = Reply::new(200, r#"{"tags":[]}"#);
        let next = match request.path.split('/').nth(2).unwrap() {
            "elsewhere" => target.clone(),
            "circle" => "?".to_owned(),
            "endless" => format!("?page={before}"),
            _ => return Reply::new(200, r#"{"tags":["a\u001b[2J"]}"#),
        };
        page.header("Link", format!(r#"<{next}>; rel="next""#))
    });
    let asking = Asking::new();
    let tags = |repository: &str| words(asking.tags(&format!("{}/{repository}", server.address())));
    assert!(tags("elsewhere").contains("goes on at another server"));
    assert!(elsewhere.requests().is_empty());
    assert!(tags("circle").contains("goes in a circle"));
    assert!(tags("endless").contains("more than 1000 pages"));
    let error = tags("control");
    assert!(error.contains("is none") && !error.contains('\u{1b}'), "{error:?}");
}

#[test]
fn what_is_listed_and_does_not_refer_is_not_copied() {
    let asking = Asking::new();
    let registry = Registry::start();
    let subject = asking.push(&registry.name("from:1"), OCI_CONFIG, None);
    let stranger = asking.push(&registry.name("from:2"), KIND, None);
    let blob = asking.push_blob(&registry.name("from"), OCI_LAYER_GZIP);
    let entries = [&stranger, &blob].map(|entry| serde_json::to_value(entry).unwrap());
    let tag = registry.name(&format!("from:{}", subject.digest.to_string().replace(':', "-")));
    asking
        .client
        .push_manifest(&tag.parse().unwrap(), OCI_INDEX, list(&entries).into_bytes(), &asking.cancel)
        .unwrap();
    let found = look_up(&asking.client, &registry.name("from:1").parse().unwrap(), &asking.cancel).unwrap();
    let to = registry.name("to:1").parse().unwrap();
    let copied = Combined::of(&[found], true).unwrap().push(&asking.client, &to, true, &asking.cancel);
    assert_eq!(copied.unwrap().digest, subject.digest);
    assert!(asking.referrers(&registry.name("to"), &subject.digest, None).unwrap().is_empty());
    let stranger = registry.name(&format!("to@{}", stranger.digest)).parse().unwrap();
    assert!(matches!(look_up(&asking.client, &stranger, &asking.cancel), Err(Error::NotFound { .. })));
}

/// As caches are kept by BuildKit where they are no manifests: an index of layers and a config.
#[test]
fn an_index_of_blobs_is_copied_with_them() {
    let (registry, asking) = (Registry::start(), Asking::new());
    let blob = asking.push_blob(&registry.name("from"), OCI_LAYER_GZIP);
    let cache = list(&[serde_json::to_value(&blob).unwrap()]);
    let name = registry.name("from:cache").parse().unwrap();
    asking.client.push_manifest(&name, OCI_INDEX, cache.into_bytes(), &asking.cancel).unwrap();
    let found = look_up(&asking.client, &name, &asking.cancel).unwrap();
    let to: Reference = registry.name("to:cache").parse().unwrap();
    Combined::of(&[found], true).unwrap().push(&asking.client, &to, false, &asking.cancel).unwrap();
    let mut copied = String::new();
    asking.client.open_blob(&to, &blob, &asking.cancel).unwrap().read_to_string(&mut copied).unwrap();
    assert_eq!(copied, "{}");
}

#[test]
fn a_manifest_that_no_registry_takes_is_not_sent() {
    let server = Server::start(|_, _| Reply::new(201, ""));
    let name: Reference = format!("{}/a:1", server.address()).parse().unwrap();
    let asking = Asking::new();
    let pushed = asking.client.push_manifest(&name, OCI_MANIFEST, vec![b' '; 5 << 20], &asking.cancel);
    assert!(words(pushed).contains("it has 5242880 bytes, and registries take 4194304 at most"));
    assert!(server.requests().is_empty());
}
