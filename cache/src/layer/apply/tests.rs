//! Archives applied to real directories: hostile ones beside a canary, and honest ones against GNU tar.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::Digest as _;

use super::*;
use crate::fs::xattr;
use crate::layer::sink::{DirSink, Implied};
use crate::layer::tar::fixture::Raw;
use crate::snapshot::owner::OwnerView;

struct Layer {
    dir: tempfile::TempDir,
    implied: Implied,
    applied: Applied,
}

/// A directory `layer` to unpack into, and beside it `canary` with a file that must stay as it is.
fn playground() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("layer")).unwrap();
    fs::create_dir(dir.path().join("canary")).unwrap();
    fs::write(dir.path().join("canary/file"), "intact").unwrap();
    dir
}

fn unpack_into(dir: &tempfile::TempDir, mut archive: &[u8], limits: Limits) -> Result<(Applied, Implied)> {
    let root: OwnedFd = fs::File::open(dir.path().join("layer")).unwrap().into();
    let mut sink = DirSink::new(root, OwnerView::Real);
    let result = apply_with(&mut archive, &mut sink, &Cancel::new().unwrap(), limits, Algorithm::Sha256);
    let canary = dir.path().join("canary");
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "intact");
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 1, "something was made outside of the layer");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "something was made outside of the layer");
    Ok((result?, sink.finish()?))
}

fn unpack(archive: &[u8]) -> Result<Layer> {
    let dir = playground();
    let (applied, implied) = unpack_into(&dir, archive, Limits::default())?;
    Ok(Layer { dir, implied, applied })
}

impl Layer {
    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join("layer").join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn stat(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.path(path)).unwrap()
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let stat = self.stat(path);
        stat.file_type().is_char_device() && stat.rdev() == 0
    }

    fn is_opaque(&self, path: &str) -> bool {
        let dir = fs::File::open(self.path(path)).unwrap();
        OwnerView::Real.is_opaque(dir).unwrap()
    }
}

#[track_caller]
fn refused(archive: &[u8], why: &str) {
    let error = unpack(archive).map(|_| ()).expect_err("the archive must be refused").to_string();
    assert!(error.contains(why), "{error:?} should say {why:?}");
}

#[test]
fn links_lead_nowhere_outside() {
    for target in ["../canary", "/canary", "../../../../canary", "/proc/self/root/canary"] {
        let layer = unpack(&Raw::new().symlink("out", target).file("out/file", "evil").end()).unwrap();
        let inside = target.trim_start_matches("../").trim_start_matches('/');
        assert_eq!(layer.read(&format!("{inside}/file")), "evil", "{target} means a directory of the layer");
    }
    // The host's directory is spelt out in full, in case anything resolves it from the host's root.
    let dir = playground();
    let target = dir.path().join("canary").display().to_string();
    let archive = Raw::new().symlink("out", &target).file("out/file", "evil").file("out/new", "evil").end();
    unpack_into(&dir, &archive, Limits::default()).unwrap();
}

#[test]
fn a_link_in_place_of_an_entry_is_replaced_not_followed() {
    let dir = playground();
    let target = dir.path().join("canary/file").display().to_string();
    let archive = Raw::new().symlink("f", &target).file("f", "new").symlink("d", "../canary").dir("d").end();
    unpack_into(&dir, &archive, Limits::default()).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("layer/f")).unwrap(), "new");
    assert!(fs::symlink_metadata(dir.path().join("layer/d")).unwrap().is_dir());
}

#[test]
fn the_root_is_a_directory_or_nothing() {
    for name in [".", "/", "./", "a/.."] {
        refused(&Raw::new().symlink(name, "../canary").file("file", "x").end(), "not a plain path");
        refused(&Raw::new().hard_link(name, "x").end(), "not a plain path");
        refused(&Raw::new().hard_link("x", name).end(), "not a plain path");
    }
    let root = Raw::new().header(b'5', "./", "", b"", |h| h[100..108].copy_from_slice(b"0000700\0")).end();
    assert_eq!(unpack(&root).unwrap().stat("").mode() & 0o7777, 0o700);
}

#[test]
fn hard_links_stay_inside() {
    refused(&Raw::new().hard_link("x", "../canary/file").end(), "leads out");
    let archive = Raw::new().symlink("out", "../canary").hard_link("x", "out/file").file("x", "evil").end();
    let layer = unpack(&archive).unwrap();
    assert!(layer.implied.links.is_empty(), "a link that was replaced is no longer missing");
    assert_eq!(layer.read("x"), "evil");

    let archive =
        Raw::new().file("a", "1").hard_link("d/b", "/a").hard_link("a", "a").hard_link("c", "below/x").end();
    let layer = unpack(&archive).unwrap();
    assert_eq!(layer.stat("a").ino(), layer.stat("d/b").ino());
    assert_eq!(layer.implied.links, [(PathBuf::from("c"), PathBuf::from("below/x"))]);
    assert_eq!(layer.implied.dirs, [PathBuf::from("d")]);
}

#[test]
fn parents_that_are_links_are_followed_inside() {
    let archive = Raw::new()
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .file("lib/a", "1")
        .symlink("usr/lib/loop", "loop")
        .symlink("abs", "/usr/./lib")
        .file("abs/b", "2")
        .symlink("dangling", "made/here")
        .file("dangling/c", "3")
        .end();
    let layer = unpack(&archive).unwrap();
    assert_eq!(
        (layer.read("usr/lib/a"), layer.read("usr/lib/b"), layer.read("made/here/c")),
        ("1".into(), "2".into(), "3".into())
    );
    assert_eq!(layer.implied.dirs, [PathBuf::from("made"), PathBuf::from("made/here"), PathBuf::from("usr")]);
    assert_eq!(layer.stat("made/here").mode() & 0o7777, 0o755);
    assert_eq!(layer.stat("made/here").mtime(), 0);
    refused(&Raw::new().symlink("l", "l").file("l/x", "").end(), "too many symbolic links");
    refused(&Raw::new().file("f", "").file("f/x", "").end(), "entering f: Not a directory");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let archive = Raw::new()
        .file("a/b/c", "1")
        .file("a/b", "file now")
        .file("a/x", "1")
        .file("a/x", "2")
        .dir("a/x")
        .file("a/x/in", "3")
        .end();
    let layer = unpack(&archive).unwrap();
    assert_eq!((layer.read("a/b"), layer.read("a/x/in")), ("file now".into(), "3".into()));
    assert_eq!(layer.implied.dirs, [PathBuf::from("a")]);
}

#[test]
fn whiteouts_take_overlayfs_form() {
    let archive = Raw::new()
        .file(".wh.gone", "")
        .file("d/.wh..wh..opq", "")
        .file("d/kept", "1")
        .file("d/.wh.kept", "")
        .file(".wh.back", "")
        .file("back/in", "2")
        .file(".wh.listed", "")
        .dir("listed")
        .dir("before")
        .file(".wh.before", "")
        .dir(".wh..wh.plnk")
        .file(".wh..wh.plnk/17.3", "")
        .end();
    let layer = unpack(&archive).unwrap();
    assert!(layer.is_whiteout("gone"));
    assert_eq!(layer.read("d/kept"), "1", "a whiteout is about lower layers only");
    for opaque in ["d", "back", "listed", "before"] {
        assert!(layer.is_opaque(opaque), "{opaque}");
    }
    assert_eq!(fs::read_dir(layer.path("")).unwrap().count(), 5);
}

#[test]
fn whiteouts_of_what_is_outside_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh..", ".wh.d/f"] {
        refused(&Raw::new().dir("d").file(name, "").end(), "not a whiteout");
    }
    refused(&Raw::new().file("../.wh.canary", "").end(), "leads out");
    refused(&Raw::new().file("a", "").hard_link("b", ".wh.a").end(), "not a whiteout");
    let dir = playground();
    let archive =
        Raw::new().symlink("out", "../canary").file("out/.wh.file", "").file("out/.wh..wh..opq", "").end();
    unpack_into(&dir, &archive, Limits::default()).unwrap();
}

#[test]
fn bombs_are_stopped() {
    let dir = playground();
    let error = unpack_into(&dir, &vec![0; 1 << 20], Limits { entries: 10, bytes: 1 << 16 }).unwrap_err();
    assert!(error.to_string().contains("larger than the limit of 65536 bytes"), "{error}");
    let many = (0..20).fold(Raw::new(), |raw, n| raw.file(&n.to_string(), "")).end();
    let error = unpack_into(&dir, &many, Limits { entries: 10, bytes: 1 << 20 }).unwrap_err();
    assert!(error.to_string().contains("more than 10 entries"), "{error}");
    refused(&Raw::new().file("f", "abc").unfinished()[..600], "too early");
}

/// Counts the files that this process has open whenever it is read.
struct Counting<R>(R, usize);

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1.max(fs::read_dir("/proc/self/fd")?.count());
        self.0.read(buffer)
    }
}

#[test]
fn the_depth_of_an_archive_costs_no_descriptors() {
    let path = |depth: usize, name: &str| format!("{}{name}", "d/".repeat(depth));
    let mut raw = Raw::new();
    // Down, and up again.
    for depth in (0..400).chain((0..400).rev()) {
        raw = raw.pax(&[("path", path(depth, &format!("f{depth}")).as_bytes())]).file("f", "x");
    }
    // Large enough for reading to go on while entries are made.
    let archive = raw.file("last", &"x".repeat(8 << 20)).end();
    let dir = playground();
    let root: OwnedFd = fs::File::open(dir.path().join("layer")).unwrap().into();
    let (mut counting, mut sink) = (Counting(&archive[..], 0), DirSink::new(root, OwnerView::Real));
    apply(&mut counting, &mut sink, &Cancel::new().unwrap()).unwrap();
    assert_eq!(sink.finish().unwrap().dirs.len(), 399);
    let layer = dir.path().join("layer");
    (0..400)
        .for_each(|depth| assert_eq!(fs::read(layer.join(path(depth, &format!("f{depth}")))).unwrap(), b"x"));
    assert!(counting.1 < 200, "{} files are open", counting.1);
}

#[test]
fn what_links_lead_to_is_no_deeper_than_a_path_can_name() {
    let (half, more) = (format!("{}/", "d".repeat(200)).repeat(19), "e/".repeat(200));
    let raw = || Raw::new().pax(&[("linkpath", half.as_bytes())]).symlink("link", "x");
    let raw = || raw().pax(&[("path", format!("{half}f").as_bytes())]).file("f", "x");
    for entry in [format!("link/{more}f"), format!("link/{more}")] {
        let archive = raw().pax(&[("path", entry.as_bytes())]).file("f", "").end();
        refused(&archive, "a directory deeper than any path");
    }
    let archive =
        raw().pax(&[("path", format!("link/{}f", "e/".repeat(135)).as_bytes())]).file("f", "x").end();
    assert_eq!(unpack(&archive).unwrap().implied.dirs.len(), 19 + 135);
}

#[test]
fn the_diff_id_covers_the_whole_stream() {
    let mut archive = Raw::new().file("f", "x").end();
    archive.extend(vec![0; 700_000]);
    archive.extend(b"trailing");
    let layer = unpack(&archive).unwrap();
    assert_eq!(layer.applied.size, archive.len() as u64);
    assert_eq!(layer.applied.diff_id.0.bytes(), &sha2::Sha256::digest(&archive)[..]);
    assert_eq!(unpack(b"").unwrap().applied.size, 0);
}

#[test]
fn a_failing_source_and_a_raised_token_are_reported() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the line went dead"))
        }
    }
    let dir = playground();
    let sink = || DirSink::new(fs::File::open(dir.path().join("layer")).unwrap().into(), OwnerView::Real);
    let cancel = Cancel::new().unwrap();
    let start = Raw::new().file("f", "x").unfinished();
    let error = apply(&mut start.chain(Broken), &mut sink(), &cancel).unwrap_err();
    assert!(error.to_string().contains("the line went dead"), "{error}");
    cancel.raise();
    let archive = Raw::new().file("f", "x").end();
    assert!(matches!(apply(&mut &archive[..], &mut sink(), &cancel), Err(Error::Cancelled)));
}

#[test]
fn metadata_is_kept() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Raw::new()
        .pax(&[
            ("mtime", b"-1.5"),
            ("uid", b"3000000000"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.a", b"b"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.boxwright.owner", b"12345678"),
        ])
        .header(b'0', "d/f", "", b"x", |h| h[100..108].copy_from_slice(b"0006755\0"))
        .pax(&[("mtime", b"1700000000.123456789")])
        .header(b'5', "d", "", b"", |h| h[100..108].copy_from_slice(b"0001777\0"))
        .pax(&[("mtime", b"77")])
        .symlink("d/l", "nowhere")
        .entry(b'6', "d/fifo", "", b"")
        .header(b'3', "d/null", "", b"", |h| {
            h[329..337].copy_from_slice(b"0000001\0");
            h[337..345].copy_from_slice(b"0000003\0");
        })
        .end();
    let layer = unpack(&archive).unwrap();
    let file = layer.stat("d/f");
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o6755, 3_000_000_000, 0));
    assert_eq!((file.mtime(), file.mtime_nsec()), (-2, 500_000_000));
    let open = fs::File::open(layer.path("d/f")).unwrap();
    let mut names = xattr::list(&open, |_| true).unwrap();
    names.sort();
    assert_eq!(names, [&b"security.capability"[..], b"user.a"]);
    assert_eq!(xattr::get(&open, b"security.capability").unwrap().unwrap(), capability);
    let dir = layer.stat("d");
    assert_eq!((dir.mode() & 0o7777, dir.mtime(), dir.mtime_nsec()), (0o1777, 1_700_000_000, 123_456_789));
    assert_eq!(layer.stat("d/l").mtime(), 77);
    assert!(layer.stat("d/fifo").file_type().is_fifo());
    assert_eq!(layer.stat("d/null").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(layer.stat("d/null").mtime(), 0);
    assert_eq!(layer.implied, Implied::default(), "an implied directory that is listed later is explicit");
}

/// Type, mode, owner, time, size, link target and number of links of everything below `root`.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let mut line = format!(
            "{:o} {}:{} {}.{:09} {}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.rdev()
        );
        if stat.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if stat.is_symlink() {
            line += &format!(" -> {}", fs::read_link(&path).unwrap().display());
        } else if stat.is_file() {
            line += &format!(" {} {:?}", stat.nlink(), fs::read(&path).unwrap());
        }
        if path != root {
            found.insert(path.strip_prefix(root).unwrap().to_owned(), line);
        }
    }
    found
}

#[test]
fn gnu_tar_and_this_extractor_agree() {
    let source = tempfile::tempdir().unwrap();
    let at = |path: &str| source.path().join(path);
    fs::create_dir_all(at(&"deep/".repeat(60))).unwrap();
    fs::write(at(&("deep/".repeat(60) + "file")), "bottom").unwrap();
    fs::write(at("ünïcode"), vec![7; 100_000]).unwrap();
    fs::write(at(&"n".repeat(200)), "").unwrap();
    fs::hard_link(at("ünïcode"), at("link")).unwrap();
    std::os::unix::fs::symlink("x".repeat(150), at("symlink")).unwrap();
    std::os::unix::fs::chown(at("link"), Some(12345), Some(3_000_000_000)).unwrap();
    for format in ["posix", "gnu"] {
        let archive = Command::new("tar")
            .args(["--format", format, "-cf", "-", "-C"])
            .arg(source.path())
            .arg(".")
            .output()
            .unwrap();
        assert!(archive.status.success(), "{}", String::from_utf8_lossy(&archive.stderr));
        let layer = unpack(&archive.stdout).unwrap();
        let theirs = tempfile::tempdir().unwrap();
        fs::write(theirs.path().join("a.tar"), &archive.stdout).unwrap();
        fs::create_dir(theirs.path().join("out")).unwrap();
        let status = Command::new("tar")
            .args(["-xpf", "a.tar", "-C", "out"])
            .current_dir(theirs.path())
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(listing(&layer.path("")), listing(&theirs.path().join("out")), "{format}");
    }
}
