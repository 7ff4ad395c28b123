//! Containers on the real kernel: needs root (or the rights of root in a user namespace) and a static busybox.

mod base;
mod copies;
mod fixture;
mod hostile;
mod isolation;
mod lifetime;
mod local;
mod mounts;
mod process;
mod terminal;
