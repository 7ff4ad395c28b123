//! The binary under test with a store of its own, and build contexts made on the spot.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use boxwright_testdata::{Ran, base, run};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

pub(crate) fn cache() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// What is tested: the binary that cargo built beside this test, or the one that BOXWRIGHT_BINARY names.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("BOXWRIGHT_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_boxwright")), PathBuf::from)
}

/// Who starts the binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Root,
    /// `daemon`, whom every machine has, with a range of ids.
    User,
    /// The same without: all there is inside is root.
    Single,
}

impl Who {
    const USER: u32 = 1;

    /// Gives a file or a directory to who starts the binary.
    pub(crate) fn own(self, path: &Path) {
        if self != Who::Root {
            chown(path, Some(Who::USER), Some(Who::USER)).unwrap();
        }
    }

    /// The same with the files of a directory that has no directories.
    pub(crate) fn own_all(self, dir: &Path) {
        self.own(dir);
        fs::read_dir(dir).unwrap().for_each(|entry| self.own(&entry.unwrap().path()));
    }
}

/// Becomes the user, in a mount namespace: the machine's own files stay as they are, and the binary is found where
/// the user may look.
const AS_USER: &str = "mount --bind $0/ranges /etc/subuid; mount --bind $0/ranges /etc/subgid; \
    if test -e /dev/net/tun; then mount --bind $0/tun /dev/net/tun; fi; \
    mount --bind \"$1\" $0/program; HOME=$0/home; export HOME; dir=$0; shift; \
    exec setpriv --reuid 1 --regid 1 --clear-groups $dir/program \"$@\"";

/// `boxwright --root DIR`, where DIR is empty at first and goes with this value.
pub(crate) struct Boxwright {
    /// Before the directory that it is in.
    overlay: Option<Overlaid>,
    dir: TempDir,
    who: Who,
}

/// An overlay that is mounted there, until this value goes: none can be mounted of what is in it.
pub(crate) struct Overlaid(PathBuf);

impl Overlaid {
    /// `who` may write in it.
    pub(crate) fn at(path: PathBuf, who: Who) -> Overlaid {
        let part = |name: &str| {
            let part = path.with_extension(name);
            fs::create_dir(&part).unwrap();
            who.own(&part);
            part.display().to_string()
        };
        let options =
            format!("lowerdir={},upperdir={},workdir={}", part("lower"), part("upper"), part("work"));
        fs::create_dir(&path).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        mount("none", &path, "overlay", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Overlaid(path)
    }
}

impl Drop for Overlaid {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

impl Boxwright {
    pub(crate) fn new() -> Boxwright {
        Boxwright::of(Who::Root)
    }

    /// Started by that user, with a store in a directory of theirs.
    pub(crate) fn of(who: Who) -> Boxwright {
        let boxwright = Boxwright { overlay: None, dir: tempfile::tempdir().unwrap(), who };
        if who != Who::Root {
            fs::set_permissions(boxwright.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let ranges = if who == Who::User { "daemon:300000:65536\n" } else { "" };
            fs::write(boxwright.scratch("ranges"), ranges).unwrap();
            fs::write(boxwright.scratch("program"), "").unwrap();
            // Where udev has made it, it is for everybody.
            run(Command::new("mknod")
                .args(["-m", "666"])
                .arg(boxwright.scratch("tun"))
                .args(["c", "10", "200"]))
            .ok();
            fs::create_dir(boxwright.scratch("home")).unwrap();
            who.own(&boxwright.scratch("home"));
            who.own(boxwright.dir.path());
            for file in ["/etc/subuid", "/etc/subgid"] {
                fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
            }
        }
        boxwright
    }

    /// With `busybox:latest` in a store that is on an overlay.
    pub(crate) fn on_overlay(who: Who) -> Boxwright {
        let boxwright = Boxwright::of(who);
        let overlay = Some(Overlaid::at(boxwright.scratch("over"), who));
        let boxwright = Boxwright { overlay, ..boxwright };
        boxwright.load(&base::busybox(cache()));
        boxwright
    }

    /// A store that has `busybox:latest`.
    pub(crate) fn with_busybox() -> Boxwright {
        Boxwright::with_busybox_of(Who::Root)
    }

    pub(crate) fn with_busybox_of(who: Who) -> Boxwright {
        let boxwright = Self::of(who);
        boxwright.load(&base::busybox(cache()));
        boxwright
    }

    /// A store that has `debian:bookworm-slim`.
    pub(crate) fn with_debian() -> Boxwright {
        let boxwright = Self::new();
        boxwright.load(&base::debian(cache()));
        boxwright
    }

    fn load(&self, base: &Path) {
        // Where the tests keep it is no place that the user may have to reach.
        let archive = self.scratch("base.tar");
        fs::copy(base, &archive).unwrap();
        fs::set_permissions(&archive, fs::Permissions::from_mode(0o644)).unwrap();
        self.ok(&["load", "-q", "-i", archive.to_str().unwrap()]);
        fs::remove_file(archive).unwrap();
    }

    pub(crate) fn store(&self) -> PathBuf {
        match &self.overlay {
            Some(Overlaid(path)) => path.join("store"),
            None => self.dir.path().join("store"),
        }
    }

    /// A path beside the store.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.who {
            Who::Root => Command::new(binary()),
            Who::User | Who::Single => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "sh", "-ec", AS_USER]);
                command.arg(self.dir.path()).arg(binary());
                command
            }
        };
        command.arg("--root").arg(self.store()).args(args).env_remove("BOXWRIGHT_ROOT").stdin(Stdio::null());
        command.env_remove("BUILDKIT_PROGRESS");
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
        let mut all = vec!["build"];
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

/// How many processes of the machine are `sleep SECONDS`.
pub(crate) fn sleeping(seconds: &str) -> usize {
    let wanted = format!("sleep\0{seconds}\0");
    let sleeps =
        |entry: &fs::DirEntry| fs::read(entry.path().join("cmdline")).is_ok_and(|l| l == wanted.as_bytes());
    fs::read_dir("/proc").unwrap().filter(|entry| sleeps(entry.as_ref().unwrap())).count()
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
