//! `load` and `save`: archives of other tools, hostile ones, and ours in skopeo's hands.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use boxwright_cache::export::{Root, Saved, save, tar};
use boxwright_cache::image::{Product, Shape, assemble};
use boxwright_cache::import::{Loaded, load};
use boxwright_cache::oci::{ImageConfig, Platform, Reference};
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::{Error, Result};
use boxwright_testdata::peer::skopeo;
use boxwright_testdata::tar::Tar;
use boxwright_testdata::{archive, run};
use serde_json::json;

use crate::images::{Place, layers};

pub(crate) fn load_bytes(place: &Place, bytes: &[u8]) -> Result<Vec<Loaded>> {
    load(&place.store, std::io::Cursor::new(bytes.to_vec()), None, &place.cancel)
}

fn config() -> serde_json::Value {
    json!({"Cmd": ["sh"], "Healthcheck": {"Test": ["NONE"]}})
}

fn check(place: &Place, bytes: &[u8], names: &[&str]) {
    let loaded = load_bytes(place, bytes).unwrap();
    assert_eq!(loaded.len(), 1);
    let found: Vec<String> = loaded[0].names.iter().map(Reference::familiar).collect();
    assert_eq!(found, names);
    let image = place.store.image(&loaded[0].id).unwrap().unwrap();
    assert_eq!(place.read(&image, "/etc/name").as_deref(), Some("top"));
    assert_eq!(place.read(&image, "/etc/gone"), None);
    for name in names {
        assert_eq!(place.store.image_named(&name.parse().unwrap()).unwrap().unwrap().id, image.id);
    }
}

/// Nothing of a refused archive may be left: no image, no name, no file.
fn refused(bytes: &[u8]) -> String {
    let place = Place::new();
    let error = load_bytes(&place, bytes).unwrap_err();
    assert!(place.store.names(None).unwrap().is_empty() && place.store.image_ids().unwrap().is_empty());
    for sub in ["tmp", "blobs"] {
        let left: Vec<_> = std::fs::read_dir(place.store.path().join(sub)).unwrap().flatten().collect();
        assert!(left.is_empty(), "{sub} holds {left:?} after {error}");
    }
    error.to_string()
}

#[test]
fn docker_and_oci_archives_load_plain_and_compressed() {
    let docker = archive::docker("x:1", &config(), &layers());
    check(&Place::new(), &docker, &["x:1"]);
    check(&Place::new(), &archive::oci("y/x:2", &config(), &layers()), &["y/x:2"]);
    check(&Place::new(), &archive::oci("v1", &config(), &layers()), &[]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    std::fs::write(&path, &docker).unwrap();
    let packed = Command::new("gzip").arg("-c").arg(&path).output().unwrap().stdout;
    check(&Place::new(), &packed, &["x:1"]);
    check(&Place::new(), &zstd::encode_all(docker.as_slice(), 1).unwrap(), &["x:1"]);
}

#[test]
fn loading_twice_gives_the_same_image_once() {
    let place = Place::new();
    for _ in 0..2 {
        check(&place, &archive::docker("x:1", &config(), &layers()), &["x:1"]);
    }
    assert_eq!(place.store.image_ids().unwrap().len(), 1);
}

/// As skopeo and podman write docker archives: layers by digest, with links at their old places.
#[test]
fn layers_behind_links_are_found_and_links_that_lead_out_are_not_followed() {
    let layer = layers().remove(0);
    let hex = archive::sha256(&layer);
    let config = json!({"os": "linux", "architecture": "amd64", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{hex}")]}})
    .to_string();
    let name = format!("{}.json", archive::sha256(config.as_bytes()));
    let manifest = json!([{"Config": name, "RepoTags": null, "Layers": ["abc/layer.tar"]}]).to_string();
    let with = |target: &str| {
        Tar::new()
            .file("manifest.json", 0o644, &manifest)
            .symlink("abc/layer.tar", target)
            .file(&format!("{hex}.tar"), 0o644, &layer)
            .file(&name, 0o644, &config)
            .file("abc/VERSION", 0o644, "1.0")
            .finish()
    };
    let place = Place::new();
    let loaded = load_bytes(&place, &with(&format!("../{hex}.tar"))).unwrap();
    assert_eq!(loaded[0].names, []);
    assert!(refused(&with("../../../../etc/passwd")).contains("leads out"));
    assert!(
        refused(&with("/etc/passwd")).contains("missing"),
        "a link to the host's files is a link into the archive"
    );
    assert!(refused(&with("layer.tar")).contains("too many links"));
}

#[test]
fn several_images_share_their_layers() {
    let (all, bottom) = (layers(), vec![layers().remove(0)]);
    let (one, two) =
        (archive::docker("one:1", &config(), &all), archive::docker("two:1", &config(), &bottom));
    let place = Place::new();
    check(&place, &one, &["one:1"]);
    load_bytes(&place, &two).unwrap();
    let mut both = Vec::new();
    let saved: Vec<Saved> = ["one:1", "two:1"]
        .iter()
        .map(|name| {
            let name: Reference = name.parse().unwrap();
            Saved { stored: place.store.stored_named(&name).unwrap().unwrap(), names: vec![name] }
        })
        .collect();
    save(&place.store, &saved, &mut both, &place.cancel).unwrap();
    let other = Place::new();
    let loaded = load_bytes(&other, &both).unwrap();
    assert_eq!(loaded.iter().map(|l| l.names[0].familiar()).collect::<Vec<_>>(), ["one:1", "two:1"]);
    assert_eq!(
        loaded.iter().map(|l| l.id).collect::<Vec<_>>(),
        saved.iter().map(|s| *s.stored.id()).collect::<Vec<_>>()
    );
}

#[test]
fn archives_that_lie_or_lack_something_are_refused_whole() {
    let layer = &layers()[0];
    let hex = archive::sha256(layer);
    let lie = |diff: &str, layer_name: &str| {
        let config =
            json!({"rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]}}).to_string();
        let manifest = json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": [layer_name]}]).to_string();
        Tar::new().file("manifest.json", 0o644, manifest).file("c.json", 0o644, config)
    };
    let other = archive::sha256(b"other");
    assert!(refused(&lie(&other, "l.tar").file("l.tar", 0o644, layer).finish()).contains("diff id"));
    let blob = format!("blobs/sha256/{other}");
    assert!(refused(&lie(&hex, &blob).file(&blob, 0o644, layer).finish()).contains(&other));
    assert!(refused(&lie(&hex, "l.tar").finish()).contains("missing"));
    assert!(refused(&lie(&hex, "../l.tar").file("l.tar", 0o644, layer).finish()).contains("leads out"));
    let twice = lie(&hex, "l.tar").file("l.tar", 0o644, layer).file("l.tar", 0o644, "other");
    assert!(refused(&twice.finish()).contains("two different entries"));
    let named =
        Tar::new().file("manifest.json", 0o644, json!([{"Config": format!("{other}.json")}]).to_string());
    assert!(refused(&named.file(&format!("{other}.json"), 0o644, "{}").finish()).contains(&other));
}

#[test]
fn what_is_no_image_archive_is_one_clear_error() {
    assert!(refused(b"").contains("neither manifest.json nor index.json"));
    assert!(refused(&Tar::new().file("x", 0o644, "y").finish()).contains("neither"));
    assert!(refused(&[7; 2000]).starts_with("image archive:"));
    let whole = archive::docker("x:1", &config(), &layers());
    let cut = whole.len() - 1024 - 100;
    assert!(refused(&whole[..cut]).contains("ends too early"));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&whole).unwrap();
    let gzip = gzip.finish().unwrap();
    refused(&gzip[..gzip.len() - 4]);
    let deep = Tar::new().file("../manifest.json", 0o644, "[]").finish();
    assert!(refused(&deep).contains("leads out"));
}

#[test]
fn oci_archives_with_wrong_digests_sizes_or_types_are_refused() {
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": format!("sha256:{}", archive::sha256(b"{}")), "size": 3}]})
    .to_string();
    let blob = format!("blobs/sha256/{}", archive::sha256(b"{}"));
    let with =
        |content: &str| Tar::new().file("index.json", 0o644, &index).file(&blob, 0o644, content).finish();
    assert!(refused(&with("{}")).contains("3 bytes"));
    assert!(refused(&with("{ }")).contains(&archive::sha256(b"{}")));
    assert!(refused(&Tar::new().file("index.json", 0o644, &index).finish()).contains("missing"));
    let both = r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
    assert!(refused(&Tar::new().file("index.json", 0o644, both).finish()).contains("both"));
}

/// An image of our own making on a loaded base: one layer goes out as it came, one is written from its directory.
#[test]
fn documents_that_multiply_are_refused_in_time_and_memory() {
    let blob = |bytes: &[u8]| json!({"mediaType": "application/vnd.oci.image.index.v1+json", "digest": format!("sha256:{}", archive::sha256(bytes)), "size": bytes.len()});
    // One config named so often that all copies would take 4 GB.
    let config = format!("{{\"os\":\"linux\",\"x\":\"{}\"}}", "x".repeat(4 << 20));
    let entries = vec![json!({"Config": "c", "Layers": []}); 1000];
    let many = Tar::new().file("c", 0o644, &config).file("manifest.json", 0o644, json!(entries).to_string());
    assert!(refused(&many.finish()).contains("bytes of configs and manifests"));
    // Four indexes, each of which names the next one 8,000 times.
    let (mut tar, mut inner) = (Tar::new(), br#"{"schemaVersion":2,"manifests":[]}"#.to_vec());
    for _ in 0..4 {
        tar = tar.file(&format!("blobs/sha256/{}", archive::sha256(&inner)), 0o644, &inner);
        inner = json!({"schemaVersion": 2, "manifests": vec![blob(&inner); 8000]}).to_string().into_bytes();
    }
    let nested = tar.clone().file("index.json", 0o644, &inner).file("oci-layout", 0o644, "{}").finish();
    assert!(refused(&nested).contains("image for this platform not found"));
    let both = tar
        .file("index.json", 0o644, &inner)
        .file("manifest.json", 0o644, "[{\"Config\":\"none\"}]")
        .finish();
    assert!(refused(&both).contains("image for this platform not found"));
    let links = (0..20_001).fold(Tar::new(), |tar, n| tar.symlink(&n.to_string(), "x"));
    assert!(refused(&links.finish()).contains("more files than an archive of images has"));
    // A config with as many layers as fit, none of which there is.
    let ids: Vec<_> = (0..50_000).map(|n| format!("sha256:{n:064x}")).collect();
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": ids}})
            .to_string();
    let entries = json!([{"Config": "c", "Layers": vec!["none"; 50_000]}]).to_string();
    let deep = Tar::new().file("c", 0o644, &config).file("manifest.json", 0o644, entries).finish();
    assert!(refused(&deep).contains("is missing, and the store does not have it"));
}

pub(crate) fn built(place: &Place) -> Saved {
    let loaded = load_bytes(place, &archive::docker("base:1", &config(), &layers())).unwrap();
    let base = place.store.image(&loaded[0].id).unwrap().unwrap();
    let active = place.store.new_layer().unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o1777);
    rustix::fs::mkdirat(active.fs(), "own", mode).unwrap();
    // Without the mask of the process.
    rustix::fs::chmodat(active.fs(), "own", mode, rustix::fs::AtFlags::empty()).unwrap();
    let mut layers = base.layers.clone();
    layers.push(active.commit(&place.cancel).unwrap());
    let config = ImageConfig { created: None, ..base.config };
    let product = Product { platform: Platform::host(), config, files: Snapshot::of_image(layers) };
    let stored = assemble(&place.store, &[product], &[], &Shape::default(), &place.cancel).unwrap();
    Saved { stored, names: vec!["mine/app:1".parse().unwrap(), "mine/app:2".parse().unwrap()] }
}

#[test]
fn what_is_saved_is_the_same_each_time_and_loads_here_and_in_skopeo() {
    let place = Place::new();
    let saved = built(&place);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    save(&place.store, std::slice::from_ref(&saved), &mut first, &place.cancel).unwrap();
    save(&place.store, std::slice::from_ref(&saved), &mut second, &place.cancel).unwrap();
    assert!(first == second, "the same image gives the same bytes");
    let other = Place::new();
    let loaded = load_bytes(&other, &first).unwrap();
    assert_eq!((loaded[0].id, loaded[0].names.clone()), (*saved.stored.id(), saved.names.clone()));
    let again = other.store.image(&loaded[0].id).unwrap().unwrap();
    assert_eq!(again.manifest, *saved.stored.manifest(), "the manifest travels in the archive");
    let path = place.dir.path().join("saved.tar");
    std::fs::write(&path, &first).unwrap();
    for (source, target) in [("docker-archive", ":mine/app:2"), ("oci-archive", ":1")] {
        let layout = place.dir.path().join(source);
        let from = format!("{source}:{}{target}", path.display());
        skopeo(&["copy", "-q", &from, &format!("dir:{}", layout.display())]).ok();
        let config = layout.join(saved.stored.id().hex());
        assert!(config.is_file(), "{source}: the config of the same digest");
    }
}

#[test]
fn what_skopeo_writes_loads_here() {
    let place = Place::new();
    let path = place.dir.path().join("in.tar");
    std::fs::write(&path, archive::docker("x:1", &config(), &layers())).unwrap();
    for target in ["docker-archive:OUT:new/name:3", "oci-archive:OUT:new/name:3"] {
        let out = place.dir.path().join(&target[..3]);
        let target = target.replace("OUT", &out.display().to_string());
        skopeo(&["copy", "-q", &format!("docker-archive:{}", path.display()), &target]).ok();
        check(&Place::new(), &std::fs::read(&out).unwrap(), &["new/name:3"]);
    }
}

#[test]
fn an_image_with_a_layer_that_was_damaged_in_the_store_is_not_saved() {
    let place = Place::new();
    let saved = built(&place);
    let top = saved.stored.images()[0].layers.last().unwrap().dir(&place.cancel).unwrap();
    rustix::fs::mkdirat(&top, "intruder", rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
    let error = save(&place.store, &[saved], &mut Vec::new(), &place.cancel).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. } | Error::Io { .. }), "{error}");
}

#[test]
fn a_flat_tar_has_what_a_container_would_see() {
    let place = Place::new();
    let saved = built(&place);
    let tree = Snapshot::of_image(saved.stored.images()[0].layers.clone()).tree(&place.cancel).unwrap();
    let mut bytes = Vec::new();
    let root = Root { name: String::new(), below: PathBuf::new(), tree };
    tar(&[root], None, &mut bytes, &place.cancel).unwrap();
    let path = place.dir.path().join("flat.tar");
    std::fs::write(&path, bytes).unwrap();
    let listing = run(Command::new("tar").arg("-tvf").arg(&path)).ok();
    let names: Vec<&str> = listing.lines().filter_map(|l| l.split_whitespace().last()).collect();
    assert_eq!(names, ["etc/", "etc/name", "own/"], "{listing}");
    assert!(listing.contains("drwxrwxrwt"), "{listing}");
    assert_eq!(run(Command::new("tar").arg("-xOf").arg(&path).arg("etc/name")).ok(), "top");
}
