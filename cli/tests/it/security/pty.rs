//! `-t` on a real terminal: what of ours, and of the terminal of whoever started us, a container can reach.

use boxwright_testdata::program::Program;
use boxwright_testdata::tar::Tar;
use rustix::process::Signal;

use super::process::leaking;
use super::{Canary, load};
use crate::terminal::Terminal;
use crate::tool::{Boxwright, Context, Who, eventually};

/// Types a line on whatever terminal it finds, by TIOCSTI, and takes the terminal for its own if it can. Says what it
/// found behind /dev/ptmx.
const TYPIST: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
int main(void) {
    int fds[] = { 0, 1, 2, open("/dev/tty", O_RDWR), open("/dev/console", O_RDWR) };
    for (int n = 0; n < 5; n++) {
        ioctl(fds[n], TIOCSCTTY, 1);
        for (const char *c = "touch typed\n"; *c; c++) ioctl(fds[n], TIOCSTI, c);
    }
    int number = -1;
    ioctl(open("/dev/ptmx", O_RDWR | O_NOCTTY), TIOCGPTN, &number);
    printf("the other end of %d\n", number);
}
"#;

fn a_container_on_a_terminal_has_three_descriptors_and_not_the_other_end(who: Who) {
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let script = "cd /proc/self/fd && echo inside: *; for n in 0 1 2; do readlink $n; done; ls /proc/1/fd; \
                  for fd in /proc/[0-9]*/fd/*; do readlink $fd; done | grep -e ptmx -e socket -e anon; \
                  ls /dev/pts; tty; : > /dev/console && echo written; cat /proc/1/environ | tr '\\0' '\\n' | grep -i token; echo end";
    // The first process keeps nothing but what it waits with, and its child has none of that.
    let waits = "3 4 anon_inode:[signalfd] anon_inode:[pidfd] ";
    for (init, own) in [(&[][..], ""), (&["--init"], waits)] {
        let args = [&["run", "--rm", "-it"], init, &["busybox", "sh", "-c", script]].concat();
        let mut command = leaking(&canary, &boxwright.command(&args));
        let mut terminal = Terminal::new();
        let mut running = terminal.start(command.env("CI_TOKEN", "ours"));
        let out = terminal.wait_for("end\r\n");
        let out = out.split_whitespace().collect::<Vec<_>>().join(" ");
        let ends = "/dev/pts/0 /dev/pts/0 /dev/pts/0";
        assert_eq!(
            out,
            format!("inside: 0 1 2 3 {ends} 0 1 2 {own}0 ptmx /dev/pts/0 written end"),
            "{init:?}"
        );
        assert_eq!(running.wait(), 0);
    }
    canary.assert_intact("a container on a terminal");
}

fn nothing_can_be_typed_on_the_terminal_of_the_caller(who: Who) {
    let boxwright = Boxwright::of(who);
    let typist = Program::compile(TYPIST, &[]);
    load(&boxwright, "typist", Tar::new().file("typist", 0o755, typist.bytes()));
    let step = Context::new("FROM typist\nRUN [\"/typist\"]\nRUN --security=insecure [\"/typist\"]\n");
    let privileged = &["--privileged", "typist", "/typist"][..];
    let plain = &["typist", "/typist"][..];
    let build = ["build", "--progress=plain", "--allow", "security.insecure", "--no-cache", step.path()];
    for (command, status) in [
        (boxwright.command(&[&["run", "--rm"], plain].concat()), 0),
        (boxwright.command(&[&["run", "--rm", "-i"], privileged].concat()), 0),
        (boxwright.command(&[&["run", "--rm", "-t"], privileged].concat()), 0),
        (boxwright.command(&[&["run", "--rm", "-it"], plain].concat()), 0),
        (boxwright.command(&[&["run", "--rm", "-it", "--init"], privileged].concat()), 0),
        (boxwright.command(&build), 0),
    ] {
        let mut terminal = Terminal::new();
        let mut running = terminal.start(&command);
        let seen = terminal.wait_for("the other end of");
        assert_eq!(running.wait(), status, "{seen}");
        assert_eq!(terminal.typed(), 0, "{command:?}: {seen}");
    }
    if who == Who::Root {
        // On a terminal that it has, the same program does type.
        let terminal = Terminal::new();
        terminal.start(&std::process::Command::new(typist.path())).wait();
        assert!(terminal.typed() > 0);
    }
}

/// The terminal that a container makes anew by `/dev/ptmx` is another one than its own.
fn the_other_end_of_a_containers_terminal_is_not_to_be_had(who: Who) {
    let boxwright = Boxwright::of(who);
    let typist = Program::compile(TYPIST, &[]);
    load(&boxwright, "typist", Tar::new().file("typist", 0o755, typist.bytes()));
    let mut terminal = Terminal::new();
    let mut running = terminal.start(&boxwright.command(&["run", "--rm", "-it", "typist", "/typist"]));
    // What it typed is on its own terminal.
    terminal.wait_for("the other end of 1\r\n");
    assert_eq!(running.wait(), 0);
}

fn modes_and_size_are_kept_whoever_starts_it(who: Who) {
    let boxwright = Boxwright::with_busybox_of(who);
    let mut terminal = Terminal::new();
    terminal.resize(30, 100);
    let before = terminal.modes();
    let script =
        "stty size; until [ \"$(stty size)\" = '50 120' ]; do usleep 10000; done; echo resized; sleep 60";
    let mut running =
        terminal.start(&boxwright.command(&["run", "--rm", "-it", "busybox", "sh", "-c", script]));
    terminal.wait_for("30 100\r\n");
    assert!(terminal.is_raw());
    terminal.resize(50, 120);
    terminal.wait_for("resized\r\n");
    running.signal(Signal::KILL);
    running.wait();
    eventually("the modes are as before", || terminal.has(&before));
}

super::by_both!(
    a_container_on_a_terminal_has_three_descriptors_and_not_the_other_end,
    nothing_can_be_typed_on_the_terminal_of_the_caller,
    the_other_end_of_a_containers_terminal_is_not_to_be_had,
    modes_and_size_are_kept_whoever_starts_it,
);
