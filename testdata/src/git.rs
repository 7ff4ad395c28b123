//! Git repositories made on the spot, and git's own daemon that serves them on this machine.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::{Ran, run};

/// A directory of repositories, served at `git://127.0.0.1:PORT/NAME` as long as this value lives.
#[derive(Debug)]
pub struct Repositories {
    dir: TempDir,
    port: u16,
}

impl Repositories {
    pub fn serve() -> Repositories {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let top = dir.path().to_owned();
        // The daemon takes no port that the kernel picks: it gets each connection.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let connection = OwnedFd::from(connection.unwrap());
                let mut daemon = git(&top);
                daemon
                    .args(["daemon", "--inetd", "--export-all"])
                    .arg(format!("--base-path={}", top.display()));
                daemon.stdin(connection.try_clone().unwrap()).stdout(connection).stderr(Stdio::null());
                let mut daemon = daemon.spawn().unwrap();
                std::thread::spawn(move || daemon.wait());
            }
        });
        Repositories { dir, port }
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
