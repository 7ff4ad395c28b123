//! Who the process is: limits, capabilities, filter, user and groups, in the order in which each can still be set.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Outcome, Stage, at};
use crate::capability::LAST;
use crate::sys;

#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
    /// False where the kernel lets no process of this user namespace change its groups.
    pub(crate) may_set_groups: bool,
    pub(crate) capabilities: CapabilitySet,
    /// Whoever the user is keeps the capabilities, and hands them on.
    pub(crate) ambient: bool,
    pub(crate) filter: Option<Vec<sys::seccomp::Instruction>>,
    pub(crate) no_new_privileges: bool,
    pub(crate) limits: Vec<Limit>,
    /// A directory made on the way to the working directory is the user's.
    pub(crate) owns_cwd: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit(pub(crate) Resource, pub(crate) Rlimit);

impl Identity {
    pub(super) fn assume(&self) -> Outcome {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        for (n, Limit(resource, limit)) in self.limits.iter().enumerate() {
            setrlimit(*resource, *limit).map_err(at(Stage::Limits, n))?;
        }
        // It fails where the user has no room for another key, and then nothing is gained by it either: the filter
        // refuses every call about keys.
        let _ = sys::namespace::new_session_keyring();
        self.bound().map_err(at(Stage::Capabilities, 0))?;
        // Without no_new_privs a filter needs CAP_SYS_ADMIN, which is still there; with it, it is the last thing.
        if !self.no_new_privileges {
            self.install_filter()?;
        }
        self.switch_user().map_err(at(Stage::Identity, 0))?;
        self.keep_capabilities().map_err(at(Stage::Capabilities, 1))?;
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).map_err(at(Stage::Seccomp, 1))?;
            self.install_filter()?;
        }
        Ok(())
    }

    fn install_filter(&self) -> Outcome {
        match &self.filter {
            Some(program) => sys::seccomp::install(program).map_err(at(Stage::Seccomp, 0)),
            None => Ok(()),
        }
    }

    fn bound(&self) -> Result<(), Errno> {
        for number in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if self.capabilities.contains(capability) {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // The first number that the kernel does not know.
                Err(Errno::INVAL) if number > 0 => break,
                result => result?,
            }
        }
        Ok(())
    }

    fn switch_user(&self) -> Result<(), Errno> {
        if self.ambient {
            rustix::thread::set_keep_capabilities(true)?;
        }
        if self.may_set_groups {
            rustix::thread::set_thread_groups(&self.groups)?;
        }
        rustix::thread::set_thread_res_gid(self.gid, self.gid, self.gid)?;
        rustix::thread::set_thread_res_uid(self.uid, self.uid, self.uid)
    }

    /// Root has the set as permitted and effective; anybody else gets it as a bound only. Nothing is inheritable or
    /// ambient, unless it was asked for.
    fn keep_capabilities(&self) -> Result<(), Errno> {
        let all = CapabilitySet::from_bits_retain((1 << (LAST + 1)) - 1);
        let keeps = self.uid.is_root() || self.ambient;
        let kept = if keeps { self.capabilities & all } else { CapabilitySet::empty() };
        // What the kernel or our own caller did not leave us can't be kept.
        let kept = kept & rustix::thread::capabilities(None)?.permitted;
        let inheritable = if self.ambient { kept } else { CapabilitySet::empty() };
        rustix::thread::set_capabilities(
            None,
            CapabilitySets { effective: kept, permitted: kept, inheritable },
        )?;
        for capability in inheritable.iter() {
            rustix::thread::configure_capability_in_ambient_set(capability, true)?;
        }
        Ok(())
    }
}
