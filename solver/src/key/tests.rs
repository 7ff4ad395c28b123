//! What keys depend on, field by field.

use boxwright_cache::digest::ChainId;

use super::*;
use crate::ir::{About, Definition, LocalSource};

/// What is done to a thing, and what that is called.
pub(super) type Change<T> = (&'static str, fn(&mut T));

/// Each change alone makes a key that neither `plain` has nor another change makes.
#[track_caller]
pub(super) fn assert_each_counts<T: Clone>(plain: &T, key: impl Fn(&T) -> CacheKey, changes: &[Change<T>]) {
    let mut keys = vec![("nothing", key(plain))];
    for (what, change) in changes {
        let mut changed = plain.clone();
        change(&mut changed);
        let new = key(&changed);
        let same = keys.iter().find(|(_, key)| *key == new);
        assert!(same.is_none(), "{what} gives the key of {}", same.unwrap().0);
        keys.push((what, new));
    }
}

#[track_caller]
pub(super) fn assert_none_counts<T: Clone>(plain: &T, key: impl Fn(&T) -> CacheKey, changes: &[Change<T>]) {
    for (what, change) in changes {
        let mut changed = plain.clone();
        change(&mut changed);
        assert_eq!(key(&changed), key(plain), "{what} is in the key");
    }
}

/// The key of a vertex whose inputs have keys made of their numbers.
pub(super) fn key(op: &Op) -> CacheKey {
    KeyFields::of(op, &|id| InputKey::Definition(CacheKey([id.index() as u8; 32]))).key(Purpose::Definition)
}

/// The id of one of several vertices.
pub(super) fn vertex(n: usize) -> VertexId {
    let mut definition = Definition::default();
    let mut add = |n: usize| {
        let local = LocalSource { name: n.to_string(), ..LocalSource::default() };
        definition.add(Op::Source(SourceOp::Local(local)), About::default())
    };
    (0..n).map(&mut add).count();
    add(n)
}

fn file(action: FileAction) -> Op {
    Op::File(FileOp { base: None, actions: vec![action] })
}

fn definition_key(fields: &KeyFields) -> CacheKey {
    fields.key(Purpose::Definition)
}

#[test]
fn an_image_is_its_files_whatever_it_is_called() {
    let image = ImageSource {
        name: "docker.io/library/busybox:latest".into(),
        manifest: Digest::of(b"manifest"),
        chain: Some(ChainId(Digest::of(b"layers"))),
        platform: boxwright_cache::oci::Platform::host(),
    };
    let key = |image: &ImageSource| key(&Op::Source(SourceOp::Image(image.clone())));
    assert_each_counts(
        &image,
        key,
        &[
            ("other layers", |image| image.chain = Some(ChainId(Digest::of(b"others")))),
            ("no layers", |image| image.chain = None),
        ],
    );
    assert_none_counts(
        &image,
        key,
        &[
            ("the name", |image| image.name.push('r')),
            ("the manifest, and so labels and history", |image| image.manifest = Digest::of(b"other")),
            ("the platform", |image| image.platform.architecture.push('x')),
        ],
    );
}

#[test]
fn a_directory_of_the_host_is_what_is_selected_of_it() {
    let key = |content| definition_key(&KeyFields::of_selection(ContentDigest([content; 32])));
    assert_ne!(key(1), key(2));
}

#[test]
fn a_download_is_its_bytes_its_name_and_its_time() {
    type Download = (HttpSource, Digest, Option<i64>);
    let source = HttpSource { url: "https://host/path".into(), name: "name".into(), checksum: None };
    let plain: Download = (source, Digest::of(b"bytes"), Some(1));
    let key = |(source, digest, modified): &Download| {
        definition_key(&KeyFields::of_download(source, digest, *modified))
    };
    assert_each_counts(
        &plain,
        key,
        &[
            ("the name", |(source, ..)| source.name.push('x')),
            ("the bytes", |(_, digest, _)| *digest = Digest::of(b"others")),
            ("the time", |(.., modified)| *modified = Some(2)),
            ("no time", |(.., modified)| *modified = None),
        ],
    );
    assert_none_counts(
        &plain,
        key,
        &[
            ("the address", |(source, ..)| source.url = "https://u:p@mirror/path".into()),
            ("that a checksum was given", |(source, ..)| source.checksum = Some(Digest::of(b"bytes"))),
        ],
    );
}

/// What counts of every commit.
const OF_A_COMMIT: [Change<GitSource>; 4] = [
    ("the directory", |git| git.subdir = Some("d".into())),
    ("submodules", |git| git.submodules = true),
    ("times", |git| git.commit_times = true),
    ("a clone", |git| git.keep_git_dir = true),
];
/// What only a clone tells.
const OF_A_CLONE: [Change<GitSource>; 2] = [
    ("where it came from", |git| git.remote = "https://mirror/r.git".into()),
    ("what was asked for", |git| git.reference = Some("branch".into())),
];
const OF_NO_COMMIT: [Change<GitSource>; 4] = [
    ("a password", |git| git.remote = "https://u:other@host/r.git".into()),
    ("a checksum", |git| git.checksum = Some("c0ffee".into())),
    ("the way it is asked for", |git| git.fetch_by_commit = true),
    ("who named it", |git| git.by_user.0 = true),
];

fn commit(git: &GitSource) -> CacheKey {
    definition_key(&KeyFields::of_commit(git, "c0ffee"))
}

#[test]
fn a_commit_is_its_files_wherever_they_came_from() {
    let git = GitSource { remote: "https://u:p@host/r.git".into(), ..GitSource::default() };
    assert_ne!(commit(&git), definition_key(&KeyFields::of_commit(&git, "decaf")));
    assert_each_counts(&git, commit, &OF_A_COMMIT);
    assert_none_counts(&git, commit, &OF_A_CLONE);
    assert_none_counts(&git, commit, &OF_NO_COMMIT);
    let clone = GitSource { keep_git_dir: true, ..git };
    assert_each_counts(&clone, commit, &OF_A_CLONE);
    assert_none_counts(&clone, commit, &OF_NO_COMMIT);
}

#[test]
fn every_field_of_a_copy_counts() {
    let plain = CopyAction {
        from: Some(vertex(0)),
        sources: vec!["/a".into()],
        dest: "/b".into(),
        allow_empty_wildcard: true,
        ..CopyAction::default()
    };
    let key = |copy: &CopyAction| key(&file(FileAction::Copy(copy.clone())));
    assert_each_counts(
        &plain,
        key,
        &[
            ("another source", |copy| copy.sources.push("/c".into())),
            ("the order of sources", |copy| copy.sources.insert(0, "/c".into())),
            ("the target", |copy| copy.dest.push('/')),
            ("the owner", |copy| copy.owner = Some(OwnerSpec("1".into()))),
            ("another owner", |copy| copy.owner = Some(OwnerSpec("2".into()))),
            ("the mode", |copy| copy.mode = Some("0755".parse().unwrap())),
            ("a mode in letters", |copy| copy.mode = Some("u+x".parse().unwrap())),
            ("what is taken of it", |copy| copy.below = Some("x".into())),
            ("that parents are kept", |copy| copy.below = Some(String::new())),
            ("a pattern that excludes", |copy| copy.exclude.push("x".into())),
            ("two of them", |copy| copy.exclude.extend(["x".into(), "!y".into()])),
            ("unpacking", |copy| copy.unpack = true),
            ("that patterns must match", |copy| copy.allow_empty_wildcard = false),
            ("what it is taken from", |copy| copy.from = Some(vertex(1))),
            ("that it is taken from nothing", |copy| copy.from = None),
        ],
    );
    assert_none_counts(
        &plain,
        key,
        &[("what its place is called", |copy| copy.place = Unkeyed("stage \"x\"".into()))],
    );
}

#[test]
fn every_field_of_a_directory_counts() {
    let plain = MkdirAction { path: "/a".into(), mode: 0o755, owner: None, time: None };
    let key = |mkdir: &MkdirAction| key(&file(FileAction::Mkdir(mkdir.clone())));
    assert_each_counts(
        &plain,
        key,
        &[
            ("the path", |mkdir| mkdir.path = "/b".into()),
            ("the mode", |mkdir| mkdir.mode = 0o700),
            ("the owner", |mkdir| mkdir.owner = Some(OwnerSpec("1".into()))),
            ("the time", |mkdir| mkdir.time = Some(0)),
            ("another time", |mkdir| mkdir.time = Some(1)),
        ],
    );
}

#[test]
fn every_field_of_a_document_counts() {
    let plain =
        MkfileAction { name: "n".into(), dest: "/d".into(), data: b"x".to_vec(), mode: None, owner: None };
    let key = |mkfile: &MkfileAction| key(&file(FileAction::Mkfile(mkfile.clone())));
    assert_each_counts(
        &plain,
        key,
        &[
            ("the name", |mkfile| mkfile.name = "m".into()),
            ("the target", |mkfile| mkfile.dest.push('/')),
            ("the bytes", |mkfile| mkfile.data.push(b'y')),
            ("the default mode when given, for directories differ", |mkfile| {
                mkfile.mode = Some("0644".parse().unwrap());
            }),
            ("a mode in letters", |mkfile| mkfile.mode = Some("u+x".parse().unwrap())),
            ("other letters", |mkfile| mkfile.mode = Some("g+x".parse().unwrap())),
            ("the owner", |mkfile| mkfile.owner = Some(OwnerSpec("1".into()))),
        ],
    );
}

#[test]
fn the_base_of_files_and_the_order_of_actions_count() {
    let mkdir = |path: &str| {
        FileAction::Mkdir(MkdirAction { path: path.into(), mode: 0o755, owner: None, time: None })
    };
    let plain = FileOp { base: Some(vertex(0)), actions: vec![mkdir("/a"), mkdir("/b")] };
    assert_each_counts(
        &plain,
        |file| key(&Op::File(file.clone())),
        &[
            ("another base", |file| file.base = Some(vertex(1))),
            ("no base", |file| file.base = None),
            ("the order", |file| file.actions.reverse()),
            ("one less", |file| drop(file.actions.pop())),
        ],
    );
}

#[test]
fn both_sides_of_a_merge_count() {
    let plain = MergeOp { base: vertex(0), upper: vertex(1) };
    assert_each_counts(
        &plain,
        |merge| key(&Op::Merge(merge.clone())),
        &[
            ("the base", |merge| merge.base = vertex(2)),
            ("what is above", |merge| merge.upper = vertex(2)),
            ("the order", |merge| std::mem::swap(&mut merge.base, &mut merge.upper)),
        ],
    );
}

#[test]
fn an_input_counts_by_its_definition_or_by_what_it_holds() {
    let merge = Op::Merge(MergeOp { base: vertex(0), upper: vertex(0) });
    let inputs = [
        InputKey::Definition(CacheKey([1; 32])),
        InputKey::Definition(CacheKey([2; 32])),
        InputKey::Contents(Some(ContentDigest([3; 32]))),
        InputKey::Contents(None),
    ];
    let mut keys = Vec::new();
    for input in inputs {
        let fields = KeyFields::of(&merge, &|_| input);
        keys.extend([Purpose::Definition, Purpose::Contents].map(|purpose| fields.key(purpose).0));
    }
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), all, "no two are the same, whatever they are for");
}

#[test]
fn kind_name_and_value_of_a_field_are_told_apart() {
    let plain = KeyFields::new("kind/1").with("ab", "c").with("d", "e");
    assert_each_counts(
        &plain,
        definition_key,
        &[
            ("the version", |list| list.kind = "kind/2".into()),
            ("the border of name and value", |list| list.fields[0] = ("a".into(), "bc".into())),
            ("the order", |list| list.fields.reverse()),
            ("one less", |list| drop(list.fields.pop())),
            ("an empty one more", |list| list.fields.push((String::new(), String::new()))),
        ],
    );
}
