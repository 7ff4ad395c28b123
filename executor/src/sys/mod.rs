//! All unsafe code of the project: the system calls that rustix has no safe form for. Each is wrapped so that its
//! caller can't break memory safety; what they mean together is decided in `init` and `container`.
#![allow(unsafe_code)]

pub(crate) mod bpf;
pub(crate) mod datagram;
pub(crate) mod exec;
pub(crate) mod fd;
pub(crate) mod mount;
pub(crate) mod namespace;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod seccomp;
pub(crate) mod signal;
