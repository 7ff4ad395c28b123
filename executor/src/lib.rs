//! Containers on Linux: root file systems, namespaces, processes. One runtime for the RUN steps of a build and for
//! `run`; and the host's git, which reads repositories for them. Knows no Dockerfile and no registry; below
//! [`LocalExecutor`] it knows no store either, only descriptors.

mod agent;
pub mod capability;
pub mod cdi;
pub mod cgroup;
mod container;
mod dev;
pub mod emulate;
mod error;
mod failure;
pub mod git;
mod guard;
pub mod idmap;
mod init;
mod local;
mod mountpoint;
mod nested;
pub mod network;
mod prepare;
pub mod probe;
mod propagation;
mod reaper;
mod rootfs;
mod seccomp;
mod secret;
mod signals;
mod spawner;
mod spec;
mod ssh_key;
mod streams;
mod stub;
mod sys;
mod terminal;
mod trust;
pub mod user;

pub use container::{Container, ExitStatus, Sink};
pub use error::{Error, Result};
pub use local::{LocalExecutor, Seat, Settings, Shell};
pub use nested::Nested;
pub use reaper::{INIT, SHELL, init as run_init};
pub use rustix::process::{Resource, Rlimit};
pub use rustix::termios::Winsize;
pub use rustix::thread::CapabilitySet;
pub use seccomp::{Profile, Seccomp};
pub use secret::{Agent, Lent, Secret};
pub use signals::{Pending, Signals};
pub use spec::{
    AccessTimes, Bind, DeviceNode, Devices, MissingCwd, Mount, MountSource, Network, Owner, Propagation,
    Root, Spec, Tmpfs, Upper,
};
pub use ssh_key::{KeyError, SshKey};
pub use stub::{Stubs, open_directory};
pub use terminal::RawTerminal;
