//! Keys: hashes of named, versioned field lists. The list is stored beside the result, so that two builds can be
//! compared field by field; no secret ever enters one.

use boxwright_cache::digest::ContentDigest;
use boxwright_cache::record::CacheKey;
use serde::Serialize;

use crate::ir::{CopyAction, ExecOp, FileAction, FileOp, ImageSource, MountSource, Op, SourceOp, VertexId};

/// The fields of one vertex' key, in a fixed order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyFields {
    /// Kind of the op and version of its list: `exec/1`.
    kind: &'static str,
    fields: Vec<(String, String)>,
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
            // A local source has no key of its own: what was selected is its identity, by the pin.
            Op::Source(SourceOp::Local(_)) => KeyFields::new("local/1"),
            Op::Exec(exec) => exec_fields(exec, input),
            Op::File(file) => file_fields(file, input),
        }
    }

    /// The key of a local source: the content of its selection.
    pub fn of_selection(content: ContentDigest) -> KeyFields {
        KeyFields::new("local/1").with("selection", content.hex())
    }

    fn new(kind: &'static str) -> KeyFields {
        KeyFields { kind, fields: Vec::new() }
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
        text(self.kind);
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

fn exec_fields(exec: &ExecOp, input: &dyn Fn(VertexId) -> InputKey) -> KeyFields {
    let mut fields = KeyFields::new("exec/1")
        .with_list("args", &exec.args)
        .with_list("env", &exec.env)
        .with("cwd", &exec.cwd)
        .with("user", &exec.user)
        .with("network", format!("{:?}", exec.network))
        .with("platform", exec.platform.to_string())
        .with_input("root", exec.root, input);
    for (i, mount) in exec.mounts.iter().enumerate() {
        let name = |field: &str| format!("mount.{i}.{field}");
        fields =
            fields.with(&name("target"), &mount.target).with(&name("read_only"), mount.read_only.to_string());
        fields = match &mount.source {
            MountSource::Inline { data, mode } => fields
                .with(&name("inline"), blake3::hash(data).to_hex().as_str())
                .with(&name("mode"), format!("{mode:o}")),
            MountSource::Bind(bind) => fields.with(&name("selector"), &bind.selector).with_input(
                &name("from"),
                Some(bind.from),
                input,
            ),
        };
    }
    fields
}

fn file_fields(file: &FileOp, input: &dyn Fn(VertexId) -> InputKey) -> KeyFields {
    let mut fields = KeyFields::new("file/1").with_input("base", file.base, input);
    for (i, action) in file.actions.iter().enumerate() {
        let name = |field: &str| format!("{i}.{field}");
        let owner = |fields: KeyFields, owner: &Option<crate::ir::OwnerSpec>| match owner {
            Some(owner) => fields.with(&name("owner"), &owner.0),
            None => fields,
        };
        fields = match action {
            FileAction::Copy(copy) => owner(copy_fields(fields, copy, &name, input), &copy.owner),
            FileAction::Mkdir(mkdir) => owner(
                fields.with(&name("mkdir"), &mkdir.path).with(&name("mode"), format!("{:o}", mkdir.mode)),
                &mkdir.owner,
            ),
            FileAction::Mkfile(mkfile) => owner(
                fields
                    .with(&name("mkfile"), &mkfile.dest)
                    .with(&name("name"), &mkfile.name)
                    .with(&name("mode"), format!("{:o}", mkfile.mode))
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
    let mode = copy.mode.map_or_else(|| "kept".to_owned(), |m| format!("{m:o}"));
    fields
        .with_list(&name("copy"), &copy.sources)
        .with(&name("dest"), &copy.dest)
        .with(&name("mode"), mode)
        .with(&name("unpack"), copy.unpack.to_string())
        .with_input(&name("from"), copy.from, input)
}
