//! Git repositories made on the spot, and git's own daemon that serves them on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::peer::{Daemon, free_port};
use crate::{Ran, run};

/// A directory of repositories, served at `git://127.0.0.1:PORT/NAME` as long as this value lives.
#[derive(Debug)]
pub struct Repositories {
    dir: TempDir,
    _daemon: Daemon,
    port: u16,
}

impl Repositories {
    pub fn serve() -> Repositories {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut base = std::ffi::OsString::from("--base-path=");
        base.push(dir.path());
        let mut daemon = git(dir.path());
        daemon.args(["daemon", "--reuseaddr", "--listen=127.0.0.1", "--export-all"]);
        daemon.arg(format!("--port={port}")).arg(base).stdout(Stdio::null()).stderr(Stdio::null());
        let answers = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        Repositories { dir, _daemon: Daemon::start(&mut daemon, answers), port }
    }

    /// A new repository with a branch `main` and no commit.
    pub fn make(&self, name: &str) -> Repository {
        let repository = Repository { dir: self.dir.path().join(name) };
        fs::create_dir_all(&repository.dir).unwrap();
        repository.git(&["init", "-q", "-b", "main"]);
        // Any commit may be asked for by its name, as of the large hosts.
        repository.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
        repository
    }

    pub fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    /// Where the repositories are, for a server of another kind.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// A repository with a work tree.
#[derive(Debug)]
pub struct Repository {
    pub dir: PathBuf,
}

impl Repository {
    /// What git prints; it must succeed.
    #[track_caller]
    pub fn git(&self, args: &[&str]) -> String {
        self.try_git(args).ok().trim().to_owned()
    }

    pub fn try_git(&self, args: &[&str]) -> Ran {
        run(git(&self.dir).args(args))
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Commits everything there is; the commit's name.
    #[track_caller]
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["update-server-info"]);
        self.git(&["rev-parse", "HEAD"])
    }
}

fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Test").env(format!("GIT_{who}_EMAIL"), "test@example.com");
        command.env(format!("GIT_{who}_DATE"), "2020-01-01T00:00:00Z");
    }
    command.args(["-c", "protocol.file.allow=always"]);
    command
}
