//! Images between a real registry, OCI layouts and the store.

use std::io::Read as _;
use std::sync::Mutex;

use boxwright_cache::image::{
    Destination, Policy, Product, Pull, PullEvent, PushEvent, Resolved, Shape, Sources, assemble, pull, push,
    resolve, resolve_layout,
};
use boxwright_cache::import::Wanted;
use boxwright_cache::oci::{ImageConfig, Platform, Reference};
use boxwright_cache::record::{ImageRecord, Stored};
use boxwright_cache::registry::{Client, Options};
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::{Cancel, Error, Store};
use boxwright_testdata::archive;
use boxwright_testdata::peer::{Registry, skopeo};
use boxwright_testdata::tar::Tar;
use serde_json::json;

use boxwright_testdata::server::{Reply, Server};

pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) client: Client,
    pub(crate) cancel: Cancel,
}

impl Place {
    pub(crate) fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Place { dir, store, client: Client::new(Options::default()), cancel: Cancel::new().unwrap() }
    }

    fn sources(&self) -> Sources<'_> {
        Sources { store: &self.store, client: &self.client }
    }

    fn pull(&self, name: &str) -> Result<Resolved, Error> {
        let reference: Reference = name.parse().unwrap();
        pull(self.sources(), &reference, &Platform::host(), &|_| (), &self.cancel)
    }

    fn resolve(&self, name: &str, policy: Policy) -> Result<Resolved, Error> {
        resolve(self.sources(), &name.parse().unwrap(), &Platform::host(), policy, &self.cancel)
    }

    fn push(&self, image: &ImageRecord, name: &str) -> (Vec<PushEvent>, String) {
        let events = Mutex::new(Vec::new());
        let tell = |event| events.lock().unwrap().push(event);
        let name = name.parse().unwrap();
        let to = Destination::of(&name);
        let pushed = push(self.sources(), &Stored::Image(image.clone()), to, &tell, &self.cancel).unwrap();
        (events.into_inner().unwrap(), pushed.digest.to_string())
    }

    /// The content of a file in an image.
    pub(crate) fn read(&self, image: &ImageRecord, path: &str) -> Option<String> {
        let snapshot = boxwright_cache::snapshot::Snapshot::of_image(image.layers.clone());
        let bytes = snapshot.tree(&self.cancel).unwrap().read_file(path, 1 << 20).unwrap()?;
        Some(String::from_utf8(bytes).unwrap())
    }
}

pub(crate) fn layers() -> Vec<Vec<u8>> {
    let base = Tar::new().dir("etc/", 0o755).file("etc/name", 0o644, "base").file("etc/gone", 0o644, "x");
    let top = Tar::new().file("etc/name", 0o644, "top").whiteout("etc", "gone");
    vec![base.finish(), top.finish()]
}

/// A docker archive in a file, for skopeo.
fn docker_archive(place: &Place) -> std::path::PathBuf {
    let path = place.dir.path().join("image.tar");
    std::fs::write(&path, archive::docker("x:1", &json!({"Cmd": ["sh"]}), &layers())).unwrap();
    path
}

#[test]
fn what_skopeo_pushed_is_pulled_kept_and_resolved_without_network() {
    let (registry, place) = (Registry::start(), Place::new());
    let name = registry.push(&docker_archive(&place), "some/x:1");
    let pulled = place.pull(&name).unwrap();
    assert!(pulled.remote && pulled.digest.is_some());
    assert_eq!(place.read(&pulled.image, "/etc/name").as_deref(), Some("top"));
    assert_eq!(place.read(&pulled.image, "/etc/gone"), None);
    assert_eq!(pulled.image.config.config.cmd, Some(vec!["sh".to_owned()]));
    drop(registry);
    let again = place.resolve(&name, Policy::default()).unwrap();
    assert_eq!((again.image.id, again.digest, again.remote), (pulled.image.id, pulled.digest, false));
    let pinned = format!("{}@{}", name.rsplit_once(':').unwrap().0, pulled.digest.unwrap());
    assert_eq!(place.resolve(&pinned, Policy::default()).unwrap().image.id, pulled.image.id);
}

#[test]
fn a_push_succeeds_where_the_store_cannot_keep_its_digest() {
    let (registry, place) = (Registry::start(), Place::new());
    let name = registry.push(&docker_archive(&place), "x:1");
    let image = place.pull(&name).unwrap().image;
    let full = "CREATE TRIGGER full BEFORE UPDATE OF digest ON names BEGIN SELECT RAISE(ABORT, 'full'); END";
    let db = rusqlite::Connection::open(place.dir.path().join("store/db")).unwrap();
    db.execute_batch(full).unwrap();
    let (events, _) = place.push(&image, &name);
    let told = |e: &PushEvent| matches!(e, PushEvent::NotKept { reason } if reason.contains("full"));
    assert!(events.iter().any(told), "{events:?}");
}

#[test]
fn resolving_fetches_no_layer_and_keeps_no_name_unless_asked() {
    let (registry, place) = (Registry::start(), Place::new());
    let name = registry.push(&docker_archive(&place), "x:1");
    let found = place.resolve(&name, Policy::default()).unwrap();
    assert!(found.image.layers.iter().all(|l| l.unpacked().unwrap().is_none()));
    assert!(place.store.image_ids().unwrap().is_empty());
    assert!(matches!(
        place.resolve(&name, Policy { pull: Pull::Never, keep: false }),
        Err(Error::NotFound { .. })
    ));
    place.resolve(&name, Policy { pull: Pull::Missing, keep: true }).unwrap();
    assert!(place.resolve(&name, Policy { pull: Pull::Never, keep: false }).is_ok());
    assert_eq!(
        place.read(&found.image, "/etc/name").as_deref(),
        Some("top"),
        "layers come when they are needed"
    );
}

#[test]
fn a_damaged_layer_fails_the_pull_and_leaves_no_name() {
    let (registry, place) = (Registry::start(), Place::new());
    let name = registry.push(&docker_archive(&place), "x:1");
    let found = place.resolve(&name, Policy::default()).unwrap();
    let blob = found.image.layers[1].blobs().unwrap().remove(0).descriptor.digest.to_string();
    let mut bytes = std::fs::read(registry.blob(&blob)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(registry.blob(&blob), &bytes).unwrap();
    let fresh = Place::new();
    let error = fresh.pull(&name).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. } | Error::Io { .. } | Error::Malformed { .. }), "{error}");
    assert!(fresh.store.names(None).unwrap().is_empty() && fresh.store.image_ids().unwrap().is_empty());
}

#[test]
fn a_second_pull_fetches_nothing() {
    let (registry, place) = (Registry::start(), Place::new());
    let name = registry.push(&docker_archive(&place), "x:1");
    place.pull(&name).unwrap();
    let events = Mutex::new(Vec::new());
    let tell = |event| events.lock().unwrap().push(event);
    pull(place.sources(), &name.parse().unwrap(), &Platform::host(), &tell, &place.cancel).unwrap();
    let events = events.into_inner().unwrap();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|e| matches!(e, PullEvent::Present { .. })), "{events:?}");
}

/// An image of our own: a pulled base and a layer that was written here.
fn built(place: &Place, base: &ImageRecord) -> ImageRecord {
    let active = place.store.new_layer().unwrap();
    let file = rustix::fs::openat(
        active.fs(),
        "own",
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
        rustix::fs::Mode::from_raw_mode(0o644),
    );
    rustix::io::write(file.unwrap(), b"own content").unwrap();
    let mut layers = base.layers.clone();
    layers.push(active.commit(&place.cancel).unwrap());
    let config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..base.config.clone() };
    let product = Product { platform: Platform::host(), config, files: Snapshot::of_image(layers) };
    assemble(&place.store, &[product], &[], &Shape::default(), &place.cancel).unwrap().images()[0].clone()
}

#[test]
fn a_built_image_is_pushed_once_and_read_by_skopeo_and_another_store() {
    let (registry, place) = (Registry::start(), Place::new());
    let base = place.pull(&registry.push(&docker_archive(&place), "base:1")).unwrap().image;
    let image = built(&place, &base);
    let (events, digest) = place.push(&image, &registry.name("mine/app:1"));
    let mounted = |e: &&PushEvent| matches!(e, PushEvent::Mounted { from, .. } if from == "base");
    let sent = |e: &&PushEvent| matches!(e, PushEvent::Done { .. });
    let counts = (events.iter().filter(mounted).count(), events.iter().filter(sent).count());
    assert_eq!(counts, (2, 1), "{events:?}");
    let (again, same) = place.push(&image, &registry.name("mine/app:2"));
    assert_eq!(again.iter().filter(|e| mounted(e) || sent(e)).count(), 0, "{again:?}");
    assert_eq!(digest, same);
    let full = format!("docker://{}", registry.name("mine/app:1"));
    let inspected = skopeo(&["inspect", "--tls-verify=false", &full]).ok();
    assert!(inspected.contains(&digest), "{inspected}");
    let copy = format!("oci:{}", place.dir.path().join("layout").display());
    skopeo(&["copy", "-q", "--src-tls-verify=false", &full, &copy]).ok();
    let other = Place::new();
    let pulled = other.pull(&registry.name("mine/app:1")).unwrap().image;
    assert_eq!(pulled.id, image.id);
    assert_eq!(other.read(&pulled, "/own").as_deref(), Some("own content"));
    assert_eq!(other.read(&pulled, "/etc/name").as_deref(), Some("top"));
}

#[test]
fn an_unchanged_image_keeps_its_digest_from_registry_to_registry() {
    let (from, to, place) = (Registry::start(), Registry::start(), Place::new());
    let pulled = place.pull(&from.push(&docker_archive(&place), "x:1")).unwrap();
    let (_, digest) = place.push(&pulled.image, &to.name("y:1"));
    assert_eq!(Some(digest), pulled.digest.map(|d| d.to_string()));
}

#[test]
fn an_image_of_a_layout_directory_is_found_by_tag_and_lies_are_refused() {
    let place = Place::new();
    let layout = place.dir.path().join("layout");
    let source = format!("docker-archive:{}", docker_archive(&place).display());
    skopeo(&["copy", "-q", &source, &format!("oci:{}:v1", layout.display())]).ok();
    let find = |place: &Place, wanted: Wanted<'_>| {
        resolve_layout(&place.store, &layout, wanted, &Platform::host(), &place.cancel)
    };
    let found = find(&place, Wanted::Tag("v1")).unwrap();
    assert_eq!(place.read(&found.image, "/etc/name").as_deref(), Some("top"));
    assert_eq!(find(&place, Wanted::Default).unwrap().digest, found.digest);
    assert!(find(&place, Wanted::Digest(&found.digest.unwrap())).is_ok());
    assert!(matches!(find(&place, Wanted::Tag("v2")), Err(Error::NotFound { .. })));
    let blob = found.image.layers[0].blobs().unwrap().remove(0).descriptor.digest;
    let path = layout.join("blobs/sha256").join(blob.hex());
    let mut bytes = Vec::new();
    std::fs::File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let fresh = Place::new();
    assert!(matches!(find(&fresh, Wanted::Tag("v1")), Err(Error::Mismatch { .. })));
    assert!(fresh.store.image_ids().unwrap().is_empty());
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry that serves documents and blobs by digest, and `index` under every tag.
fn serving(index: String, things: Vec<(&'static str, Vec<u8>)>) -> Server {
    Server::start(move |request, _| {
        let name = request.path.rsplit('/').next().unwrap();
        let found = things.iter().find(|(_, bytes)| name == format!("sha256:{}", archive::sha256(bytes)));
        match found {
            Some((kind, bytes)) => Reply::new(200, bytes.clone()).header("Content-Type", *kind),
            None if request.path.contains("manifests") => {
                Reply::new(200, index.clone()).header("Content-Type", INDEX)
            }
            None => Reply::new(404, ""),
        }
    })
}

fn descriptor(kind: &str, bytes: &[u8]) -> serde_json::Value {
    json!({"mediaType": kind, "digest": format!("sha256:{}", archive::sha256(bytes)), "size": bytes.len()})
}

fn index_of(entries: &[serde_json::Value]) -> String {
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string()
}

/// A config and a manifest that promise `diff_id` and deliver `layer`.
fn image_documents(diff_id: &str, layer: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let host = Platform::host();
    let config = json!({"os": host.os, "architecture": host.architecture,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]}});
    let config = config.to_string().into_bytes();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)]});
    (config, manifest.to_string().into_bytes())
}

#[test]
fn the_platform_is_chosen_through_indexes_and_each_document_must_be_as_announced() {
    let layer = layers().remove(0);
    let (config, manifest) = image_documents(&archive::sha256(&layer), &layer);
    let things = vec![(MANIFEST, manifest.clone()), ("", config), ("", layer)];
    let entry = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut entry = descriptor(MANIFEST, &manifest);
        let host = Platform::host();
        entry["platform"] = json!({"os": host.os, "architecture": host.architecture});
        change(&mut entry);
        entry
    };
    let pulled = |entries: &[serde_json::Value]| {
        let server = serving(index_of(entries), things.clone());
        let place = Place::new();
        let pulled = place.pull(&format!("{}/x:1", server.address()))?;
        Ok::<_, Error>(place.read(&pulled.image, "/etc/name"))
    };
    let other = entry(&|e| e["platform"]["architecture"] = json!("s390x"));
    let good = entry(&|_| ());
    assert_eq!(pulled(&[other.clone(), good]).unwrap().as_deref(), Some("base"));
    assert!(matches!(pulled(&[other]), Err(Error::NotFound { what: "image for this platform", .. })));
    let longer = entry(&|e| e["size"] = json!(manifest.len() + 1));
    assert!(matches!(pulled(&[longer]), Err(Error::Mismatch { .. })));
    let disguised = entry(&|e| e["mediaType"] = json!(INDEX));
    assert!(matches!(pulled(&[disguised]), Err(Error::Mismatch { .. })));
}

#[test]
fn a_registry_that_lies_about_a_layer_does_not_spoil_it_for_others() {
    let (registry, place) = (Registry::start(), Place::new());
    let honest = registry.push(&docker_archive(&place), "x:1");
    let evil = Tar::new().file("etc/name", 0o644, "evil").finish();
    let (config, manifest) = image_documents(&archive::sha256(&layers()[0]), &evil);
    let entry = descriptor(MANIFEST, &manifest);
    let server = serving(index_of(&[entry]), vec![(MANIFEST, manifest), ("", config), ("", evil)]);
    let error = place.pull(&format!("{}/x:1", server.address())).unwrap_err();
    assert!(error.to_string().contains("diff id"), "{error}");
    let pulled = place.pull(&honest).unwrap();
    assert_eq!(place.read(&pulled.image, "/etc/name").as_deref(), Some("top"));
}
