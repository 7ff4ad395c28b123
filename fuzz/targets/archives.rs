//! Any text as the documents of an image archive: loading it ends, what it refuses leaves no image behind, and what it
//! takes is whole.
//!
//! Parts are separated by lines of `---`; each begins with a line that has its name. `@N` and `#N` stand for the digest
//! and the size of the part that comes N-th from the top, as far as it is known by then, so the last part is usually
//! the index. A part named `-` becomes a blob named by its digest.
#![no_main]

use std::sync::OnceLock;

use boxwright_cache::layer::Metadata;
use boxwright_cache::layer::tar::{EntryKind, Writer};
use boxwright_cache::{Cancel, Digest, Store, import};

libfuzzer_sys::fuzz_target!(|input: &str| {
    static STORE: OnceLock<(tempfile::TempDir, Store)> = OnceLock::new();
    let (_, store) = STORE.get_or_init(|| {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        let store = Store::open(&dir.path().join("store")).expect("a store in memory");
        (dir, store)
    });
    let cancel = Cancel::new().expect("an event descriptor");
    let before = store.image_ids().expect("the store is ours");
    match import::load(store, &archive(input)[..], None, &cancel) {
        Err(_) => assert_eq!(store.image_ids().expect("the store is ours"), before, "half an image stayed"),
        Ok(loaded) => {
            for image in loaded {
                let stored = store.stored(&image.id).expect("the store is ours").expect("it was just loaded");
                for layer in stored.images().into_iter().flat_map(|image| &image.layers) {
                    layer.dir(&cancel).expect("an image that was loaded has its layers");
                }
                assert!(store.document(&image.id).expect("the store is ours").is_some());
            }
        }
    }
});

fn archive(input: &str) -> Vec<u8> {
    let mut known: Vec<(Digest, usize)> = Vec::new();
    let mut tar = Writer::new(Vec::new());
    for part in input.split("\n---\n") {
        let (name, text) = part.split_once('\n').unwrap_or(("-", part));
        let mut text = text.to_owned();
        for (n, (digest, size)) in known.iter().enumerate() {
            text = text
                .replace(&format!("@{n}"), &digest.to_string())
                .replace(&format!("#{n}"), &size.to_string());
        }
        // The empty layer, plain: nothing else is worth its bytes here.
        let bytes = if text == "layer" { vec![0; 1024] } else { text.into_bytes() };
        known.push((Digest::of(&bytes), bytes.len()));
        let name = match name {
            "-" => format!("blobs/sha256/{}", Digest::of(&bytes).hex()),
            name => name.replace('\0', ""),
        };
        let meta = Metadata { mode: 0o644, ..Metadata::default() };
        let kind = match name.strip_prefix('>') {
            Some(_) => EntryKind::Symlink(String::from_utf8_lossy(&bytes).replace('\0', "").into()),
            None => EntryKind::File { size: bytes.len() as u64 },
        };
        let written = tar.entry(name.trim_start_matches('>').as_ref(), &meta, &kind);
        if written.is_ok() && matches!(kind, EntryKind::File { .. }) {
            tar.content(&bytes).expect("memory can be written");
        }
    }
    tar.finish().expect("memory can be written")
}
