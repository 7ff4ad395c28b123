//! Runs an exec vertex: inputs become an [`ExecSpec`], what the process changed becomes a layer.

use std::collections::BTreeMap;
use std::sync::Arc;

use boxwright_cache::Cancel;
use boxwright_cache::mount::{CacheDir, Sharing, Wanted};
use boxwright_cache::snapshot::Snapshot;

use super::{Input, Inputs};
use crate::Env;
use crate::error::VertexError;
use crate::executor::{ExecMount, ExecMountSource, ExecSpec, Left};
use crate::ir::{CacheMount, ExecOp, FileOwner, Mount, MountSource, VertexId};

/// By name.
pub(crate) type Caches = BTreeMap<String, Arc<CacheDir>>;

/// `cancel` is raised when it fails; `failed` gets what a process left that failed.
pub(crate) fn run(
    id: VertexId,
    exec: &ExecOp,
    inputs: &Inputs,
    caches: &Caches,
    env: &Env<'_>,
    cancel: &Cancel,
    failed: impl FnOnce(&Snapshot),
) -> Result<(Snapshot, Left), VertexError> {
    let root = root(inputs, exec.root)?;
    let mounts = exec.mounts.iter().map(|m| mount(m, inputs, caches)).collect::<Result<_, _>>()?;
    let mut variables = exec.unkeyed_env.0.clone();
    variables.extend(exec.env.iter().cloned());
    let spec = ExecSpec {
        root,
        mounts,
        args: exec.args.clone(),
        env: variables,
        cwd: exec.cwd.clone(),
        user: exec.user.clone(),
        secret_env: exec.secret_env.clone(),
        network: exec.network,
        security: exec.security,
        devices: exec.devices.clone(),
        hostname: exec.hostname.clone(),
        hosts: exec.hosts.clone(),
        platform: exec.platform.clone(),
    };
    let mut layer = env.store.new_layer()?;
    let mut log = |stream, bytes: &[u8]| {
        env.events.log(id, stream, bytes, cancel);
    };
    match env.executor.run(&spec, &mut layer, &mut log, cancel) {
        Ok(left) => Ok((spec.root.with(layer.commit(cancel)?), left)),
        Err(error) => {
            // Nobody has to work on while what this one left is kept.
            cancel.raise();
            // What can't be kept is not what went wrong, and what fills the disk would be in the way of all that follows.
            if error.is_of_process()
                && env.store.has_room()
                && let Ok(left) = layer.keep()
            {
                failed(&spec.root.with(left));
            }
            Err(error.into())
        }
    }
}

/// The caches of a vertex, in use from now on. In the order of their names, so that two steps that want the same ones
/// never wait for each other; each once, as its strictest mount has it.
pub(crate) fn caches(
    exec: &ExecOp,
    inputs: &Inputs,
    no_cache: bool,
    env: &Env<'_>,
    cancel: &Cancel,
) -> Result<Caches, VertexError> {
    let mut all: BTreeMap<String, (Snapshot, &CacheMount, Sharing)> = BTreeMap::new();
    for mount in &exec.mounts {
        let MountSource::Cache(cache) = &mount.source else { continue };
        let base = root(inputs, cache.from)?;
        let entry = all.entry(wanted(cache, &base).name()).or_insert((base, cache, cache.sharing));
        entry.2 = entry.2.max(cache.sharing);
    }
    let mut caches = Caches::new();
    for (name, (base, cache, sharing)) in all {
        let plain = wanted(cache, &base);
        // As in BuildKit: the directory that a mode or an owner is set on is made anew, and the cache with it.
        let fresh = no_cache && env.record && plain.top != [None; 3];
        let wanted = Wanted { sharing, fresh, ..plain };
        caches.insert(name, Arc::new(env.store.cache_dir(&wanted, cancel)?));
    }
    Ok(caches)
}

fn wanted<'a>(cache: &'a CacheMount, base: &'a Snapshot) -> Wanted<'a> {
    let FileOwner { mode, uid, gid } = cache.owner;
    Wanted {
        id: &cache.id,
        base: cache.from.map(|_| (base, cache.selector.as_str())),
        // What is a part of something has its owner already.
        top: if cache.selector == "/" { [mode, uid, gid] } else { [None; 3] },
        sharing: cache.sharing,
        fresh: false,
    }
}

/// A cache with a base holds just what was selected of that.
fn selector(cache: &CacheMount) -> String {
    if cache.from.is_some() { "/".to_owned() } else { cache.selector.clone() }
}

fn mount(mount: &Mount, inputs: &Inputs, caches: &Caches) -> Result<ExecMount, VertexError> {
    let source = match &mount.source {
        MountSource::Inline { data, mode } => ExecMountSource::Inline { data: data.clone(), mode: *mode },
        MountSource::Bind(bind) => {
            ExecMountSource::Bind { from: root(inputs, bind.from)?, selector: bind.selector.clone() }
        }
        MountSource::Cache(cache) => {
            let base = root(inputs, cache.from)?;
            let dir = caches.get(&wanted(cache, &base).name()).cloned();
            let unknown = || VertexError::Unknown { what: "cache", name: cache.id.clone() };
            ExecMountSource::Cache { dir: dir.ok_or_else(unknown)?, selector: selector(cache) }
        }
        MountSource::Tmpfs { size } => ExecMountSource::Tmpfs { size: *size },
        MountSource::Secret(secret) => ExecMountSource::Secret(secret.clone()),
        MountSource::Ssh(agent) => ExecMountSource::Ssh(agent.clone()),
    };
    Ok(ExecMount { target: mount.target.clone(), source, read_only: mount.read_only })
}

fn root(inputs: &Inputs, id: Option<VertexId>) -> Result<Snapshot, VertexError> {
    id.map_or_else(|| Ok(Snapshot::default()), |id| snapshot(inputs, id))
}

pub(super) fn snapshot(inputs: &Inputs, id: VertexId) -> Result<Snapshot, VertexError> {
    match &inputs[&id] {
        Input::Snapshot(snapshot) => Ok(snapshot.clone()),
        Input::Local(..) => Err(VertexError::Unknown { what: "root file system", name: format!("{id:?}") }),
    }
}
