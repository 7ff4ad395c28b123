//! End-to-end tests: the real binary on real images, beside real tools. One binary, a module for each subject.
//! They need root and what `scripts/test` installs; each has a store of its own.

mod archives;
mod binary;
mod build;
mod caching;
mod calls;
mod checks;
mod contexts;
mod copying;
mod debug;
mod disk;
mod docker_equality;
mod epoch;
mod failures;
mod hardship;
mod history;
mod images;
mod interop;
mod mounts;
mod named_contexts;
mod programs;
mod registry;
mod registry_hosts;
mod registry_login;
mod remote_cache;
mod rootless;
mod run;
mod run_flags;
mod security;
mod shortage;
mod sources;
mod stacking;
mod terminal;
mod tool;
mod volume_filling;
mod volumes;
