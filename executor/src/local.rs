//! RUN steps on this machine: an [`Executor`] that makes a container for each.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use boxwright_cache::Cancel;
use boxwright_cache::fs::whiteout::is_whiteout;
use boxwright_cache::snapshot::{ActiveLayer, Snapshot};
use boxwright_solver::event::LogStream;
use boxwright_solver::executor::{ExecError, ExecMount, ExecMountSource, ExecSpec, Executor};
use boxwright_solver::ir::NetworkMode;
use rustix::fs::{AtFlags, Mode, chmodat, mkdirat, statat};

use crate::container::Container;
use crate::error::Error;
use crate::network::{Names, files};
use crate::spec::{MissingCwd, Mount, MountSource, Network, Root, Spec, Upper};
use crate::stub::Stubs;

/// Runs exec vertices in containers. Shared by the threads of a build.
#[derive(Debug)]
pub struct LocalExecutor {
    stubs: Arc<Stubs>,
    resolv_conf: Option<Vec<u8>>,
}

/// The name that every other builder gives the machine a step runs on: steps that record it give the same result.
const HOSTNAME: &str = "buildkitsandbox";

impl LocalExecutor {
    /// `resolv_conf` is what steps find in `/etc/resolv.conf`; see [`crate::network::host_resolv_conf`].
    pub fn new(stubs: Arc<Stubs>, resolv_conf: Option<Vec<u8>>) -> LocalExecutor {
        LocalExecutor { stubs, resolv_conf }
    }

    fn spec(
        &self,
        exec: &ExecSpec,
        layer: &ActiveLayer,
        cancel: &Cancel,
    ) -> Result<(Spec, Vec<ActiveLayer>), ExecError> {
        let upper = Upper { dir: own(layer.fs())?, work: own(layer.work())? };
        let lowers = exec.root.dirs(cancel)?;
        leave_mount_points(&lowers, &upper.dir)?;
        let root = Root { lowers, upper: Some(upper), read_only: false, stubs: Arc::clone(&self.stubs) };
        let mut spec = Spec::new(root, exec.args.clone());
        spec.env.clone_from(&exec.env);
        spec.cwd.clone_from(&exec.cwd);
        spec.user.clone_from(&exec.user);
        spec.missing_cwd = MissingCwd::CreateAsUser;
        spec.hostname = Some(HOSTNAME.to_owned());
        spec.network = match exec.network {
            NetworkMode::Host => Network::Host,
            NetworkMode::None => Network::None,
        };
        let names =
            Names { hostname: HOSTNAME.to_owned(), hosts: Vec::new(), resolv_conf: self.resolv_conf.clone() };
        spec.mounts = files(&names, spec.network, true);
        // A step sees the image's own.
        spec.mounts.retain(|mount| mount.target != "/etc/hostname");
        let mut discarded = Vec::new();
        for mount in &exec.mounts {
            spec.mounts.push(translate(mount, &mut discarded, cancel)?);
        }
        Ok((spec, discarded))
    }
}

impl Executor for LocalExecutor {
    fn run(
        &self,
        spec: &ExecSpec,
        layer: &mut ActiveLayer,
        log: &mut (dyn FnMut(LogStream, &[u8]) + Send),
        cancel: &Cancel,
    ) -> Result<(), ExecError> {
        cancel.check()?;
        // What is written to bind mounts lives until the container has ended.
        let (spec, _discarded) = self.spec(spec, layer, cancel)?;
        let mut container = Container::spawn(spec).map_err(translate_error)?;
        let mut sink = |stream, bytes: &[u8]| {
            log(stream, bytes);
            Ok(())
        };
        let status = container.wait(cancel, None, &mut sink).map_err(translate_error)?;
        if status.success() { Ok(()) } else { Err(ExecError::Exit { code: status.code() }) }
    }
}

/// Directories that an image without them gets by its first step: what other builders leave there as well, and what
/// programs that look for `/proc` expect of an image. Empty, for what is mounted there never reaches a layer.
const LEFT: [&str; 4] = ["dev", "etc", "proc", "sys"];

fn leave_mount_points(lowers: &[OwnedFd], upper: &OwnedFd) -> Result<(), ExecError> {
    let failed = |name: &str, error: rustix::io::Errno| ExecError::Setup {
        doing: format!("making /{name}"),
        reason: error.to_string(),
    };
    for name in LEFT {
        // The topmost layer that has an entry decides; it may be a whiteout.
        let found = lowers.iter().rev().find_map(|dir| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok());
        if found.is_some_and(|stat| !is_whiteout(&stat)) {
            continue;
        }
        mkdirat(upper, name, Mode::from_raw_mode(0o755)).map_err(|e| failed(name, e))?;
        chmodat(upper, name, Mode::from_raw_mode(0o755), AtFlags::empty()).map_err(|e| failed(name, e))?;
    }
    Ok(())
}

fn translate(
    mount: &ExecMount,
    discarded: &mut Vec<ActiveLayer>,
    cancel: &Cancel,
) -> Result<Mount, ExecError> {
    let source = match &mount.source {
        ExecMountSource::Inline { data, mode } => MountSource::File { data: data.clone(), mode: *mode },
        ExecMountSource::Bind { from, selector } => {
            let upper = if mount.read_only { None } else { scratch(from, discarded)? };
            MountSource::Layers { lowers: from.dirs(cancel)?, path: selector.clone(), upper }
        }
    };
    Ok(Mount { target: mount.target.clone(), source, read_only: mount.read_only })
}

/// A layer for what is written over `from`, which nobody commits. An empty stack has nothing to be written over.
fn scratch(from: &Snapshot, discarded: &mut Vec<ActiveLayer>) -> Result<Option<Upper>, ExecError> {
    let Some(bottom) = from.layers().first() else { return Ok(None) };
    let layer = bottom.store().new_layer()?;
    let upper = Upper { dir: own(layer.fs())?, work: own(layer.work())? };
    discarded.push(layer);
    Ok(Some(upper))
}

fn own(fd: impl AsFd) -> Result<OwnedFd, ExecError> {
    let copied = fd.as_fd().try_clone_to_owned();
    copied.map_err(|error| ExecError::Setup {
        doing: "copying a descriptor".to_owned(),
        reason: error.to_string(),
    })
}

fn translate_error(error: Error) -> ExecError {
    match error {
        Error::Start { code, message } => ExecError::Start { code, message },
        Error::Cancelled => ExecError::Cache(boxwright_cache::Error::Cancelled),
        Error::Setup { doing, reason } => ExecError::Setup { doing, reason },
        Error::Io { doing, path, source } => {
            ExecError::Setup { doing: format!("{doing} {}", path.display()), reason: source.to_string() }
        }
        Error::Unsupported(reason) => ExecError::Setup { doing: "starting a container".to_owned(), reason },
    }
}
