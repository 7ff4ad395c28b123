//! What the cloned process does before it becomes the user's program. All of it works on descriptors and strings that
//! were prepared before: nothing here allocates, locks or panics.

mod hierarchies;
mod identity;
mod mounts;
mod program;
mod shared;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub(crate) use hierarchies::Hierarchies;
pub(crate) use identity::{Identity, Limit};
pub(crate) use mounts::{Attachment, Hidden, Mounts, Pseudo, Source, Steps};
pub(crate) use program::{Init, Program};

use crate::cgroup::Entrances;
use crate::sys;

/// Everything a container needs, ready to be used by a process that may not allocate.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Which it is cloned in, where it is not ours.
    pub(crate) user_namespace: Option<OwnedFd>,
    pub(crate) entrances: Entrances,
    /// Written to `oom_score_adj`.
    pub(crate) oom_score: Option<CString>,
    pub(crate) mounts: Mounts,
    pub(crate) hostname: Option<Vec<u8>>,
    pub(crate) domain: Option<Vec<u8>>,
    pub(crate) network: NewNetwork,
    pub(crate) identity: Identity,
    pub(crate) program: Program,
    pub(crate) stdio: Stdio,
    /// Closed by the exec; a [`Failure`] is written to it where that does not happen.
    pub(crate) status: OwnedFd,
    /// The process that clones it, which has to live as long.
    pub(crate) parent: OwnedFd,
}

#[derive(Debug)]
pub(crate) enum Stdio {
    Streams { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

/// The network that the process is in, once it has begun.
#[derive(Debug)]
pub(crate) enum NewNetwork {
    Ours,
    /// The process was cloned into it.
    Empty,
    Joined(Arc<OwnedFd>),
}

/// How far the process came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Stage {
    Parent,
    Session,
    /// The index is that of the group.
    Group,
    OomScore,
    Private,
    Root,
    Hidden,
    /// The index is that of the attachment.
    Attach,
    /// The attachment of that index would be the host's as well.
    Shared,
    /// The index is that of the setting.
    Sysctl,
    /// The index is that of the masked path.
    Mask,
    /// The index is that of the read-only path.
    ReadOnly,
    Hostname,
    Network,
    Pivot,
    Cwd,
    Limits,
    Stdio,
    Capabilities,
    Seccomp,
    Identity,
    /// The program was not found by its path.
    Stat,
    /// It may not be executed, or is a directory.
    Executable,
    /// None of the directories of PATH has it.
    Search,
    /// The index is that of the candidate.
    Exec,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    pub(crate) index: u32,
    pub(crate) errno: Errno,
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A closure for `map_err`.
fn at(stage: Stage, index: usize) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure { stage, index: index as u32, errno }
}

/// Runs in the new process; returns when it could not become the user's program.
/// `entered`: it is in its group of version 2.
pub(crate) fn main(plan: &Plan, entered: bool) {
    if let Err(failure) = become_container(plan, entered) {
        let mut record = [0u8; Failure::SIZE];
        failure.encode(&mut record);
        // If nobody listens, nobody is left to be told.
        let _ = rustix::io::write(&plan.status, &record);
    }
}

fn become_container(plan: &Plan, entered: bool) -> Outcome {
    sys::signal::reset_dispositions();
    die_with_parent(plan)?;
    enter_groups(&plan.entrances, entered)?;
    if let Some(score) = &plan.oom_score {
        set_oom_score(score).map_err(at(Stage::OomScore, 0))?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at(Stage::Session, 0))?;
    rustix::process::setsid().map_err(at(Stage::Session, 1))?;
    rustix::process::umask(rustix::fs::Mode::empty());
    // Before sysfs is mounted, which shows what it is mounted in.
    match &plan.network {
        NewNetwork::Ours => {}
        NewNetwork::Empty => loopback_up().map_err(at(Stage::Network, 0))?,
        NewNetwork::Joined(namespace) => {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(at(Stage::Network, 1))?;
        }
    }
    plan.mounts.enter()?;
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name).map_err(at(Stage::Hostname, 0))?;
    }
    if let Some(name) = &plan.domain {
        rustix::system::setdomainname(name).map_err(at(Stage::Hostname, 1))?;
    }
    let entered = plan.program.enter_cwd(&plan.mounts, &plan.identity)?;
    connect(&plan.stdio).map_err(at(Stage::Stdio, 0))?;
    plan.identity.assume()?;
    if !entered {
        plan.program.enter_cwd_as_user(&plan.mounts)?;
    }
    // The change of identity has cleared it.
    die_with_parent(plan)?;
    plan.program.start()
}

/// The kernel kills us when the thread that cloned us ends. It may have ended before it was asked to.
fn die_with_parent(plan: &Plan) -> Outcome {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Stage::Parent, 0))?;
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&plan.parent, PollFlags::IN)];
    poll(&mut fds, Some(&now)).map_err(at(Stage::Parent, 1))?;
    if fds[0].revents().contains(PollFlags::IN) {
        return Err(at(Stage::Parent, 2)(Errno::SRCH));
    }
    Ok(())
}

/// The group namespace is made when it is in its groups: they are what it has as roots.
fn enter_groups(entrances: &Entrances, entered: bool) -> Outcome {
    let unified = entrances.unified.as_ref();
    if unified.is_none() && entrances.groups.is_empty() {
        return Ok(());
    }
    let last = unified.filter(|_| !entered).map(|unified| &unified.procs);
    for (n, group) in entrances.groups.iter().chain(last).enumerate() {
        // 0 is whoever writes it.
        rustix::io::write(group, b"0").map_err(at(Stage::Group, n))?;
    }
    sys::namespace::unshare(rustix::thread::UnshareFlags::NEWCGROUP).map_err(at(Stage::Group, usize::MAX))
}

/// By the host's procfs, which is still there.
fn set_oom_score(score: &CString) -> Result<(), Errno> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty())?;
    rustix::io::write(&file, score.to_bytes()).map(drop)
}

fn loopback_up() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sys::net::loopback_up(socket.as_fd())
}

fn connect(stdio: &Stdio) -> Result<(), Errno> {
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
    let (stdin, stdout, stderr) = match stdio {
        Stdio::Streams { stdin, stdout, stderr } => (stdin, stdout, stderr),
        Stdio::Terminal(terminal) => (terminal, terminal, terminal),
    };
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)?;
    if let Stdio::Terminal(terminal) = stdio {
        rustix::process::ioctl_tiocsctty(terminal)?;
    }
    Ok(())
}

impl Failure {
    pub(crate) const SIZE: usize = 12;

    fn encode(self, record: &mut [u8; Failure::SIZE]) {
        let words = [self.stage as u32, self.index, self.errno.raw_os_error().cast_unsigned()];
        for (bytes, word) in record.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
    }

    /// None for what `encode` can't have written.
    pub(crate) fn decode(record: &[u8; Failure::SIZE]) -> Option<Failure> {
        let word = |n: usize| u32::from_ne_bytes([record[n], record[n + 1], record[n + 2], record[n + 3]]);
        let stage = STAGES.iter().copied().find(|s| *s as u32 == word(0))?;
        Some(Failure { stage, index: word(4), errno: Errno::from_raw_os_error(word(8).cast_signed()) })
    }
}

const STAGES: &[Stage] = &[
    Stage::Parent,
    Stage::Session,
    Stage::Group,
    Stage::OomScore,
    Stage::Private,
    Stage::Root,
    Stage::Hidden,
    Stage::Attach,
    Stage::Shared,
    Stage::Sysctl,
    Stage::Mask,
    Stage::ReadOnly,
    Stage::Hostname,
    Stage::Network,
    Stage::Pivot,
    Stage::Cwd,
    Stage::Limits,
    Stage::Stdio,
    Stage::Capabilities,
    Stage::Seccomp,
    Stage::Identity,
    Stage::Stat,
    Stage::Executable,
    Stage::Search,
    Stage::Exec,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_pipe() {
        for &stage in STAGES {
            let mut record = [0; Failure::SIZE];
            Failure { stage, index: 7, errno: Errno::ACCESS }.encode(&mut record);
            let back = Failure::decode(&record).unwrap();
            assert_eq!((back.stage, back.index, back.errno), (stage, 7, Errno::ACCESS));
        }
        assert_eq!(STAGES.len(), Stage::Exec as usize + 1);
    }
}
