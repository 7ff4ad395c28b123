//! Layers that a manifest says lie elsewhere (`urls`, "nondistributable" and "foreign" types): they are absent, nobody is asked
//! for them but the registry, and who needs their bytes is told which they are.

use boxwright_cache::image::{Destination, Policy, Pull, Sources, pull, push, resolve};
use boxwright_cache::oci::{Platform, Reference};
use boxwright_cache::record::Stored;
use boxwright_testdata::archive::sha256;
use boxwright_testdata::peer::Registry;
use boxwright_testdata::server::{Reply, Server};
use boxwright_testdata::tar::Tar;
use serde_json::{Value, json};

use crate::archives::load_bytes;
use crate::images::{Place, layers};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const TYPES: [&str; 2] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// An image of one layer that is here and one that is not: its documents and layer, and the digest of the other.
struct Image {
    manifest: Vec<u8>,
    blobs: Vec<Vec<u8>>,
    absent: String,
}

fn image(kind: &str, url: &str) -> Image {
    let layer = layers().remove(0);
    let (here, absent) = (format!("sha256:{}", sha256(&layer)), format!("sha256:{}", sha256(b"elsewhere")));
    let config = json!({"os": Platform::host().os, "architecture": Platform::host().architecture,
        "rootfs": {"type": "layers", "diff_ids": [here, absent]}})
    .to_string();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": format!("sha256:{}", sha256(config.as_bytes())), "size": config.len()},
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": here, "size": layer.len()},
            {"mediaType": kind, "digest": absent, "size": 9, "urls": [url]}]});
    Image { manifest: manifest.to_string().into(), blobs: vec![config.into(), layer], absent }
}

fn path(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", sha256(bytes))
}

#[test]
fn an_archive_without_them_is_refused_by_their_digest() {
    for kind in TYPES {
        let (place, image) = (Place::new(), image(kind, "https://elsewhere.example/layer"));
        let entry = json!({"mediaType": MANIFEST, "digest": format!("sha256:{}", sha256(&image.manifest)),
            "size": image.manifest.len()});
        let index: Value = json!({"schemaVersion": 2, "manifests": [entry]});
        let tar = Tar::new().file("index.json", 0o644, index.to_string());
        let add = |tar: Tar, bytes: &Vec<u8>| tar.file(&path(bytes), 0o644, bytes);
        let archive = image.blobs.iter().chain([&image.manifest]).fold(tar, add).finish();
        let error = load_bytes(&place, &archive).unwrap_err().to_string();
        assert!(error.contains(&format!("layer {} is missing", image.absent)), "{error}");
        assert!(place.store.image_ids().unwrap().is_empty());
    }
}

#[test]
fn a_pull_or_push_of_one_says_which_layer_cannot_be_had_and_asks_nobody_else() {
    for kind in TYPES {
        let elsewhere = Server::start(|_, _| Reply::new(200, "elsewhere"));
        let image = image(kind, &format!("http://{}/layer", elsewhere.address()));
        let absent = image.absent.clone();
        let server = Server::start(move |request, _| {
            if request.path.contains("/manifests/") {
                return Reply::new(200, image.manifest.clone()).header("Content-Type", MANIFEST);
            }
            let found = image.blobs.iter().find(|blob| request.path.ends_with(&sha256(blob)));
            found.map_or(Reply::new(404, ""), |blob| Reply::new(200, blob.clone()))
        });
        let (place, registry) = (Place::new(), Registry::start());
        let name: Reference = format!("{}/a:1", server.address()).parse().unwrap();
        let sources = Sources { store: &place.store, client: &place.client };
        let pulled = pull(sources, &name, &Platform::host(), &|_| (), &place.cancel);
        let error = pulled.unwrap_err().to_string();
        assert!(error.contains(&absent), "{error}");
        assert!(place.store.names(None).unwrap().is_empty());
        // What only needs the documents works.
        let policy = Policy { pull: Pull::Missing, keep: true };
        let found = resolve(sources, &name, &Platform::host(), policy, &place.cancel).unwrap();
        let to = registry.name("b:1").parse().unwrap();
        let pushed = push(sources, &Stored::Image(found.image), Destination::of(&to), &|_| (), &place.cancel);
        let error = pushed.unwrap_err().to_string();
        assert!(error.contains(&absent), "{error}");
        assert!(place.client.resolve(&to, &place.cancel).is_err());
        assert!(elsewhere.requests().is_empty());
    }
}
