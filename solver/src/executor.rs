//! What the solver asks of whatever runs processes: a snapshot in, a layer out. It hands over snapshots, never
//! mounts, so that an executor may be another machine.

use std::sync::Arc;

use boxwright_cache::Cancel;
use boxwright_cache::mount::CacheDir;
use boxwright_cache::oci::Platform;
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::store::ActiveLayer;

use crate::event::LogStream;
use crate::ir::{Device, Guarded, Host, NetworkMode, SecretEnv, SecurityMode};

/// Runs exec vertices.
pub trait Executor: Send + Sync {
    /// Runs `spec` to its end over `spec.root` and leaves in `layer` what the process changed, ready to be committed.
    /// Output goes to `log` as it comes. Returns only when no process of the container is left.
    ///
    /// # Errors
    /// See [`ExecError`]; `layer` is then to be dropped.
    fn run(
        &self,
        spec: &ExecSpec,
        layer: &mut ActiveLayer,
        log: &mut (dyn FnMut(LogStream, &[u8]) + Send),
        cancel: &Cancel,
    ) -> Result<Left, ExecError>;
}

/// For whom that is what a process left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// For whoever has a vertex of the same key.
    ForAll,
    /// For this build alone: the process took something with it that is in no key.
    ForThisBuild,
}

/// An exec vertex whose inputs have become snapshots.
#[derive(Debug)]
pub struct ExecSpec {
    pub root: Snapshot,
    pub mounts: Vec<ExecMount>,
    pub args: Vec<String>,
    /// `NAME=value`, later ones win; complete (PATH included).
    pub env: Vec<String>,
    pub cwd: String,
    /// As in the image config; resolved inside the root.
    pub user: String,
    /// Secrets for the environment; the executor knows the values.
    pub secret_env: Vec<SecretEnv>,
    pub network: NetworkMode,
    pub security: SecurityMode,
    pub devices: Vec<Device>,
    pub hostname: Option<String>,
    pub hosts: Vec<Host>,
    pub platform: Platform,
}

#[derive(Debug)]
pub struct ExecMount {
    pub target: String,
    pub source: ExecMountSource,
    pub read_only: bool,
}

#[derive(Debug)]
pub enum ExecMountSource {
    Inline {
        data: Vec<u8>,
        mode: u32,
    },
    Bind {
        from: Snapshot,
        selector: String,
    },
    /// In use until the spec is dropped; `selector` is resolved inside it.
    Cache {
        dir: Arc<CacheDir>,
        selector: String,
    },
    Tmpfs {
        size: Option<u64>,
    },
    Secret(Guarded),
    Ssh(Guarded),
}

#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The process ended with a status other than 0, 128 + n for a signal n.
    #[error("exit code: {code}")]
    Exit { code: i32 },
    /// The process was killed, as it ran for too long.
    #[error("exit code: 137: time limit of {limit:?} exceeded")]
    TimedOut { limit: std::time::Duration },
    /// The same, where it is known why.
    #[error("exit code: {code}: {reason}")]
    Killed { code: i32, reason: String },
    /// The process could not be started: no such command, no such user, not executable.
    #[error("{message}")]
    Start { code: i32, message: String },
    /// It was to have a secret or an agent that nobody lent.
    #[error("{0}")]
    NotLent(String),
    /// The container could not be set up.
    #[error("{doing}: {reason}")]
    Setup { doing: String, reason: String },
    #[error(transparent)]
    Cache(#[from] boxwright_cache::Error),
}

impl ExecError {
    /// Whether the process, or the program that was to be one, is at fault, and not what it was to be given.
    pub fn is_of_process(&self) -> bool {
        use ExecError::{Exit, Killed, Start, TimedOut};
        matches!(self, Exit { .. } | TimedOut { .. } | Killed { .. } | Start { code: 126.., .. })
    }
}
