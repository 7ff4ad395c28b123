//! Layer directories written as archives: the same bytes each time, read by GNU tar, and read back by ourselves.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use proptest::prelude::*;
use sha2::Digest as _;

use super::*;
use crate::layer::apply::apply;
use crate::layer::sink::{DirSink, LayerSink, Timestamp};

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn archive(path: &Path) -> (Vec<u8>, LayerSummary) {
    let mut out = Vec::new();
    let summary = write_tar(open(path).as_fd(), None, &mut out, &Cancel::new().unwrap()).unwrap();
    (out, summary)
}

fn summary(path: &Path) -> LayerSummary {
    scan(open(path).as_fd(), None, &Cancel::new().unwrap()).unwrap()
}

/// A layer with one of each thing.
fn sample() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = DirSink::new(open(dir.path()), OwnerView::current());
    let time = Timestamp { secs: 1_600_000_000, nanos: 987_654_321 };
    let meta = |mode| Metadata { mode, uid: 3_000_000_000, gid: 7, mtime: time, xattrs: Vec::new() };
    let with_xattr = Metadata { xattrs: vec![(b"user.note".to_vec(), b"\0\n=".to_vec())], ..meta(0o4755) };
    sink.dir(Path::new("dir"), &meta(0o1777)).unwrap();
    sink.file(Path::new("dir/file"), &with_xattr, 700_000, &mut std::io::repeat(b'x').take(700_000)).unwrap();
    sink.hard_link(Path::new("a-link"), Path::new("dir/file")).unwrap();
    sink.file(Path::new("empty"), &meta(0), 0, &mut std::io::empty()).unwrap();
    sink.symlink(Path::new("dir/sym"), &meta(0o777), OsStr::new("/où/est-il")).unwrap();
    sink.node(Path::new("fifo"), &meta(0o600), NodeKind::Fifo).unwrap();
    sink.node(Path::new("null"), &meta(0o666), NodeKind::Char { major: 1, minor: 3 }).unwrap();
    sink.file(Path::new(&("long/".repeat(60) + "name")), &meta(0o644), 2, &mut &b"hi"[..]).unwrap();
    sink.whiteout(Path::new("dir/gone")).unwrap();
    sink.opaque(Path::new("long")).unwrap();
    sink.finish().unwrap();
    dir
}

#[test]
fn a_scan_is_a_write_without_the_writing() {
    let layer = sample();
    let (bytes, written) = archive(layer.path());
    assert_eq!(summary(layer.path()), written);
    assert_eq!(archive(layer.path()).0, bytes);
    assert_eq!(written.tar_size, bytes.len() as u64);
    assert_eq!(written.diff_id.0.bytes(), &sha2::Sha256::digest(&bytes)[..]);
    assert_eq!(written.entries, 9 + 60 + 1);
}

#[test]
fn unpacking_what_was_written_gives_the_same_layer() {
    let layer = sample();
    let (bytes, written) = archive(layer.path());
    let copy = tempfile::tempdir().unwrap();
    let mut sink = DirSink::new(open(copy.path()), OwnerView::current());
    let applied = apply(&mut &bytes[..], &mut sink, &Cancel::new().unwrap()).unwrap();
    assert_eq!(sink.finish().unwrap(), crate::layer::Implied::default());
    assert_eq!(applied.diff_id, written.diff_id);
    assert_eq!(archive(copy.path()), (bytes, written));
}

#[test]
fn gnu_tar_reads_what_is_written() {
    let layer = sample();
    let (bytes, _) = archive(layer.path());
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.tar"), &bytes).unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    let args = ["--xattrs", "--xattrs-include=*", "-xpf", "a.tar", "-C", "out"];
    let output = Command::new("tar").args(args).current_dir(dir.path()).output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let theirs = |path: &str| fs::symlink_metadata(dir.path().join("out").join(path)).unwrap();
    let ours = |path: &str| fs::symlink_metadata(layer.path().join(path)).unwrap();
    let deepest = "long/".repeat(60) + "name";
    for path in ["dir", "dir/file", "a-link", "empty", "dir/sym", "fifo", "null", &deepest] {
        let told =
            |m: &fs::Metadata| (m.mode(), m.uid(), m.gid(), m.mtime(), m.mtime_nsec(), m.rdev(), m.nlink());
        assert_eq!(told(&theirs(path)), told(&ours(path)), "{path}");
    }
    assert_eq!(theirs("a-link").ino(), theirs("dir/file").ino());
    assert_eq!(theirs("dir/.wh.gone").len(), 0);
    assert_eq!(theirs("long/.wh..wh..opq").len(), 0);
    assert_eq!(fs::read(dir.path().join("out").join(deepest)).unwrap(), b"hi");
    let file = open(&dir.path().join("out/a-link"));
    assert_eq!(crate::fs::xattr::get(&file, b"user.note").unwrap().unwrap(), b"\0\n=");
}

#[test]
fn content_ignores_times_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("a"), "content").unwrap();
    fs::write(at("b"), "content").unwrap();
    symlink("a", at("link")).unwrap();
    let mut seen = vec![summary(dir.path())];
    fs::File::open(at("a")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let later = summary(dir.path());
    assert_eq!(later.content, seen[0].content);
    assert_ne!(later.diff_id, seen[0].diff_id);

    let mut changed = |what: &str, change: &dyn Fn()| {
        change();
        let now = summary(dir.path());
        assert!(seen.iter().all(|s| s.content != now.content), "{what} must change the content digest");
        seen.push(now);
    };
    changed("bytes", &|| fs::write(at("a"), "other").unwrap());
    changed("a mode", &|| {
        fs::set_permissions(at("a"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap()
    });
    changed("an owner", &|| std::os::unix::fs::chown(at("a"), Some(5), None).unwrap());
    changed("a link's owner", &|| std::os::unix::fs::lchown(at("link"), Some(5), None).unwrap());
    changed("an attribute", &|| crate::fs::xattr::set(open(&at("a")), b"user.x", b"y").unwrap());
    changed("a new name", &|| fs::rename(at("b"), at("c")).unwrap());
    changed("a target", &|| {
        fs::remove_file(at("link")).unwrap();
        symlink("b", at("link")).unwrap();
    });
    changed("a type", &|| {
        fs::remove_file(at("link")).unwrap();
        fs::write(at("link"), "b").unwrap();
    });
    changed("a copy", &|| fs::copy(at("c"), at("c2")).map(|_| ()).unwrap());
    changed("a hard link", &|| {
        fs::remove_file(at("c2")).unwrap();
        fs::hard_link(at("c"), at("c2")).unwrap();
    });
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    assert_eq!(summary(dir.path()).content, seen.last().unwrap().content, "sockets are in no archive");
}

#[test]
fn a_raised_token_ends_the_walk() {
    let cancel = Cancel::new().unwrap();
    cancel.raise();
    assert!(matches!(scan(open(sample().path()).as_fd(), None, &cancel), Err(Error::Cancelled)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_tree_round_trips(
        files in prop::collection::btree_map("[a-c]{1,2}(/[a-cé]{1,60}){0,3}", prop::collection::vec(any::<u8>(), 0..3000), 0..12),
        mtime in (-2_000_000_000i64..4_000_000_000, 0u32..1_000_000_000),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = DirSink::new(open(dir.path()), OwnerView::current());
        let meta = Metadata { mode: 0o640, mtime: Timestamp { secs: mtime.0, nanos: mtime.1 }, ..Metadata::default() };
        for (path, content) in &files {
            // A file that turns up where a directory is needed is an error of the tree, not of the archive.
            let _ = sink.file(Path::new(path), &meta, content.len() as u64, &mut &content[..]);
        }
        sink.finish().unwrap();
        let (bytes, written) = archive(dir.path());
        let copy = tempfile::tempdir().unwrap();
        let mut sink = DirSink::new(open(copy.path()), OwnerView::current());
        let applied = apply(&mut &bytes[..], &mut sink, &Cancel::new().unwrap()).unwrap();
        prop_assert!(sink.finish().unwrap().dirs.is_empty());
        prop_assert_eq!(applied.diff_id, written.diff_id);
        prop_assert_eq!(archive(copy.path()), (bytes, written));
    }
}
