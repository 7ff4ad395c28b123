//! The operations. Every field is part of a vertex' identity; what must not be is in [`super::About`].

use boxwright_cache::digest::{ChainId, Digest};
pub use boxwright_cache::mount::Sharing;
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
    /// Secrets that the process finds in its environment.
    pub secret_env: Vec<SecretEnv>,
    pub network: NetworkMode,
    pub security: SecurityMode,
    /// By CDI name.
    pub devices: Vec<Device>,
    /// What the machine is called, if not what the executor calls it.
    pub hostname: Option<String>,
    /// Further names of the hosts file.
    pub hosts: Vec<Host>,
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
    /// Whatever the executor gives to steps that ask for nothing.
    #[default]
    Default,
    /// That of the host, which has to be allowed.
    Host,
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SecurityMode {
    #[default]
    Sandbox,
    /// With all that root may do, which has to be allowed.
    Insecure,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    pub name: String,
    /// Without it the step fails where there is no such device.
    pub required: bool,
}

/// A name of the hosts file; where it leads is no part of what a step is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    pub name: String,
    pub address: Unkeyed<String>,
}

/// A variable whose value is a secret, which is known to the executor alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretEnv {
    pub name: String,
    pub id: String,
    pub required: bool,
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
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// Empty at first, gone in the end; `size` in bytes.
    Tmpfs { size: Option<u64> },
    /// A file with a secret, if there is one of that id.
    Secret(Guarded),
    /// The socket of an ssh agent, if one of that id is forwarded.
    Ssh(Guarded),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BindMount {
    /// None: an empty root file system.
    pub from: Option<VertexId>,
    /// Path in that result; resolved inside it.
    pub selector: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheMount {
    pub id: String,
    pub sharing: Sharing,
    /// What is in it when it is new; None: nothing.
    pub from: Option<VertexId>,
    /// Path in `from`, or without that in the directory itself.
    pub selector: String,
    /// Of a new one.
    pub owner: FileOwner,
}

/// Something of the caller that is handed to a process and kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Guarded {
    pub id: String,
    /// Without it nothing is mounted where the caller has none.
    pub required: bool,
    pub owner: FileOwner,
}

/// What is not given is the default of the thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileOwner {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
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
    /// Of what is made, in seconds since 1970; if not given, when it is made.
    pub time: Option<i64>,
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

impl Mount {
    /// Whether it shows the result of another vertex in a way that lets it be changed.
    pub fn is_written_input(&self) -> bool {
        !self.read_only && self.source.from().is_some()
    }
}

impl MountSource {
    /// As RUN names it; a document of RUN has no name there.
    pub fn kind(&self) -> &'static str {
        match self {
            MountSource::Inline { .. } => "inline",
            MountSource::Bind(_) => "bind",
            MountSource::Cache(_) => "cache",
            MountSource::Tmpfs { .. } => "tmpfs",
            MountSource::Secret(_) => "secret",
            MountSource::Ssh(_) => "ssh",
        }
    }

    fn from(&self) -> Option<VertexId> {
        match self {
            MountSource::Bind(bind) => bind.from,
            MountSource::Cache(cache) => cache.from,
            _ => None,
        }
    }
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
                    need(mount.source.from());
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
