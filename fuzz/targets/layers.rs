//! Any bytes as the entries of a layer, with checksums that hold: reading ends, what was understood survives being
//! written again, and unpacking touches nothing beside the layer.
#![no_main]

#[path = "../entries.rs"]
mod entries;

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Component;
use std::sync::OnceLock;

use boxwright_cache::Cancel;
use boxwright_cache::digest::Algorithm;
use boxwright_cache::layer::tar::{Entry, EntryKind, Limits, Reader, Writer};
use boxwright_cache::layer::{DirSink, apply_with, scan};
use boxwright_cache::snapshot::owner::OwnerView;

const LIMITS: Limits = Limits { entries: 200, bytes: 1 << 20 };

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let archive = entries::archive(input);
    if let Some(entries) = read(&archive) {
        let again = write(&entries);
        assert_eq!(read(&again).as_ref(), Some(&entries), "written again, it reads otherwise");
    }
    unpack(&archive);
});

fn read(archive: &[u8]) -> Option<Vec<(Entry, Vec<u8>)>> {
    let mut reader = Reader::new(archive, LIMITS);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().ok()? {
        assert!(entry.path.components().all(|c| matches!(c, Component::Normal(_))), "{entry:?}");
        if let EntryKind::HardLink(target) = &entry.kind {
            assert!(target.components().all(|c| matches!(c, Component::Normal(_))), "{entry:?}");
        }
        let mut content = Vec::new();
        reader.data().read_to_end(&mut content).ok()?;
        entries.push((entry, content));
    }
    Some(entries)
}

fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.entry(&entry.path, &entry.meta, &entry.kind).expect("memory can be written");
        writer.content(content).expect("memory can be written");
    }
    writer.finish().expect("memory can be written")
}

/// One directory for all inputs of this process, with a neighbour that must not change.
fn unpack(archive: &[u8]) {
    static PLACE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        let place = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        std::fs::write(place.path().join("canary"), "intact").expect("a file in memory");
        place
    });
    let layer = place.path().join("layer");
    std::fs::create_dir(&layer).expect("the directory of the last input is gone");
    let cancel = Cancel::new().expect("an event descriptor");
    let view = OwnerView::current();
    let mut sink = DirSink::new(std::fs::File::open(&layer).expect("it was just made").into(), view);
    let mut bytes = archive;
    if apply_with(&mut bytes, &mut sink, &cancel, LIMITS, Algorithm::Sha256).is_ok() && sink.finish().is_ok()
    {
        let dir = std::fs::File::open(&layer).expect("nobody removed it");
        scan(dir.as_fd(), None, &cancel).expect("what was unpacked can be read");
    }
    let beside: Vec<_> = std::fs::read_dir(place.path()).expect("it is there").collect();
    assert_eq!(beside.len(), 2, "something was made beside the layer");
    assert_eq!(std::fs::read(place.path().join("canary")).expect("it is there"), b"intact");
    std::fs::remove_dir_all(&layer).expect("what we made we can remove");
}
