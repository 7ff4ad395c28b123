//! The one thread from which containers are cloned. The kernel kills a container when the thread that cloned it ends, so
//! that thread must live as long as the process. The first thread does; others leave it to one that is made for this.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

use crate::error::{Error, Result};
use crate::guard::Guard;
use crate::init::{self, Plan};
use crate::sys;
use crate::sys::process::Cloned;

type Job = Box<dyn FnOnce() + Send>;

/// Clones the process that becomes the container of `plan`. The plan comes back, to be dropped by the caller.
pub(crate) fn clone(plan: Plan, namespaces: u64) -> Result<(Cloned, Plan)> {
    let (cloned, plan) = if rustix::thread::gettid() == rustix::process::getpid() {
        // No handler of ours may run in a process that was just cloned.
        let before =
            sys::signal::set_mask(sys::signal::Set::ALL).map_err(Error::io("blocking", "signals"))?;
        let cloned = clone_and_watch(&plan, namespaces);
        sys::signal::set_mask(before).map_err(Error::io("unblocking", "signals"))?;
        (cloned, plan)
    } else {
        clone_elsewhere(plan, namespaces)?
    };
    match cloned {
        Ok(cloned) => Ok((cloned, plan)),
        Err(errno) => Err(Error::Setup { doing: "creating namespaces".into(), reason: errno.to_string() }),
    }
}

fn clone_elsewhere(plan: Plan, namespaces: u64) -> Result<(rustix::io::Result<Cloned>, Plan)> {
    let (answer, answered) = channel();
    let job: Job = Box::new(move || {
        let cloned = clone_and_watch(&plan, namespaces);
        // The caller waits for the answer; it can't have gone.
        let _ = answer.send((cloned, plan));
    });
    let lost = || Error::Setup {
        doing: "starting the container".into(),
        reason: "the spawning thread is gone".into(),
    };
    sender()?.send(job).map_err(|_| lost())?;
    answered.recv().map_err(|_| lost())
}

fn clone_and_watch(plan: &Plan, namespaces: u64) -> rustix::io::Result<Cloned> {
    let group = plan.entrances.unified.as_ref().map(|unified| unified.group.as_fd());
    let child = |entered| init::main(plan, entered);
    let cloned = match &plan.user_namespace {
        None => sys::process::clone_into(namespaces, group, child)?,
        Some(user) => sys::process::clone_within(user.as_fd(), namespaces, group, child)?,
    };
    watch(cloned.pidfd.as_fd());
    Ok(cloned)
}

/// Has a process of ours end with us, whatever ends us.
pub(crate) fn end_with_us(process: BorrowedFd<'_>) {
    // No handler of ours may run in the guard, which this may start.
    let Ok(before) = sys::signal::set_mask(sys::signal::Set::ALL) else { return };
    watch(process);
    let _ = sys::signal::set_mask(before);
}

/// Without a guard the container is no worse off than before it changed its user, so failing is not an error.
fn watch(process: BorrowedFd<'_>) {
    static GUARD: Mutex<Option<Guard>> = Mutex::new(None);
    let mut guard = GUARD.lock().unwrap_or_else(|e| e.into_inner());
    if guard.is_none() {
        *guard = Guard::start().ok();
    }
    if let Some(running) = guard.as_ref()
        && running.watch(process).is_err()
    {
        *guard = None;
    }
}

fn sender() -> Result<Sender<Job>> {
    static SENDER: OnceLock<Mutex<Option<Sender<Job>>>> = OnceLock::new();
    let mut sender = SENDER.get_or_init(Mutex::default).lock().unwrap_or_else(|e| e.into_inner());
    if sender.is_none() {
        let (jobs, queue) = channel::<Job>();
        let thread = std::thread::Builder::new().name("spawner".into()).stack_size(256 << 10);
        thread
            .spawn(move || {
                // No handler of ours may run in a process that was just cloned.
                let _ = sys::signal::set_mask(sys::signal::Set::ALL);
                for job in queue {
                    job();
                }
            })
            .map_err(Error::io("starting the spawning thread", ""))?;
        *sender = Some(jobs);
    }
    Ok(sender.clone().expect("just made"))
}
