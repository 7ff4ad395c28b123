//! Network namespaces: made and entered by threads that end with that, so that no other thread ever leaves the host's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::error::{Error, Result};
use crate::sys;

/// The namespace given or a new one, and what `inside` gave there.
pub(super) fn make<T: Send>(
    given: Option<&OwnedFd>,
    inside: impl FnOnce() -> Result<T> + Send,
) -> Result<(OwnedFd, T)> {
    in_thread(|| {
        let namespace = match given {
            Some(given) => enter(given.as_fd()).and_then(|()| current()),
            None => leave(),
        }?;
        Ok((namespace, inside()?))
    })
}

/// Moves the calling thread, which is to end there, to a new namespace.
pub(super) fn leave() -> Result<OwnedFd> {
    sys::namespace::unshare(UnshareFlags::NEWNET).map_err(failed("making a network namespace"))?;
    current()
}

/// Moves the calling thread, which is to end there, and the threads that it starts.
pub(super) fn enter(namespace: BorrowedFd<'_>) -> Result<()> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
        .map_err(failed("entering a network namespace"))
}

/// The namespace of the calling thread.
pub(super) fn current() -> Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("opening", path))
}

/// Sets a value below `/proc/sys/net` of the calling thread's namespace.
pub(super) fn set(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    std::fs::write(&path, value).map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(errno) if is_lasting(errno) => Error::Unsupported(format!("setting {path}: {error}")),
        _ => Error::io("setting", path)(error),
    })
}

/// A thread that may leave its namespace.
pub(super) fn thread() -> std::thread::Builder {
    std::thread::Builder::new().name("network".into()).stack_size(256 << 10)
}

pub(super) fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread =
            thread().spawn_scoped(scope, work).map_err(Error::io("starting", "the network's thread"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(super) fn failed(doing: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| match is_lasting(errno) {
        true => Error::Unsupported(format!("{doing}: {errno}")),
        false => Error::Setup { doing: doing.to_owned(), reason: errno.to_string() },
    }
}

/// Whether the kernel says so of what it does not have, or of rights that we don't have; all else, such as a lack of memory,
/// may be otherwise the next time.
fn is_lasting(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::PERM
            | Errno::ACCESS
            | Errno::ROFS
            | Errno::NOSYS
            | Errno::NOENT
            | Errno::INVAL
            | Errno::OPNOTSUPP
            | Errno::PROTONOSUPPORT
            | Errno::AFNOSUPPORT
    )
}
