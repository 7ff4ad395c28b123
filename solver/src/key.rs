//! Keys: hashes of named, versioned field lists. The list is stored beside the result, so that two builds can be
//! compared field by field; no secret ever enters one. Operations are taken apart here without `..`, so that whoever
//! gives one another field has to say whether it counts.

mod exec;

use std::borrow::Cow;

use boxwright_cache::digest::{ContentDigest, Digest};
use boxwright_cache::record::CacheKey;
use serde::{Deserialize, Serialize};

use crate::ir::{
    Chmod, CopyAction, FileAction, FileOp, GitSource, HttpSource, ImageSource, MergeOp, MkdirAction,
    MkfileAction, Op, OwnerSpec, SourceOp, Unkeyed, VertexId, redacted,
};

/// The fields of one vertex' key, in a fixed order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFields {
    /// Kind of the op and version of its list: `exec/1`.
    pub kind: Cow<'static, str>,
    pub fields: Vec<(String, String)>,
}

/// How the result of an input enters a key.
#[derive(Clone, Copy, Debug)]
pub enum InputKey {
    /// The input's own definition key.
    Definition(CacheKey),
    /// What the input's result holds; none is an empty root.
    Contents(Option<ContentDigest>),
}

impl KeyFields {
    /// The fields of `op`, its inputs given by `input`.
    pub fn of(op: &Op, input: &dyn Fn(VertexId) -> InputKey) -> KeyFields {
        match op {
            Op::Source(SourceOp::Image(image)) => image_fields(image),
            // These have no keys of their own: what they turn out to be is their identity, by the pin.
            Op::Source(SourceOp::Local(_)) => KeyFields::new("local/1"),
            Op::Source(SourceOp::Http(_)) => KeyFields::new("http/1"),
            Op::Source(SourceOp::Git(_)) => KeyFields::new("git/1"),
            Op::Exec(exec) => exec::fields(exec, input),
            Op::File(file) => file_fields(file, input),
            Op::Merge(merge) => merge_fields(merge, input),
        }
    }

    /// The key of a local source: the content of its selection.
    pub fn of_selection(content: ContentDigest) -> KeyFields {
        KeyFields::new("local/1").with("selection", content.hex())
    }

    /// The key of a file behind a URL, wherever it came from.
    pub fn of_download(source: &HttpSource, digest: &Digest, modified: Option<i64>) -> KeyFields {
        let HttpSource { url: _, name, checksum: _ } = source;
        let modified = modified.map_or_else(|| "unknown".to_owned(), |at| at.to_string());
        KeyFields::new("http/1")
            .with("name", name)
            .with("digest", digest.to_string())
            .with("modified", modified)
    }

    /// The key of a commit's files. Where they came from counts only if a clone would tell.
    pub fn of_commit(source: &GitSource, commit: &str) -> KeyFields {
        let GitSource {
            remote,
            reference,
            checksum: _,
            subdir,
            keep_git_dir,
            submodules,
            commit_times,
            fetch_by_commit: _,
            by_user: _,
        } = source;
        let fields = KeyFields::new("git/1")
            .with("commit", commit)
            .with("subdir", subdir.as_deref().unwrap_or_default())
            .with("submodules", submodules.to_string())
            .with("commit_times", commit_times.to_string());
        if !keep_git_dir {
            return fields;
        }
        let reference = reference.as_deref().unwrap_or_default();
        fields.with("clone_of", redacted(remote)).with("reference", reference)
    }

    fn new(kind: &'static str) -> KeyFields {
        KeyFields { kind: kind.into(), fields: Vec::new() }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> KeyFields {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    fn with_list(self, name: &str, values: &[String]) -> KeyFields {
        let text = serde_json::to_string(values).expect("a list of strings serialises");
        self.with(name, text)
    }

    fn with_input(self, name: &str, id: Option<VertexId>, input: &dyn Fn(VertexId) -> InputKey) -> KeyFields {
        let value = match id.map(input) {
            None | Some(InputKey::Contents(None)) => "empty".to_owned(),
            Some(InputKey::Definition(key)) => key.to_string(),
            Some(InputKey::Contents(Some(content))) => content.hex(),
        };
        self.with(name, value)
    }

    /// The hash of the list. `purpose` keeps keys by definition and keys by contents apart.
    pub fn key(&self, purpose: Purpose) -> CacheKey {
        let mut hasher = blake3::Hasher::new_derive_key(match purpose {
            Purpose::Definition => "boxwright definition key v1",
            Purpose::Contents => "boxwright content key v1",
        });
        let mut text = |s: &str| {
            hasher.update(&(s.len() as u64).to_le_bytes());
            hasher.update(s.as_bytes());
        };
        text(&self.kind);
        for (name, value) in &self.fields {
            text(name);
            text(value);
        }
        CacheKey(*hasher.finalize().as_bytes())
    }

    /// As it is stored.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings serialise")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Definition,
    Contents,
}

/// The file system alone: a tag that moved to another manifest with the same layers changes nothing.
fn image_fields(image: &ImageSource) -> KeyFields {
    let ImageSource { name: _, manifest: _, chain, platform: _ } = image;
    let chain = chain.map_or_else(|| "empty".to_owned(), |c| c.to_string());
    KeyFields::new("image/1").with("chain", chain)
}

fn file_fields(file: &FileOp, input: &dyn Fn(VertexId) -> InputKey) -> KeyFields {
    let FileOp { base, actions } = file;
    let mut fields = KeyFields::new("file/2").with_input("base", *base, input);
    for (i, action) in actions.iter().enumerate() {
        let name = |field: &str| format!("{i}.{field}");
        fields = match action {
            FileAction::Copy(copy) => copy_fields(fields, copy, &name, input),
            FileAction::Mkdir(mkdir) => mkdir_fields(fields, mkdir, &name),
            FileAction::Mkfile(mkfile) => mkfile_fields(fields, mkfile, &name),
        };
    }
    fields
}

fn copy_fields(
    fields: KeyFields,
    copy: &CopyAction,
    name: &dyn Fn(&str) -> String,
    input: &dyn Fn(VertexId) -> InputKey,
) -> KeyFields {
    let CopyAction {
        from,
        sources,
        dest,
        owner,
        mode,
        below,
        exclude,
        unpack,
        allow_empty_wildcard,
        place: Unkeyed(_),
    } = copy;
    let mut fields = fields
        .with_list(&name("copy"), sources)
        .with(&name("dest"), dest)
        .with(&name("mode"), mode_text(mode.as_ref()))
        .with(&name("unpack"), unpack.to_string())
        .with_list(&name("exclude"), exclude)
        .with_input(&name("from"), *from, input);
    if let Some(below) = below {
        fields = fields.with(&name("below"), below);
    }
    if !allow_empty_wildcard {
        fields = fields.with(&name("must_match"), "true");
    }
    owner_field(fields, owner.as_ref(), name)
}

fn mkdir_fields(fields: KeyFields, mkdir: &MkdirAction, name: &dyn Fn(&str) -> String) -> KeyFields {
    let MkdirAction { path, mode, owner, time } = mkdir;
    let mut fields = fields.with(&name("mkdir"), path).with(&name("mode"), format!("{mode:o}"));
    if let Some(time) = time {
        fields = fields.with(&name("time"), time.to_string());
    }
    owner_field(fields, owner.as_ref(), name)
}

fn mkfile_fields(fields: KeyFields, mkfile: &MkfileAction, name: &dyn Fn(&str) -> String) -> KeyFields {
    let MkfileAction { name: file_name, dest, data, mode, owner } = mkfile;
    let fields = fields
        .with(&name("mkfile"), dest)
        .with(&name("name"), file_name)
        .with(&name("mode"), mode_text(mode.as_ref()))
        .with(&name("data"), blake3::hash(data).to_hex().as_str());
    owner_field(fields, owner.as_ref(), name)
}

fn owner_field(fields: KeyFields, owner: Option<&OwnerSpec>, name: &dyn Fn(&str) -> String) -> KeyFields {
    match owner {
        Some(OwnerSpec(owner)) => fields.with(&name("owner"), owner),
        None => fields,
    }
}

fn mode_text(mode: Option<&Chmod>) -> String {
    mode.map_or_else(|| "kept".to_owned(), Chmod::to_string)
}

fn merge_fields(merge: &MergeOp, input: &dyn Fn(VertexId) -> InputKey) -> KeyFields {
    let MergeOp { base, upper } = *merge;
    KeyFields::new("merge/1").with_input("base", Some(base), input).with_input("upper", Some(upper), input)
}

#[cfg(test)]
mod tests {
    use boxwright_cache::digest::ChainId;

    use super::*;
    use crate::ir::{About, Definition, LocalSource};

    /// What is done to a thing, and what that is called.
    pub(super) type Change<T> = (&'static str, fn(&mut T));

    /// Each change alone makes a key that neither `plain` has nor another change makes.
    #[track_caller]
    pub(super) fn assert_each_counts<T: Clone>(
        plain: &T,
        key: impl Fn(&T) -> CacheKey,
        changes: &[Change<T>],
    ) {
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
    pub(super) fn assert_none_counts<T: Clone>(
        plain: &T,
        key: impl Fn(&T) -> CacheKey,
        changes: &[Change<T>],
    ) {
        for (what, change) in changes {
            let mut changed = plain.clone();
            change(&mut changed);
            assert_eq!(key(&changed), key(plain), "{what} is in the key");
        }
    }

    /// The key of a vertex whose inputs have keys made of their numbers.
    pub(super) fn key(op: &Op) -> CacheKey {
        KeyFields::of(op, &|id| InputKey::Definition(CacheKey([id.index() as u8; 32])))
            .key(Purpose::Definition)
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
        let plain = MkfileAction {
            name: "n".into(),
            dest: "/d".into(),
            data: b"x".to_vec(),
            mode: None,
            owner: None,
        };
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
}
