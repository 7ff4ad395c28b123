//! The operations. Every field is part of a vertex' identity; what must not be is in [`super::About`].

use boxwright_cache::digest::{ChainId, Digest};
use boxwright_cache::oci::Platform;

use super::source::{GitSource, HttpSource};
use super::{Chmod, VertexId};

/// What a vertex does. Its result is a root file system (a snapshot), or for [`SourceOp::Local`] a tree of host files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Source(SourceOp),
    Exec(ExecOp),
    File(FileOp),
    Merge(MergeOp),
}

/// Where content enters the graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SourceOp {
    Image(ImageSource),
    Local(LocalSource),
    Http(HttpSource),
    Git(GitSource),
}

/// The layers of an image whose tag has become a manifest digest already.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageSource {
    /// As the user wrote it, completed: for people and provenance.
    pub name: String,
    pub manifest: Digest,
    /// None for an image without layers.
    pub chain: Option<ChainId>,
    pub platform: Platform,
}

/// The part of a host directory that one instruction reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LocalSource {
    /// Which directory: `context`, or the name of a named context.
    pub name: String,
    /// Paths and Go `filepath.Match` patterns relative to the directory, `.` for all of it; what they match is read
    /// with all below it.
    pub select: Vec<String>,
    /// As [`CopyAction::below`].
    pub below: Option<String>,
    /// As [`CopyAction::exclude`].
    pub exclude: Vec<String>,
}

/// A process in a container over `root`; its result is `root` with what the process changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExecOp {
    /// None: an empty root file system.
    pub root: Option<VertexId>,
    pub args: Vec<String>,
    /// `NAME=value`, later ones win.
    pub env: Vec<String>,
    /// `NAME=value` that the process gets but that no key holds: proxy variables.
    pub unkeyed_env: Unkeyed<Vec<String>>,
    pub cwd: String,
    /// As USER has it: `name[:group]` or `uid[:gid]`; empty is root.
    pub user: String,
    pub mounts: Vec<Mount>,
    pub network: NetworkMode,
    pub platform: Platform,
}

/// A value that takes no part in equality, hashing or keys.
#[derive(Clone, Debug, Default)]
pub struct Unkeyed<T>(pub T);

impl<T> PartialEq for Unkeyed<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for Unkeyed<T> {}

impl<T> std::hash::Hash for Unkeyed<T> {
    fn hash<H: std::hash::Hasher>(&self, _: &mut H) {}
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    #[default]
    Host,
    None,
}

/// Something visible in the container that is not part of its root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mount {
    /// Absolute, in the container.
    pub target: String,
    pub source: MountSource,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MountSource {
    /// A file with these bytes: the script of a heredoc with its own interpreter.
    Inline { data: Vec<u8>, mode: u32 },
    /// A file or directory of another vertex' result; writes are discarded.
    Bind(BindMount),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BindMount {
    pub from: VertexId,
    /// Path in that result; resolved inside it.
    pub selector: String,
}

/// Changes to a file system that need no process, applied in order; its result is `base` with one more layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileOp {
    pub base: Option<VertexId>,
    pub actions: Vec<FileAction>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileAction {
    Copy(CopyAction),
    Mkdir(MkdirAction),
    Mkfile(MkfileAction),
}

/// COPY, and ADD of local files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CopyAction {
    /// None: an empty file system, in which no path exists.
    pub from: Option<VertexId>,
    /// Absolute clean paths or Go `filepath.Match` patterns in `from`.
    pub sources: Vec<String>,
    /// Absolute and clean, with a trailing slash where the user wrote one (or `.`), which makes it a directory.
    pub dest: String,
    pub owner: Option<OwnerSpec>,
    /// Of everything that is copied but links.
    pub mode: Option<Chmod>,
    /// COPY `--parents`: a pattern of an ignore file, relative to each source. What it matches is copied, with the
    /// directories between. It must match something, unless it or the source has wildcards.
    pub below: Option<String>,
    /// Patterns of an ignore file, relative to each source: what they match is left out.
    pub exclude: Vec<String>,
    /// ADD: a source that is a tar, in any compression, is unpacked into `dest`.
    pub unpack: bool,
    /// A literal path that is missing is an error; a pattern that matches nothing is, too, unless this is set.
    pub allow_empty_wildcard: bool,
    /// What `from` is for people: `stage "build"`. For messages.
    pub place: Unkeyed<String>,
}

/// Owner as `--chown` has it, resolved against the passwd and group files of `base` when the action runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnerSpec(pub String);

/// Creates a directory and its missing parents; one that exists stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MkdirAction {
    pub path: String,
    pub mode: u32,
    pub owner: Option<OwnerSpec>,
}

/// Writes a file (COPY of a heredoc); `dest` as in [`CopyAction`], `name` used where it is a directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MkfileAction {
    pub name: String,
    pub dest: String,
    pub data: Vec<u8>,
    /// 0644 without it.
    pub mode: Option<Chmod>,
    pub owner: Option<OwnerSpec>,
}

/// The layers of `upper` over those of `base`: COPY `--link`. Nothing is read, so both may be absent, and `upper` was
/// made knowing nothing of `base`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MergeOp {
    pub base: VertexId,
    pub upper: VertexId,
}

impl Op {
    /// The vertices this one needs, without duplicates, in a fixed order.
    pub fn inputs(&self) -> Vec<VertexId> {
        let mut inputs = Vec::new();
        let mut need = |id: Option<VertexId>| {
            if let Some(id) = id.filter(|id| !inputs.contains(id)) {
                inputs.push(id);
            }
        };
        match self {
            Op::Source(_) => {}
            Op::Exec(exec) => {
                need(exec.root);
                for mount in &exec.mounts {
                    if let MountSource::Bind(bind) = &mount.source {
                        need(Some(bind.from));
                    }
                }
            }
            Op::File(file) => {
                need(file.base);
                for action in &file.actions {
                    if let FileAction::Copy(copy) = action {
                        need(copy.from);
                    }
                }
            }
            Op::Merge(merge) => {
                need(Some(merge.base));
                need(Some(merge.upper));
            }
        }
        inputs
    }
}
