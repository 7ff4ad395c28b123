//! When this process gets the ids that files of images have. An ordinary user's are mapped by programs of the host, which takes
//! about as long as a build that is cached as a whole; so they are asked for where they are about to be needed.

use std::sync::OnceLock;

use rustix::io::Errno;

/// Whether this process has ids that it began without.
type Settle = fn() -> bool;

static SETTLE: OnceLock<Settle> = OnceLock::new();

/// Has `settle` called, by any thread and more than once, when ids are needed: when it returns there are all that there will
/// be. It allocates and locks nothing once there are.
pub fn settle_by(settle: Settle) {
    let _ = SETTLE.set(settle);
}

/// To be called before an owner is asked for or set, before something is touched that can be another's, and before a program
/// of the host is started. Whether what was refused may have been for want of ids.
pub(crate) fn needed() -> bool {
    SETTLE.get().is_some_and(|settle| settle())
}

/// Tries once more what was refused, with ids: what is another user's may be open to who is root of the namespace. Whoever asked
/// for ids meanwhile, the first try may have been before that.
///
/// # Errors
/// As `attempt`.
pub fn with_ids<T>(attempt: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match attempt() {
        Err(Errno::ACCESS) if needed() => attempt(),
        other => other,
    }
}
