//! Datagrams: each client gets a socket to the container, so that answers find the way back, until both are silent.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::{STACK, is_ready};

const LARGEST: usize = 64 << 10;
/// As docker's proxy has it.
const SILENCE: Duration = Duration::from_secs(90);
/// What more of them send at a time is lost, as datagrams may be.
const CLIENTS: usize = 1024;

type Clients = Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>;

pub(super) fn serve(socket: &UdpSocket, target: SocketAddr, stop: &OwnedFd) {
    let Ok(answering) = socket.try_clone().map(Arc::new) else { return };
    let clients: Arc<Clients> = Arc::default();
    let mut buffer = vec![0; LARGEST];
    while is_ready(socket, stop) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        let known = lock(&clients).get(&client).cloned();
        let server = known.or_else(|| add(&clients, client, target, &answering));
        if let Some(server) = server {
            let _ = server.send(&buffer[..length]);
        }
    }
}

fn add(
    clients: &Arc<Clients>,
    client: SocketAddr,
    target: SocketAddr,
    answering: &Arc<UdpSocket>,
) -> Option<Arc<UdpSocket>> {
    if lock(clients).len() >= CLIENTS {
        return None;
    }
    let server = UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    server.connect(target).ok()?;
    server.set_read_timeout(Some(SILENCE)).ok()?;
    let server = Arc::new(server);
    lock(clients).insert(client, Arc::clone(&server));
    let (from, to, clients_) = (Arc::clone(&server), Arc::clone(answering), Arc::clone(clients));
    let thread = std::thread::Builder::new().name("port".into()).stack_size(STACK);
    let started = thread.spawn(move || {
        let mut buffer = vec![0; LARGEST];
        // Refused while the container's program does not listen yet; its end is that of the silence.
        while let Some(length) = receive(&from, &mut buffer) {
            let _ = to.send_to(&buffer[..length], client);
        }
        lock(&clients_).remove(&client);
    });
    if started.is_err() {
        lock(clients).remove(&client);
        return None;
    }
    Some(server)
}

fn receive(from: &UdpSocket, buffer: &mut [u8]) -> Option<usize> {
    loop {
        match from.recv(buffer) {
            Ok(length) => return Some(length),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn lock(clients: &Clients) -> MutexGuard<'_, HashMap<SocketAddr, Arc<UdpSocket>>> {
    clients.lock().unwrap_or_else(|e| e.into_inner())
}
