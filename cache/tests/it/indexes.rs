//! Indexes in the store: what an archive brings of them, what is left when some of it goes, and what lies about them.

use boxwright_cache::export::{Saved, save};
use boxwright_cache::image::{Destination, PushEvent, Sources, push};
use boxwright_cache::import::{Loaded, load};
use boxwright_cache::oci::{Descriptor, Platform, Reference};
use boxwright_cache::record::{IndexRecord, Stored};
use boxwright_cache::{Digest, Store};
use boxwright_testdata::archive::sha256;
use boxwright_testdata::peer::Registry;
use boxwright_testdata::tar::Tar;
use serde_json::{Value, json};

use crate::archives::load_bytes;
use crate::images::{Place, layers};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An OCI layout that is written blob by blob.
#[derive(Default)]
struct Layout {
    blobs: Vec<Vec<u8>>,
}

impl Layout {
    fn blob(&mut self, kind: &str, bytes: Vec<u8>) -> Value {
        let descriptor =
            json!({"mediaType": kind, "digest": format!("sha256:{}", sha256(&bytes)), "size": bytes.len()});
        if !self.blobs.contains(&bytes) {
            self.blobs.push(bytes);
        }
        descriptor
    }

    /// An image whose config says this architecture, and one layer.
    fn image(&mut self, architecture: &str) -> Value {
        let layer = layers().remove(0);
        let config = json!({"os": "linux", "architecture": architecture, "config": {},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]}});
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", layer);
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().into());
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        let mut entry = self.blob(MANIFEST, manifest.to_string().into());
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entry
    }

    fn index(&mut self, entries: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        self.blob(INDEX, index.to_string().into())
    }

    fn finish(self, entries: &[Value]) -> Vec<u8> {
        let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        let tar = Tar::new().file("index.json", 0o644, index);
        let add = |tar: Tar, blob: &Vec<u8>| tar.file(&format!("blobs/sha256/{}", sha256(blob)), 0o644, blob);
        self.blobs.iter().fold(tar, add).finish()
    }
}

fn named(entry: &Value, name: &str) -> Value {
    let mut entry = entry.clone();
    entry["annotations"] = json!({"io.containerd.image.name": name});
    entry
}

fn index_of(store: &Store, loaded: &Loaded) -> IndexRecord {
    match store.stored(&loaded.id).unwrap() {
        Some(Stored::Index(index)) => index,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_an_index_does_not_name_is_none_of_its_images() {
    let (place, mut layout) = (Place::new(), Layout::default());
    let [amd, arm, stranger] = ["amd64", "arm64", "riscv64"].map(|architecture| layout.image(architecture));
    let index = layout.index(&[amd, arm]);
    let bytes = layout.finish(&[named(&index, "h.example/a:1"), named(&stranger, "h.example/b:1")]);
    let loaded = load_bytes(&place, &bytes).unwrap();
    let index = index_of(&place.store, &loaded[0]);
    let stranger = *place.store.stored(&loaded[1].id).unwrap().unwrap().manifest();
    let document = place.store.document(&index.id).unwrap().unwrap();
    place.store.put_index((&index.id, &document), &[], &[stranger], &[]).unwrap();
    assert!(place.store.remove_member(&index, &index.members[0].image.manifest).unwrap());
    assert!(!place.store.remove_member(&index, &index.members[1].image.manifest).unwrap());
    assert_eq!(index_of(&place.store, &loaded[0]).members.len(), 1);
}

#[test]
fn an_index_comes_with_what_is_there_of_it() {
    let (place, mut layout) = (Place::new(), Layout::default());
    let (amd, arm) = (layout.image("amd64"), layout.image("arm64"));
    let mut absent = amd.clone();
    absent["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
    absent["platform"]["architecture"] = json!("s390x");
    let mut about = absent.clone();
    about["digest"] = json!(format!("sha256:{}", "1".repeat(64)));
    about["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let index = layout.index(&[amd, absent, arm, about]);
    let bytes = layout.finish(&[named(&index, "h.example/a:1"), named(&index, "h.example/a:2")]);
    let loaded = load_bytes(&place, &bytes).unwrap();
    assert_eq!(loaded.len(), 1, "one image with two names");
    let names: Vec<String> = loaded[0].names.iter().map(Reference::familiar).collect();
    assert_eq!(names, ["h.example/a:1", "h.example/a:2"]);
    let index = index_of(&place.store, &loaded[0]);
    let architectures = |index: &IndexRecord| -> Vec<String> {
        index.members.iter().map(|m| m.image.config.architecture.clone()).collect()
    };
    assert_eq!(architectures(&index), ["amd64", "arm64"]);
    let absent: Vec<String> = index.absent().map(|d| d.platform.as_ref().unwrap().to_string()).collect();
    assert_eq!(absent, ["linux/s390x"]);
    // An image of it goes, and then the index itself with all.
    assert!(place.store.remove_member(&index, &index.members[0].image.manifest).unwrap());
    assert_eq!(architectures(&index_of(&place.store, &loaded[0])), ["arm64"]);
    assert!(place.store.stored(&index.members[0].image.id).unwrap().is_none());
    // Not the last one, by whoever saw both a moment ago.
    assert!(!place.store.remove_member(&index, &index.members[1].image.manifest).unwrap());
    assert_eq!(architectures(&index_of(&place.store, &loaded[0])), ["arm64"]);
    assert_eq!(place.store.image_ids().unwrap(), [index.id]);
    let names: Vec<&Reference> = loaded[0].names.iter().collect();
    assert!(place.store.remove_names(&index.id, &names).unwrap());
    assert!(place.store.image_ids().unwrap().is_empty());
    assert!(place.store.document(&index.members[1].image.manifest).unwrap().is_none());
}

#[test]
fn what_the_index_says_of_a_platform_counts() {
    let (place, mut layout) = (Place::new(), Layout::default());
    let (mut one, other) = (layout.image("amd64"), layout.image("arm64"));
    one["platform"]["variant"] = json!("v3");
    let index = layout.index(&[one, other]);
    let loaded = load_bytes(&place, &layout.finish(&[named(&index, "a:1")])).unwrap();
    let stored = place.store.stored(&loaded[0].id).unwrap().unwrap();
    let found = |platform: &str| {
        stored.for_platform(&platform.parse().unwrap()).map(|i| i.config.architecture.clone())
    };
    assert_eq!(found("linux/amd64/v3").as_deref(), Some("amd64"));
    assert_eq!(found("linux/amd64"), None, "this machine may not run it");
    assert_eq!(found("linux/arm64").as_deref(), Some("arm64"));
}

#[test]
fn an_index_is_no_way_to_have_much_read() {
    let refused = |bytes: &[u8]| {
        let place = Place::new();
        let error = load_bytes(&place, bytes).unwrap_err().to_string();
        assert!(place.store.image_ids().unwrap().is_empty() && place.store.names(None).unwrap().is_empty());
        error
    };
    // The same image a thousand times is one image.
    let (place, mut layout) = (Place::new(), Layout::default());
    let (image, other) = (layout.image("amd64"), layout.image("arm64"));
    let mut many = vec![image.clone(); 3000];
    many.push(other.clone());
    let index = layout.index(&many);
    let loaded = load_bytes(&place, &layout.finish(&[named(&index, "a:1")])).unwrap();
    assert_eq!(index_of(&place.store, &loaded[0]).members.len(), 2);
    // Many indexes over the same images are many images.
    let mut layout = Layout::default();
    let both = [layout.image("amd64"), layout.image("arm64")];
    let indexes: Vec<Value> = (0..501)
        .map(|n| {
            let mut entries = both.clone();
            entries[0]["annotations"] = json!({"n": n.to_string()});
            named(&layout.index(&entries), &format!("a:{n}"))
        })
        .collect();
    assert!(refused(&layout.finish(&indexes)).contains("more than 1000 images"));
    // A document that is not what the index says.
    let mut layout = Layout::default();
    let (mut lies, other) = (layout.image("amd64"), layout.image("arm64"));
    lies["size"] = json!(7);
    let index = layout.index(&[lies, other]);
    assert!(refused(&layout.finish(&[named(&index, "a:1")])).contains("expected 7 bytes"));
    // An index within itself can't be written; one within others is not followed for its images.
    let mut layout = Layout::default();
    let image = layout.image("amd64");
    let mut index = layout.index(&[image]);
    for _ in 0..6 {
        index = layout.index(&[index]);
    }
    assert!(refused(&layout.finish(&[named(&index, "a:1")])).contains("indexes within indexes"));
}

#[test]
fn images_that_are_known_by_sha512_stay_what_they_are() {
    use boxwright_cache::digest::Algorithm;
    let place = Place::new();
    let blob = |kind: &str, bytes: &[u8]| {
        let mut hasher = Algorithm::Sha512.hasher();
        hasher.update(bytes);
        json!({"mediaType": kind, "digest": hasher.finish().to_string(), "size": bytes.len()})
    };
    let add = |tar: Tar, entry: &Value, bytes: &[u8]| {
        let path = format!("blobs/{}", entry["digest"].as_str().unwrap().replace(':', "/"));
        tar.pax(b'x', &[("path", &path)]).file("long", 0o644, bytes)
    };
    let (mut tar, mut entries) = (Tar::new(), Vec::new());
    for architecture in ["amd64", "arm64"] {
        let layer = layers().remove(0);
        let tar_of = blob("application/vnd.oci.image.layer.v1.tar", &layer);
        tar = add(tar, &tar_of, &layer);
        let config = json!({"os": "linux", "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [tar_of["digest"]]}})
        .to_string();
        let known = blob("application/vnd.oci.image.config.v1+json", config.as_bytes());
        tar = add(tar, &known, config.as_bytes());
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": known, "layers": [tar_of]});
        let mut entry = blob(MANIFEST, manifest.to_string().as_bytes());
        tar = add(tar, &entry, manifest.to_string().as_bytes());
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entries.push(entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
    let top = blob(INDEX, index.as_bytes());
    let list = json!({"schemaVersion": 2, "manifests": [named(&top, "a:1")]}).to_string();
    let bytes = add(tar, &top, index.as_bytes()).file("index.json", 0o644, list).finish();
    let loaded = load_bytes(&place, &bytes).unwrap();
    let record = index_of(&place.store, &loaded[0]);
    assert_eq!((record.members.len(), record.absent().count()), (2, 0));
    assert_eq!(place.read(&record.members[0].image, "/etc/name").as_deref(), Some("base"));
    for prefix in [record.id.hex()[..12].to_owned(), record.id.to_string()[..20].to_owned()] {
        assert_eq!(place.store.image_ids_with_prefix(&prefix).unwrap(), [record.id]);
    }
    // And out again, for another store.
    let (mut saved, other) = (Vec::new(), Place::new());
    let image = Saved { stored: Stored::Index(record.clone()), names: loaded[0].names.clone() };
    save(&place.store, &[image], &mut saved, &place.cancel).unwrap();
    let again = index_of(&other.store, &load_bytes(&other, &saved).unwrap()[0]);
    assert_eq!((again.id, again.members.len(), again.absent().count()), (record.id, 2, 0));
}

#[test]
fn what_an_index_says_about_images_is_pushed_where_it_is_and_told_where_it_is_not() {
    let (registry, place, mut layout) = (Registry::start(), Place::new(), Layout::default());
    let images = [layout.image("amd64"), layout.image("arm64")];
    let about = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": Layout::default().blob("application/x", b"{}".to_vec())});
    let mut entry = Layout::default().blob(MANIFEST, about.to_string().into());
    entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let index = layout.index(&[images[0].clone(), entry.clone(), images[1].clone()]);
    let loaded = load_bytes(&place, &layout.finish(&[named(&index, "a:1")])).unwrap();
    let stored = place.store.stored(&loaded[0].id).unwrap().unwrap();
    let name: Reference = registry.name("a:1").parse().unwrap();
    let push = |name: &Reference| {
        let left = std::sync::Mutex::new(Vec::new());
        let tell = |event| {
            if let PushEvent::LeftOut { manifest } = event {
                left.lock().unwrap().push(manifest.to_string());
            }
        };
        let sources = Sources { store: &place.store, client: &place.client };
        let pushed = push(sources, &stored, Destination::of(name), &tell, &place.cancel).unwrap();
        (pushed.digest, left.into_inner().unwrap())
    };
    let (digest, left) = push(&name);
    assert_eq!(left, [entry["digest"].as_str().unwrap()]);
    assert_ne!(digest, loaded[0].id);
    let there: Value =
        serde_json::from_slice(&place.client.fetch_manifest(&name, &place.cancel).unwrap().bytes).unwrap();
    assert_eq!(there["manifests"], json!(images));
    // Where it is known the index stays what it is.
    let blob = Descriptor::new("application/x", Digest::of(b"{}"), 2);
    let mut open = || Ok(Box::new(std::io::Cursor::new(b"{}")) as Box<dyn std::io::Read + Send>);
    place.client.push_blob(&name, &blob, None, &mut open, &place.cancel).unwrap();
    let by_digest = name.by_digest(entry["digest"].as_str().unwrap().parse().unwrap());
    place.client.push_manifest(&by_digest, MANIFEST, about.to_string().into(), &place.cancel).unwrap();
    assert_eq!(push(&name), (loaded[0].id, Vec::new()));
}

#[test]
fn a_list_of_images_has_an_end() {
    let (place, config) = (Place::new(), json!({"rootfs": {"type": "layers", "diff_ids": []}}).to_string());
    let list = vec![json!({"Config": "config", "RepoTags": [], "Layers": []}); 1001];
    let archive = Tar::new().file("manifest.json", 0o644, json!(list).to_string());
    let error = load_bytes(&place, &archive.file("config", 0o644, config).finish()).unwrap_err();
    assert!(error.to_string().contains("more than 1000 images"), "{error}");
}

#[test]
fn one_platform_of_an_archive_can_be_asked_for() {
    let mut layout = Layout::default();
    let both = [layout.image("amd64"), layout.image("arm64")];
    let index = layout.index(&both);
    let bytes = layout.finish(&[named(&index, "a:1")]);
    let place = Place::new();
    let of = |platform: &str| {
        let platform: Platform = platform.parse().unwrap();
        load(&place.store, std::io::Cursor::new(bytes.clone()), Some(&platform), &place.cancel)
    };
    let loaded = of("linux/arm64").unwrap();
    assert_eq!(place.store.image(&loaded[0].id).unwrap().unwrap().config.architecture, "arm64");
    let none = of("linux/s390x").unwrap_err().to_string();
    assert!(none.ends_with("for linux/s390x (there is: linux/amd64, linux/arm64)"), "{none}");
}
