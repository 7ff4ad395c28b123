//! `unshare`, and the session keyring, which is a namespace in all but name.

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

use super::exec::check;

/// Moves the calling thread into new namespaces. Refuses `FILES`: descriptors are shared by owners in other threads.
pub(crate) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    if flags.contains(UnshareFlags::FILES) {
        return Err(Errno::INVAL);
    }
    // SAFETY: only unsharing the descriptor table could invalidate values of safe code, and that was refused.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Gives the process an anonymous session keyring, so that it can't search that of whoever started us.
pub(crate) fn new_session_keyring() -> Result<(), Errno> {
    // SAFETY: a null name asks for an anonymous keyring; nothing is read or written in our memory.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    check(result).map(drop)
}
