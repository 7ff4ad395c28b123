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
            Purpose::Failed => "boxwright failed step key v1",
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
    /// Of what a step left that failed: never that of a result.
    Failed,
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
mod tests;
