//! `execve`, and the argument vectors it needs, built before the process is cloned.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// A null-terminated array of C strings.
#[derive(Debug)]
pub(crate) struct Strings {
    /// Owns what `pointers` point to; the buffers of a `CString` don't move when the vector does.
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers point into `_strings`, which is owned, never changed, and freed with them.
unsafe impl Send for Strings {}
// SAFETY: as above; nothing is written through a shared reference.
unsafe impl Sync for Strings {}

impl Strings {
    pub(crate) fn new(strings: Vec<CString>) -> Strings {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Strings { _strings: strings, pointers }
    }
}

/// Replaces the process; returns only when that failed. Allocates nothing.
pub(crate) fn execve(path: &CStr, args: &Strings, env: &Strings) -> Errno {
    // SAFETY: the path is a C string, both vectors end with a null pointer and outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    last_errno()
}

/// The same for a program that is open.
pub(crate) fn execute(program: BorrowedFd<'_>, args: &Strings, env: &Strings) -> Errno {
    // SAFETY: the path is an empty C string, both vectors end with a null pointer and outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}

/// The error of the libc call just made.
pub(super) fn last_errno() -> Errno {
    // SAFETY: the location of this thread's errno is always valid.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// The result of a raw system call that returns 0 or more on success.
pub(super) fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// Whether the working directory has a path below the process' root.
pub(crate) fn cwd_is_below_root() -> bool {
    let mut buffer = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer is valid for writes of the size given.
    let result = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    // Outside of the root the kernel answers with "(unreachable)".
    result > 0 && buffer[0] == b'/'
}
