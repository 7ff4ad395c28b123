//! Without root: a program of the host (slirp4netns, pasta) that takes what a container sends and sends it itself, as
//! any program may. One that does not start in time is remembered as broken until it or the kernel is another one.

use std::fs::File;
use std::io::{Read, Seek};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::link::Links;
use super::namespace::{self, failed};
use super::{Connection, Held, PROGRAMS, bridge, program};
use crate::error::{Error, Result};
use crate::spawner;

/// The addresses that slirp4netns gives, and that pasta is told to give.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

const INTERFACE: &str = "eth0";
/// They take some hundredths of a second.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(1);
/// What is in the way of the directory's other files.
const MEMORY: &str = "network-helpers";

/// In the order of preference: the host's loopback stays out of reach with either, and its name servers within.
const HELPERS: [(&str, &[&str]); 2] = [
    (
        "pasta",
        &[
            "--foreground",
            "--quiet",
            "--config-net",
            "--ipv4-only",
            "--no-map-gw",
            "--ns-ifname",
            "eth0",
            "--address",
            "10.0.2.100",
            "--netmask",
            "24",
            "--gateway",
            "10.0.2.2",
            "--dns-forward",
            "10.0.2.3",
            "--tcp-ports",
            "none",
            "--udp-ports",
            "none",
            "--tcp-ns",
            "none",
            "--udp-ns",
            "none",
            "--netns",
            "/proc/self/fd/0",
        ],
    ),
    (
        "slirp4netns",
        &[
            "--configure",
            "--mtu=65520",
            "--disable-host-loopback",
            "--enable-sandbox",
            "--enable-seccomp",
            "--exit-fd=1",
            "--netns-type=path",
            "/proc/self/fd/0",
            "eth0",
        ],
    ),
];

/// Why there is no connection.
struct Failed {
    reason: String,
    /// After a long wait, that is.
    late: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { reason: error.to_string(), late: false }
    }
}

/// Ended with this value.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    name: &'static str,
    /// slirp4netns ends when this is closed, whatever closes it.
    _held_open: OwnedFd,
    complaints: File,
}

pub(super) fn connect(memory: &Path) -> Result<Connection> {
    let mut reasons = Vec::new();
    for (name, args) in HELPERS {
        let Some(path) = program(name) else {
            reasons.push(format!("{name} is not installed"));
            continue;
        };
        let state = state(&path)?;
        if is_broken(memory, &state) {
            reasons.push(format!("{name} did not work here before"));
            continue;
        }
        match start(name, &path, args) {
            Ok(connection) => return Ok(connection),
            Err(Failed { reason, late }) => {
                // What fails at once costs nothing to be tried again, and may be mended by then.
                if late {
                    remember(memory, &state);
                }
                reasons.push(format!("{name}: {reason}"));
            }
        }
    }
    Err(Error::Unsupported(reasons.join("; ")))
}

fn start(name: &'static str, path: &Path, args: &[&str]) -> Result<Connection, Failed> {
    let (namespace, mut links) = namespace::make(|_| {
        bridge::furnish()?;
        Links::open().map_err(failed("looking into the network namespace"))
    })?;
    let mut running = Running::start(name, path, args, &namespace)?;
    running.wait(&mut links)?;
    Ok(Connection {
        namespace: Arc::new(namespace),
        address: ADDRESS,
        gateway: GATEWAY,
        name_server: Some(NAME_SERVER),
        held: Held::Helper(running),
    })
}

impl Running {
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    fn start(name: &'static str, path: &Path, args: &[&str], namespace: &OwnedFd) -> Result<Running> {
        let starting = "starting";
        let complaints = memfd_create(c"helper", MemfdFlags::CLOEXEC).map_err(Error::io(starting, path))?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(Error::io(starting, path))?;
        let copy = |fd: &OwnedFd| fd.try_clone().map_err(Error::io(starting, path));
        let mut command = Command::new(path);
        command.args(args).env_clear().env("PATH", PROGRAMS.join(":")).current_dir("/");
        command.stdin(copy(namespace)?).stdout(Stdio::from(theirs)).stderr(copy(&complaints)?);
        let child = command.spawn().map_err(Error::io(starting, path))?;
        let running = Running { name, child, _held_open: ours, complaints: complaints.into() };
        let pid = rustix::process::Pid::from_child(&running.child);
        if let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
            spawner::end_with_us(process.as_fd());
        }
        Ok(running)
    }

    /// Until the namespace has its interface.
    fn wait(&mut self, links: &mut Links) -> Result<(), Failed> {
        let deadline = Instant::now() + PATIENCE;
        let doing = "looking into the network namespace";
        loop {
            if let Some(interface) = links.find(INTERFACE).map_err(failed(doing))?
                && links.address(interface).map_err(failed(doing))?.is_some()
                && links.routes().map_err(failed(doing))?.1.is_some()
            {
                return Ok(());
            }
            let ended = self.child.try_wait().map_err(Error::io("waiting for", "the helper"))?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(Failed { reason: self.complain(ended.is_some()), late: ended.is_none() });
            }
            std::thread::sleep(LOOK);
        }
    }

    fn complain(&mut self, ended: bool) -> String {
        let mut text = String::new();
        let read = self.complaints.rewind().and_then(|()| self.complaints.read_to_string(&mut text));
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        match (ended, read.ok().and(last)) {
            (_, Some(line)) => line.to_owned(),
            (true, None) => "it ended without a word".to_owned(),
            (false, None) => format!("it was not ready within {} seconds", PATIENCE.as_secs()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Which program it is, on which kernel.
fn state(path: &Path) -> Result<String> {
    let file = std::fs::metadata(path).map_err(Error::io("looking at", path))?;
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    Ok(format!("{} {} {} {release}", path.display(), file.size(), file.mtime()))
}

fn is_broken(memory: &Path, state: &str) -> bool {
    std::fs::read_to_string(memory.join(MEMORY)).is_ok_and(|text| text.lines().any(|line| line == state))
}

/// If it can't be kept, the next one waits as we did.
fn remember(memory: &Path, state: &str) {
    use std::io::Write;
    let file = File::options().append(true).create(true).open(memory.join(MEMORY));
    let _ = file.and_then(|mut file| file.write_all(format!("{state}\n").as_bytes()));
}
