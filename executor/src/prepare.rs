//! A [`Spec`] becomes a [`Plan`]: file systems are made, users looked up, strings built; all that can be done before
//! the process is cloned, so that it only has to put things where they belong.

mod groups;
mod layout;
mod sources;
mod stack;
mod sysctl;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use boxwright_cache::snapshot::copy::Copied;
use rustix::fs::{Gid, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::cgroup::Entrances;
use crate::dev::Dev;
use crate::error::{Error, Result};
use crate::init::{Identity, Init, Limit, NewNetwork, Plan, Program, Stdio, Steps};
use crate::mountpoint::{self, Made};
use crate::spec::{MissingCwd, Network, Spec};
use crate::sys::exec::Strings;
use crate::trust::{self, Installed};
use crate::user::{self, User};
use crate::{idmap, reaper, seccomp};

/// What a prepared container leaves with us.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) plan: Plan,
    pub(crate) ends: Ends,
    /// The other end of the plan's status pipe.
    pub(crate) status: OwnedFd,
    /// In the order of the plan's attachments, for messages.
    pub(crate) targets: Vec<String>,
    pub(crate) mount_points: MountPoints,
    pub(crate) namespaces: u64,
}

/// What was put into the upper directory, and is taken back from there: mount points, and certificates.
#[derive(Debug)]
pub(crate) struct MountPoints {
    pub(crate) upper: Option<OwnedFd>,
    pub(crate) made: Vec<Made>,
    pub(crate) trusted: Installed,
    /// Where the root is a copy of the layers, in the place of the upper directory.
    pub(crate) copied: Option<Copied>,
    /// Why, where the kernel refused an overlay.
    pub(crate) refused: Option<String>,
}

/// Our ends of the container's streams.
#[derive(Debug)]
pub(crate) enum Ends {
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

pub(crate) fn prepare(spec: &mut Spec, entrances: Entrances) -> Result<Prepared> {
    if !spec.certificates.is_empty() {
        spec.mounts.push(trust::mount(&spec.certificates));
    }
    let mounts = sources::ready(spec)?;
    let stack::RootMount { mount: root, copied, refused } = layout::mount_root(spec, &mounts)?;
    let trusted = trust::install(root.as_fd(), spec, copied.is_some())?;
    let user = user::resolve(root.as_fd(), &spec.user, &spec.extra_groups)?;
    let scratch = sources::Scratch::new()?;
    let dev = Dev::new(scratch.mount.as_fd(), spec.shm_size, spec.host_devices)?;
    let (stdio, ends, console) = streams(spec, &dev)?;
    let mut laid_out = layout::lay_out(spec, mounts, root, scratch, dev, console, &entrances.seen)?;
    (laid_out.mount_points.trusted, laid_out.mount_points.copied) = (trusted, copied);
    laid_out.mount_points.refused = refused;
    let (status, status_end) = pipe("making the status pipe")?;
    let identity = identity(spec, &user)?;
    give(&stdio, identity.uid);
    let own_name = |name: &Option<String>| name.clone().filter(|_| !spec.host_uts).map(String::into_bytes);
    let grouped = !entrances.groups.is_empty() || entrances.unified.is_some();
    let plan = Plan {
        user_namespace: spec.user_namespace.take(),
        entrances,
        oom_score: oom_score(spec)?,
        mounts: laid_out.mounts,
        hostname: own_name(&spec.hostname),
        domain: own_name(&spec.domain),
        network: match &spec.network {
            Network::Host => NewNetwork::Ours,
            Network::None => NewNetwork::Empty,
            Network::Joined(namespace) => NewNetwork::Joined(Arc::clone(namespace)),
        },
        program: program(spec, &user)?,
        identity,
        stdio,
        status: status_end,
        parent: pidfd_open(getpid(), PidfdFlags::empty()).map_err(Error::io("opening", "this process"))?,
    };
    let namespaces = namespaces(spec, grouped);
    Ok(Prepared {
        plan,
        ends,
        status,
        targets: laid_out.targets,
        mount_points: laid_out.mount_points,
        namespaces,
    })
}

fn namespaces(spec: &Spec, grouped: bool) -> u64 {
    let mut flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC;
    let own = [
        (!spec.host_uts, libc::CLONE_NEWUTS),
        // Who has groups of its own makes it when it has entered them.
        (!grouped, libc::CLONE_NEWCGROUP),
        (matches!(spec.network, Network::None), libc::CLONE_NEWNET),
    ];
    own.into_iter().filter(|(wanted, _)| *wanted).for_each(|(_, flag)| flags |= flag);
    flags as u64
}

fn oom_score(spec: &Spec) -> Result<Option<CString>> {
    let score = spec.oom_score.map(|score| CString::new(score.to_string()));
    score.transpose().map_err(|_| nul("the OOM score"))
}

/// What the process gets, what we keep, and the name of its terminal.
fn streams(spec: &Spec, dev: &Dev) -> Result<(Stdio, Ends, Option<CString>)> {
    if let Some(size) = spec.tty {
        let terminal = dev.terminal()?;
        rustix::termios::tcsetwinsize(&terminal.controller, size)
            .map_err(Error::io("sizing", "/dev/console"))?;
        return Ok((
            Stdio::Terminal(terminal.terminal),
            Ends::Terminal(terminal.controller),
            Some(terminal.name),
        ));
    }
    let doing = "making the output pipes";
    let ((stdout, stdout_end), (stderr, stderr_end)) = (pipe(doing)?, pipe(doing)?);
    let (stdin_end, stdin) = match spec.stdin {
        Some(_) => {
            let (read, write) = pipe("making the input pipe")?;
            rustix::io::ioctl_fionbio(&write, true).map_err(Error::io("making the input pipe", ""))?;
            (read, Some(write))
        }
        None => (null()?, None),
    };
    let stdio = Stdio::Streams { stdin: stdin_end, stdout: stdout_end, stderr: stderr_end };
    Ok((stdio, Ends::Pipes { stdin, stdout, stderr }, None))
}

/// Gives our streams to the user, so that `/dev/stderr` can be opened again.
fn give(stdio: &Stdio, uid: Uid) {
    let ours = match stdio {
        Stdio::Streams { stdout, stderr, .. } => vec![stdout, stderr],
        Stdio::Terminal(terminal) => vec![terminal],
    };
    for fd in ours {
        // Refused where the user is not mapped, and then it stays as it is.
        let _ = rustix::fs::fchown(fd, Some(uid), None);
    }
}

fn null() -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("opening", "/dev/null"))
}

/// The reading and the writing end.
fn pipe(doing: &'static str) -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(Error::io(doing, ""))
}

fn identity(spec: &Spec, user: &User) -> Result<Identity> {
    Ok(Identity {
        uid: Uid::from_raw(user.uid),
        gid: Gid::from_raw(user.gid),
        groups: user.groups.iter().map(|&gid| Gid::from_raw(gid)).collect(),
        may_set_groups: idmap::may_set_groups(),
        capabilities: spec.capabilities,
        ambient: spec.ambient,
        filter: seccomp::program(&spec.seccomp, spec.capabilities)?,
        no_new_privileges: spec.no_new_privileges,
        limits: spec.limits.iter().map(|(resource, limit)| Limit(*resource, *limit)).collect(),
        owns_cwd: spec.missing_cwd == MissingCwd::CreateAsUser,
    })
}

fn program(spec: &Spec, user: &User) -> Result<Program> {
    let own = if spec.own_shell { Some(reaper::SHELL) } else { None };
    let Some(name) = own.or(spec.args.first().map(String::as_str)) else {
        return Err(Error::start(125, "no command specified"));
    };
    let env = environment(spec, user);
    let searched = !name.contains('/');
    let candidates = if searched { search_path(name, &env) } else { vec![name.to_owned()] };
    let candidates = c_strings(candidates, "the command")?;
    let init = if spec.own_shell {
        let args = vec![Strings::new(c_strings(vec![reaper::SHELL.to_owned()], "a name")?)];
        Some(Init { binary: reaper::binary()?, args })
    } else if spec.init {
        Some(init(&candidates, spec)?)
    } else {
        None
    };
    Ok(Program {
        init,
        cwd: Steps::new(&spec.cwd).map_err(|_| nul("the working directory"))?,
        candidates,
        searched,
        own_shell: spec.own_shell,
        args: Strings::new(c_strings(spec.args.clone(), "an argument")?),
        env: Strings::new(c_strings(env, "the environment")?),
        ours: rustix::fs::stat(c"/proc/self/exe").ok().map(|stat| (stat.st_dev, stat.st_ino)),
    })
}

fn init(candidates: &[CString], spec: &Spec) -> Result<Init> {
    let args = candidates.iter().map(|path| {
        let mut words = c_strings(vec![reaper::INIT.to_owned()], "a name")?;
        words.push(path.clone());
        words.extend(c_strings(spec.args.clone(), "an argument")?);
        Ok(Strings::new(words))
    });
    Ok(Init { binary: reaper::binary()?, args: args.collect::<Result<_>>()? })
}

/// Of several values of a variable the last one holds, in the place of the first.
fn environment(spec: &Spec, user: &User) -> Vec<String> {
    let mut env: Vec<String> = Vec::with_capacity(spec.env.len() + 1);
    let home = format!("HOME={}", user.home);
    let has_home = spec.env.iter().any(|v| v.starts_with("HOME="));
    for variable in spec.env.iter().chain((!has_home).then_some(&home)) {
        let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
        let same = |v: &&mut String| v.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
        match env.iter_mut().find(same) {
            Some(earlier) => earlier.clone_from(variable),
            None => env.push(variable.clone()),
        }
    }
    env
}

fn search_path(name: &str, env: &[String]) -> Vec<String> {
    let path = env.iter().find_map(|v| v.strip_prefix("PATH=")).unwrap_or_default();
    let directories = path.split(':').filter(|d| d.starts_with('/') && !name.is_empty());
    directories.map(|d| format!("{}/{name}", d.trim_end_matches('/'))).collect()
}

fn c_strings(strings: Vec<String>, what: &str) -> Result<Vec<CString>> {
    strings.into_iter().map(|s| CString::new(s).map_err(|_| nul(what))).collect()
}

fn nul(what: &str) -> Error {
    Error::Setup { doing: "preparing the process".to_owned(), reason: format!("{what} holds a NUL byte") }
}

impl MountPoints {
    pub(crate) fn remember(&mut self) {
        if let Some(upper) = &self.upper {
            mountpoint::remember(upper.as_fd(), &mut self.made);
        }
    }

    pub(crate) fn take_back(&mut self) {
        if let Some(upper) = &self.upper {
            mountpoint::take_back(upper.as_fd(), std::mem::take(&mut self.made));
            let trusted = std::mem::take(&mut self.trusted);
            if let Some(copied) = &mut self.copied {
                trusted.files().for_each(|file| copied.put_back(file));
            }
            trusted.take_back(upper.as_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::search_path;

    #[test]
    fn the_path_is_searched_in_order() {
        let env = ["A=b".to_owned(), "PATH=/usr/bin:/bin/::rel".to_owned()];
        assert_eq!(search_path("sh", &env), ["/usr/bin/sh", "/bin/sh"]);
        assert!(search_path("sh", &[]).is_empty());
        assert!(search_path("", &env).is_empty());
    }
}
