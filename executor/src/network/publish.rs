//! Published ports: what arrives at a port of the host is passed on to the container, and back, by threads of ours. They
//! end with the process, so nothing is left in the host's packet filter, whatever ends it; and they serve the host's
//! loopback and containers without root as well. A container sees the connections as coming from its gateway, or, behind
//! a helper, from itself.

mod tcp;
mod udp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
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
        let mut bound = Vec::new();
        for port in ports {
            let taken = bind(port)?;
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
        for (_, port, taken) in bound {
            let target = SocketAddr::from((connection.address(), port.container));
            let stop = Arc::clone(&stop);
            let serve = move || match taken {
                Bound::Tcp(listener) => tcp::serve(&listener, target, &stop),
                Bound::Udp(socket) => udp::serve(&socket, target, &stop),
            };
            start(serve, inside.clone())?;
        }
        Ok(Published { ports: reached, _running: running })
    }
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

impl Bound {
    fn address(&self) -> std::io::Result<SocketAddr> {
        match self {
            Bound::Tcp(listener) => listener.local_addr(),
            Bound::Udp(socket) => socket.local_addr(),
        }
    }
}

fn bind(port: &Port) -> Result<Bound> {
    let (first, last) = port.host_ports;
    let mut refused = None;
    for number in first..=last {
        match bind_one(port, number) {
            Ok(bound) => return Ok(bound),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let error = refused.unwrap_or_else(|| Errno::ADDRINUSE.into());
    Err(not_bound(port, &error))
}

fn bind_one(port: &Port, number: u16) -> std::io::Result<Bound> {
    let Some(host) = port.host else {
        // One socket for both kinds of addresses, where there are both.
        let both = bind_at(IpAddr::V6(Ipv6Addr::UNSPECIFIED), number, port.transport);
        let only = [libc::EAFNOSUPPORT, libc::EADDRNOTAVAIL];
        return match both {
            Err(error) if error.raw_os_error().is_some_and(|errno| only.contains(&errno)) => {
                bind_at(IpAddr::V4(Ipv4Addr::UNSPECIFIED), number, port.transport)
            }
            bound => bound,
        };
    };
    bind_at(host, number, port.transport)
}

fn bind_at(host: IpAddr, number: u16, transport: Transport) -> std::io::Result<Bound> {
    match transport {
        Transport::Tcp => TcpListener::bind((host, number)).map(Bound::Tcp),
        Transport::Udp => UdpSocket::bind((host, number)).map(Bound::Udp),
    }
}

/// In the words in which docker says so.
fn not_bound(port: &Port, error: &std::io::Error) -> Error {
    let host = port.host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let (first, last) = port.host_ports;
    let numbers = if first == last { first.to_string() } else { format!("{first}-{last}") };
    let (reason, help) = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => ("address already in use".to_owned(), String::new()),
        Some(libc::EACCES) => (
            "permission denied".to_owned(),
            format!("; as root: sysctl -w net.ipv4.ip_unprivileged_port_start={first}"),
        ),
        _ => (error.to_string(), String::new()),
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

/// Waits until there is something to read; false when it is time to end.
fn is_ready(socket: impl AsFd, stop: &OwnedFd) -> bool {
    loop {
        let mut fds = [PollFd::new(&socket, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) => return fds[1].revents().is_empty(),
        }
    }
}
