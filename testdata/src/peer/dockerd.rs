//! Debian's dockerd, BuildKit inside, with no bridge: builds and containers use the host's network.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::daemon::Daemon;
use crate::{Ran, run};

#[derive(Debug)]
pub struct Dockerd {
    _daemon: Daemon,
    dir: TempDir,
}

impl Dockerd {
    pub fn start() -> Dockerd {
        // The path of containerd's socket has to fit into 108 bytes.
        let dir = tempfile::Builder::new().prefix("dockerd").tempdir_in("/tmp").unwrap();
        let at = |name: &str| dir.path().join(name);
        let log = File::create(at("log")).unwrap();
        let mut command = Command::new("dockerd");
        command
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--host")
            .arg(format!("unix://{}", at("socket").display()))
            .args(["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let socket = at("socket");
        let daemon = Daemon::start(&mut command, || UnixStream::connect(&socket).is_ok());
        Dockerd { _daemon: daemon, dir }
    }

    /// `docker ARGS`.
    pub fn docker(&self, args: &[&str]) -> Ran {
        // Debian's client by its path: another one, found earlier, may not talk to this engine's BuildKit.
        let debian = "/usr/bin/docker";
        let client = if Path::new(debian).exists() { debian } else { "docker" };
        run(Command::new(client)
            .args(args)
            .env("DOCKER_HOST", format!("unix://{}", self.dir.path().join("socket").display()))
            .env("DOCKER_BUILDKIT", "1"))
    }

    /// `ctr ARGS`: the client of the containerd that the engine has started.
    pub fn ctr(&self, args: &[&str]) -> Ran {
        let socket = self.dir.path().join("exec/containerd/containerd.sock");
        run(Command::new("ctr").arg("--address").arg(socket).args(["--namespace", "tests"]).args(args))
    }
}

impl Drop for Dockerd {
    /// The host's network namespace is mounted in there, and would keep the directory from being removed.
    fn drop(&mut self) {
        let network = self.dir.path().join("exec/netns/default");
        let _ = rustix::mount::unmount(network, rustix::mount::UnmountFlags::DETACH);
    }
}
