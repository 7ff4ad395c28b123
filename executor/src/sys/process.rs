//! `clone3`, with `clone` where a seccomp policy refuses it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::exec::check;

/// A process that was just cloned.
#[derive(Debug)]
pub(crate) struct Cloned {
    pub(crate) pidfd: OwnedFd,
    pub(crate) pid: i32,
}

/// Clones the process into new namespaces (`CLONE_NEW…`) and runs `child` in the copy, which has a copy of our memory
/// and one thread.
///
/// The copy ends when `child` returns. It may not allocate, free, lock, panic or unwind: another thread of ours may
/// have held any lock at that moment.
pub(crate) fn clone(namespaces: u64, child: impl FnOnce()) -> Result<Cloned, Errno> {
    clone_into(namespaces, None, |_| child())
}

/// The same, in the control group (of version 2) that `group` is the directory of. `child` is told whether it is: `clone`
/// can't do that.
pub(crate) fn clone_into(
    namespaces: u64,
    group: Option<BorrowedFd<'_>>,
    child: impl FnOnce(bool),
) -> Result<Cloned, Errno> {
    let mut pidfd: libc::c_int = -1;
    let mut entered = group.is_some();
    let pid = match clone3(namespaces, group, &mut pidfd) {
        Err(Errno::NOSYS | Errno::PERM) => {
            entered = false;
            clone1(namespaces, &mut pidfd)?
        }
        result => result?,
    };
    if pid == 0 {
        child(entered);
        exit(125)
    }
    // SAFETY: the kernel stored a new descriptor there for us.
    Ok(Cloned { pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) }, pid })
}

/// The same, in the user namespace `user`, which then owns the new ones. A process of our own can't move there, as it has
/// threads: another one does, and what it clones is its sibling.
pub(crate) fn clone_within(
    user: BorrowedFd<'_>,
    namespaces: u64,
    group: Option<BorrowedFd<'_>>,
    child: impl FnOnce(bool),
) -> Result<Cloned, Errno> {
    let (answer, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let between = clone(0, || {
        let cloned = move_into_link_name_space(user, Some(LinkNameSpaceType::User))
            .and_then(|()| clone_into(namespaces | libc::CLONE_PARENT as u64, group, child));
        let number = cloned.map_or_else(|errno| -errno.raw_os_error(), |cloned| cloned.pid);
        // Whoever listens sees the end of the pipe otherwise.
        let _ = rustix::io::write(&tell, &number.to_ne_bytes());
    })?;
    drop(tell);
    let mut number = [0; size_of::<i32>()];
    let read = retry_on_intr(|| rustix::io::read(&answer, &mut number));
    retry_on_intr(|| waitid(WaitId::PidFd(between.pidfd.as_fd()), WaitIdOptions::EXITED))?;
    if read? < number.len() {
        return Err(Errno::SRCH);
    }
    match i32::from_ne_bytes(number) {
        // Nobody but us waits for it, so it has its number still.
        pid @ 1.. => {
            let pidfd = pidfd_open(Pid::from_raw(pid).ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
            Ok(Cloned { pidfd, pid })
        }
        errno => Err(Errno::from_raw_os_error(-errno)),
    }
}

/// libc's constant is an int, which it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn clone3(namespaces: u64, group: Option<BorrowedFd<'_>>, pidfd: &mut libc::c_int) -> Result<i32, Errno> {
    // SAFETY: plain data, for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(pidfd) as u64;
    args.exit_signal = exit_signal(namespaces);
    if let Some(group) = group {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM the child gets its own copy of the address space and goes on with the same stack in it,
    // as after fork(2); `pidfd` outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    check(result).map(|pid| pid as i32)
}

fn clone1(namespaces: u64, pidfd: &mut libc::c_int) -> Result<i32, Errno> {
    let flags = namespaces | libc::CLONE_PIDFD as u64 | exit_signal(namespaces);
    // SAFETY: as for clone3. A null stack means the copy of ours; with CLONE_PIDFD the third argument on every
    // architecture we build for receives the descriptor.
    let result =
        unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, std::ptr::from_mut(pidfd), 0usize, 0usize) };
    check(result).map(|pid| pid as i32)
}

/// A sibling's is that of the process that clones it.
fn exit_signal(flags: u64) -> u64 {
    if flags & libc::CLONE_PARENT as u64 == 0 { libc::SIGCHLD as u64 } else { 0 }
}

/// Ends the process without running anything of ours that was registered for that.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: takes no pointer and never returns.
    unsafe { libc::_exit(code) }
}
