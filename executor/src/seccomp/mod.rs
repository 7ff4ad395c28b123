//! The system call filter of a container: the policy, compiled into a BPF program by ranges of numbers, as the kernel
//! runs the program once for every number when it is installed.

mod compile;
#[cfg(test)]
mod moby;
mod number;
mod policy;
mod profile;

use rustix::thread::CapabilitySet;

use crate::error::{Error, Result};
use crate::sys::seccomp::Instruction;

pub use profile::Profile;

/// Which system calls a container may make.
#[derive(Clone, Debug, Default)]
pub enum Seccomp {
    /// Those of moby's policy for its capabilities.
    #[default]
    Default,
    /// All of them.
    Unconfined,
    Profile(Profile),
}

/// The program for a container that holds `capabilities`; None where nothing is filtered, as by the default on an
/// architecture without a table.
pub(crate) fn program(seccomp: &Seccomp, capabilities: CapabilitySet) -> Result<Option<Vec<Instruction>>> {
    let architectures: &[compile::Architecture] = if cfg!(target_arch = "x86_64") {
        &[compile::X86_64, compile::I386]
    } else if cfg!(target_arch = "aarch64") {
        &[compile::AARCH64]
    } else {
        &[]
    };
    match seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default if architectures.is_empty() => Ok(None),
        Seccomp::Default => Ok(Some(compile::program(architectures, capabilities))),
        Seccomp::Profile(_) if architectures.is_empty() => {
            Err(Error::Unsupported("seccomp profiles are not supported on this architecture".to_owned()))
        }
        Seccomp::Profile(profile) => profile.program(architectures, capabilities).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::number::{CALLS, REFUSED};
    use super::policy::{CHECKED, RULES};

    #[test]
    fn the_table_is_sorted_and_every_name_has_a_number() {
        for table in [CALLS, REFUSED] {
            assert!(table.windows(2).all(|w| w[0].name < w[1].name));
        }
        assert!(REFUSED.iter().all(|call| CALLS.iter().all(|other| other.name != call.name)));
        let known = |name: &str| CALLS.binary_search_by_key(&name, |c| c.name).is_ok();
        for name in RULES.iter().flat_map(|r| r.calls).chain(CHECKED.iter().map(|(name, _)| name)) {
            assert!(known(name), "{name} is not in the table of numbers");
        }
        for call in CALLS {
            let ruled = RULES.iter().any(|r| r.calls.contains(&call.name));
            assert!(ruled || CHECKED.iter().any(|(name, _)| *name == call.name), "{} has no rule", call.name);
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn numbers_agree_with_libc() {
        let number = |name: &str| CALLS[CALLS.binary_search_by_key(&name, |c| c.name).unwrap()].x86_64;
        for (name, expected) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("ptrace", libc::SYS_ptrace),
            ("arch_prctl", libc::SYS_arch_prctl),
            ("futex_waitv", libc::SYS_futex_waitv),
        ] {
            assert_eq!(i64::from(number(name)), expected, "{name}");
        }
    }
}
