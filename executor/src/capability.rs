//! Capability sets: the default of moby, and names.

use rustix::thread::CapabilitySet;

/// What a container's root may do unless asked otherwise.
pub const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// The number of the last capability this program knows (`CHECKPOINT_RESTORE`); the kernel may know fewer or more.
pub(crate) const LAST: u32 = 40;

/// The capability of a name as docker takes it: any case, with or without `CAP_`.
pub fn by_name(name: &str) -> Option<CapabilitySet> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    CapabilitySet::from_name(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_dockers_mask() {
        assert_eq!(DEFAULT.bits(), 0xa804_25fb);
    }

    #[test]
    fn names_are_taken_as_docker_takes_them() {
        assert_eq!(by_name("cap_net_admin"), Some(CapabilitySet::NET_ADMIN));
        assert_eq!(by_name("SYS_PTRACE"), Some(CapabilitySet::SYS_PTRACE));
        assert_eq!(by_name("ALLES"), None);
    }
}
