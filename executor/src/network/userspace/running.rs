//! The helpers: how they are started, and when they are ready.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::super::link::Links;
use super::super::namespace::failed;
use super::super::{PROGRAMS, program};
use super::Place;
use crate::error::{Error, Result};
use crate::spawner;
use crate::sys::signal;

const INTERFACE: &str = "eth0";
/// How long one may work until it is ready; they take some hundredths of a second. Some are caught in a loop on kernels
/// that they don't know.
const WORK: Duration = Duration::from_secs(3);
/// How long it may take where the processors are busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(1);
/// The most that is kept of what one complains about, in bytes.
const MOST_COMPLAINTS: usize = 16 << 10;

pub(super) struct Helper {
    pub(super) name: &'static str,
    args: fn(Place) -> String,
}

/// In the order of preference: the host's loopback stays out of reach with either, and its name servers within.
pub(super) const HELPERS: [Helper; 2] =
    [Helper { name: "pasta", args: pasta }, Helper { name: "slirp4netns", args: slirp4netns }];

fn pasta(place: Place) -> String {
    format!(
        "--foreground --quiet --config-net --ipv4-only --no-map-gw --ns-ifname {INTERFACE} --address {} --netmask {} \
         --gateway {} --dns-forward {} --tcp-ports none --udp-ports none --tcp-ns none --udp-ns none \
         --netns /proc/self/fd/0",
        place.container(),
        place.subnet().prefix,
        place.gateway(),
        place.name_server()
    )
}

/// It gives the addresses in its network that pasta is told to give.
fn slirp4netns(place: Place) -> String {
    let subnet = place.subnet();
    format!(
        "--configure --mtu=65520 --cidr={}/{} --disable-host-loopback --enable-sandbox --enable-seccomp --exit-fd=1 \
         --netns-type=path /proc/self/fd/0 {INTERFACE}",
        subnet.first, subnet.prefix
    )
}

impl Helper {
    pub(super) fn program(&self) -> Option<PathBuf> {
        program(self.name)
    }
}

/// Why there is no connection.
pub(super) struct Failed {
    pub(super) reason: String,
    pub(super) how: How,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// It ended, or could not be started.
    Ended,
    /// It works and works.
    Busy,
    /// It was about to, perhaps.
    Late,
    /// Nobody wants it any more.
    Interrupted,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        // What may pass is not held against it.
        let how = if matches!(error, Error::Unsupported(_)) { How::Ended } else { How::Late };
        Failed { reason: error.to_string(), how }
    }
}

/// A file in memory for what a helper complains about. It can't grow: what is too much is refused, which no helper minds.
fn notebook() -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let notebook = memfd_create(c"helper", flags)?;
    ftruncate(&notebook, MOST_COMPLAINTS as u64)?;
    fcntl_add_seals(&notebook, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(notebook)
}

/// Ended with this value.
#[derive(Debug)]
pub(in super::super) struct Running {
    child: Child,
    name: &'static str,
    /// slirp4netns ends when this is closed, whatever closes it.
    _held_open: OwnedFd,
    complaints: File,
}

impl Running {
    pub(in super::super) fn name(&self) -> &'static str {
        self.name
    }

    pub(in super::super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(super) fn start(helper: &Helper, path: &Path, place: Place, namespace: &OwnedFd) -> Result<Running> {
        let starting = "starting";
        let complaints = notebook().map_err(Error::io(starting, path))?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(Error::io(starting, path))?;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(Error::io(starting, path));
        let mut command = Command::new(path);
        command.args((helper.args)(place).split_whitespace());
        command.env_clear().env("PATH", PROGRAMS.join(":")).current_dir("/");
        command.stdin(copy(namespace)?).stdout(Stdio::from(theirs)).stderr(copy(&complaints)?);
        // Ctrl-C is for the container, which may need its network to end well.
        command.process_group(0);
        let child = signal::pass_on(&mut command).spawn().map_err(Error::io(starting, path))?;
        let running = Running { name: helper.name, child, _held_open: ours, complaints: complaints.into() };
        let pid = rustix::process::Pid::from_child(&running.child);
        if let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            spawner::end_with_us(process.as_fd());
        }
        Ok(running)
    }

    /// Until the namespace has its interface.
    pub(super) fn wait(&mut self, links: &mut Links, interrupted: &dyn Fn() -> bool) -> Result<(), Failed> {
        let start = Instant::now();
        let doing = "looking into the network namespace";
        loop {
            if let Some(interface) = links.find(INTERFACE).map_err(failed(doing))?
                && links.address(interface).map_err(failed(doing))?.is_some()
                && links.routes().map_err(failed(doing))?.1.is_some()
            {
                return Ok(());
            }
            if let Some(how) = self.outcome(start.elapsed(), interrupted)? {
                return Err(Failed { reason: self.complaint(how), how });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Whether there is no point in waiting any longer.
    fn outcome(&mut self, waited: Duration, interrupted: &dyn Fn() -> bool) -> Result<Option<How>> {
        let ended = self.child.try_wait().map_err(Error::io("waiting for", "the helper"))?;
        Ok(match ended {
            _ if interrupted() => Some(How::Interrupted),
            // Killed: that says nothing of what it can do.
            Some(status) if status.code().is_none() => Some(How::Late),
            Some(_) => Some(How::Ended),
            None if waited >= WORK && self.worked() >= WORK => Some(How::Busy),
            None if waited >= PATIENCE => Some(How::Late),
            None => None,
        })
    }

    /// The time of a processor that it has had, with its children's.
    fn worked(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // What precedes is the name, which may be anything.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        const USER_TIME: usize = 11;
        let times = fields.skip(USER_TIME).take(4).filter_map(|ticks| ticks.parse::<u64>().ok());
        // The kernel counts in hundredths of a second here, whatever it counts in elsewhere.
        Duration::from_millis(times.sum::<u64>() * 10)
    }

    /// What it said last, or what is to be said of it.
    fn complaint(&self, how: How) -> String {
        let mut text = vec![0; MOST_COMPLAINTS];
        let length = self.complaints.read_at(&mut text, 0).unwrap_or(0);
        let text =
            String::from_utf8_lossy(text[..length].split(|byte| *byte == 0).next().unwrap_or_default());
        if let Some(line) = text.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            return line.to_owned();
        }
        match how {
            How::Ended | How::Interrupted => "it ended without a word".to_owned(),
            How::Busy => format!("it was not ready after {} seconds of work", WORK.as_secs()),
            How::Late => format!("it was not ready within {} seconds", PATIENCE.as_secs()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
