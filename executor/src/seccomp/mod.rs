//! The system call filter of a container: the policy, compiled into a BPF program by ranges of numbers, as the kernel
//! runs the program once for every number when it is installed.

mod compile;
mod number;
mod policy;

use rustix::thread::CapabilitySet;

use crate::sys::seccomp::Instruction;

/// The program for a container that holds `capabilities`; None on an architecture without a table.
pub(crate) fn program(capabilities: CapabilitySet) -> Option<Vec<Instruction>> {
    if cfg!(target_arch = "x86_64") {
        Some(compile::program(&[compile::X86_64, compile::I386], capabilities))
    } else if cfg!(target_arch = "aarch64") {
        Some(compile::program(&[compile::AARCH64], capabilities))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::number::CALLS;
    use super::policy::{CHECKED, RULES};

    #[test]
    fn the_table_is_sorted_and_every_name_has_a_number() {
        assert!(CALLS.windows(2).all(|w| w[0].name < w[1].name));
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
