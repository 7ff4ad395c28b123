//! Signal masks and dispositions, by the kernel's own calls so that a cloned process may make them.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::Errno;

use super::exec::check;

/// A set of signals: bit n - 1 is signal n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Set(pub(crate) u64);

impl Set {
    pub(crate) const ALL: Set = Set(!0);
    pub(crate) const NONE: Set = Set(0);

    pub(crate) fn of(signals: &[i32]) -> Set {
        Set(signals.iter().fold(0, |set, n| set | 1 << (n - 1)))
    }
}

/// Replaces the calling thread's mask and returns the one before.
pub(crate) fn set_mask(set: Set) -> Result<Set, Errno> {
    change_mask(libc::SIG_SETMASK, set)
}

/// Adds to the calling thread's mask and returns the one before.
pub(crate) fn block(set: Set) -> Result<Set, Errno> {
    change_mask(libc::SIG_BLOCK, set)
}

fn change_mask(how: libc::c_int, set: Set) -> Result<Set, Errno> {
    let mut before = 0u64;
    // SAFETY: both sets are the 8 bytes that the size says.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set.0, &raw mut before, size_of::<u64>())
    };
    check(result).map(|_| Set(before))
}

/// What `command` starts gets the signals that we hold back: it would never be told of an alarm of its own, or to end.
pub(crate) fn pass_on(command: &mut Command) -> &mut Command {
    let unblock = || set_mask(Set::NONE).map(drop).map_err(std::io::Error::from);
    // SAFETY: in the copy of the process this makes one system call, and neither allocates nor locks.
    unsafe { command.pre_exec(unblock) }
}

/// The kernel's `struct sigaction`; all zeroes is SIG_DFL without flags.
#[repr(C)]
struct Action([u64; 4]);

/// Whether whoever started this process had it ignore the signal, as `nohup` does.
pub(crate) fn is_ignored(signal: i32) -> bool {
    let mut action = Action([0; 4]);
    let (none, size) = (std::ptr::null::<Action>(), size_of::<u64>());
    // SAFETY: nothing is installed, and what is asked for is as large as the kernel's.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, none, &raw mut action, size) };
    result == 0 && action.0[0] == libc::SIG_IGN as u64
}

/// Gives every signal its default disposition. Only for a cloned process: it would take the handlers from under the
/// code that installed them.
pub(crate) fn reset_dispositions() {
    let default = Action([0; 4]);
    for signal in 1..=64 {
        // SAFETY: the action is as large as the kernel's, and no handler address is installed. SIGKILL and SIGSTOP
        // are refused, which is as well.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                std::ptr::null_mut::<Action>(),
                size_of::<u64>(),
            )
        };
    }
}

/// A descriptor from which blocked signals of `set` can be read, for poll.
pub(crate) fn signalfd(set: Set) -> Result<OwnedFd, Errno> {
    signalfd_with(set, libc::SFD_NONBLOCK)
}

/// The same, where a read waits for one.
pub(crate) fn signalfd_that_waits(set: Set) -> Result<OwnedFd, Errno> {
    signalfd_with(set, 0)
}

fn signalfd_with(set: Set, flags: libc::c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: the set is the 8 bytes that the size says.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_signalfd4, -1, &raw const set.0, size_of::<u64>(), libc::SFD_CLOEXEC | flags)
    })?;
    // SAFETY: the kernel just made this descriptor for us, and descriptors fit an int.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The number of the signal that a record read from a signalfd is about.
pub(crate) fn signal_of(record: &[u8; SIGNAL_RECORD]) -> i32 {
    i32::from_ne_bytes([record[0], record[1], record[2], record[3]])
}

pub(crate) const SIGNAL_RECORD: usize = size_of::<libc::signalfd_siginfo>();
