//! The binary under test with a store of its own, and build contexts made on the spot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use boxwright_testdata::{Ran, base, run};
use tempfile::TempDir;

pub(crate) fn cache() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// What is tested: the binary that cargo built beside this test, or the one that BOXWRIGHT_BINARY names.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("BOXWRIGHT_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_boxwright")), PathBuf::from)
}

/// `boxwright --root DIR`, where DIR is empty at first and goes with this value.
pub(crate) struct Boxwright {
    dir: TempDir,
}

impl Boxwright {
    pub(crate) fn new() -> Boxwright {
        Boxwright { dir: tempfile::tempdir().unwrap() }
    }

    /// A store that has `busybox:latest`.
    pub(crate) fn with_busybox() -> Boxwright {
        let boxwright = Self::new();
        boxwright.ok(&["load", "-q", "-i", base::busybox(cache()).to_str().unwrap()]);
        boxwright
    }

    /// A store that has `debian:bookworm-slim`.
    pub(crate) fn with_debian() -> Boxwright {
        let boxwright = Self::new();
        boxwright.ok(&["load", "-q", "-i", base::debian(cache()).to_str().unwrap()]);
        boxwright
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A path beside the store.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--root").arg(self.store()).args(args).env_remove("BOXWRIGHT_ROOT").stdin(Stdio::null());
        // What whoever runs the tests has configured for registries is not for them.
        command.env("XDG_CONFIG_HOME", self.scratch("config")).env("DOCKER_CONFIG", self.scratch("docker"));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        run(&mut self.command(args))
    }

    /// The standard output of a command that must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    /// `build ARGS CONTEXT`.
    pub(crate) fn build(&self, context: &Context, args: &[&str]) -> Ran {
        let mut all = vec!["build", "--progress", "plain"];
        all.extend(args);
        all.push(context.path());
        self.run(&all)
    }

    /// A build of `x` that must succeed; what it printed.
    #[track_caller]
    pub(crate) fn built(&self, context: &Context, args: &[&str]) -> String {
        let mut all = vec!["-t", "x"];
        all.extend(args);
        let ran = self.build(context, &all);
        assert_eq!(ran.status, 0, "{ran}");
        ran.stderr
    }

    /// `run --rm IMAGE COMMAND…`: what it printed.
    #[track_caller]
    pub(crate) fn output_of(&self, image: &str, command: &[&str]) -> String {
        let mut all = vec!["run", "--rm", image];
        all.extend(command);
        self.ok(&all)
    }

    /// The `image inspect` object of one image.
    #[track_caller]
    pub(crate) fn inspect(&self, image: &str) -> serde_json::Value {
        let list: serde_json::Value = serde_json::from_str(&self.ok(&["image", "inspect", image])).unwrap();
        list[0].clone()
    }
}

/// A build context: a directory with a Dockerfile.
pub(crate) struct Context {
    dir: TempDir,
}

impl Context {
    pub(crate) fn new(dockerfile: &str) -> Context {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let context = Context { dir };
        context.write("Dockerfile", dockerfile);
        context
    }

    #[must_use]
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Context {
        self.write(path, content);
        self
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Waits for something that has to come about.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "in a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The command as arguments of another, which starts it.
pub(crate) fn wrapped(by: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(by[0]);
    outer.args(&by[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// A child that a failed test must not leave behind.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Running {
        Running(command.spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }

    /// Exit status; -1 if a signal ended it.
    pub(crate) fn wait(&mut self) -> i32 {
        self.0.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
