//! A user namespace below ours, for one container that may mount: with all ids of ours, and with rights over what is made in
//! it alone. What such a container tells the kernel of its user namespace, which emulators run whose programs above all,
//! counts for nobody but itself.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;
use rustix::process::{
    Signal, WaitId, WaitIdOptions, pidfd_send_signal, set_parent_process_death_signal, waitid,
};

use crate::error::{Error, Result};
use crate::sys::process::{self, Cloned};
use crate::{idmap, sys};

/// Lasts as long as a descriptor or a process in it.
#[derive(Debug)]
pub struct Nested {
    pub user: OwnedFd,
    /// A network namespace that it owns, with nothing in it.
    pub(crate) network: OwnedFd,
}

/// How long the process that the namespaces are made with waits to be ended, if nobody is left to do so.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

impl Nested {
    /// For a container that may mount. None where we are in no user namespace: root of the machine can't be kept from
    /// anything by one with all of its ids.
    ///
    /// # Errors
    /// When the kernel lets us make none.
    pub fn needed() -> Result<Option<Nested>> {
        if idmap::in_user_namespace() { Nested::new().map(Some) } else { Ok(None) }
    }

    fn new() -> Result<Nested> {
        let maps = ["uid_map", "gid_map"].map(|name| Ok((name, identity(&read(name)?))));
        let holder = Holder::start()?;
        let file = |name: &str| format!("/proc/{}/{name}", holder.0.pid);
        for map in maps {
            let (name, map) = map?;
            std::fs::write(file(name), map).map_err(Error::io("writing", file(name)))?;
        }
        let open = |name: &str| {
            rustix::fs::open(file(name), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(Error::io("opening", file(name)))
        };
        Ok(Nested { user: open("ns/user")?, network: open("ns/net")? })
    }
}

fn read(name: &str) -> Result<String> {
    let path = format!("/proc/self/{name}");
    std::fs::read_to_string(&path).map_err(Error::io("reading", &path))
}

/// Each id of the map as itself. Lines are: inside, outside, count.
fn identity(map: &str) -> String {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (inside, _, count) = (fields.next()?, fields.next()?, fields.next()?);
        Some(format!("{inside} {inside} {count}\n"))
    };
    map.lines().filter_map(line).collect()
}

/// The first process of the namespaces, until they have a descriptor.
struct Holder(Cloned);

impl Holder {
    fn start() -> Result<Holder> {
        let failed = Error::io("making", "a user namespace for a container that may mount");
        // No handler of ours may run in a process that was just cloned.
        let before =
            sys::signal::set_mask(sys::signal::Set::ALL).map_err(Error::io("blocking", "signals"))?;
        let cloned = process::clone((libc::CLONE_NEWUSER | libc::CLONE_NEWNET) as u64, || {
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            let nothing: &mut [PollFd<'_>] = &mut [];
            let _ = poll(nothing, Some(&PATIENCE));
        });
        sys::signal::set_mask(before).map_err(Error::io("unblocking", "signals"))?;
        cloned.map(Holder).map_err(failed)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0.pidfd, Signal::KILL);
        let _ = retry_on_intr(|| waitid(WaitId::PidFd(self.0.pidfd.as_fd()), WaitIdOptions::EXITED));
    }
}

#[cfg(test)]
mod tests {
    use super::identity;

    #[test]
    fn all_ids_are_what_they_are() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(identity(map), "0 0 1\n1 1 65536\n");
    }
}
