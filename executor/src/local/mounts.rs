//! The mounts of a step: snapshots, caches and what the caller lends, as mounts of a container.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use boxwright_cache::Cancel;
use boxwright_cache::fs::open_resolved;
use boxwright_cache::mount::CacheDir;
use boxwright_cache::snapshot::{ActiveLayer, Snapshot};
use boxwright_solver::executor::{ExecError, ExecMount, ExecMountSource};
use boxwright_solver::ir::{FileOwner, Guarded};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{own, translate_error};
use crate::agent::Proxy;
use crate::secret::{Agent, Lent, Secret};
use crate::spec::{Mount, MountSource, Owner, Tmpfs, Upper};

/// What has to be there until the container has ended.
#[derive(Debug, Default)]
pub(super) struct Kept {
    discarded: Vec<ActiveLayer>,
    caches: Vec<Arc<CacheDir>>,
    proxies: Vec<Proxy>,
}

impl Kept {
    /// Does `work` while agents answer.
    pub(super) fn serving<T>(&self, work: impl FnOnce() -> T) -> Result<T, ExecError> {
        if self.proxies.is_empty() {
            return Ok(work());
        }
        let stop = Cancel::new()?;
        Ok(std::thread::scope(|scope| {
            // Also when `work` panics, or the scope would wait for ever.
            let _end = RaiseAtEnd(&stop);
            for proxy in &self.proxies {
                scope.spawn(|| proxy.serve(scope, &stop));
            }
            work()
        }))
    }
}

struct RaiseAtEnd<'a>(&'a Cancel);

impl Drop for RaiseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.raise();
    }
}

/// None for what may be missing, and is.
pub(super) fn translate(
    mount: &ExecMount,
    lent: &Lent,
    kept: &mut Kept,
    cancel: &Cancel,
) -> Result<Option<Mount>, ExecError> {
    let mut read_only = mount.read_only;
    let source = match &mount.source {
        ExecMountSource::Inline { data, mode } => MountSource::File { data: data.clone(), mode: *mode },
        ExecMountSource::Bind { from, selector } => {
            let upper = if read_only { None } else { scratch(from, &mut kept.discarded)? };
            MountSource::Layers { lowers: from.dirs(cancel)?, path: selector.clone(), upper }
        }
        ExecMountSource::Cache { dir, selector } => {
            kept.caches.push(Arc::clone(dir));
            MountSource::Bind(in_cache(dir, selector)?.into())
        }
        ExecMountSource::Tmpfs { size } => {
            let options = size.iter().map(|size| (c"size", size.to_string())).collect();
            MountSource::Tmpfs(Tmpfs { options, exec: true, ..Tmpfs::default() })
        }
        ExecMountSource::Secret(wanted) => {
            let Some(secret) = secret(lent, &wanted.id, wanted.required)? else { return Ok(None) };
            MountSource::Secret { secret: secret.clone(), owner: owner(wanted.owner, 0o400) }
        }
        ExecMountSource::Ssh(wanted) => {
            let Some(agent) = agent(lent, wanted)? else { return Ok(None) };
            let (proxy, socket) = Proxy::new(agent).map_err(translate_error)?;
            kept.proxies.push(proxy);
            // A socket that can't be written can't be connected to.
            read_only = false;
            MountSource::Socket { socket, owner: owner(wanted.owner, 0o600) }
        }
    };
    Ok(Some(Mount { target: mount.target.clone(), source, read_only }))
}

pub(super) fn secret<'l>(lent: &'l Lent, id: &str, required: bool) -> Result<Option<&'l Secret>, ExecError> {
    match lent.secrets.get(id) {
        None if required => Err(ExecError::NotLent(format!("secret {id}: not found"))),
        found => Ok(found),
    }
}

fn agent<'l>(lent: &'l Lent, wanted: &Guarded) -> Result<Option<&'l Agent>, ExecError> {
    let message = match lent.agents.get(&wanted.id) {
        None if !wanted.required => return Ok(None),
        None if lent.agents.is_empty() => format!("no SSH key {:?} forwarded from the client", wanted.id),
        None => format!("unset ssh forward key {}", wanted.id),
        found => return Ok(found),
    };
    Err(ExecError::NotLent(message))
}

fn owner(given: FileOwner, mode: u32) -> Owner {
    let FileOwner { mode: own, uid, gid } = given;
    Owner { mode: own.unwrap_or(mode) & 0o7777, uid: uid.unwrap_or(0), gid: gid.unwrap_or(0) }
}

/// A layer for what is written over `from`, which nobody commits. An empty stack has nothing to be written over.
fn scratch(from: &Snapshot, discarded: &mut Vec<ActiveLayer>) -> Result<Option<Upper>, ExecError> {
    let Some(bottom) = from.layers().first() else { return Ok(None) };
    let layer = bottom.store().new_layer()?;
    let upper = Upper { dir: own(layer.fs())?, work: own(layer.work())? };
    discarded.push(layer);
    Ok(Some(upper))
}

/// What a step put into a cache may be a link to anywhere: it is followed inside the cache, once, and then held.
fn in_cache(dir: &CacheDir, selector: &str) -> Result<OwnedFd, ExecError> {
    if selector == "/" {
        return own(dir.data());
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = open_resolved(dir.data().as_fd(), selector, flags, Mode::empty(), resolve);
    found.map_err(|errno| ExecError::Setup {
        doing: format!("looking for {selector} in the cache"),
        reason: std::io::Error::from(errno).to_string(),
    })
}
