//! The reader against hostile bytes, the writer against the reader and against GNU tar.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::fixture::Raw;
use super::{Entry, EntryKind, Limits, Reader, Writer};
use crate::error::Result;
use crate::layer::sink::{Metadata, NodeKind, Timestamp};

fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
    read_limited(archive, Limits::default())
}

fn read_limited(archive: &[u8], limits: Limits) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut reader = Reader::new(archive, limits);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.data().read_to_end(&mut content).map_err(crate::Error::io("reading", "content"))?;
        entries.push((entry, content));
    }
    Ok(entries)
}

fn names(archive: &[u8]) -> Vec<String> {
    read(archive).unwrap().iter().map(|(e, _)| e.path.display().to_string()).collect()
}

#[track_caller]
fn refused(archive: &[u8], why: &str) {
    let error = read(archive).expect_err("the archive must be refused").to_string();
    assert!(error.contains(why), "{error:?} should say {why:?}");
}

#[test]
fn the_pax_size_is_the_one_that_counts() {
    // To a reader that believes the plain size of zero, the content is an entry of its own.
    let smuggled = Raw::new().file("smuggled", "").unfinished();
    let hidden = Raw::new()
        .pax(&[("size", b"512")])
        .header(b'0', "carrier", "", b"", |_| ())
        .blocks(&smuggled)
        .file("after", "x")
        .end();
    let entries = read(&hidden).unwrap();
    assert_eq!(names(&hidden), ["carrier", "after"]);
    assert_eq!(entries[0].1, smuggled);
}

#[test]
fn sizes_that_contradict_are_refused() {
    let archive = Raw::new().pax(&[("size", b"512")]).file("f", "only ten b").end();
    refused(&archive, "two sizes, 10 and 512");
    let archive = Raw::new().pax(&[("size", b"9223372036854775807")]).file("f", "").end();
    refused(&archive, "larger than the limit");
    let archive = Raw::new().header(b'0', "f", "", b"", |h| h[124..136].copy_from_slice(&[0xff; 12])).end();
    refused(&archive, "bad size");
    let archive = Raw::new().header(b'2', "l", "t", &[b'x'; 512], |_| ()).end();
    refused(&archive, "content where none belongs");
    let archive = Raw::new().header(b'5', "d/", "", &[b'x'; 512], |_| ()).end();
    refused(&archive, "content where none belongs");
    let sized = |h: &mut [u8; 512]| h[124..136].copy_from_slice(b"00000001000\0");
    refused(&Raw::new().header(b'1', "h", "f", b"", sized).end(), "a hard link with content");
    let of_old = |h: &mut [u8; 512]| {
        sized(h);
        h[257..265].copy_from_slice(b"ustar  \0");
    };
    assert_eq!(
        names(&Raw::new().header(b'1', "h", "f", b"", of_old).file("after", "").end()),
        ["h", "after"]
    );
}

#[test]
fn what_follows_content_must_be_a_header() {
    let mut archive = Raw::new().file("f", "abc").unfinished();
    archive.extend_from_slice(&[b'a'; 512]);
    refused(&archive, "a header was expected");
    refused(&Raw::new().file("f", "abc").unfinished()[..700], "too early");
    refused(&Raw::new().file("f", "abc").unfinished()[..100], "too early");
    let mut wrong = Raw::new().file("f", "").end();
    wrong[0] ^= 1;
    refused(&wrong, "checksum");
    let mut lone = Raw::new().blocks(&[0; 512]).unfinished();
    lone.extend(Raw::new().file("after", "").end());
    refused(&lone, "after a block of zeros");
}

#[test]
fn ambiguous_extended_headers_are_refused() {
    let twice = Raw::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", "").end();
    refused(&twice, "two extended headers");
    let both = Raw::new().entry(b'L', "././@LongLink", "", b"a\0").pax(&[("path", b"b")]).file("c", "").end();
    refused(&both, "two long names");
    let global = Raw::new().entry(b'g', "g", "", b"9 size=9\n").file("c", "").end();
    refused(&global, "global header");
    refused(&Raw::new().pax(&[("path", b"a")]).end(), "after an extended header");
    refused(&Raw::new().pax(&[("path", b"a\0b")]).file("c", "").end(), "NUL");
    refused(&Raw::new().pax(&[("GNU.sparse.major", b"1")]).file("c", "").end(), "sparse");
    refused(&Raw::new().entry(b'S', "s", "", b"").end(), "sparse");
    refused(&Raw::new().entry(b'Z', "s", "", b"").end(), "unknown type 'Z'");
    let huge = Raw::new().header(b'x', "x", "", b"", |h| h[124..136].copy_from_slice(b"00010000000\0")).end();
    refused(&huge, "an extended header of 2097152 bytes");
}

#[test]
fn names_stay_below_the_root() {
    let archive = Raw::new().file("/etc/../a//./b", "").dir("./").file("...", "").end();
    assert_eq!(names(&archive), ["a/b", "", "..."]);
    for name in ["..", "../x", "a/../../x", "/.."] {
        refused(&Raw::new().file(name, "").end(), "leads out");
        refused(&Raw::new().hard_link("x", name).end(), "leads out");
    }
    let deep = "d/".repeat(3000);
    refused(&Raw::new().pax(&[("path", deep.as_bytes())]).file("x", "").end(), "too long");
    let long = "n".repeat(256);
    refused(&Raw::new().pax(&[("path", long.as_bytes())]).file("x", "").end(), "too long");
}

#[test]
fn owners_out_of_range_are_refused() {
    let owned = |id: &[u8]| Raw::new().pax(&[("uid", id), ("gid", id)]).file("f", "").end();
    let entries = read(&owned(b"4294967294")).unwrap();
    assert_eq!((entries[0].0.meta.uid, entries[0].0.meta.gid), (u32::MAX - 1, u32::MAX - 1));
    for id in ["4294967295", "4294967296", "-1", "18446744073709551616"] {
        assert!(read(&owned(id.as_bytes())).is_err(), "{id}");
    }
}

#[test]
fn limits_hold() {
    let archive = Raw::new().file("a", "").file("b", "").file("c", "").end();
    assert!(read_limited(&archive, Limits { entries: 3, bytes: 1 << 20 }).is_ok());
    let error = read_limited(&archive, Limits { entries: 2, bytes: 1 << 20 }).unwrap_err();
    assert!(error.to_string().contains("more than 2 entries"), "{error}");
    let archive = Raw::new().file("a", "1234567890").end();
    assert!(read_limited(&archive, Limits { entries: 9, bytes: 9 }).is_err());
}

#[test]
fn gnu_names_and_old_directories_are_understood() {
    let long = "d/".repeat(100) + "file";
    let mut terminated = long.clone().into_bytes();
    terminated.push(0);
    let archive = Raw::new()
        .entry(b'L', "././@LongLink", "", &terminated)
        .file("d/d/d", "content")
        .header(b'0', "old/", "", b"", |h| h[156] = 0)
        .end();
    let entries = read(&archive).unwrap();
    assert_eq!(entries[0].0.path, Path::new(&long));
    assert_eq!(entries[0].1, b"content");
    assert_eq!((entries[1].0.kind.clone(), entries[1].0.path.to_str()), (EntryKind::Dir, Some("old")));
}

fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.entry(&entry.path, &entry.meta, &entry.kind).unwrap();
        for part in content.chunks(700) {
            writer.content(part).unwrap();
        }
    }
    writer.finish().unwrap()
}

#[test]
fn the_writer_refuses_content_of_another_size() {
    let file = |writer: &mut Writer<Vec<u8>>| {
        writer.entry(Path::new("f"), &Metadata::default(), &EntryKind::File { size: 3 }).unwrap();
    };
    let mut writer = Writer::new(Vec::new());
    file(&mut writer);
    assert!(writer.content(b"four").is_err());
    let mut writer = Writer::new(Vec::new());
    file(&mut writer);
    writer.content(b"12").unwrap();
    assert!(writer.finish().is_err());
}

fn name_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => b'a'..=b'z', 1 => 1u8..=46, 1 => 48u8..=255];
    prop::collection::vec(byte, 1..120)
}

fn path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(name_bytes(), 1..5).prop_filter_map("dots", |parts| {
        let plain = !parts.iter().any(|p| p == b"." || p == b"..");
        plain.then(|| PathBuf::from(OsString::from_vec(parts.join(&b'/'))))
    })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let time =
        (prop_oneof![Just(0i64), -5_000_000_000i64..5_000_000_000, 0i64..1 << 40], 0u32..1_000_000_000)
            .prop_flat_map(|(secs, nanos)| {
                prop_oneof![Just(0), Just(nanos)].prop_map(move |nanos| Timestamp { secs, nanos })
            });
    let xattr = ("user\\.[a-z]{1,300}", prop::collection::vec(any::<u8>(), 1..300));
    let xattrs = prop::collection::btree_map(xattr.0, xattr.1, 0..3);
    let id = || prop_oneof![0u32..70_000, 0u32..u32::MAX];
    (0u32..0o10000, id(), id(), time, xattrs).prop_map(|(mode, uid, gid, mtime, xattrs)| Metadata {
        mode,
        uid,
        gid,
        mtime,
        xattrs: xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect(),
    })
}

fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let device = || (0u32..1 << 12, 0u32..1 << 20);
    let kind = prop_oneof![
        Just((EntryKind::Dir, Vec::new())),
        prop::collection::vec(any::<u8>(), 0..1600)
            .prop_map(|content| (EntryKind::File { size: content.len() as u64 }, content)),
        name_bytes().prop_map(|target| (EntryKind::Symlink(OsString::from_vec(target)), Vec::new())),
        path().prop_map(|target| (EntryKind::HardLink(target), Vec::new())),
        Just((EntryKind::Node(NodeKind::Fifo), Vec::new())),
        device().prop_map(|(major, minor)| (EntryKind::Node(NodeKind::Char { major, minor }), Vec::new())),
        device().prop_map(|(major, minor)| (EntryKind::Node(NodeKind::Block { major, minor }), Vec::new())),
    ];
    (path(), metadata(), kind).prop_map(|(path, meta, (kind, content))| (Entry { path, meta, kind }, content))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(entries in prop::collection::vec(entry(), 0..6)) {
        let archive = write(&entries);
        prop_assert_eq!(read(&archive).unwrap(), entries);
        prop_assert_eq!(archive.len() % 512, 0);
    }

    #[test]
    fn damaged_archives_never_panic(
        entries in prop::collection::vec(entry(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut archive = write(&entries);
        for (at, byte) in damage {
            let at = at.index(archive.len());
            archive[at] = byte;
        }
        archive.truncate(cut.index(archive.len()) + 1);
        let _ = read(&archive);
    }
}
