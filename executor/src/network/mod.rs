//! Networks of containers: the host's, none, one of their own that is joined to the world, or another container's. Root
//! gets a [`bridge`], others a program of the host ([`userspace`]) that speaks for the container as an ordinary program.

mod bridge;
mod firewall;
mod link;
mod names;
mod namespace;
mod netlink;
mod publish;
mod resolver;
mod subnet;
mod userspace;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

pub(crate) use bridge::attempt as attempt_bridge;
pub use bridge::remove_unused as remove_unused_bridge;
pub use firewall::advice as packet_filter_advice;
pub use names::{HOST_GATEWAY, NameFiles, Names};
pub use publish::{Port, Published, Reached, Transport};
pub use resolver::Resolver;

use crate::error::{Error, Result};
use crate::idmap;
use crate::nested::Nested;
use crate::spec::Network;

/// What the bridge is called.
pub const BRIDGE: &str = "boxwright0";

/// Where programs of the host are looked for: not where its users say, for some are started by root.
const PROGRAMS: [&str; 7] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/run/current-system/sw/bin",
];

/// What is in the way of the directory's other files.
const SAID: &str = "network-said";
/// How often somebody who waits for a connection looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// Asked while something is waited for: whether nobody wants it any more.
type Interrupted<'a> = &'a (dyn Fn() -> bool + Sync);

fn program(name: &str) -> Option<PathBuf> {
    PROGRAMS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

/// A network namespace that is joined to the world, for one container at a time. Ends with this value, as soon as no
/// process is left in it.
#[derive(Debug)]
pub struct Connection {
    namespace: Arc<OwnedFd>,
    address: Ipv4Addr,
    host: Ipv4Addr,
    name_server: Option<Ipv4Addr>,
    warning: Option<String>,
    held: Held,
}

/// What a connection needs besides its namespace.
#[derive(Debug)]
enum Held {
    Address(#[expect(dead_code, reason = "held")] subnet::Address),
    Helper(userspace::Running),
}

impl Connection {
    /// Its own address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where the host is, as the container sees it.
    pub fn host(&self) -> Ipv4Addr {
        self.host
    }

    /// Who answers for the host's name servers; None where those are reached themselves.
    pub fn name_server(&self) -> Option<Ipv4Addr> {
        self.name_server
    }

    /// The program that it is owed to; none where that is the kernel.
    pub(crate) fn helper(&self) -> Option<&'static str> {
        match &self.held {
            Held::Address(_) => None,
            Held::Helper(running) => Some(running.name()),
        }
    }

    /// Why it leads nowhere, said once to who asks.
    pub fn warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// A helper may have ended meanwhile, or been ended.
    fn is_alive(&mut self) -> bool {
        match &mut self.held {
            Held::Address(_) => true,
            Held::Helper(running) => running.is_alive(),
        }
    }

    pub fn network(&self) -> Network {
        Network::Joined(Arc::clone(&self.namespace))
    }
}

/// The connections of one process. A build's steps use them one after the other, as none of them has the right to
/// change its network.
#[derive(Debug)]
pub struct Networks {
    /// A directory in which to keep which helpers work, and what was said.
    memory: PathBuf,
    free: Mutex<Vec<Connection>>,
    refused: OnceLock<String>,
    begun: Mutex<Option<Begun>>,
}

/// A connection that a thread makes.
#[derive(Debug)]
struct Begun {
    made: Receiver<Result<Connection>>,
    unwanted: Arc<AtomicBool>,
}

impl Networks {
    pub fn new(memory: impl Into<PathBuf>) -> Networks {
        let (free, refused, begun) = (Mutex::default(), OnceLock::new(), Mutex::default());
        Networks { memory: memory.into(), free, refused, begun }
    }

    /// Begins to make the connection that is asked for next: it takes about as long as whatever else is done for a
    /// container before that.
    pub fn begin(&self) {
        let (memory, unwanted) = (self.memory.clone(), Arc::new(AtomicBool::new(false)));
        let (begun, (tell, made)) = (Arc::clone(&unwanted), channel());
        let thread = namespace::thread().spawn(move || {
            let interrupted = || begun.load(Ordering::Relaxed);
            let connection = if idmap::in_user_namespace() {
                userspace::connect(&memory, None, &interrupted)
            } else {
                bridge(&interrupted)
            };
            // Whoever began it waits for it, or does not want it.
            let _ = tell.send(connection);
        });
        // Where there is no thread to be had, the connection is made when it is asked for.
        let begun = thread.is_ok().then_some(Begun { made, unwanted });
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = begun;
    }

    /// One that nobody uses, owned by the container's user namespace where that is one of its own. `interrupted` is asked while
    /// something is waited for.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where this machine has none to give, which is said again without another try; else whatever
    /// went wrong this time, or [`Error::Cancelled`].
    pub fn connect(
        &self,
        nested: Option<&Nested>,
        interrupted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Connection> {
        if let Some(reason) = self.refused.get() {
            return Err(Error::Unsupported(reason.clone()));
        }
        if let Some(Nested { network, .. }) = nested {
            return self.remember_refusal(userspace::connect(&self.memory, Some(network), interrupted));
        }
        while let Some(mut connection) = self.take_free() {
            if connection.is_alive() {
                return Ok(connection);
            }
        }
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        let made = match begun {
            Some(begun) => begun.wait(interrupted),
            None if idmap::in_user_namespace() => userspace::connect(&self.memory, None, interrupted),
            None => namespace::in_thread(|| bridge(interrupted)),
        };
        self.remember_refusal(made)
    }

    fn remember_refusal(&self, made: Result<Connection>) -> Result<Connection> {
        made.inspect_err(|error| {
            if let Error::Unsupported(reason) = error {
                let _ = self.refused.set(reason.clone());
            }
        })
    }

    fn take_free(&self) -> Option<Connection> {
        self.lock().pop()
    }

    /// For the next one. Only what was used by a container without rights over its network may come back.
    pub fn give_back(&self, connection: Connection) {
        self.lock().push(connection);
    }

    /// Whether this is another thing than what was said last to users of the same directory.
    pub fn is_news(&self, text: &str) -> bool {
        let path = self.memory.join(SAID);
        if std::fs::read_to_string(&path).is_ok_and(|said| said == text) {
            return false;
        }
        // If it can't be kept it is said again.
        let _ = std::fs::write(path, text);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.free.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Begun {
    fn wait(self, interrupted: &dyn Fn() -> bool) -> Result<Connection> {
        loop {
            match self.made.recv_timeout(LOOK) {
                // Who has asked to end gets none, though it was made.
                Ok(_) if self.unwanted.load(Ordering::Relaxed) => return Err(Error::Cancelled),
                Ok(made) => return made,
                Err(RecvTimeoutError::Timeout) if interrupted() => {
                    self.unwanted.store(true, Ordering::Relaxed)
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let doing = "making a network for the container".to_owned();
                    return Err(Error::Setup { doing, reason: "its thread broke off".to_owned() });
                }
            }
        }
    }
}

impl Drop for Networks {
    /// What was begun and not asked for is taken back, not left to whoever comes next.
    fn drop(&mut self) {
        let begun = self.begun.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        drop(begun.map(|begun| begun.wait(&|| true)));
    }
}

/// For a thread that ends with this: it leaves its network.
fn bridge(interrupted: Interrupted<'_>) -> Result<Connection> {
    let plugged = bridge::plug(interrupted)?;
    Ok(Connection {
        namespace: Arc::new(plugged.namespace),
        address: plugged.address.address,
        host: plugged.gateway,
        name_server: None,
        warning: plugged.warning,
        held: Held::Address(plugged.address),
    })
}
