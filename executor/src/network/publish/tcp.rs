//! Connections: two threads each, one for either direction. When one side has said all, the other may still speak.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::{STACK, is_ready};

const CHUNK: usize = 64 << 10;
/// The container is on this machine; who does not answer by then is not there.
const PATIENCE: Duration = Duration::from_secs(10);
/// After an error of ours, such as too many open files, until there may be room again.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn serve(listener: &TcpListener, target: SocketAddr, stop: &OwnedFd) {
    // A client may have gone between the word of it and the accepting.
    let _ = listener.set_nonblocking(true);
    while is_ready(listener, stop) {
        match listener.accept() {
            Ok((client, _)) => {
                let _ = client.set_nonblocking(false);
                let thread = std::thread::Builder::new().name("port".into()).stack_size(STACK);
                // Without a thread the connection is closed, which its client sees.
                let _ = thread.spawn(move || join(client, target));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn join(client: TcpStream, target: SocketAddr) {
    let Ok(server) = TcpStream::connect_timeout(&target, PATIENCE) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
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
