//! Published ports: what arrives at a port of the host is passed on to the container, and back, by threads of ours. They
//! end with the process, so nothing is left in the host's packet filter, whatever ends it; and they serve the host's
//! loopback and containers without root as well. A container sees the connections as coming from its gateway, or, behind
//! a helper, from itself.

mod tcp;
mod udp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::{Connection, Held, namespace};
use crate::error::{Error, Result};

/// A port of the container, and which of the host's stands for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// None for all addresses.
    pub host: Option<IpAddr>,
    /// The first and the last; the first that is free is taken. Zero is any.
    pub host_ports: (u16, u16),
    pub container: u16,
    pub transport: Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

/// A port of the container that is reached at `host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    pub host: SocketAddr,
    pub container: u16,
    pub transport: Transport,
}

/// Ports are passed on as long as this value lives; connections that were made last until one side ends them.
#[derive(Debug)]
pub struct Published {
    pub ports: Vec<Reached>,
    /// How many files this process could have open before: every port and connection takes some, so that is as many as
    /// may be now. A container is to have what it would have without ports.
    pub files_before: (Resource, Rlimit),
    /// Closed to end the threads.
    _running: OwnedFd,
}

/// Ports of the host that nobody else can take any more.
enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Published {
    /// Takes the ports of the host, and passes on from now on.
    ///
    /// # Errors
    /// When one of them can't be had; then none is taken.
    pub fn start(ports: &[Port], connection: &Connection) -> Result<Published> {
        let files_before = (Resource::Nofile, raise_limit_of_files());
        let mut bound = Vec::new();
        for port in ports {
            let taken = take(port)?;
            bound.push((taken.address().map_err(Error::io("looking at", "a published port"))?, port, taken));
        }
        let (stop, running) =
            pipe_with(PipeFlags::CLOEXEC).map_err(Error::io("making a pipe for", "published ports"))?;
        let stop = Arc::new(stop);
        // A helper lets nobody in, so its container is spoken to from inside.
        let inside = matches!(connection.held, Held::Helper(_)).then(|| Arc::clone(&connection.namespace));
        let reached = bound.iter().map(|(host, port, _)| Reached {
            host: *host,
            container: port.container,
            transport: port.transport,
        });
        let reached = reached.collect();
        let udp = bound.iter().filter(|(_, port, _)| port.transport == Transport::Udp).count();
        let (most, mut listeners) = (udp::share(udp), Vec::new());
        for (_, port, taken) in bound {
            let target = SocketAddr::from((connection.address(), port.container));
            match taken {
                Bound::Tcp(listener) => listeners.push((listener, target)),
                Bound::Udp(socket) => {
                    let stop = Arc::clone(&stop);
                    start(move || udp::serve(&socket, target, most, &stop), inside.clone())?;
                }
            }
        }
        if !listeners.is_empty() {
            start(move || tcp::serve(&listeners, &stop), inside)?;
        }
        Ok(Published { ports: reached, files_before, _running: running })
    }
}

/// What was allowed before.
fn raise_limit_of_files() -> Rlimit {
    let before = getrlimit(Resource::Nofile);
    // Where it is refused there are fewer.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before });
    before
}

fn start(serve: impl FnOnce() + Send + 'static, inside: Option<Arc<OwnedFd>>) -> Result<()> {
    let thread = std::thread::Builder::new().name("port".into()).stack_size(STACK);
    let started = thread.spawn(move || match inside.map(|namespace| namespace::enter(namespace.as_fd())) {
        None | Some(Ok(())) => serve(),
        // The namespace was ours to make, so it can be entered.
        Some(Err(_)) => {}
    });
    started.map(drop).map_err(Error::io("starting a thread for", "a published port"))
}

/// Of threads that pass bytes on.
const STACK: usize = 128 << 10;
/// Clients that wait until they are accepted; the kernel has a limit of its own.
const BACKLOG: i32 = 4096;

impl Bound {
    fn address(&self) -> std::io::Result<SocketAddr> {
        match self {
            Bound::Tcp(listener) => listener.local_addr(),
            Bound::Udp(socket) => socket.local_addr(),
        }
    }
}

fn take(port: &Port) -> Result<Bound> {
    let (first, last) = port.host_ports;
    let mut refused = None;
    for number in first..=last {
        match take_one(port, number) {
            Ok(bound) => return Ok(bound),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(not_bound(port, refused.unwrap_or(Errno::ADDRINUSE)))
}

fn take_one(port: &Port, number: u16) -> Result<Bound, Errno> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    match port.host {
        Some(host) => take_at((host, number).into(), true, port.transport),
        // One socket for both kinds of addresses, where there are both.
        None => match take_at((Ipv6Addr::UNSPECIFIED, number).into(), false, port.transport) {
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {
                take_at((any, number).into(), true, port.transport)
            }
            taken => taken,
        },
    }
}

/// `alone`: an address of IPv6 is not to stand for those of IPv4 as well, whatever the host's default is.
fn take_at(address: SocketAddr, alone: bool, transport: Transport) -> Result<Bound, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let kind = if transport == Transport::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, alone)?;
    }
    if transport == Transport::Udp {
        crate::sys::datagram::tell_addresses(socket.as_fd(), address.is_ipv6())?;
        bind(&socket, &address)?;
        return Ok(Bound::Udp(socket.into()));
    }
    // What was said to a listener that has gone is no reason to wait.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(Bound::Tcp(socket.into()))
}

/// In the words in which docker says so.
fn not_bound(port: &Port, errno: Errno) -> Error {
    let host = port.host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let (first, last) = port.host_ports;
    let numbers = if first == last { first.to_string() } else { format!("{first}-{last}") };
    let (reason, help) = match errno {
        Errno::ADDRINUSE => ("address already in use".to_owned(), String::new()),
        Errno::ACCESS => (
            "permission denied".to_owned(),
            format!("; as root: sysctl -w net.ipv4.ip_unprivileged_port_start={first}"),
        ),
        _ => (errno.to_string(), String::new()),
    };
    let host = if host.is_ipv6() { format!("[{host}]") } else { host.to_string() };
    let transport = port.transport;
    Error::start(125, format!("failed to bind host port {host}:{numbers}/{transport}: {reason}{help}"))
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        })
    }
}

/// Waits until there is something to read, and tells where; None when it is time to end.
fn wait_for<'a>(sockets: impl Iterator<Item = BorrowedFd<'a>>, stop: &OwnedFd) -> Option<Vec<usize>> {
    let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
    fds.extend(sockets.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)));
    loop {
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(_) => return None,
            Ok(_) if !fds[0].revents().is_empty() => return None,
            Ok(_) => {
                let ready = |(n, fd): (usize, &PollFd<'_>)| (!fd.revents().is_empty()).then_some(n);
                return Some(fds[1..].iter().enumerate().filter_map(ready).collect());
            }
        }
    }
}
