//! A small process that outlives us by a moment: when we are killed, it kills what the parent-death signal does not
//! reach, since the kernel forgets that signal when a container's first process changes its user.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::sys;

/// Our end of it. Dropping it ends the guard, and the containers that it still watches.
#[derive(Debug)]
pub(crate) struct Guard {
    socket: Option<OwnedFd>,
    process: OwnedFd,
}

/// How many containers of one process may run at a time before some of them have only the parent-death signal.
const WATCHED: usize = 512;

impl Guard {
    pub(crate) fn start() -> rustix::io::Result<Guard> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let cloned = sys::process::clone(0, || run(theirs.as_fd()))?;
        Ok(Guard { socket: Some(ours), process: cloned.pidfd })
    }

    pub(crate) fn watch(&self, process: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let Some(socket) = &self.socket else { return Err(Errno::PIPE) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [process];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(socket, &[IoSlice::new(b"+")], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.socket.take());
        let _ = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
    }
}

/// In the new process: nothing may be allocated here.
fn run(socket: BorrowedFd<'_>) {
    sys::signal::reset_dispositions();
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir(c"/");
    let _ = rustix::thread::set_name(c"boxwright-guard");
    // All that is left open is the socket, as descriptor 0: no pipe of ours may be held open by this process.
    if rustix::stdio::dup2_stdin(socket).is_ok() && sys::fd::close_from(1).is_ok() {
        watch_all(rustix::stdio::stdin());
    }
}

fn watch_all(socket: BorrowedFd<'_>) {
    let mut watched = [const { None::<OwnedFd> }; WATCHED];
    while let Some(process) = receive(socket) {
        for slot in &mut watched {
            let ended = slot.as_ref().is_some_and(has_ended);
            if ended {
                *slot = None;
            }
        }
        if let Some(free) = watched.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(process);
        }
    }
    for process in watched.iter().flatten() {
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}

fn has_ended(process: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
}

/// None once the other end is closed.
fn receive(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    loop {
        let mut byte = [0u8; 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received =
            recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        match received {
            Ok(message) if message.bytes == 0 => return None,
            Ok(_) => {
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(mut fds) = message
                        && let Some(fd) = fds.next()
                    {
                        return Some(fd);
                    }
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}
