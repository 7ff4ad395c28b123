//! How containers end: by themselves, by a signal, by cancellation, and when we are killed.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::fixture::{Sandbox, run};
use boxwright_cache::Cancel;
use boxwright_executor::{Container, Error};

fn ignore(_: boxwright_solver::event::LogStream, _: &[u8]) -> std::io::Result<()> {
    Ok(())
}

#[test]
fn what_runs_in_the_background_ends_with_the_first_process() {
    let start = Instant::now();
    let output = Sandbox::new().sh("sleep 1000 & echo started");
    assert_eq!(output.stdout, "started\n");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn cancelling_ends_everything_at_once() {
    let sandbox = Sandbox::new();
    let mut container =
        Container::spawn(sandbox.spec(&["sh", "-c", "trap '' TERM INT; sleep 1000 & echo up; wait"]))
            .unwrap();
    let cancel = Cancel::new().unwrap();
    let raise = cancel.clone();
    let mut raised = None;
    let result = container.wait(&cancel, None, &mut |_, _: &[u8]| {
        raised = Some(Instant::now());
        raise.raise();
        Ok(())
    });
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    // No time of grace for the shell that ignores signals, nor a wait for the one it started.
    let took = raised.unwrap().elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn signals_reach_the_first_process() {
    let sandbox = Sandbox::new();
    let script = "trap 'exit 42' USR1; echo up; while :; do sleep 0.01; done";
    let mut container = Container::spawn(sandbox.spec(&["sh", "-c", script])).unwrap();
    let pid = rustix::process::Pid::from_raw(container.id()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let status = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            container.wait(&Cancel::new().unwrap(), None, &mut |_, _: &[u8]| {
                tell.send(()).unwrap();
                Ok(())
            })
        });
        told.recv().unwrap();
        // The trap is set before it says so.
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
        waiting.join().unwrap().unwrap()
    });
    assert_eq!(status.code(), 42);
}

/// The process on the host whose command line holds `script`.
fn pid_of_shell(script: &str) -> rustix::process::Pid {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().into_string().ok());
    let mut pids = all.filter_map(|name| name.parse::<i32>().ok());
    let pid = pids.find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(script)
    });
    rustix::process::Pid::from_raw(pid.unwrap()).unwrap()
}

#[test]
fn a_closed_reader_ends_the_writer() {
    let sandbox = Sandbox::new();
    let mut container = Container::spawn(sandbox.spec(&["yes"])).unwrap();
    let closed = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    let status = container.wait(&Cancel::new().unwrap(), None, &mut |_, _: &[u8]| Err(closed())).unwrap();
    assert!(!status.success());
}

#[test]
fn dropping_a_container_ends_it() {
    let sandbox = Sandbox::new();
    let container = Container::spawn(sandbox.spec(&["sleep", "4242"])).unwrap();
    let pid = rustix::process::Pid::from_raw(container.id()).unwrap();
    drop(container);
    assert!(rustix::process::test_kill_process(pid).is_err());
}

#[test]
fn nothing_is_left_mounted_on_the_host() {
    let sandbox = Sandbox::new();
    let place = sandbox.path("").to_str().unwrap().to_owned();
    let mounts = || {
        let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        all.lines().filter(|line| line.contains(&place) || line.contains(" overlay boxwright ")).count()
    };
    let mut container = Container::spawn(sandbox.spec(&["sh", "-c", "echo x"])).unwrap();
    assert_eq!(mounts(), 0);
    container.wait(&Cancel::new().unwrap(), None, &mut ignore).unwrap();
    assert_eq!(mounts(), 0);
}

#[test]
fn many_at_once() {
    let sandboxes: Vec<_> = (0..40).map(|_| Sandbox::new()).collect();
    std::thread::scope(|scope| {
        for sandbox in &sandboxes {
            scope.spawn(|| assert_eq!(run(sandbox.spec(&["echo", "hello"])).text(), "hello\n"));
        }
    });
}

/// Not a test of its own: what the next one starts and kills.
const CHILD: &str = "BOXWRIGHT_TEST_CHILD";

#[test]
fn being_killed_ends_the_container_whatever_user_it_became() {
    if let Some(marker) = std::env::var_os(CHILD) {
        return run_until_killed(marker.to_str().unwrap());
    }
    let marker = format!("{}", 100_000 + std::process::id());
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifetime::being_killed_ends_the_container_whatever_user_it_became", "--nocapture"])
        .env(CHILD, &marker)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().contains("container is up")));
    let pid = pid_of_shell(&marker);
    let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&limit)), Ok(1), "it lives on");
}

fn run_until_killed(marker: &str) {
    // The change of user makes the kernel forget the parent-death signal.
    let script = format!("echo container is up; exec sleep {marker}");
    let sandbox = Sandbox::new();
    let mut container =
        Container::spawn(sandbox.spec(&["su", "web", "-s", "/bin/sh", "-c", &script])).unwrap();
    let status = container.wait(&Cancel::new().unwrap(), None, &mut |_, bytes: &[u8]| {
        io::stdout().write_all(bytes).unwrap();
        Ok(())
    });
    panic!("it ended by itself: {status:?}");
}
