//! A process that tries something, says how that went, and is gone.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, setsid, waitid};
use rustix::process::{pidfd_send_signal, set_parent_process_death_signal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Answer;
use crate::{idmap, sys};

/// How long one attempt may take.
const SECONDS: i64 = 10;

/// Does `work` in a copy of this process, in the new namespaces that `flags` (`CLONE_NEW…`) name.
pub(super) fn attempt<T: Serialize + DeserializeOwned>(
    flags: i32,
    work: impl FnOnce() -> Answer<T>,
) -> Answer<T> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| format!("making a pipe: {e}"))?;
    // This process has one thread, so its copy may do whatever it likes.
    let cloned = sys::process::clone(flags as u64, || {
        // What it starts can be ended with it.
        let _ = setsid();
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let answer = serde_json::to_vec(&work()).unwrap_or_default();
        let _ = File::from(write).write_all(&answer);
    });
    let cloned = cloned.map_err(|e| format!("starting a process in new namespaces: {e}"))?;
    let answer = read_in_time(read);
    if let Some(pid) = Pid::from_raw(cloned.pid) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let _ = pidfd_send_signal(&cloned.pidfd, Signal::KILL);
    let _ = waitid(WaitId::PidFd(cloned.pidfd.as_fd()), WaitIdOptions::EXITED);
    serde_json::from_slice(&answer?).unwrap_or_else(|_| Err("the attempt ended without an answer".to_owned()))
}

/// The same by root of the namespace that commands work in.
pub(super) fn attempt_in_namespace<T: Serialize + DeserializeOwned>(
    flags: i32,
    work: impl FnOnce() -> Answer<T>,
) -> Answer<T> {
    attempt(0, || {
        idmap::enter_user_namespace().and_then(|()| idmap::settle()).map_err(|e| e.to_string())?;
        if flags == 0 { work() } else { attempt(flags, work) }
    })
}

fn read_in_time(read: OwnedFd) -> Answer<Vec<u8>> {
    let limit = Timespec { tv_sec: SECONDS, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&read, PollFlags::IN)], Some(&limit));
    if ready.map_err(|e| format!("waiting for the attempt: {e}"))? == 0 {
        return Err(format!("no answer within {SECONDS} seconds"));
    }
    let mut answer = Vec::new();
    File::from(read).read_to_end(&mut answer).map_err(|e| format!("reading the answer: {e}"))?;
    Ok(answer)
}
