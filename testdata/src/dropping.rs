//! A way to a server that ends every connection after so many bytes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Listens on 127.0.0.1 until the test process ends.
#[derive(Debug)]
pub struct Dropping {
    address: String,
    dropped: Arc<AtomicUsize>,
}

impl Dropping {
    /// Each connection to `server` ends after `limit` bytes in one direction.
    pub fn start(server: &str, limit: u64) -> Dropping {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (server, dropped) = (server.to_owned(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&dropped);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&server).unwrap();
                pass_on(&client, &server, limit, &count);
                pass_on(&server, &client, limit, &count);
            }
        });
        Dropping { address, dropped }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many connections it has broken.
    pub fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn pass_on(from: &TcpStream, to: &TcpStream, limit: u64, dropped: &Arc<AtomicUsize>) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let dropped = Arc::clone(dropped);
    std::thread::spawn(move || {
        let (mut buffer, mut left) = (vec![0; 64 << 10], limit);
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match from.read(&mut buffer[..most]) {
                Ok(n) if n > 0 && to.write_all(&buffer[..n]).is_ok() => left -= n as u64,
                // One of them has closed it.
                _ => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
            }
        }
        dropped.fetch_add(1, Ordering::Relaxed);
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
