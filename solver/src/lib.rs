//! The build graph: its definition, how vertices are keyed, and how a graph is solved with the least work.
//! This crate never forks, never mounts and does not know the Dockerfile language.
//!
//! [`solve`] is three passes: *pin* gives every source a fixed identity, *plan* looks up definition keys and marks,
//! from the outputs backwards, what must run, *schedule* runs that, in parallel, looking up again by contents.

pub mod error;
pub mod event;
pub mod executor;
pub mod ir;
pub mod key;
pub mod ops;
mod pin;
mod plan;
pub mod recall;
pub mod remote;
mod schedule;
mod slots;
pub mod span;
pub mod why;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use boxwright_cache::digest::{ContentDigest, Digest};
use boxwright_cache::oci::Platform;
use boxwright_cache::record::CacheKey;
use boxwright_cache::record::imported::Import;
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::{Cancel, Store};

pub use error::{SolveError, VertexError};
pub use event::{Event, Events, LogStream};
pub use executor::Executor;
pub use ir::{Definition, Vertex, VertexId};
pub use ops::file::Ballast;
pub use remote::{FetchError, HttpPin, Remote};
pub use span::Span;

/// What a solve works with.
pub struct Env<'a> {
    pub store: &'a Store,
    pub executor: &'a dyn Executor,
    pub remote: &'a dyn Remote,
    /// The layers of each image source, by manifest; they may be absent.
    pub images: HashMap<Digest, Snapshot>,
    /// The directories behind local sources, by name.
    pub locals: HashMap<String, LocalContext>,
    /// What other machines have of results.
    pub imports: &'a [Import],
    /// How many vertices run at the same time, at least 1.
    pub jobs: usize,
    /// Look up by contents, and let an equal older result stand for a new one.
    pub cutoff: bool,
    /// Remember results, and what a failed step left, for later builds; without, caches are not made anew either.
    pub record: bool,
    pub allowed: Allowed,
    pub events: Events,
    /// Who wants to have results that are good for others, too, as soon as they are there.
    pub results: Option<std::sync::mpsc::Sender<SolvedVertex>>,
    pub cancel: Cancel,
}

/// A vertex that has its result.
#[derive(Clone, Debug)]
pub struct SolvedVertex {
    pub vertex: VertexId,
    pub snapshot: Snapshot,
    pub took: Duration,
}

/// What a build may do beyond what every build may. Checked for whatever is solved, wherever it came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    pub network_host: bool,
    pub security_insecure: bool,
}

impl Allowed {
    /// What of this was not granted.
    pub fn refuses(self, network: ir::NetworkMode, security: ir::SecurityMode) -> Option<&'static str> {
        let refused = [
            ("network.host", network == ir::NetworkMode::Host && !self.network_host),
            ("security.insecure", security == ir::SecurityMode::Insecure && !self.security_insecure),
        ];
        refused.iter().find(|(_, refused)| *refused).map(|(entitlement, _)| *entitlement)
    }
}

impl std::fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("locals", &self.locals).field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

/// A directory of the host that a build may read, and what of it is not there for the build.
#[derive(Debug)]
pub struct LocalContext {
    pub dir: OwnedFd,
    /// For messages.
    pub path: PathBuf,
    /// Patterns of `.dockerignore`, in order.
    pub ignore: Vec<String>,
}

/// What came out: everything that later reports (provenance, `why`, times) need and that can't be had afterwards.
#[derive(Debug, Default)]
pub struct Solved {
    pub results: HashMap<VertexId, VertexResult>,
    pub materials: Vec<Material>,
}

/// The result of one vertex that the outputs needed.
#[derive(Clone, Debug)]
pub struct VertexResult {
    /// None for a cached vertex below another cached one: nobody asked for it.
    pub snapshot: Option<Snapshot>,
    pub definition: CacheKey,
    pub how: How,
    /// The time it took to run, now or when it was recorded.
    pub took: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It needed no work of its own: a source, or below a cached vertex.
    Free,
    /// Found by its definition.
    Cached,
    /// Found by its definition or by the contents of its inputs, in the cache of another machine.
    Imported,
    /// Found by the contents of its inputs, after one of them ran.
    CachedByContents,
    Ran,
    /// It ran because that was asked for, whatever was known of it.
    Forced,
    /// It ran, and an older result of equal content stands for the new one.
    Substituted,
}

/// What went into a build, by its fixed identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    Image {
        name: String,
        manifest: Digest,
        platform: Platform,
    },
    Local {
        name: String,
        content: ContentDigest,
    },
    /// URLs are without credentials.
    Http {
        url: String,
        digest: Digest,
    },
    Git {
        remote: String,
        commit: String,
    },
}

/// Solves `definition` for `outputs`.
///
/// # Errors
/// The first vertex that failed, by its own error; what ran beside it was cancelled and is gone.
pub fn solve(definition: &Definition, outputs: &[VertexId], env: &Env<'_>) -> Result<Solved, SolveError> {
    let needed = plan::reachable(definition, outputs);
    env.events.send(Event::Planned { vertices: needed.clone() });
    check_allowed(definition, &needed, env.allowed)?;
    let pins = pin::pin(definition, &needed, env)?;
    let plan = plan::plan(definition, &needed, outputs, &pins, env.imports, env)?;
    let solved = schedule::run(definition, outputs, &pins, plan, env).and_then(|solved| {
        hold(outputs, &solved, env)?;
        Ok(solved)
    });
    match solved {
        // Then this machine does without others.
        Err(error) if error.is_lost() => {
            env.events.send(Event::Planned { vertices: needed.clone() });
            let plan = plan::plan(definition, &needed, outputs, &pins, &[], env)?;
            schedule::run(definition, outputs, &pins, plan, env)
        }
        solved => solved,
    }
}

/// Brings the layers of outputs here that only a cache of another machine has: it may be gone tomorrow.
fn hold(outputs: &[VertexId], solved: &Solved, env: &Env<'_>) -> Result<(), SolveError> {
    for output in outputs {
        let Some(snapshot) = &solved.results[output].snapshot else { continue };
        for layer in snapshot.layers() {
            if env.imports.iter().any(|import| import.alone_has(layer).unwrap_or(false))
                && let Err(error) = layer.dir(&env.cancel)
            {
                let error = lost(error, env);
                env.events.send(Event::Lost { message: error.to_string() });
                return Err(SolveError::of(*output, error));
            }
        }
    }
    Ok(())
}

/// What it means that a layer could not be had: if other machines promised results, now or earlier, these are forgotten.
fn lost(error: boxwright_cache::Error, env: &Env<'_>) -> VertexError {
    if matches!(error, boxwright_cache::Error::Cancelled) {
        return error.into();
    }
    match env.store.forget_imports() {
        Ok(0) if env.imports.is_empty() => error.into(),
        Ok(_) => VertexError::Lost(error),
        Err(error) => error.into(),
    }
}

fn check_allowed(definition: &Definition, needed: &[VertexId], allowed: Allowed) -> Result<(), SolveError> {
    for &vertex in needed {
        let ir::Op::Exec(exec) = &definition.vertex(vertex).op else { continue };
        if let Some(entitlement) = allowed.refuses(exec.network, exec.security) {
            return Err(SolveError::of(vertex, VertexError::NotAllowed { entitlement }));
        }
    }
    Ok(())
}
