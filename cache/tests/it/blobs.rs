//! Blobs of the store: when one is believed to be bad, and which are removed.

use std::io::Write as _;
use std::path::Path;

use boxwright_cache::blob::local::SealedBlob;
use boxwright_cache::digest::Algorithm;
use boxwright_cache::gc::Forget;
use boxwright_cache::oci::descriptor::OCI_LAYER;
use boxwright_cache::snapshot::Layer;
use boxwright_cache::{Cancel, DiffId, Digest, Store};
use boxwright_testdata::tar::Tar;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

fn sealed(store: &Store, bytes: &[u8]) -> SealedBlob {
    let mut blob = store.new_blob(Algorithm::Sha256).unwrap();
    blob.write_all(bytes).unwrap();
    blob.seal().unwrap()
}

/// A layer that is here as a blob alone, in this form.
fn packed_layer(store: &Store, tar: &[u8], form: &[u8]) -> Layer {
    let layer = store.foreign_layer(DiffId(Digest::of(tar)), None).unwrap();
    layer.keep_blob(&sealed(store, form), OCI_LAYER).unwrap();
    layer
}

fn many_files(count: usize) -> Vec<u8> {
    (0..count).fold(Tar::new(), |tar, n| tar.file(&n.to_string(), 0o644, "x")).finish()
}

fn entries(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().flatten();
    names.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn blob_files(store: &Path) -> Vec<String> {
    entries(&store.join("blobs/sha256"))
}

/// A file system with room for few files, of whatever size.
struct Narrow(tempfile::TempDir);

impl Narrow {
    fn new() -> Narrow {
        let narrow = Narrow(tempfile::tempdir().unwrap());
        mount("none", narrow.0.path(), "tmpfs", MountFlags::empty(), Some(c"nr_inodes=200")).unwrap();
        narrow
    }

    fn widen(&self) {
        mount_remount(self.0.path(), MountFlags::empty(), c"nr_inodes=2000").unwrap();
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_blob_that_there_is_no_room_to_unpack_is_unpacked_once_there_is() {
    let disk = Narrow::new();
    let cancel = Cancel::new().unwrap();
    let store = Store::open(&disk.0.path().join("store")).unwrap();
    let tar = many_files(400);
    let layer = packed_layer(&store, &tar, &tar);
    for _ in 0..2 {
        let error = layer.dir(&cancel).unwrap_err();
        assert_eq!(error.kind(), Some(std::io::ErrorKind::StorageFull), "{error}");
    }
    assert!(layer.blobs().unwrap()[0].present, "it is taken for a bad one");
    disk.widen();
    assert!(layer.dir(&cancel).is_ok());
}

#[test]
fn a_blob_that_is_not_what_it_was_or_gone_is_forgotten_and_removed() {
    let cancel = Cancel::new().unwrap();
    let tar = many_files(40);
    let zstd = zstd::bulk::compress(&tar, 1).unwrap();
    let half = |form: &[u8]| Some(form[..form.len() / 2].to_vec());
    let flipped = |form: &[u8]| Some(form.iter().enumerate().map(|(n, b)| b ^ u8::from(n > 60)).collect());
    let other = |_: &[u8]| Some(many_files(39));
    let gone = |_: &[u8]| None;
    type Damage<'a> = &'a dyn Fn(&[u8]) -> Option<Vec<u8>>;
    let damages: [(&[u8], Damage<'_>); 6] =
        [(&tar, &half), (&zstd, &half), (&zstd, &flipped), (&tar, &other), (&tar, &gone), (&zstd, &other)];
    for (n, (form, damage)) in damages.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layer = packed_layer(&store, &tar, form);
        let file = dir.path().join("blobs/sha256").join(Digest::of(form).hex());
        match damage(form) {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        layer.dir(&cancel).unwrap_err();
        assert!(!layer.blobs().unwrap()[0].present, "{n}: it is tried again");
        store.collect(Forget::NONE).unwrap();
        assert!(blob_files(dir.path()).is_empty(), "{n}");
        layer.keep_blob(&sealed(&store, form), OCI_LAYER).unwrap();
        assert!(layer.dir(&cancel).is_ok(), "{n}: a good one is taken again");
    }
}

#[test]
fn a_blob_without_a_row_goes_also_while_others_are_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) =
        (Store::open_in_boot(dir.path(), "one").unwrap(), Store::open_in_boot(dir.path(), "one").unwrap());
    let tar = many_files(1);
    let held = packed_layer(&two, &tar, &tar);
    let stray = dir.path().join("blobs/sha256").join("0".repeat(64));
    std::fs::write(&stray, vec![0; 12345]).unwrap();
    let unkept = sealed(&two, b"not kept yet");
    assert_eq!(one.collect(Forget::NONE).unwrap().bytes, 12345);
    assert_eq!(blob_files(dir.path()), [Digest::of(&tar).hex()]);
    held.keep_blob(&unkept, OCI_LAYER).unwrap();
    drop((held, unkept, one, two));

    // What was not on the disk yet when the power went.
    let store = Store::open_in_boot(dir.path(), "two").unwrap();
    let bytes = tar.len() as u64 + b"not kept yet".len() as u64;
    assert_eq!(store.collect(Forget::NONE).unwrap().bytes, bytes);
    assert!(blob_files(dir.path()).is_empty());
}

/// Whether the collector still had files of the layer before it when its blob was there again.
fn comes_again_in_time(tar: &[u8]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let (maker, collector) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
    packed_layer(&maker, tar, tar).dir(&Cancel::new().unwrap()).unwrap();
    let again = sealed(&maker, tar);
    std::thread::scope(|scope| {
        let collection = scope.spawn(|| collector.collect(Forget::ALL).unwrap());
        let dying = || entries(&dir.path().join("tmp")).iter().any(|name| name.starts_with("dead-"));
        while !dying() && !collection.is_finished() {
            std::thread::yield_now();
        }
        let layer = maker.foreign_layer(DiffId(Digest::of(tar)), None).unwrap();
        layer.keep_blob(&again, OCI_LAYER).unwrap();
        let in_time = !collection.is_finished();
        assert_eq!(collection.join().unwrap().layers, 1);
        assert_eq!(blob_files(dir.path()), [Digest::of(tar).hex()]);
        in_time
    })
}

#[test]
fn a_blob_that_comes_again_while_it_is_collected_stays() {
    let tar = many_files(2000);
    assert!((0..20).any(|_| comes_again_in_time(&tar)), "more files are needed to be in time");
}

#[test]
fn a_repair_gives_up_the_blob_that_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let (store, cancel) = (Store::open(dir.path()).unwrap(), Cancel::new().unwrap());
    let (good, bad) = (many_files(1), many_files(2));
    let layers = [packed_layer(&store, &good, &good), packed_layer(&store, &bad, &bad)];
    std::fs::write(dir.path().join("blobs/sha256").join(Digest::of(&bad).hex()), "bad").unwrap();
    assert_eq!(store.check(true, &cancel).unwrap().problems.len(), 1);
    assert_eq!(blob_files(dir.path()), [Digest::of(&good).hex()]);
    assert!(layers[0].dir(&cancel).is_ok());
}
