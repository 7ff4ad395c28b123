//! The store as several processes and power cuts see it: every test opens real directories and real databases.

mod names;

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use boxwright_cache::gc::Forget;
use boxwright_cache::oci::{Descriptor, ImageConfig, Reference};
use boxwright_cache::record::local::Lookup;
use boxwright_cache::record::{CacheKey, NewBuild, NewRecord};
use boxwright_cache::snapshot::{Layer, LayerBlob, Snapshot};
use boxwright_cache::{Cancel, DiffId, Digest, Error, Store};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

fn layer(store: &Store, content: &str) -> Layer {
    let active = store.new_layer().unwrap();
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(active.fs().as_fd(), "file", flags, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&file, content.as_bytes()).unwrap();
    active.commit(&Cancel::new().unwrap()).unwrap()
}

fn record(store: &Store, key: u8, snapshot: &Snapshot) {
    let record = NewRecord {
        definition: CacheKey([key; 32]),
        content_key: Some(CacheKey([key + 100; 32])),
        snapshot,
        fields: "{}",
        took: Duration::from_millis(5),
        origin: None,
    };
    store.put_record(&record).unwrap();
}

fn entries(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

fn image(store: &Store, layers: &[Layer]) -> Digest {
    let config = ImageConfig::default().to_bytes();
    let manifest = b"{}".to_vec();
    let (id, manifest_digest) = (Digest::of(&config), Digest::of(&manifest));
    store.put_image((&id, &config), (&manifest_digest, &manifest), layers, &[]).unwrap();
    id
}

#[test]
fn a_record_gives_back_its_snapshot_by_each_of_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let snapshot = Snapshot::default().with(layer(&store, "a")).with(layer(&store, "b"));
    record(&store, 1, &snapshot);
    for lookup in [
        Lookup::Definition(CacheKey([1; 32])),
        Lookup::Contents(CacheKey([101; 32])),
        Lookup::Result(snapshot.content().unwrap()),
    ] {
        let found = store.record(lookup).unwrap().expect("it was recorded");
        assert_eq!(found.snapshot.diff_ids(), snapshot.diff_ids());
        assert_eq!((found.snapshot.content(), found.took), (snapshot.content(), Duration::from_millis(5)));
    }
    assert!(store.record(Lookup::Definition(CacheKey([2; 32]))).unwrap().is_none());
}

#[test]
fn a_long_log_is_emptied_though_nothing_waits() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.sync().unwrap();
    while !store.needs_sync().unwrap() {
        let log = store.new_build_log().unwrap();
        let build = NewBuild { about: "{}", started: 0 };
        store.begin_build(&log, &build).unwrap();
    }
    let log = || std::fs::metadata(dir.path().join("db-wal")).unwrap().len();
    assert!(log() > 500_000);
    store.sync().unwrap();
    assert_eq!(log(), 0);
}

#[test]
fn after_a_power_cut_only_what_was_synced_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let first = Store::open_in_boot(dir.path(), "boot-1").unwrap();
    let durable = Snapshot::default().with(layer(&first, "durable"));
    record(&first, 1, &durable);
    assert!(first.needs_sync().unwrap());
    first.sync().unwrap();
    assert!(!first.needs_sync().unwrap());
    let log = std::fs::metadata(dir.path().join("db-wal")).unwrap();
    assert_eq!(log.len(), 0, "who opens the store next has no log to read");
    let torn = durable.with(layer(&first, "torn"));
    record(&first, 2, &torn);
    let id = image(&first, torn.layers());
    first.set_name(&"torn".parse().unwrap(), &id).unwrap();
    drop((durable, torn, first));

    let second = Store::open_in_boot(dir.path(), "boot-2").unwrap();
    assert!(second.record(Lookup::Definition(CacheKey([1; 32]))).unwrap().is_some(), "it was synced");
    assert!(second.record(Lookup::Definition(CacheKey([2; 32]))).unwrap().is_none(), "it was not");
    assert!(second.image_named(&"torn".parse().unwrap()).unwrap().is_none());
    second.collect(Forget::NONE).unwrap();
    assert_eq!(entries(&dir.path().join("layers")), 1, "the torn layer's directory is collected");
}

#[test]
fn a_blob_that_is_durable_stays_that_when_it_is_found_elsewhere_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_in_boot(dir.path(), "boot-1").unwrap();
    let (diff_id, bytes) = (DiffId(Digest::of(b"tar")), Digest::of(b"bytes"));
    let descriptor = Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", bytes, 5);
    let here = LayerBlob { descriptor, present: true, repository: None };
    let elsewhere = LayerBlob { present: false, repository: Some("host/name".to_owned()), ..here.clone() };
    store.foreign_layer(diff_id, Some(&here)).unwrap();
    store.sync().unwrap();
    store.foreign_layer(diff_id, Some(&elsewhere)).unwrap();
    assert!(!store.needs_sync().unwrap());
    drop(store);
    let store = Store::open_in_boot(dir.path(), "boot-2").unwrap();
    let found = store.foreign_layer(diff_id, None).unwrap().blobs().unwrap();
    assert_eq!((found.len(), found[0].present, found[0].repository.as_deref()), (1, true, Some("host/name")));
}

#[test]
fn what_another_process_holds_is_not_collected() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
    let held = layer(&one, "held");
    assert_eq!(two.collect(Forget::ALL).unwrap().layers, 0);
    let cancel = Cancel::new().unwrap();
    assert!(held.dir(&cancel).is_ok());
    drop(held);
    // Who syncs the store holds none of it.
    let syncing = std::fs::File::open(dir.path().join("blobs")).unwrap();
    rustix::fs::flock(&syncing, rustix::fs::FlockOperation::LockShared).unwrap();
    let freed = two.collect(Forget::ALL).unwrap();
    assert_eq!((freed.layers, entries(&dir.path().join("layers"))), (1, 0));
    assert!(freed.bytes > 0);
}

#[test]
fn records_and_images_keep_their_layers() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = {
        record(&store, 1, &Snapshot::default().with(layer(&store, "recorded")));
        image(&store, &[layer(&store, "in the image")])
    };
    assert_eq!(store.collect(Forget::NONE).unwrap().layers, 0);
    let freed = store.collect(Forget::UNUSED).unwrap();
    assert_eq!((freed.records, freed.layers), (1, 1));
    assert!(store.remove_names(&id, &[]).unwrap());
    assert_eq!(store.collect(Forget::NONE).unwrap().layers, 1);
}

#[test]
fn a_layer_that_was_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    drop(store.new_layer().unwrap());
    assert_eq!((entries(&dir.path().join("tmp")), entries(&dir.path().join("layers"))), (0, 0));
    assert_eq!(entries(&dir.path().join("leases")), 0, "nothing is held any more");
}

#[test]
fn what_a_dead_process_was_making_is_swept_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    std::fs::create_dir(dir.path().join("tmp/0123456789abcdef-0")).unwrap();
    std::fs::write(dir.path().join("leases/0123456789abcdef"), "").unwrap();
    let _active = store.new_layer().unwrap();
    assert!(!dir.path().join("tmp/0123456789abcdef-0").exists());
    assert!(!dir.path().join("leases/0123456789abcdef").exists());
}

#[test]
fn a_directory_that_no_row_names_goes_once_nobody_is_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
    let nameless = dir.path().join("layers/0123456789abcdef");
    std::fs::create_dir(&nameless).unwrap();
    let active = other.new_layer().unwrap();
    store.collect(Forget::NONE).unwrap();
    assert!(nameless.exists(), "whoever made it may be about to write its row");
    drop(active);
    store.collect(Forget::NONE).unwrap();
    assert!(!nameless.exists());
}

#[test]
fn a_key_is_made_by_one_at_a_time_and_a_wait_can_be_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
    let cancel = Cancel::new().unwrap();
    let held = one.lock("vertex", "key", &cancel).unwrap();
    assert!(two.lock("vertex", "another key", &cancel).is_ok());
    let waiting = cancel.child().unwrap();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| two.lock("vertex", "key", &waiting).map(drop));
        waiting.raise();
        assert!(matches!(waiter.join().unwrap(), Err(Error::Cancelled)));
    });
    assert!(started.elapsed() < Duration::from_secs(5));
    drop(held);
    assert!(two.lock("vertex", "key", &cancel).is_ok());
    assert_eq!(entries(&dir.path().join("locks")), 0);
}

#[test]
fn a_store_of_another_version_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let db = rusqlite::Connection::open(dir.path().join("db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    assert!(Store::open(dir.path()).unwrap_err().to_string().contains("version 99"));
}

#[test]
fn the_store_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    drop(Store::open(&root).unwrap());
    assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn contents_of_files_are_known_by_all_of_their_stat_data() {
    use boxwright_cache::fs::walk::{FileHashCache as _, StatKey};
    use boxwright_cache::layer::Timestamp;
    let dir = tempfile::tempdir().unwrap();
    let at = |secs| Timestamp { secs, nanos: 5 };
    let key = StatKey { dev: 1, ino: u64::MAX, size: 3, mtime: at(-1), ctime: at(10) };
    {
        let store = Store::open(dir.path()).unwrap();
        let known = store.file_hashes();
        known.put(&[(key, [7; 32])]).unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    let known = store.file_hashes();
    assert_eq!(known.get(&[key]), [Some([7; 32])]);
    for other in
        [StatKey { size: 4, ..key }, StatKey { mtime: at(0), ..key }, StatKey { ctime: at(11), ..key }]
    {
        assert_eq!(known.get(&[other]), [None]);
    }
}

#[test]
fn a_layer_that_a_stack_has_twice_is_stacked_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (a, b) = (layer(&store, "a"), layer(&store, "b"));
    let stack = Snapshot::of_image(vec![a.clone(), b, a]);
    assert_eq!(stack.dirs(&Cancel::new().unwrap()).unwrap().len(), 2);
    // Where it lies last is what counts.
    let tree = stack.tree(&Cancel::new().unwrap()).unwrap();
    assert_eq!(tree.read_file("file", 10).unwrap().as_deref(), Some(&b"a"[..]));
}

#[test]
fn who_begins_while_another_cleans_up_is_not_taken_for_dead() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let begin_and_end = |n: usize| {
        for _ in 0..n {
            let store = Store::open(path).unwrap();
            // Its own directory must be there until it is given up, whoever cleans up meanwhile.
            let kept = layer(&store, "x");
            assert!(store.layers(&[kept.id()]).unwrap().is_some());
            store.collect(Forget::UNUSED).unwrap();
            assert!(kept.unpacked().unwrap().is_some(), "its directory is still there");
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| begin_and_end(25));
        }
    });
}

#[test]
fn who_finds_an_image_or_a_result_has_its_layers_whatever_others_remove() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let name: Reference = "moving".parse().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let look = || {
        let cancel = Cancel::new().unwrap();
        let mut found = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let store = Store::open(path).unwrap();
            let image = store.image_named(&name).unwrap().map(|image| image.layers);
            let record = store.record(Lookup::Definition(CacheKey([1; 32]))).unwrap();
            let layers = image.into_iter().chain(record.map(|record| record.snapshot.layers().to_vec()));
            for layer in layers.flatten() {
                layer.dir(&cancel).expect("it was found, so it is there");
                found += 1;
            }
        }
        found
    };
    std::thread::scope(|scope| {
        let lookers = [scope.spawn(look), scope.spawn(look), scope.spawn(look)];
        for n in 0..20 {
            let store = Store::open(path).unwrap();
            let id = image(&store, &[layer(&store, &format!("image {n}"))]);
            store.set_name(&name, &id).unwrap();
            record(&store, 1, &Snapshot::default().with(layer(&store, &format!("result {n}"))));
            store.remove_names(&id, &[&name]).unwrap();
            drop(store);
            Store::open(path).unwrap().collect(Forget::ALL).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let found: i32 = lookers.into_iter().map(|looker| looker.join().unwrap()).sum();
        assert!(found > 0, "they were quick enough to see something");
    });
    let store = Store::open(path).unwrap();
    store.collect(Forget::ALL).unwrap();
    assert_eq!(entries(&path.join("layers")), 0, "and nothing is left of it");
}

#[test]
fn to_find_something_writes_nothing_to_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let name: Reference = "known".parse().unwrap();
    {
        let store = Store::open(dir.path()).unwrap();
        let id = image(&store, &[layer(&store, "one")]);
        store.set_name(&name, &id).unwrap();
        record(&store, 1, &Snapshot::default().with(layer(&store, "two")));
        store.sync().unwrap();
    }
    let log = || std::fs::metadata(dir.path().join("db-wal")).map_or(0, |log| log.len());
    assert_eq!(log(), 0, "the sync emptied it");
    let store = Store::open(dir.path()).unwrap();
    let image = store.image_named(&name).unwrap().unwrap();
    let record = store.record(Lookup::Definition(CacheKey([1; 32]))).unwrap().unwrap();
    assert_eq!(log(), 0);
    // It is held nevertheless.
    let other = Store::open(dir.path()).unwrap();
    other.remove_names(&image.id, &[&name]).unwrap();
    assert_eq!(other.collect(Forget::ALL).unwrap().layers, 0);
    drop((image, record, store));
    assert_eq!(other.collect(Forget::ALL).unwrap().layers, 2);
}

#[test]
fn a_new_store_is_opened_by_many_at_once() {
    for _ in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let path = &dir.path().join("new");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| Store::open(path).unwrap());
            }
        });
    }
}

/// A file system of its own, which can be made read-only.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Disk {
        let disk = Disk(tempfile::tempdir().unwrap());
        mount("none", disk.0.path(), "tmpfs", MountFlags::empty(), None).unwrap();
        disk
    }

    fn make(&self, flags: MountFlags) {
        mount_remount(self.0.path(), flags, c"").unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_store_that_cannot_be_written_is_read_unless_the_machine_stopped_too_early() {
    let disk = Disk::new();
    let path = disk.0.path().join("store");
    let store = Store::open_in_boot(&path, "one").unwrap();
    let (id, name) = (image(&store, &[layer(&store, "x")]), "a:1".parse().unwrap());
    store.set_name(&name, &id).unwrap();
    store.sync().unwrap();
    drop(store);
    disk.make(MountFlags::RDONLY);
    let store = Store::open_in_boot(&path, "two").unwrap();
    let found = store.image_named(&name).unwrap().unwrap();
    assert_eq!((found.id, found.layers.len()), (id, 1));
    assert!(found.layers[0].unpacked().unwrap().is_some());
    let error = store.set_name(&"b:1".parse().unwrap(), &id).unwrap_err();
    assert_eq!(error.kind(), Some(std::io::ErrorKind::ReadOnlyFilesystem));
    drop((store, found));
    disk.make(MountFlags::empty());
    let store = Store::open_in_boot(&path, "two").unwrap();
    store.set_name(&"b:1".parse().unwrap(), &id).unwrap();
    drop(store);
    disk.make(MountFlags::RDONLY);
    // The same boot knows that it is whole, a later one does not.
    assert_eq!(Store::open_in_boot(&path, "two").unwrap().names(None).unwrap().len(), 2);
    let error = Store::open_in_boot(&path, "three").unwrap_err().to_string();
    assert!(error.contains("the machine stopped before all of it was on the disk"), "{error}");
    disk.make(MountFlags::empty());
    // Both are names of an image that is whole.
    assert_eq!(Store::open_in_boot(&path, "three").unwrap().names(None).unwrap().len(), 2);
}

#[test]
fn who_reads_where_nothing_can_be_written_is_heeded_by_those_who_write_elsewhere() {
    let (disk, sealed) = (Disk::new(), tempfile::tempdir().unwrap());
    let store = Store::open(&disk.0.path().join("store")).unwrap();
    let (name, content) = ("a:1".parse::<Reference>().unwrap(), "x".repeat(100_000));
    let id = image(&store, &[layer(&store, &content)]);
    store.set_name(&name, &id).unwrap();
    rustix::mount::mount_bind(disk.0.path(), sealed.path()).unwrap();
    let _sealed = Sealed(sealed.path());
    mount_remount(sealed.path(), MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();

    let reader = Store::open(&sealed.path().join("store")).unwrap();
    let found = reader.image_named(&name).unwrap().unwrap();
    // What nobody has measured yet is measured, though the result can be kept nowhere.
    assert!(reader.usage().unwrap().image_bytes() >= 100_000);
    assert!(reader.volumes().unwrap().is_empty() && reader.cache_mounts().unwrap().is_empty());
    assert!(reader.check(false, &Cancel::new().unwrap()).unwrap().problems.is_empty());

    store.remove_names(&id, &[&name]).unwrap();
    assert_eq!(store.collect(Forget::ALL).unwrap().layers, 0);
    std::fs::create_dir(disk.0.path().join("store/layers/litter")).unwrap();
    store.collect(Forget::ALL).unwrap();
    assert!(found.layers[0].dir(&Cancel::new().unwrap()).is_ok(), "it is still read");
    assert_eq!(entries(&disk.0.path().join("store/layers")), 2);
    drop((found, reader));
    assert_eq!(store.collect(Forget::ALL).unwrap().layers, 1);
    assert_eq!(entries(&disk.0.path().join("store/layers")), 0);
}

struct Sealed<'a>(&'a Path);

impl Drop for Sealed<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_lease_that_its_process_did_not_live_to_name_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let [dead, alive] = ["dead.new", "alive.new"].map(|name| dir.path().join("leases").join(name));
    std::fs::write(&dead, "").unwrap();
    let held = std::fs::File::create(&alive).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    store.collect(Forget::NONE).unwrap();
    assert!(!dead.exists() && alive.exists());
}

#[test]
fn a_collection_keeps_to_the_store_that_it_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let old = Store::open(&path).unwrap();
    old.collect(Forget::NONE).unwrap();
    std::fs::rename(&path, dir.path().join("aside")).unwrap();
    // Another one is at the old one's path, and makes a layer there.
    let new = Store::open(&path).unwrap();
    let layer = new.new_layer().unwrap();
    old.collect(Forget::ALL).unwrap();
    let made = std::fs::read_dir(path.join("tmp")).unwrap().count();
    assert_eq!(made, 1, "what is being made is taken for litter");
    layer.commit(&Cancel::new().unwrap()).unwrap();
    old.collect(Forget::ALL).unwrap();
    assert_eq!(std::fs::read_dir(path.join("layers")).unwrap().count(), 1);
}
