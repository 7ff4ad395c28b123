//! Any bytes as what registries and layouts answer: manifests, indexes, configs, names and headers. What was understood
//! means the same when it is written and read again.
#![no_main]

use boxwright_cache::Digest;
use boxwright_cache::oci::descriptor::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use boxwright_cache::oci::{Document, ImageConfig, Platform, Reference};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    for announced in
        [None, Some(OCI_MANIFEST), Some(OCI_INDEX), Some(DOCKER_MANIFEST), Some(DOCKER_INDEX), Some("x")]
    {
        let Ok(document) = Document::parse(input, announced) else { continue };
        let again = match &document {
            Document::Manifest(manifest) => serde_json::to_vec(manifest),
            Document::Index(index) => serde_json::to_vec(index),
        };
        let again = again.expect("maps with string keys always serialise");
        assert_eq!(Document::parse(&again, announced).expect("it was read before"), document);
    }
    if let Ok(config) = ImageConfig::parse(input) {
        let again = ImageConfig::parse(&config.to_bytes()).expect("it was read before");
        assert_eq!(again, config);
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    boxwright_cache::registry::fuzz_answers(text);
    for line in text.lines() {
        if let Ok(name) = line.parse::<Reference>() {
            assert_eq!(name.to_string().parse().ok().as_ref(), Some(&name), "{line:?}");
            assert_eq!(name.familiar().parse().ok().as_ref(), Some(&name), "{line:?}");
        }
        if let Ok(digest) = line.parse::<Digest>() {
            assert_eq!(digest.to_string(), line);
        }
        if let Ok(platform) = line.parse::<Platform>() {
            assert_eq!(platform.to_string().parse().ok().as_ref(), Some(&platform), "{line:?}");
        }
    }
});
