//! Datagrams: each client gets a socket to the container, so that answers find the way back, until both are silent. One
//! thread has all of them. What an answer comes from is the address that was asked: clients take none from elsewhere.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::sys::datagram::{self, Own};

const LARGEST: usize = 64 << 10;
/// As docker's proxy has it.
const SILENCE: Duration = Duration::from_secs(90);
/// How often silent ones are looked for.
const LOOK: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// Of all ports together, and of one. One more takes the place of who has been silent for longest at the same port: senders
/// can be made up, and must not keep others out.
const CLIENTS: usize = 4096;
const CLIENTS_OF_PORT: usize = 1024;
/// Of each port, however many there are: where two speak with one another through a third.
const FEWEST: usize = 2;
const EVENTS: usize = 64;

/// No descriptors.
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// Who asks, and at which of the host's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Way {
    client: SocketAddr,
    own: Option<Own>,
}

struct Client {
    way: Way,
    server: UdpSocket,
    heard: Instant,
}

/// By the number of the socket, which is what the kernel names.
struct Clients {
    waiting: OwnedFd,
    by_socket: HashMap<u64, Client>,
    by_way: HashMap<Way, u64>,
    most: usize,
}

/// How many senders each of so many ports may have at a time.
pub(super) fn share(ports: usize) -> usize {
    (CLIENTS / ports.max(1)).clamp(FEWEST, CLIENTS_OF_PORT)
}

/// `most` is the port's [`share`].
pub(super) fn serve(socket: &UdpSocket, target: SocketAddr, most: usize, stop: &OwnedFd) {
    let Ok(waiting) = epoll::create(epoll::CreateFlags::CLOEXEC) else { return };
    let input = epoll::EventFlags::IN;
    if epoll::add(&waiting, socket, epoll::EventData::new_u64(LISTENER), input).is_err()
        || epoll::add(&waiting, stop, epoll::EventData::new_u64(STOP), input).is_err()
    {
        return;
    }
    let mut clients = Clients { waiting, by_socket: HashMap::new(), by_way: HashMap::new(), most };
    let mut buffer = vec![0; LARGEST];
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        events.clear();
        let limit = (!clients.by_socket.is_empty()).then_some(&LOOK);
        match epoll::wait(&clients.waiting, spare_capacity(&mut events), limit) {
            Ok(0) => clients.forget_silent(),
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return,
        }
        for event in &events {
            match event.data.u64() {
                STOP => return,
                LISTENER => {
                    let received = datagram::receive(socket.as_fd(), &mut buffer);
                    let Ok((length, client, own)) = received else { continue };
                    if let Some(server) = clients.server_of(Way { client, own }, target) {
                        let _ = server.send(&buffer[..length]);
                    }
                }
                number => {
                    let Some(client) = clients.by_socket.get_mut(&number) else { continue };
                    // Refused while the container's program does not listen yet.
                    let Ok(length) = client.server.recv(&mut buffer) else { continue };
                    client.heard = Instant::now();
                    client.way.answer(socket, &buffer[..length]);
                }
            }
        }
    }
}

impl Way {
    fn answer(&self, socket: &UdpSocket, bytes: &[u8]) {
        let sent = self.own.map(|own| datagram::send(socket.as_fd(), bytes, self.client, own));
        // All of a network can be asked at an address that nobody has.
        let is_nobodys = |errno| matches!(errno, Errno::INVAL | Errno::ADDRNOTAVAIL | Errno::NETUNREACH);
        if sent.is_none_or(|sent| sent.is_err_and(is_nobodys)) {
            let _ = socket.send_to(bytes, self.client);
        }
    }
}

impl Clients {
    /// The socket of a client who has sent something.
    fn server_of(&mut self, way: Way, target: SocketAddr) -> Option<&UdpSocket> {
        let number = match self.by_way.get(&way) {
            Some(known) => *known,
            None => {
                if self.by_socket.len() >= self.most {
                    self.forget_silent();
                }
                if self.by_socket.len() >= self.most {
                    self.forget_longest_silent();
                }
                self.add(way, target).or_else(|| {
                    // There may be fewer sockets to be had.
                    self.forget_longest_silent();
                    self.add(way, target)
                })?
            }
        };
        let client = self.by_socket.get_mut(&number)?;
        client.heard = Instant::now();
        Some(&client.server)
    }

    fn add(&mut self, way: Way, target: SocketAddr) -> Option<u64> {
        let server = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
        server.connect(target).ok()?;
        server.set_nonblocking(true).ok()?;
        let number = u64::try_from(server.as_raw_fd()).ok()?;
        epoll::add(&self.waiting, &server, epoll::EventData::new_u64(number), epoll::EventFlags::IN).ok()?;
        self.by_socket.insert(number, Client { way, server, heard: Instant::now() });
        self.by_way.insert(way, number);
        Some(number)
    }

    fn forget_silent(&mut self) {
        self.by_socket.retain(|_, client| client.heard.elapsed() < SILENCE);
        let Clients { by_socket, by_way, .. } = self;
        by_way.retain(|_, number| by_socket.contains_key(number));
    }

    fn forget_longest_silent(&mut self) {
        let longest = self.by_socket.iter().min_by_key(|(_, client)| client.heard);
        if let Some(client) = longest.map(|(number, _)| *number).and_then(|n| self.by_socket.remove(&n)) {
            self.by_way.remove(&client.way);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_share_the_senders_that_there_may_be() {
        assert_eq!([0, 1, 4, 8, 4096, 60_000].map(share), [1024, 1024, 1024, 512, 2, 2]);
    }
}
