//! RUN steps over a real store.

use std::path::Path;
use std::sync::Arc;

use crate::base::busybox;
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::snapshot::tree::Kind;
use boxwright_cache::{Cancel, Store};
use boxwright_executor::network::{Networks, Resolver};
use boxwright_executor::{LocalExecutor, Settings, Stubs, open_directory};
use boxwright_solver::event::LogStream;
use boxwright_solver::executor::{ExecError, ExecMount, ExecMountSource, ExecSpec, Executor};
use boxwright_solver::ir::{NetworkMode, SecurityMode};

struct Steps {
    _dir: tempfile::TempDir,
    store: Store,
    executor: LocalExecutor,
    base: Snapshot,
}

impl Steps {
    fn new() -> Steps {
        Steps::over(&["dev", "proc", "sys"])
    }

    /// With these directories besides busybox.
    fn over(directories: &[&str]) -> Steps {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let stubs = Stubs::new(open_directory(&store.path().join("stubs")).unwrap());
        let resolver = Resolver {
            servers: vec!["9.9.9.9".to_owned()],
            search: vec![".".to_owned()],
            options: vec!["edns0".to_owned()],
        };
        let settings = Settings { resolver, ..Settings::default() };
        let executor = LocalExecutor::new(Arc::new(stubs), settings, Networks::new(store.path()));
        let layer = store.new_layer().unwrap();
        copy(busybox(), layer.fs());
        for name in directories {
            match rustix::fs::mkdirat(layer.fs(), *name, rustix::fs::Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => panic!("making {name}: {errno}"),
            }
        }
        let layer = layer.commit(&Cancel::new().unwrap()).unwrap();
        let base = Snapshot::default().with(layer);
        Steps { _dir: dir, store, executor, base }
    }

    fn step(&self, root: &Snapshot, script: &str) -> ExecSpec {
        ExecSpec {
            root: root.clone(),
            mounts: Vec::new(),
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            user: String::new(),
            secret_env: Vec::new(),
            network: NetworkMode::None,
            security: SecurityMode::Sandbox,
            devices: Vec::new(),
            hostname: None,
            hosts: Vec::new(),
            platform: boxwright_cache::oci::Platform::host(),
        }
    }

    fn run(&self, spec: &ExecSpec) -> Result<(Snapshot, String), ExecError> {
        let cancel = Cancel::new().unwrap();
        let mut layer = self.store.new_layer().unwrap();
        let mut text = Vec::new();
        let mut log = |stream: LogStream, bytes: &[u8]| {
            text.extend_from_slice(if stream == LogStream::Notice { b"notice: " } else { b"" });
            text.extend_from_slice(bytes);
        };
        self.executor.run(spec, &mut layer, &mut log, &cancel)?;
        let layer = layer.commit(&cancel).unwrap();
        Ok((spec.root.with(layer), String::from_utf8(text).unwrap()))
    }
}

fn copy(from: &Path, to: impl std::os::fd::AsFd) {
    use std::os::fd::AsRawFd;
    let to = format!("/proc/{}/fd/{}", std::process::id(), to.as_fd().as_raw_fd());
    let status = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_step_sees_what_the_one_before_it_did() {
    let steps = Steps::new();
    let (first, _) = steps.run(&steps.step(&steps.base, "echo made > /file; rm /etc/group")).unwrap();
    let (_, text) =
        steps.run(&steps.step(&first, "cat /file; ls /etc; hostname; cat /etc/resolv.conf")).unwrap();
    assert_eq!(
        text,
        "made\nhosts\npasswd\nresolv.conf\nbuildkitsandbox\nnameserver 9.9.9.9\noptions edns0\n"
    );
}

#[test]
fn a_step_may_have_a_name_of_its_own_for_the_machine() {
    let steps = Steps::new();
    let mut step = steps.step(&steps.base, "hostname; grep -c box.test /etc/hosts; ls /etc");
    step.hostname = Some("box.test".to_owned());
    step.network = NetworkMode::Default;
    let (_, text) = steps.run(&step).unwrap();
    assert_eq!(text, "box.test\n1\ngroup\nhosts\npasswd\nresolv.conf\n");
}

#[test]
fn a_step_that_does_nothing_leaves_the_layer_of_nothing() {
    let steps = Steps::new();
    let (nothing, _) = steps.run(&steps.step(&steps.base, "true")).unwrap();
    let empty = steps.store.new_layer().unwrap().commit(&Cancel::new().unwrap()).unwrap();
    assert_eq!(nothing.layers().last().unwrap().diff_id(), empty.diff_id());
}

#[test]
fn a_step_leaves_the_directories_of_the_kernel_where_the_image_lacks_them() {
    let steps = Steps::over(&[]);
    let (first, _) = steps.run(&steps.step(&steps.base, "true")).unwrap();
    let cancel = Cancel::new().unwrap();
    let tree = first.tree(&cancel).unwrap();
    for name in ["dev", "proc", "sys"] {
        let node = tree.lookup(name, false).unwrap().expect(name);
        assert_eq!((node.kind, node.meta.mode), (Kind::Dir, 0o755), "{name}");
    }
    let (second, _) = steps.run(&steps.step(&first, "true")).unwrap();
    let empty = steps.store.new_layer().unwrap().commit(&cancel).unwrap();
    assert_eq!(second.layers().last().unwrap().diff_id(), empty.diff_id());
}

#[test]
fn mounts_of_a_step() {
    let steps = Steps::new();
    let (other, _) = steps.run(&steps.step(&steps.base, "mkdir /src; echo text > /src/f")).unwrap();
    let bind = |target: &str, read_only| ExecMount {
        target: target.to_owned(),
        source: ExecMountSource::Bind { from: other.clone(), selector: "/src".into() },
        read_only,
    };
    let mut spec =
        steps.step(&steps.base, "cat /ro/f /script; echo x >> /rw/f; cat /rw/f; echo y > /ro/f || true");
    let script = ExecMountSource::Inline { data: b"inline\n".to_vec(), mode: 0o755 };
    spec.mounts = vec![bind("/ro", true), bind("/rw", false)];
    spec.mounts.push(ExecMount { target: "/script".into(), source: script, read_only: true });
    let (result, text) = steps.run(&spec).unwrap();
    assert!(text.starts_with("text\ninline\ntext\nx\n") && text.contains("Read-only"), "{text}");
    let empty = steps.store.new_layer().unwrap().commit(&Cancel::new().unwrap()).unwrap();
    assert_eq!(result.layers().last().unwrap().diff_id(), empty.diff_id());
}

#[test]
fn failures_are_told_apart() {
    let steps = Steps::new();
    let exit = steps.run(&steps.step(&steps.base, "exit 3"));
    assert!(matches!(exit, Err(ExecError::Exit { code: 3 })), "{exit:?}");
    let mut spec = steps.step(&steps.base, "");
    spec.args = vec!["nothing".to_owned()];
    let start = steps.run(&spec);
    assert!(matches!(start, Err(ExecError::Start { code: 127, .. })), "{start:?}");
}

#[test]
fn a_cancelled_step_ends() {
    let steps = Steps::new();
    let cancel = Cancel::new().unwrap();
    let raise = cancel.clone();
    let mut layer = steps.store.new_layer().unwrap();
    let mut log = |_: LogStream, _: &[u8]| raise.raise();
    let spec = steps.step(&steps.base, "echo up; sleep 1000");
    let ended = steps.executor.run(&spec, &mut layer, &mut log, &cancel);
    assert!(matches!(ended, Err(ExecError::Cache(boxwright_cache::Error::Cancelled))), "{ended:?}");
}

/// More layers than overlayfs takes.
#[test]
fn why_steps_run_in_copies_is_told_once() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    // Each is open, and again for the copy.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (steps, cancel) = (Steps::new(), Cancel::new().unwrap());
    let mut many = steps.base.clone();
    for number in 0..500 {
        let layer = steps.store.new_layer().unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o755);
        rustix::fs::mkdirat(layer.fs(), format!("d{number}"), mode).unwrap();
        many = many.with(layer.commit(&cancel).unwrap());
    }
    let (next, first) = steps.run(&steps.step(&many, "ls -d /d499; rmdir /d0")).unwrap();
    let said = "notice: steps run in copies of their layers, as the kernel refuses an overlay of them: Invalid argument";
    assert!(first.starts_with(said) && first.ends_with("\n/d499\n") && first.lines().count() == 2, "{first}");
    let (_, second) = steps.run(&steps.step(&next, "test ! -e /d0 && ls -d /d1")).unwrap();
    assert_eq!(second, "/d1\n");
}
