//! podman and buildah as root with their own storage, the host's network and runc.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::{Ran, run};

#[derive(Debug)]
pub struct Podman {
    dir: TempDir,
}

impl Podman {
    pub fn new() -> Podman {
        let dir = tempfile::Builder::new().prefix("podman").tempdir_in("/tmp").unwrap();
        let runc = ["/usr/sbin/runc", "/usr/bin/runc"].into_iter().find(|p| fs::exists(p).unwrap());
        let runc = runc.expect("runc is installed (scripts/test does it)");
        // Limits within what an unprivileged machine allows; crun refuses a machine with both cgroup versions.
        let containers = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:4096\", \"nproc=1024:2048\"]\nnetns = \"host\"\n\
             [engine]\nruntime = \"{runc}\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n"
        );
        fs::write(dir.path().join("containers.conf"), containers).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/graph\"\nrunroot = \"{0}/run\"\n",
            dir.path().display()
        );
        fs::write(dir.path().join("storage.conf"), storage).unwrap();
        Podman { dir }
    }

    /// `podman ARGS`.
    pub fn podman(&self, args: &[&str]) -> Ran {
        self.run("podman", args)
    }

    /// `buildah ARGS`, which has the same images.
    pub fn buildah(&self, args: &[&str]) -> Ran {
        self.run("buildah", args)
    }

    fn run(&self, program: &str, args: &[&str]) -> Ran {
        run(Command::new(program)
            .args(args)
            .env("CONTAINERS_CONF", self.dir.path().join("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.dir.path().join("storage.conf")))
    }
}

impl Default for Podman {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // podman leaves its storage mounted on itself, and the directory could not be removed.
        let graph = self.dir.path().join("graph/overlay");
        let _ = rustix::mount::unmount(graph, rustix::mount::UnmountFlags::DETACH);
    }
}
