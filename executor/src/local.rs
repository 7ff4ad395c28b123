//! RUN steps on this machine: an [`Executor`] that makes a container for each.

mod mounts;
mod shell;

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boxwright_cache::Cancel;
use boxwright_cache::snapshot::{ActiveLayer, Marks};
use boxwright_solver::event::LogStream;
use boxwright_solver::executor::{ExecError, ExecSpec, Executor, Left};
use boxwright_solver::ir::{NetworkMode, SecretEnv, SecurityMode};
use rustix::fs::{AtFlags, Mode, chmodat, mkdirat, statat};
use rustix::process::{Resource, Rlimit};

use crate::cdi;
use crate::cgroup::{Resources, device_groups};
use crate::container::Container;
use crate::emulate;
use crate::error::Error;
use crate::idmap;
use crate::nested::Nested;
use crate::network::{Connection, Names, Networks, Resolver};
use crate::secret::Lent;
use crate::spec::{Devices, MissingCwd, MountSource, Network, Root, Spec, Upper};
use crate::stub::Stubs;
use crate::trust::copies;
use mounts::Kept;
pub use shell::{Seat, Shell};

/// Runs exec vertices in containers. Shared by the threads of a build.
#[derive(Debug)]
pub struct LocalExecutor {
    stubs: Arc<Stubs>,
    settings: Settings,
    networks: Networks,
    /// That steps have the host's network for want of another.
    said: AtomicBool,
    /// That steps run in copies, though overlays of the store's file system could be mounted for all that is known.
    said_copies: AtomicBool,
}

/// What steps get that is no part of what they are.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What they find in `/etc/resolv.conf` besides what the host has there.
    pub resolver: Resolver,
    pub lent: Lent,
    /// A container does not start where one of them can't be set.
    pub limits: Vec<(Resource, Rlimit)>,
    /// Of `/dev/shm`, in bytes.
    pub shm_size: Option<u64>,
    /// As [`Spec::certificates`].
    pub certificates: Vec<u8>,
    /// How long a step's process may run.
    pub time_limit: Option<Duration>,
    /// Where emulators of other machines are looked for, as in `PATH`.
    pub emulators: OsString,
    /// Of each step by itself.
    pub resources: Resources,
    /// Where files are that describe devices, and which of these steps may have.
    pub device_files: Vec<PathBuf>,
    pub devices: cdi::Grants,
}

/// The name that every other builder gives the machine a step runs on: steps that record it give the same result.
const HOSTNAME: &str = "buildkitsandbox";

impl LocalExecutor {
    pub fn new(stubs: Arc<Stubs>, settings: Settings, networks: Networks) -> LocalExecutor {
        LocalExecutor {
            stubs,
            settings,
            networks,
            said: AtomicBool::new(false),
            said_copies: AtomicBool::new(false),
        }
    }

    /// A step without a network of its own, where this machine has none to give, uses the host's. Where it has one, and
    /// could not make it this time, no step gets more than it was to have.
    fn connect(
        &self,
        exec: &ExecSpec,
        nested: Option<&Nested>,
        log: Log<'_>,
        cancel: &Cancel,
    ) -> Result<Option<Connection>, ExecError> {
        if exec.network != NetworkMode::Default {
            return Ok(None);
        }
        let refused = match self.networks.connect(nested, &|| cancel.is_raised()) {
            Ok(mut connection) => {
                if let Some(warning) = connection.warning().filter(|text| self.networks.is_news(text)) {
                    log(LogStream::Notice, format!("{warning}\n").as_bytes());
                }
                return Ok(Some(connection));
            }
            Err(Error::Unsupported(reason)) => reason,
            Err(error) => return Err(translate_error(error)),
        };
        if !self.said.swap(true, Ordering::Relaxed) {
            let line = format!("steps use the host's network, as there is no other: {refused}\n");
            log(LogStream::Notice, line.as_bytes());
        }
        Ok(None)
    }

    /// What has certificates that no key tells of is nothing for a build without them.
    fn look_for_certificates(
        &self,
        layer: &ActiveLayer,
        log: Log<'_>,
        cancel: &Cancel,
    ) -> Result<Left, ExecError> {
        let certificates = &self.settings.certificates;
        if certificates.is_empty() {
            return Ok(Left::ForAll);
        }
        let Some(path) = copies::find(own(layer.fs())?, certificates, cancel)? else {
            return Ok(Left::ForAll);
        };
        let line = format!(
            "warning: {} has certificates of --ca-cert, so no other build will be given this result\n",
            path.display()
        );
        log(LogStream::Notice, line.as_bytes());
        Ok(Left::ForThisBuild)
    }

    fn spec(
        &self,
        exec: &ExecSpec,
        layer: &ActiveLayer,
        connection: Option<&Connection>,
        cancel: &Cancel,
    ) -> Result<(Spec, Kept), ExecError> {
        let upper = Upper { dir: own(layer.fs())?, work: own(layer.work())? };
        let lowers = exec.root.dirs(cancel)?;
        leave_mount_points(&lowers, &upper.dir)?;
        let (stubs, cancel_copy) = (Arc::clone(&self.stubs), cancel.clone());
        let root = Root { lowers, upper: Some(upper), read_only: false, stubs, cancel: cancel_copy };
        let mut spec = Spec::new(root, exec.args.clone());
        spec.env.clone_from(&exec.env);
        spec.env.extend(secret_env(&exec.secret_env, &self.settings.lent)?);
        spec.cwd.clone_from(&exec.cwd);
        spec.user.clone_from(&exec.user);
        spec.missing_cwd = MissingCwd::CreateAsUser;
        let hostname = exec.hostname.as_deref().unwrap_or(HOSTNAME).to_owned();
        spec.hostname = Some(hostname.clone());
        spec.limits.clone_from(&self.settings.limits);
        spec.certificates.clone_from(&self.settings.certificates);
        spec.resources.clone_from(&self.settings.resources);
        spec.shm_size = self.settings.shm_size.unwrap_or(spec.shm_size);
        spec.network = match (exec.network, connection) {
            (NetworkMode::None, _) => Network::None,
            (_, Some(connection)) => connection.network(),
            (_, None) => Network::Host,
        };
        if exec.security == SecurityMode::Insecure {
            spec.unconfine();
        }
        let hosts = exec.hosts.iter().map(|host| (host.address.0.clone(), host.name.clone())).collect();
        let names = Names { hostname, domain: None, hosts, resolver: self.settings.resolver.clone() };
        spec.mounts = names.files(&spec.network, connection).map_err(translate_error)?.mounts(true);
        // A step sees the image's own.
        spec.mounts.retain(|mount| mount.target != "/etc/hostname");
        // What is lacking is told if the program turns out to need it.
        spec.mounts.extend(emulate::mounts(&exec.platform, &self.settings.emulators).unwrap_or_default());
        let mut kept = Kept::default();
        for mount in &exec.mounts {
            spec.mounts.extend(mounts::translate(mount, &self.settings.lent, &mut kept, cancel)?);
        }
        let given = self.give_devices(exec, &mut spec).map_err(translate_error)?;
        let tmpfs = spec.mounts.iter().any(|mount| matches!(mount.source, MountSource::Tmpfs(_)));
        if tmpfs && spec.devices == Devices::NoNodes && device_groups().is_ok() {
            // A tmpfs that has no devices would be another one than a step gets elsewhere.
            spec.devices = Devices::Rules(given.rules);
        } else if let Some(path) = given.partial.filter(|_| spec.devices == Devices::NoNodes) {
            device_groups().map_err(|why| ExecError::Setup {
                doing: format!("keeping a step to its rights to the device {path}"),
                reason: format!("there is no control group for devices: {why}"),
            })?;
            spec.devices = Devices::Rules(given.rules);
        }
        Ok((spec, kept))
    }

    /// Whatever way a step or a shell in it comes here, what it may have is decided here.
    fn give_devices(&self, exec: &ExecSpec, spec: &mut Spec) -> Result<cdi::Injected, Error> {
        if exec.devices.is_empty() {
            return Ok(cdi::Injected::default());
        }
        let registry = cdi::Registry::load(&self.settings.device_files);
        let mut names: Vec<String> = Vec::new();
        for device in &exec.devices {
            let found = registry.select(&device.name, &self.settings.devices)?;
            if found.is_empty() && device.required {
                let looked_at = registry.looked_at();
                let message =
                    format!("required device {:?} is not registered: looked at {looked_at}", device.name);
                return Err(Error::start(125, message));
            }
            names.extend(found);
        }
        names.sort();
        names.dedup();
        registry.inject(&names, spec)
    }
}

/// What a step may do there that may do anything, reaches nobody else.
fn nested(exec: &ExecSpec) -> Result<Option<Nested>, ExecError> {
    if exec.security != SecurityMode::Insecure {
        return Ok(None);
    }
    Nested::needed().map_err(translate_error)
}

type Log<'a> = &'a mut (dyn FnMut(LogStream, &[u8]) + Send);

impl Executor for LocalExecutor {
    fn run(
        &self,
        spec: &ExecSpec,
        layer: &mut ActiveLayer,
        log: Log<'_>,
        cancel: &Cancel,
    ) -> Result<Left, ExecError> {
        cancel.check()?;
        idmap::settle().map_err(translate_error)?;
        let nested = nested(spec)?;
        // What is written to bind mounts lives until the container has ended.
        let connection = self.connect(spec, nested.as_ref(), log, cancel)?;
        let insecure = spec.security == SecurityMode::Insecure;
        let (mut spec, kept) = self.spec(spec, layer, connection.as_ref(), cancel)?;
        spec.user_namespace = nested.map(|nested| nested.user);
        let mut container = Container::spawn(spec).map_err(translate_error)?;
        container.limit(self.settings.time_limit);
        if let Some(reason) = container.without_overlay()
            && !self.said_copies.swap(true, Ordering::Relaxed)
        {
            let line = format!(
                "steps run in copies of their layers, as the kernel refuses an overlay of them: {reason}\n"
            );
            log(LogStream::Notice, line.as_bytes());
        }
        let mut sink = |stream, bytes: &[u8]| {
            log(stream, bytes);
            Ok(())
        };
        let ended = kept.serving(|| container.wait(cancel, None, &mut sink))?;
        if !matches!(ended, Err(Error::Cancelled)) {
            // What failed is looked into, too.
            container.leave_changes(cancel).map_err(translate_error)?;
        }
        let status = ended.map_err(translate_error)?;
        // What had the right to change its network may have done so.
        if let Some(connection) = connection.filter(|_| !insecure) {
            self.networks.give_back(connection);
        }
        match container.out_of_memory() {
            Some(why) if status.success() => log(LogStream::Notice, format!("{why}\n").as_bytes()),
            None if status.success() => {}
            Some(why) => return Err(ExecError::Killed { code: status.code(), reason: why.to_string() }),
            None => return Err(ExecError::Exit { code: status.code() }),
        }
        self.look_for_certificates(layer, log, cancel)
    }
}

/// The variables of the secrets that there are.
fn secret_env(wanted: &[SecretEnv], lent: &Lent) -> Result<Vec<String>, ExecError> {
    let mut env = Vec::new();
    for secret in wanted {
        let Some(value) = mounts::secret(lent, &secret.id, secret.required)? else { continue };
        let value = str::from_utf8(value.bytes()).map_err(|_| ExecError::Setup {
            doing: format!("setting {} to the secret {}", secret.name, secret.id),
            reason: "it is not UTF-8 text".to_owned(),
        })?;
        env.push(format!("{}={value}", secret.name));
    }
    Ok(env)
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
        let stat = |dir| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| (dir, stat));
        if let Some((dir, stat)) = lowers.iter().rev().find_map(stat) {
            let hidden = Marks::of(dir).and_then(|marks| marks.is_whiteout_at(dir, name, &stat));
            if !hidden.map_err(|e| failed(name, e))? {
                continue;
            }
        }
        mkdirat(upper, name, Mode::from_raw_mode(0o755)).map_err(|e| failed(name, e))?;
        chmodat(upper, name, Mode::from_raw_mode(0o755), AtFlags::empty()).map_err(|e| failed(name, e))?;
    }
    Ok(())
}

pub(crate) fn own(fd: impl AsFd) -> Result<OwnedFd, ExecError> {
    let copied = fd.as_fd().try_clone_to_owned();
    copied.map_err(|error| ExecError::Setup {
        doing: "copying a descriptor".to_owned(),
        reason: error.to_string(),
    })
}

pub(crate) fn translate_error(error: Error) -> ExecError {
    match error {
        Error::Start { code, message } => ExecError::Start { code, message },
        Error::TimedOut { limit } => ExecError::TimedOut { limit },
        Error::Cancelled => ExecError::Cache(boxwright_cache::Error::Cancelled),
        Error::Cache(error) => ExecError::Cache(error),
        Error::Setup { doing, reason } => ExecError::Setup { doing, reason },
        Error::Io { doing, path, source } => {
            ExecError::Setup { doing: format!("{doing} {}", path.display()), reason: source.to_string() }
        }
        Error::Unsupported(reason) => ExecError::Setup { doing: "starting a container".to_owned(), reason },
    }
}
