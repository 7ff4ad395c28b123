//! Connections: two threads each, one for either direction. When one side has said all, the other may still speak.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::sockopt;
use rustix::process::{Resource, getrlimit};

use super::{STACK, wait_for};

/// At a time; who comes then waits in the kernel's queue until somebody has gone.
const CONNECTIONS: u64 = 1024;
/// That a connection takes, and that are needed for other things.
const FILES: (u64, u64) = (2, 128);
/// Of bytes on their way in one direction: twice this for each connection is 64 MiB for all that there may be.
const CHUNK: usize = 32 << 10;
/// The container is on this machine; who does not answer by then is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// After an error of ours, such as too little memory, until there may be room again.
const PAUSE: Duration = Duration::from_millis(50);
/// Who says nothing for so long is asked whether they are still there: who has gone without a word must not keep a place.
const QUESTION: Duration = Duration::from_secs(15);

/// `listeners` with what they stand for.
pub(super) fn serve(listeners: &[(TcpListener, SocketAddr)], stop: &OwnedFd) {
    let Some(places) = places(listeners.len()) else { return };
    loop {
        let vacant = std::iter::once(places.as_fd());
        if wait_for(vacant, stop).is_none() {
            return;
        }
        let Some(ready) = wait_for(listeners.iter().map(|(listener, _)| listener.as_fd()), stop) else {
            return;
        };
        for (listener, target) in ready.into_iter().map(|n| &listeners[n]) {
            let Some(place) = Place::take(&places) else { break };
            match listener.accept() {
                Ok((client, _)) => {
                    let target = *target;
                    let thread = std::thread::Builder::new().name("port".into()).stack_size(STACK);
                    // Without a thread the connection is closed, which its client sees.
                    let _ = thread.spawn(move || join(client, target, place));
                }
                // A client may have gone between the word of it and the accepting.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// A semaphore that can be waited for together with other things.
fn places(listeners: usize) -> Option<Arc<OwnedFd>> {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = files.saturating_sub(FILES.1 + listeners as u64) / FILES.0;
    let places = u32::try_from(room.clamp(1, CONNECTIONS)).unwrap_or(1);
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
    eventfd(places, flags).ok().map(Arc::new)
}

/// Given back when it is dropped.
struct Place(Arc<OwnedFd>);

impl Place {
    fn take(places: &Arc<OwnedFd>) -> Option<Place> {
        rustix::io::read(places, &mut [0; 8]).ok().map(|_| Place(Arc::clone(places)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// The place is vacant when both directions have ended.
fn join(client: TcpStream, target: SocketAddr, _place: Place) {
    let Ok(server) = TcpStream::connect_timeout(&target, PATIENCE) else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(stream, true);
        let _ = (sockopt::set_tcp_keepidle(stream, QUESTION), sockopt::set_tcp_keepintvl(stream, QUESTION));
    }
    let (client, server) = (Arc::new(client), Arc::new(server));
    let (from, to) = (Arc::clone(&server), Arc::clone(&client));
    let thread = std::thread::Builder::new().name("port".into()).stack_size(STACK);
    let Ok(back) = thread.spawn(move || pass_on(&from, &to)) else { return };
    pass_on(&client, &server);
    let _ = back.join();
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) if to.write_all(&buffer[..length]).is_ok() => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // Nobody takes what is left, so nobody should send it.
            _ => {
                let _ = from.shutdown(Shutdown::Both);
                break;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
