//! A socket in the container behind which an ssh agent of the host answers, or we do with keys from files. A step may ask for keys and signatures;
//! whatever else it asks for is refused here: no key is added, removed or locked by a build.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Scope;

use boxwright_cache::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, acceptfrom_with, recv, send, socket_with,
};

use crate::error::{Error, Result};
use crate::secret::Agent;
use crate::ssh_key::{self, SshKey};

/// Forwards connections to one agent until it is told to stop.
#[derive(Debug)]
pub(crate) struct Proxy {
    listener: OwnedFd,
    agent: Agent,
    connections: AtomicUsize,
}

/// The numbers of draft-ietf-sshm-ssh-agent.
const IDENTITIES: u8 = 11;
const SIGN: u8 = 13;
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
/// More than any agent takes.
const MAX_MESSAGE: u32 = 256 << 10;
const MAX_CONNECTIONS: usize = 64;
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

impl Proxy {
    /// The proxy, and the socket that is to be bound and listened at in the container.
    pub(crate) fn new(agent: &Agent) -> Result<(Proxy, OwnedFd)> {
        let doing = "making the socket of an ssh agent";
        // A wait is for poll alone.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(Error::io(doing, ""))?;
        let socket = listener.try_clone().map_err(Error::io(doing, ""))?;
        Ok((Proxy { listener, agent: agent.clone(), connections: AtomicUsize::new(0) }, socket))
    }

    /// Returns once `stop` is raised; so do the connections' own threads.
    pub(crate) fn serve<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, stop: &'scope Cancel) {
        while readable(&self.listener, stop) {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let client = match acceptfrom_with(&self.listener, flags) {
                Ok((client, _)) => client,
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => continue,
                // Such as too many open files: it is readable still, and there may be room in a while.
                Err(_) => {
                    let _ = poll(&mut [PollFd::new(stop, PollFlags::IN)], Some(&PAUSE));
                    continue;
                }
            };
            if self.connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                self.connections.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            scope.spawn(move || {
                // A connection that fails is closed, as by an agent that goes away.
                let _ = self.forward(&client, stop);
                self.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    fn forward(&self, client: &OwnedFd, stop: &Cancel) -> Result<(), Errno> {
        let mut answers = Answers::of(&self.agent)?;
        while let Some(request) = read_message(client, stop)? {
            let kind = request.get(4).copied().unwrap_or_default();
            let answer = match kind {
                IDENTITIES | SIGN => answers.ask(&request, stop)?,
                _ => Some(FAILURE.to_vec()),
            };
            let Some(answer) = answer else { return Ok(()) };
            write_all(client, &answer, stop)?;
        }
        Ok(())
    }
}

/// Where the answers of one connection come from.
enum Answers<'a> {
    Agent(UnixStream),
    Keys(&'a [SshKey]),
}

impl<'a> Answers<'a> {
    fn of(agent: &'a Agent) -> Result<Answers<'a>, Errno> {
        let errno = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
        match agent {
            Agent::Keys(keys) => Ok(Answers::Keys(keys)),
            Agent::Socket(path) => {
                let stream = UnixStream::connect(path).map_err(errno)?;
                stream.set_nonblocking(true).map_err(errno)?;
                Ok(Answers::Agent(stream))
            }
        }
    }

    /// None when the agent has gone.
    fn ask(&mut self, request: &[u8], stop: &Cancel) -> Result<Option<Vec<u8>>, Errno> {
        let keys = match self {
            Answers::Agent(agent) => {
                write_all(agent, request, stop)?;
                return read_message(agent, stop);
            }
            Answers::Keys(keys) => keys,
        };
        let answer = match request.split_at_checked(5) {
            Some(([.., IDENTITIES], _)) => Some(ssh_key::identities(keys)),
            Some((_, rest)) => ssh_key::sign(keys, rest),
            None => None,
        };
        Ok(Some(answer.map_or_else(
            || FAILURE.to_vec(),
            |answer| [&u32::try_from(answer.len()).unwrap_or(u32::MAX).to_be_bytes()[..], &answer].concat(),
        )))
    }
}

/// A whole message with its length in front; none at the end of the stream.
fn read_message(from: &impl AsFd, stop: &Cancel) -> Result<Option<Vec<u8>>, Errno> {
    let mut message = vec![0; 4];
    if !read_exact(from, &mut message, stop)? {
        return Ok(None);
    }
    let length = u32::from_be_bytes([message[0], message[1], message[2], message[3]]);
    if length == 0 || length > MAX_MESSAGE {
        return Err(Errno::MSGSIZE);
    }
    message.resize(4 + length as usize, 0);
    Ok(read_exact(from, &mut message[4..], stop)?.then_some(message))
}

fn read_exact(from: &impl AsFd, mut buffer: &mut [u8], stop: &Cancel) -> Result<bool, Errno> {
    while !buffer.is_empty() {
        if !readable(from, stop) {
            return Ok(false);
        }
        match recv(from, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => return Ok(false),
            Ok((read, _)) => buffer = &mut buffer[read..],
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

fn write_all(to: &impl AsFd, mut bytes: &[u8], stop: &Cancel) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match send(to, bytes, SendFlags::NOSIGNAL) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::AGAIN | Errno::INTR) if ready(to, PollFlags::OUT, stop) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn readable(fd: &impl AsFd, stop: &Cancel) -> bool {
    ready(fd, PollFlags::IN, stop)
}

/// False when it is time to stop.
fn ready(fd: &impl AsFd, wanted: PollFlags, stop: &Cancel) -> bool {
    let mut fds = [PollFd::new(fd, wanted), PollFd::new(stop, PollFlags::IN)];
    // An interrupted wait is repeated by whoever finds nothing to read.
    let waited = poll(&mut fds, None);
    matches!(waited, Ok(_) | Err(Errno::INTR)) && !stop.is_raised()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    /// Stops the proxy when a test fails, too: its thread is waited for.
    struct Raise<'a>(&'a Cancel);

    impl Drop for Raise<'_> {
        fn drop(&mut self) {
            self.0.raise();
        }
    }

    /// An agent that answers one request with itself.
    fn echo(listener: &UnixListener) -> Vec<u8> {
        let mut stream = listener.accept().unwrap().0;
        let mut request = [0; 5];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(&request).unwrap();
        request.to_vec()
    }

    #[test]
    fn only_harmless_requests_reach_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let (agent, socket) = (dir.path().join("agent"), dir.path().join("socket"));
        let real = UnixListener::bind(&agent).unwrap();
        let (proxy, bound) = Proxy::new(&Agent::Socket(agent)).unwrap();
        rustix::net::bind(&bound, &rustix::net::SocketAddrUnix::new(&socket).unwrap()).unwrap();
        rustix::net::listen(&bound, 8).unwrap();
        let stop = Cancel::new().unwrap();
        std::thread::scope(|scope| {
            let _raise = Raise(&stop);
            scope.spawn(|| proxy.serve(scope, &stop));
            let seen = scope.spawn(|| echo(&real));
            let mut client = UnixStream::connect(&socket).unwrap();
            let mut answer = [0; 5];
            for kind in [17, 18, 19, 22, 25, 27] {
                client.write_all(&[0, 0, 0, 1, kind]).unwrap();
                client.read_exact(&mut answer).unwrap();
                assert_eq!(answer, FAILURE, "{kind}");
            }
            client.write_all(&[0, 0, 0, 1, IDENTITIES]).unwrap();
            client.read_exact(&mut answer).unwrap();
            assert_eq!(seen.join().unwrap(), [0, 0, 0, 1, IDENTITIES]);
            let mut huge = UnixStream::connect(&socket).unwrap();
            huge.write_all(&[0xff; 5]).unwrap();
            assert_eq!(huge.read(&mut answer).unwrap_or_default(), 0, "the connection is closed");
        });
    }

    #[test]
    fn what_can_not_be_accepted_is_not_tried_all_the_time() {
        // Nothing listens at it, so it is readable for ever, and gives nobody.
        let (proxy, _bound) = Proxy::new(&Agent::Keys(Vec::new().into())).unwrap();
        let stop = Cancel::new().unwrap();
        let worked = std::thread::scope(|scope| {
            let _raise = Raise(&stop);
            let serving = scope.spawn(|| {
                std::thread::scope(|inner| proxy.serve(inner, &stop));
                rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime)
            });
            std::thread::sleep(std::time::Duration::from_millis(300));
            stop.raise();
            serving.join().unwrap()
        });
        assert!(worked.tv_sec == 0 && worked.tv_nsec < 50_000_000, "{worked:?} of work");
    }
}
