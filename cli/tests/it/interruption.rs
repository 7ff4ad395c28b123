//! Ctrl-C and SIGTERM before a container is there: while its files are copied, a volume is filled, a network is made.
//! Whatever it was, the exit code is the signal's, and nothing is left.

use std::fs;
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::copies::{assert_sound, in_use};
use crate::limits::Parent;
use crate::network::apart;
use crate::rootless::{RANGES, as_user};
use crate::terminal::{Terminal, same};
use crate::tool::{Boxwright, Context, Running, Who, eventually, wrapped};

const BOTH: [Who; 2] = [Who::Root, Who::User];

/// Whoever opens the file waits until this one's input ends: by fanotify, which asks us before it is opened.
const HOLD: &str = "import ctypes, os, sys
CLASS_CONTENT, MARK_ADD, OPEN_PERM, HERE = 4, 1, 0x10000, -100
libc = ctypes.CDLL(None, use_errno=True)
asked = libc.fanotify_init(CLASS_CONTENT, os.O_RDONLY)
mask, path = ctypes.c_uint64(OPEN_PERM), os.fsencode(sys.argv[1])
if asked < 0 or libc.fanotify_mark(asked, MARK_ADD, mask, HERE, path) < 0:
    sys.exit(os.strerror(ctypes.get_errno()))
os.write(1, b'held')
os.read(asked, 4096)
os.write(1, b'wanted')
sys.stdin.read()
";

/// A file that nobody can open before [`Held::let_go`].
struct Held(Running);

impl Held {
    fn new(file: &Path) -> Held {
        let mut command = Command::new("python3");
        command.args(["-c", HOLD]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut held = Held(Running::start(&mut command));
        held.hear("held");
        held
    }

    fn hear(&mut self, word: &str) {
        let mut heard = vec![0; word.len()];
        self.0.0.stdout.as_mut().unwrap().read_exact(&mut heard).unwrap();
        assert_eq!(heard, word.as_bytes());
    }

    fn wait_until_it_is_wanted(&mut self) {
        self.hear("wanted");
    }

    fn let_go(mut self) {
        drop(self.0.0.stdin.take());
        self.0.wait();
    }
}

/// A file of the image, where the store has it.
fn stored(boxwright: &Boxwright, name: &str) -> PathBuf {
    let found = Command::new("find").arg(boxwright.store().join("layers")).args(["-name", name]).output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    found.lines().next().unwrap().into()
}

/// The command has seen the signal, whatever it is about to do.
fn wait_until_taken(running: &Running, signal: Signal) {
    let status = format!("/proc/{}/status", running.0.id());
    eventually("the signal is taken", || {
        let status = fs::read_to_string(&status).unwrap();
        let waiting = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
        u64::from_str_radix(waiting.trim(), 16).unwrap() & (1 << (signal.as_raw() - 1)) == 0
    });
}

/// What stands for the addresses that containers have in the network of a command, as long as that runs.
fn addresses_of(running: &Running) -> Vec<PathBuf> {
    let namespace = fs::metadata(format!("/proc/{}/ns/net", running.0.id())).unwrap().ino();
    let Ok(taken) = fs::read_dir(format!("/run/boxwright/network/{namespace}")) else { return Vec::new() };
    let paths = taken.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_str().unwrap().parse::<Ipv4Addr>().is_ok()).collect()
}

#[test]
fn a_run_that_copies_its_files_ends_at_once_and_leaves_nothing() {
    for who in BOTH {
        let boxwright = Boxwright::on_overlay(who);
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let groups = Parent::new("interrupted");
            let mut args = vec!["run", "--rm", "--cidfile", "ID"];
            let id = boxwright.scratch("home/id");
            fs::create_dir_all(boxwright.scratch("home")).unwrap();
            args[3] = id.to_str().unwrap();
            if who == Who::Root {
                args.extend(["--pids-limit", "100", "--cgroup-parent", &groups.0]);
            }
            args.extend(["busybox", "echo", "started"]);
            let mut held = Held::new(&stored(&boxwright, "passwd"));
            let mut command = wrapped(&["unshare", "--net"], &boxwright.command(&args));
            let mut running = Running::start(command.stdout(Stdio::piped()));
            held.wait_until_it_is_wanted();
            let addresses = addresses_of(&running);
            assert!(in_use(&boxwright) > 0 && id.exists());
            assert_eq!(groups.groups().is_empty(), who == Who::User);
            assert_eq!(addresses.len(), usize::from(who == Who::Root), "{addresses:?}");
            running.signal(signal);
            wait_until_taken(&running, signal);
            held.let_go();
            assert_eq!(running.wait(), code, "{who:?}");
            let mut said = String::new();
            running.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
            assert_eq!(said, "", "{who:?}");
            assert!(!id.exists() && groups.groups().is_empty(), "{who:?}");
            assert_eq!(in_use(&boxwright), 0, "{who:?}");
            assert!(!addresses.iter().any(|address| address.exists()), "{addresses:?}");
        }
        assert_eq!(boxwright.output_of("busybox", &["echo", "again"]), "again\n");
        assert_sound(&boxwright);
    }
}

/// The terminal makes a signal of the key until the container has it.
#[test]
fn ctrl_c_at_a_terminal_ends_the_copying_for_run_and_for_a_shell_in_a_step() {
    let boxwright = Boxwright::on_overlay(Who::Root);
    let context = Context::new("FROM busybox\nRUN echo left > /left && false\n");
    let ran = boxwright.build(&context, &[]).fails_with(1);
    let (_, words) = ran.stderr.split_once(" debug shell ").unwrap();
    let words: Vec<&str> = words.lines().next().unwrap().split(' ').collect();
    for args in [&["run", "--rm", "-it", "busybox", "sh"][..], &["debug", "shell", words[0], words[1]]] {
        let before = in_use(&boxwright);
        let mut terminal = Terminal::new();
        let modes = terminal.modes();
        let mut held = Held::new(&stored(&boxwright, "passwd"));
        let mut running = terminal.start(&boxwright.command(args));
        held.wait_until_it_is_wanted();
        assert!(same(&terminal.modes(), &modes), "{args:?}");
        // Somebody who changes their window meanwhile is still waited for.
        running.signal(Signal::WINCH);
        terminal.person.write_all(b"\x03").unwrap();
        terminal.wait_for("^C");
        wait_until_taken(&running, Signal::INT);
        held.let_go();
        assert_eq!(running.wait(), 130, "{args:?}");
        assert!(same(&terminal.modes(), &modes), "{args:?}");
        assert_eq!(in_use(&boxwright), before, "{args:?}");
    }
    assert_sound(&boxwright);
}

#[test]
fn a_terminal_that_changes_while_files_are_copied_is_as_large_in_the_container() {
    let boxwright = Boxwright::on_overlay(Who::Root);
    let mut terminal = Terminal::new();
    terminal.resize(30, 100);
    let mut held = Held::new(&stored(&boxwright, "passwd"));
    let mut running = terminal.start(&boxwright.command(&[
        "run",
        "--rm",
        "-it",
        "busybox",
        "sh",
        "-c",
        "read x; stty size",
    ]));
    held.wait_until_it_is_wanted();
    terminal.resize(50, 120);
    wait_until_taken(&running, Signal::WINCH);
    held.let_go();
    eventually("the container has the terminal", || terminal.is_raw());
    terminal.person.write_all(b"\r").unwrap();
    terminal.wait_for("50 120\r\n");
    assert_eq!(running.wait(), 0);
}

#[test]
fn a_run_that_fills_a_volume_ends_and_the_next_one_fills_it() {
    for who in BOTH {
        let boxwright = Boxwright::with_busybox_of(who);
        let args = ["run", "--rm", "-v", "data:/etc", "busybox", "cat", "/etc/passwd"];
        let mut held = Held::new(&stored(&boxwright, "passwd"));
        let mut running = Running::start(&mut boxwright.command(&args));
        held.wait_until_it_is_wanted();
        running.signal(Signal::TERM);
        wait_until_taken(&running, Signal::TERM);
        held.let_go();
        assert_eq!(running.wait(), 143, "{who:?}");
        assert_eq!(in_use(&boxwright), 0, "{who:?}");
        assert!(boxwright.ok(&args).starts_with("root:"), "{who:?}");
    }
}

/// A bridge is not there yet, and a program of the host's takes its time with it.
#[test]
fn who_waits_for_iptables_ends_at_once_and_the_hosts_network_is_as_before() {
    let boxwright = Boxwright::with_busybox();
    let script = "echo 0 > /proc/sys/net/ipv4/ip_forward; iptables-legacy -P FORWARD DROP; \
         mkdir $store/context; printf 'FROM busybox\nRUN echo sta$(echo rted)\n' > $store/context/Dockerfile; \
         slow=$(readlink -f $(command -v iptables-legacy)); cp $slow $store/real; \
         printf '#!/bin/sh\necho $$ > %s/pid\nmv %s/pid %s/asked\nexec sleep 1000\n' $store $store $store > $store/fake; \
         chmod +x $store/fake; mount --bind $store/fake $slow; \
         for words in 'run --rm busybox echo started' \"build --progress plain $store/context\" 'system prune -f'; do \
         case $words in system*) umount $slow; bw run --rm busybox true; mount --bind $store/fake $slow;; esac; \
         \"$program\" --root \"$store\" $words & pid=$!; while ! test -e $store/asked; do :; done; \
         kill -INT $pid; wait $pid || echo $?; kill -0 $(cat $store/asked) || echo ended; rm $store/asked; \
         ip link show boxwright0 || nft list tables; cat /proc/sys/net/ipv4/ip_forward; done; \
         umount $slow; bw system prune -f; ip link show boxwright0 || iptables-legacy -S FORWARD";
    let ran = apart(&boxwright, script);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[..6], ["130", "ended", "0", "130", "ended", "0"], "{ran}");
    // Who removes a bridge and is kept from it leaves it.
    assert_eq!(lines[6..8], ["130", "ended"], "{ran}");
    assert!(lines[8].contains("boxwright0") && ran.stdout.ends_with("\n-P FORWARD DROP\n"), "{ran}");
    ran.says_nothing_of(" started");
}

#[test]
fn who_waits_for_others_to_be_done_with_the_bridge_ends_at_once() {
    let boxwright = Boxwright::with_busybox();
    // The kernel takes away what the first container had of the bridge some time after its end.
    let script = "bw run --rm busybox true; while ip -o link | grep -q master.boxwright0; do :; done; \
         dir=/run/boxwright/network/$(stat -Lc %i /proc/self/ns/net); \
         mkdir $store/context; printf 'FROM busybox\nRUN echo sta$(echo rted)\n' > $store/context/Dockerfile; \
         flock --no-fork $dir/lock sleep 1000 & holder=$!; trap 'kill $holder' EXIT; \
         while flock --nonblock $dir/lock true; do :; done; ip -o link | wc -l; \
         for words in 'run --rm busybox echo started' \"build --progress plain $store/context\" 'system prune -f'; do \
         \"$program\" --root \"$store\" $words & pid=$!; \
         until ls -l /proc/$pid/fd | grep -q $dir/lock; do :; done; kill -INT $pid; wait $pid || echo $?; done; \
         ip -o link | wc -l; ls $dir | grep -v rules";
    let ran = apart(&boxwright, script);
    let mut lines: Vec<&str> = ran.stdout.lines().collect();
    let before = lines.remove(0);
    assert_eq!(lines, ["130", "130", "130", before, "lock"], "{ran}");
    ran.says_nothing_of(" started");
}

/// The command is signalled when it holds signals back: a shell has what it runs in the background ignore Ctrl-C.
#[test]
fn who_waits_for_newuidmap_ends_at_once_and_leaves_no_helper() {
    let script = "mkdir bin c; printf 'FROM busybox\nRUN echo sta$(echo rted)\n' > c/Dockerfile; \
         printf '#!/bin/sh\necho $$ > %s/pid\nmv %s/pid %s/asked\nexec sleep 1000\n' $PWD $PWD $PWD > bin/newuidmap; \
         chmod +x bin/newuidmap; PATH=$PWD/bin:$PATH; \
         for words in 'run --rm busybox echo started' 'build --progress plain c' 'volume ls'; do for signal in INT KILL; do \
         ../program --root store $words & pid=$!; while ! test -e asked; do :; done; \
         until grep SigBlk /proc/$pid/status | grep -q '[1-9a-f]'; do :; done; kill -$signal $pid; wait $pid || echo $?; \
         while test $signal = KILL && kill -0 $(cat asked) 2>/dev/null; do :; done; \
         kill -0 $(cat asked) 2>/dev/null || echo ended; rm asked; done; done";
    let ran = as_user(RANGES, script);
    assert_eq!(ran.stdout, "130\nended\n137\nended\n".repeat(3), "{ran}");
    ran.says_nothing_of(" started");
}

#[test]
fn under_nohup_the_end_of_a_session_ends_nothing() {
    let boxwright = Boxwright::with_busybox();
    let script = "echo ready; read code; exit $code";
    let run = boxwright.command(&["run", "--rm", "-i", "busybox", "sh", "-c", script]);
    let mut running = Running::start(wrapped(&["nohup"], &run).stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut ready = [0; 6];
    running.0.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    running.signal(Signal::HUP);
    running.0.stdin.take().unwrap().write_all(b"7\n").unwrap();
    assert_eq!(running.wait(), 7);
}
