//! The registry client against Debian's docker-registry, and what it pushed as skopeo sees it.

use std::io::Read;

use boxwright_cache::oci::descriptor::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use boxwright_cache::oci::{Descriptor, ImageConfig, Manifest, Reference};
use boxwright_cache::registry::{Client, Options, Sent};
use boxwright_cache::{Cancel, DiffId, Digest, Error};
use boxwright_testdata::peer::{Registry, skopeo};

/// An empty tar: two blocks of zeros.
const LAYER: [u8; 1024] = [0; 1024];

fn push(client: &Client, reference: &Reference, bytes: &[u8], media_type: &str) -> (Descriptor, Sent) {
    let blob = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
    let mut open = || Ok(Box::new(std::io::Cursor::new(bytes.to_vec())) as Box<dyn Read + Send>);
    let sent = client.push_blob(reference, &blob, None, &mut open, &Cancel::new().unwrap()).unwrap();
    (blob, sent)
}

fn push_image(client: &Client, reference: &Reference) -> (Digest, Descriptor) {
    let mut config =
        ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    config.rootfs.diff_ids.push(DiffId(Digest::of(&LAYER)));
    let (config, _) = push(client, reference, &config.to_bytes(), OCI_CONFIG);
    let (layer, _) = push(client, reference, &LAYER, OCI_LAYER);
    let manifest = serde_json::to_vec(&Manifest::oci(config, vec![layer.clone()])).unwrap();
    let digest = client.push_manifest(reference, OCI_MANIFEST, manifest, &Cancel::new().unwrap()).unwrap();
    (digest, layer)
}

#[test]
fn what_was_pushed_can_be_fetched_by_tag_and_by_digest() {
    let (registry, cancel) = (Registry::start(), Cancel::new().unwrap());
    let client = Client::new(Options::default());
    let reference: Reference = registry.name("some/thing:v1").parse().unwrap();
    let (digest, layer) = push_image(&client, &reference);
    assert_eq!(client.resolve(&reference, &cancel).unwrap(), digest);
    let by_tag = client.fetch_manifest(&reference, &cancel).unwrap();
    let by_digest = client.fetch_manifest(&reference.with_digest(digest), &cancel).unwrap();
    assert_eq!((by_tag.digest, by_tag.media_type.as_str()), (digest, OCI_MANIFEST));
    assert_eq!(by_tag, by_digest);
    let mut bytes = Vec::new();
    client.open_blob(&reference, &layer, &cancel).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, LAYER);
}

#[test]
fn a_second_push_sends_nothing_and_what_is_absent_is_not_found() {
    let (registry, cancel) = (Registry::start(), Cancel::new().unwrap());
    let client = Client::new(Options::default());
    let reference: Reference = registry.name("x:1").parse().unwrap();
    assert_eq!(push(&client, &reference, &LAYER, OCI_LAYER).1, Sent::Uploaded);
    assert_eq!(push(&client, &reference, &LAYER, OCI_LAYER).1, Sent::Present);
    assert!(matches!(client.fetch_manifest(&reference, &cancel), Err(Error::NotFound { .. })));
    let absent = Descriptor::new(OCI_LAYER, Digest::of(b"absent"), 6);
    assert!(matches!(client.open_blob(&reference, &absent, &cancel), Err(Error::NotFound { .. })));
}

#[test]
fn skopeo_reads_what_was_pushed_and_its_copy_is_fetched() {
    let (registry, cancel) = (Registry::start(), Cancel::new().unwrap());
    let client = Client::new(Options::default());
    let reference: Reference = registry.name("x:1").parse().unwrap();
    let (digest, _) = push_image(&client, &reference);
    let copy = registry.name("y/z:2");
    let (from, to) = (format!("docker://{reference}"), format!("docker://{copy}"));
    skopeo(&[
        "copy",
        "-q",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        "--preserve-digests",
        &from,
        &to,
    ])
    .ok();
    assert_eq!(client.fetch_manifest(&copy.parse().unwrap(), &cancel).unwrap().digest, digest);
}

#[test]
fn what_refers_to_a_manifest_is_listed_where_the_registry_keeps_no_list() {
    let (registry, cancel) = (Registry::start(), Cancel::new().unwrap());
    let client = Client::new(Options::default());
    let reference: Reference = registry.name("x:1").parse().unwrap();
    let (subject, layer) = push_image(&client, &reference);
    let tag = format!("{}:{}", registry.name("x"), subject.to_string().replace(':', "-")).parse().unwrap();
    assert!(matches!(client.fetch_manifest(&tag, &cancel), Err(Error::NotFound { .. })));
    let config = client.fetch_manifest(&reference, &cancel).unwrap().bytes;
    let config: Manifest = serde_json::from_slice(&config).unwrap();
    let mut manifest = Manifest::oci(config.config, vec![layer]);
    let size = client.fetch_manifest(&reference, &cancel).unwrap().bytes.len() as u64;
    let refers = serde_json::to_value(Descriptor::new(OCI_MANIFEST, subject, size)).unwrap();
    manifest.extra.insert("subject".to_owned(), refers);
    manifest.extra.insert("artifactType".to_owned(), "application/x.signature".into());
    manifest.extra.insert("annotations".to_owned(), serde_json::json!({ "a": "b" }));
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let signature = reference.with_digest(Digest::of(&bytes));
    // A second time changes nothing.
    for _ in 0..2 {
        let pushed = client.push_manifest(&signature, OCI_MANIFEST, bytes.clone(), &cancel).unwrap();
        let list = client.fetch_manifest(&tag, &cancel).unwrap();
        assert_eq!(list.media_type, OCI_INDEX);
        let list: serde_json::Value = serde_json::from_slice(&list.bytes).unwrap();
        let expected = serde_json::json!([{
            "mediaType": OCI_MANIFEST, "digest": pushed.to_string(), "size": bytes.len(),
            "artifactType": "application/x.signature", "annotations": { "a": "b" },
        }]);
        assert_eq!(list["manifests"], expected);
    }
}
