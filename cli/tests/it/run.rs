//! `run`: exit codes, flags, signals, terminals.

use std::io::{Read, Write};
use std::process::Stdio;

use boxwright_testdata::Ran;
use rustix::process::Signal;

use crate::tool::{Boxwright, Context, Running, binary};

#[test]
fn the_exit_code_is_the_one_of_the_process() {
    let boxwright = Boxwright::with_busybox();
    let run = |args: &[&str]| boxwright.run(&[&["run", "--rm"], args].concat()).status;
    assert_eq!(run(&["busybox", "true"]), 0);
    assert_eq!(run(&["busybox", "sh", "-c", "exit 7"]), 7);
    // A namespace's first process does not die of signals of its own: its child does.
    assert_eq!(run(&["busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]), 137);
    assert_eq!(run(&["busybox", "nosuchcommand"]), 127);
    assert_eq!(run(&["busybox", "/etc/passwd"]), 126);
    assert_eq!(run(&["busybox", "/etc"]), 126);
    assert_eq!(run(&["--nosuchflag", "busybox", "true"]), 125);
    assert_eq!(run(&["-u", "nosuchuser", "busybox", "true"]), 125);
    assert_eq!(run(&["127.0.0.1:1/nosuch", "true"]), 125);
}

#[test]
fn flags_reach_the_process() {
    let boxwright = Boxwright::with_busybox();
    let out = |args: &[&str]| boxwright.ok(&[&["run", "--rm"], args].concat());
    assert_eq!(out(&["-e", "A=1", "busybox", "sh", "-c", "echo $A"]), "1\n");
    assert_eq!(out(&["-w", "/new/dir", "busybox", "pwd"]), "/new/dir\n");
    assert_eq!(out(&["-u", "65534", "busybox", "id", "-u"]), "65534\n");
    assert_eq!(out(&["-u", "nobody", "busybox", "id", "-un"]), "nobody\n");
    assert_eq!(out(&["-u", "12:34", "busybox", "sh", "-c", "echo $(id -u):$(id -g)"]), "12:34\n");
    assert_eq!(out(&["--entrypoint", "echo", "busybox", "x"]), "x\n");
    assert_eq!(out(&["--network", "none", "busybox", "ls", "/sys/class/net"]), "lo\n");
    assert_eq!(out(&["busybox", "sh", "-c", "echo $HOME"]), "/root\n");
}

#[test]
fn entrypoint_and_command_of_the_image() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"default\"]\n");
    boxwright.build(&context, &["-t", "e"]).ok();
    assert_eq!(boxwright.output_of("e", &[]), "entry default\n");
    assert_eq!(boxwright.output_of("e", &["given"]), "entry given\n");
    assert_eq!(boxwright.ok(&["run", "--rm", "--entrypoint", "ls", "e", "-d", "/etc"]), "/etc\n");
}

#[test]
fn host_directories_are_bound_writable_and_read_only() {
    let boxwright = Boxwright::with_busybox();
    let shared = Context::new("").file("f", "from the host");
    let bind = format!("{}:/m", shared.path());
    boxwright.ok(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", "cat /m/f > /m/g"]);
    assert_eq!(std::fs::read_to_string(shared.join("g")).unwrap(), "from the host");
    let bind = format!("{}:/m:ro", shared.path());
    boxwright.run(&["run", "--rm", "-v", &bind, "busybox", "touch", "/m/h"]).fails_with(1).says("Read-only");
}

#[test]
fn a_read_only_root_stays_as_it_is() {
    let boxwright = Boxwright::with_busybox();
    boxwright.run(&["run", "--rm", "--read-only", "busybox", "touch", "/x"]).fails_with(1).says("Read-only");
}

#[test]
fn a_volume_of_the_image_is_writable_anew_in_each_container() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\nRUN mkdir -m 1770 /data && echo image > /data/f && chown -R 7:8 /data && ln -s data /link\n\
         VOLUME /data /new/one /link/below\n",
    );
    boxwright.build(&context, &["-t", "volumes"]).ok();
    let script = "cat /data/f; echo mine >> /data/f; echo new > /new/one/f; stat -c '%a %u:%g' /data /new/one; \
                  touch /root-file && echo written";
    for _ in 0..2 {
        let ran = boxwright.run(&["run", "--rm", "--read-only", "volumes", "sh", "-c", script]);
        assert_eq!(ran.stdout, "image\n1770 7:8\n755 0:0\n");
        assert!(ran.stderr.contains("Read-only file system"), "{}", ran.stderr);
    }
    let host = tempfile::tempdir().unwrap();
    let bound = format!("{}:/data", host.path().display());
    boxwright.ok(&[
        "run",
        "--rm",
        "-v",
        &bound,
        "volumes",
        "sh",
        "-c",
        "test ! -e /data/f; touch /data/here",
    ]);
    assert!(host.path().join("here").exists());
}

#[test]
fn what_one_container_writes_the_next_does_not_see() {
    let boxwright = Boxwright::with_busybox();
    boxwright.output_of("busybox", &["touch", "/left"]);
    boxwright.run(&["run", "--rm", "busybox", "ls", "/left"]).fails_with(1);
}

#[test]
fn standard_input_reaches_the_process_with_i() {
    let boxwright = Boxwright::with_busybox();
    let feed = |args: &[&str]| {
        let mut command = boxwright.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Without -i nobody reads, and the pipe may be closed already.
        let _ = child.stdin.take().unwrap().write_all(b"typed\n");
        Ran::new("run".into(), &child.wait_with_output().unwrap())
    };
    assert_eq!(feed(&["run", "--rm", "-i", "busybox", "cat"]).ok(), "typed\n");
    assert_eq!(feed(&["run", "--rm", "busybox", "cat"]).ok(), "");
}

#[test]
fn large_output_is_complete_and_the_streams_stay_apart() {
    let boxwright = Boxwright::with_busybox();
    let ran = boxwright.run(&["run", "--rm", "busybox", "sh", "-c", "seq 200000; echo err >&2"]);
    assert_eq!(ran.stderr, "err\n");
    assert_eq!(ran.ok().lines().count(), 200_000);
}

/// Starts a container that says "ready", and waits for that.
pub(crate) fn start(boxwright: &Boxwright, args: &[&str]) -> Running {
    let mut running = Running::start(boxwright.command(args).stdout(Stdio::piped()));
    let mut ready = [0; 6];
    running.0.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    running
}

#[test]
fn signals_are_forwarded() {
    let boxwright = Boxwright::with_busybox();
    // Without a terminal of its own a container has the signal of one that was resized.
    for (name, signal) in [("TERM", Signal::TERM), ("WINCH", Signal::WINCH)] {
        let script = format!("trap 'exit 42' {name}; echo ready; while :; do usleep 10000; done");
        let mut running = start(&boxwright, &["run", "--rm", "busybox", "sh", "-c", &script]);
        running.signal(signal);
        assert_eq!(running.wait(), 42, "{name}");
    }
}

#[test]
fn no_process_outlives_a_killed_run() {
    let boxwright = Boxwright::with_busybox();
    let mark = format!("38{}", std::process::id());
    let script = format!("echo ready; sleep {mark}");
    let mut running = start(&boxwright, &["run", "--rm", "busybox", "sh", "-c", &script]);
    running.signal(Signal::KILL);
    running.wait();
    crate::tool::eventually("the container's process is gone", || !process_with_argument(&mark));
}

/// Whether some process of this machine has `argument` as one of its arguments.
fn process_with_argument(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().any(|entry| {
        let line = std::fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).any(|a| a == argument.as_bytes())
    })
}

#[test]
fn a_terminal_is_one_to_the_process() {
    let boxwright = Boxwright::with_busybox();
    // script(1) gives us a terminal to stand on.
    let line = format!("{:?}", boxwright.command(&["run", "--rm", "-it", "busybox", "tty"])).replace('"', "");
    let binary = binary().display().to_string();
    let line = binary.clone() + line.split_once(&binary).unwrap().1;
    let ran =
        boxwright_testdata::run(std::process::Command::new("script").args(["-qec", &line, "/dev/null"]));
    assert!(ran.stdout.contains("/dev/pts/") || ran.stdout.contains("/dev/console"), "{ran}");
    boxwright.run(&["run", "--rm", "-t", "-i", "busybox", "true"]).fails_with(1);
}

#[test]
fn the_process_holds_only_its_three_files_and_dockers_capabilities() {
    let boxwright = Boxwright::with_busybox();
    let script = "ls /proc/self/fd | wc -l; grep -E '^(CapInh|CapEff|CapAmb|Seccomp):' /proc/self/status";
    let out = boxwright.output_of("busybox", &["sh", "-c", script]);
    // The fourth descriptor is the directory that ls reads.
    let lines: Vec<_> = out.lines().map(|l| l.split_whitespace().last().unwrap()).collect();
    assert_eq!(lines, ["4", "0000000000000000", "00000000a80425fb", "0000000000000000", "2"]);
}
