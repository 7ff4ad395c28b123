//! A busybox root file system, and containers over it: what the tests with root and without share.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxwright_cache::Cancel;
use boxwright_executor::{Container, Error, ExitStatus, Root, Spec, Stubs, Upper, open_directory};
use boxwright_solver::event::LogStream;

/// Layers of one container; its result is in `upper`.
pub(crate) struct Sandbox {
    dir: tempfile::TempDir,
    lowers: Vec<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Sandbox {
    /// Over the layer that `base` gives, which may make it in the sandbox's directory.
    pub(crate) fn over(base: impl FnOnce(&Path) -> PathBuf) -> Sandbox {
        let dir = tempfile::tempdir().unwrap();
        for name in ["upper", "stubs"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let lowers = vec![base(dir.path())];
        Sandbox { dir, lowers }
    }

    /// A further layer on top, filled by `fill`.
    pub(crate) fn layer(mut self, fill: impl FnOnce(&Path)) -> Sandbox {
        let path = self.dir.path().join(format!("layer{}", self.lowers.len()));
        fs::create_dir(&path).unwrap();
        fill(&path);
        self.lowers.push(path);
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.path("upper")
    }

    pub(crate) fn spec(&self, args: &[&str]) -> Spec {
        // A work directory serves one container only; it is removed with the sandbox.
        let work = tempfile::tempdir_in(self.dir.path()).unwrap();
        let root = Root {
            lowers: self.lowers.iter().map(|p| open(p)).collect(),
            upper: Some(Upper { dir: open(&self.upper()), work: open(work.path()) }),
            read_only: false,
            stubs: Arc::new(Stubs::new(open_directory(&self.path("stubs")).unwrap())),
            cancel: Cancel::new().unwrap(),
        };
        let mut spec = Spec::new(root, args.iter().map(|&a| a.to_owned()).collect());
        let _ = work.keep();
        spec.env = vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
        spec
    }
}

pub(crate) fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

pub(crate) fn run(spec: Spec) -> Output {
    try_run(spec).unwrap()
}

pub(crate) fn try_run(spec: Spec) -> Result<Output, Error> {
    let mut container = Container::spawn(spec)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = container.wait(&Cancel::new().unwrap(), None, &mut |stream, bytes: &[u8]| {
        match stream {
            LogStream::Stdout => stdout.extend_from_slice(bytes),
            LogStream::Stderr | LogStream::Notice => stderr.extend_from_slice(bytes),
        }
        Ok(())
    })?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
}

impl Output {
    /// Its output, after a check that it succeeded.
    pub(crate) fn text(self) -> String {
        assert!(self.status.success() && self.stderr.is_empty(), "{self:?}");
        self.stdout
    }
}

/// A layer with busybox and its names, in this directory.
pub(crate) fn make_busybox(base: &Path) -> PathBuf {
    let made = tempfile::tempdir_in(base).unwrap();
    for name in ["bin", "etc", "root", "tmp", "usr", "var"] {
        fs::create_dir(made.path().join(name)).unwrap();
    }
    let mode = |name: &str, mode| {
        fs::set_permissions(made.path().join(name), fs::Permissions::from_mode(mode)).unwrap()
    };
    mode("", 0o755);
    mode("tmp", 0o1777);
    let binary = made.path().join("bin/busybox");
    fs::copy("/bin/busybox", &binary).expect("a static busybox at /bin/busybox (Debian: busybox-static)");
    let names = std::process::Command::new(&binary).arg("--list").output().unwrap().stdout;
    for name in String::from_utf8(names).unwrap().lines().filter(|n| *n != "busybox") {
        symlink("busybox", made.path().join("bin").join(name)).unwrap();
    }
    fs::write(
        made.path().join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n",
    )
    .unwrap();
    fs::write(made.path().join("etc/group"), "root:x:0:\nweb:x:1000:\naudio:x:29:web\n").unwrap();
    let layer = base.join("busybox");
    // Another test may have made it before, or be faster.
    match fs::rename(made.path(), &layer) {
        Ok(()) => drop(made.keep()),
        Err(error) => assert!(layer.join("bin/busybox").exists(), "{error}"),
    }
    layer
}
