//! Keys: hashes of named, versioned field lists. The list is stored beside the result, so that two builds can be
//! compared field by field; no secret ever enters one.

mod exec;

use std::borrow::Cow;

use boxwright_cache::digest::{ContentDigest, Digest};
use boxwright_cache::record::CacheKey;
use serde::{Deserialize, Serialize};

use crate::ir::{
    Chmod, CopyAction, FileAction, FileOp, GitSource, HttpSource, ImageSource, MergeOp, Op, SourceOp,
    VertexId, redacted,
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
        let modified = modified.map_or_else(|| "unknown".to_owned(), |at| at.to_string());
        KeyFields::new("http/1")
            .with("name", &source.name)
            .with("digest", digest.to_string())
            .with("modified", modified)
    }

    /// The key of a commit's files. Where they came from counts only if a clone would tell.
    pub fn of_commit(source: &GitSource, commit: &str) -> KeyFields {
        let fields = KeyFields::new("git/1")
            .with("commit", commit)
            .with("subdir", source.subdir.as_deref().unwrap_or_default())
            .with("submodules", source.submodules.to_string())
            .with("commit_times", source.commit_times.to_string());
        if !source.keep_git_dir {
            return fields;
        }
        let reference = source.reference.as_deref().unwrap_or_default();
        fields.with("clone_of", redacted(&source.remote)).with("reference", reference)
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
    let chain = image.chain.map_or_else(|| "empty".to_owned(), |c| c.to_string());
    KeyFields::new("image/1").with("chain", chain)
}

fn file_fields(file: &FileOp, input: &dyn Fn(VertexId) -> InputKey) -> KeyFields {
    let mut fields = KeyFields::new("file/2").with_input("base", file.base, input);
    for (i, action) in file.actions.iter().enumerate() {
        let name = |field: &str| format!("{i}.{field}");
        let owner = |fields: KeyFields, owner: &Option<crate::ir::OwnerSpec>| match owner {
            Some(owner) => fields.with(&name("owner"), &owner.0),
            None => fields,
        };
        fields = match action {
            FileAction::Copy(copy) => owner(copy_fields(fields, copy, &name, input), &copy.owner),
            FileAction::Mkdir(mkdir) => {
                fields =
                    fields.with(&name("mkdir"), &mkdir.path).with(&name("mode"), format!("{:o}", mkdir.mode));
                if let Some(time) = mkdir.time {
                    fields = fields.with(&name("time"), time.to_string());
                }
                owner(fields, &mkdir.owner)
            }
            FileAction::Mkfile(mkfile) => owner(
                fields
                    .with(&name("mkfile"), &mkfile.dest)
                    .with(&name("name"), &mkfile.name)
                    .with(&name("mode"), mode_text(mkfile.mode.as_ref()))
                    .with(&name("data"), blake3::hash(&mkfile.data).to_hex().as_str()),
                &mkfile.owner,
            ),
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
    let fields = fields
        .with_list(&name("copy"), &copy.sources)
        .with(&name("dest"), &copy.dest)
        .with(&name("mode"), mode_text(copy.mode.as_ref()))
        .with(&name("unpack"), copy.unpack.to_string())
        .with_list(&name("exclude"), &copy.exclude)
        .with_input(&name("from"), copy.from, input);
    match &copy.below {
        Some(below) => fields.with(&name("below"), below),
        None => fields,
    }
}

fn mode_text(mode: Option<&Chmod>) -> String {
    mode.map_or_else(|| "kept".to_owned(), Chmod::to_string)
}

fn merge_fields(merge: &MergeOp, input: &dyn Fn(VertexId) -> InputKey) -> KeyFields {
    KeyFields::new("merge/1").with_input("base", Some(merge.base), input).with_input(
        "upper",
        Some(merge.upper),
        input,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{About, Definition, LocalSource, MkdirAction, MkfileAction, OwnerSpec, Unkeyed};

    fn key(op: &Op) -> CacheKey {
        KeyFields::of(op, &|id| InputKey::Definition(CacheKey([id.index() as u8; 32])))
            .key(Purpose::Definition)
    }

    fn vertices() -> [VertexId; 2] {
        let mut definition = Definition::default();
        ["a", "b"].map(|name| {
            let local = LocalSource { name: name.into(), ..LocalSource::default() };
            definition.add(Op::Source(SourceOp::Local(local)), About::default())
        })
    }

    fn file(action: FileAction) -> Op {
        Op::File(FileOp { base: None, actions: vec![action] })
    }

    #[test]
    fn every_field_of_a_copy_is_in_its_key() {
        let [from, other] = vertices();
        let plain = CopyAction {
            from: Some(from),
            sources: vec!["/a".into()],
            dest: "/b".into(),
            ..CopyAction::default()
        };
        let change = |change: fn(&mut CopyAction)| {
            let mut action = plain.clone();
            change(&mut action);
            action
        };
        let changed = [
            change(|copy| copy.sources.push("/c".into())),
            change(|copy| copy.dest.push('/')),
            change(|copy| copy.owner = Some(OwnerSpec("1".into()))),
            change(|copy| copy.mode = Some("0755".parse().unwrap())),
            change(|copy| copy.mode = Some("u+x".parse().unwrap())),
            change(|copy| copy.below = Some("x".into())),
            change(|copy| copy.below = Some(String::new())),
            change(|copy| copy.exclude.push("x".into())),
            change(|copy| copy.exclude.extend(["x".into(), "!y".into()])),
            change(|copy| copy.unpack = true),
            CopyAction { from: Some(other), ..plain.clone() },
            CopyAction { from: None, ..plain.clone() },
        ];
        let mut keys: Vec<CacheKey> =
            changed.into_iter().map(|copy| key(&file(FileAction::Copy(copy)))).collect();
        keys.push(key(&file(FileAction::Copy(plain.clone()))));
        let all = keys.len();
        keys.sort_unstable_by_key(|key| key.0);
        keys.dedup();
        assert_eq!(keys.len(), all, "no two are the same");
        let named = CopyAction { place: Unkeyed("stage \"x\"".into()), ..plain.clone() };
        assert_eq!(key(&file(FileAction::Copy(named))), key(&file(FileAction::Copy(plain))));
    }

    #[test]
    fn every_field_of_a_directory_is_in_its_key() {
        let mkdir = |path: &str, mode, time, owner: Option<&str>| {
            let (path, owner) = (path.to_owned(), owner.map(|owner| OwnerSpec(owner.to_owned())));
            key(&file(FileAction::Mkdir(MkdirAction { path, mode, owner, time })))
        };
        let plain = mkdir("/a", 0o755, None, None);
        for other in [
            mkdir("/b", 0o755, None, None),
            mkdir("/a", 0o700, None, None),
            mkdir("/a", 0o755, Some(0), None),
            mkdir("/a", 0o755, None, Some("1")),
        ] {
            assert_ne!(other, plain);
        }
        assert_ne!(mkdir("/a", 0o755, Some(0), None), mkdir("/a", 0o755, Some(1), None));
    }

    #[test]
    fn the_mode_of_a_document_and_both_sides_of_a_merge_are_in_their_keys() {
        let document = |mode: Option<&str>| {
            let mode = mode.map(|mode| mode.parse().unwrap());
            let (name, dest) = ("n".to_owned(), "/d".to_owned());
            key(&file(FileAction::Mkfile(MkfileAction { name, dest, data: vec![], mode, owner: None })))
        };
        assert_ne!(document(None), document(Some("0644")), "directories on the way differ");
        assert_ne!(document(Some("u+x")), document(Some("g+x")));
        let [a, b] = vertices();
        let merge = |base, upper| key(&Op::Merge(MergeOp { base, upper }));
        assert!(merge(a, b) != merge(b, a) && merge(a, b) != merge(a, a));
    }
}
