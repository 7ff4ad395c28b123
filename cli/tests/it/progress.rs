//! How a build is shown: on a terminal, as lines, and for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::process::Stdio;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use serde_json::Value;

use crate::terminal::Terminal;
use crate::tool::{Boxwright, Context, Running, eventually};

/// What a terminal of this width shows of what was written to it, by the few sequences that the display needs.
struct Screen {
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    widest: usize,
}

impl Screen {
    fn of(text: &str) -> Screen {
        let mut screen = Screen { rows: vec![Vec::new()], row: 0, column: 0, widest: 0 };
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '\r' => screen.column = 0,
                '\n' => {
                    screen.row += 1;
                    let rows = screen.rows.len().max(screen.row + 1);
                    screen.rows.resize(rows, Vec::new());
                }
                '\u{1b}' => {
                    assert_eq!(rest.next(), Some('['), "no other sequences");
                    let mut parameter = String::new();
                    let last = loop {
                        match rest.next().unwrap() {
                            c @ ('\u{40}'..='\u{7e}') => break c,
                            c => parameter.push(c),
                        }
                    };
                    screen.sequence(&parameter, last);
                }
                c => screen.put(c),
            }
        }
        screen
    }

    fn put(&mut self, c: char) {
        assert!(!c.is_control(), "{c:?}");
        let row = &mut self.rows[self.row];
        row.resize(row.len().max(self.column + 1), ' ');
        row[self.column] = c;
        self.column += 1;
        self.widest = self.widest.max(self.column);
    }

    fn sequence(&mut self, parameter: &str, last: char) {
        match (parameter, last) {
            (lines, 'A') => self.row = self.row.saturating_sub(lines.parse().unwrap()),
            ("", 'K') => self.rows[self.row].truncate(self.column),
            ("", 'J') => {
                self.rows[self.row].truncate(self.column);
                self.rows.truncate(self.row + 1);
            }
            ("?25" | "?7", 'h' | 'l') | (_, 'm') => {}
            other => panic!("{other:?}"),
        }
    }

    fn lines(&self) -> Vec<String> {
        self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
    }
}

/// What the command wrote to a terminal of that size, and its exit status.
fn on_a_terminal(
    boxwright: &Boxwright,
    args: &[&str],
    (rows, columns): (u16, u16),
    env: &[(&str, &str)],
) -> (String, i32) {
    let Terminal { mut person, terminal } = Terminal::new();
    let sized = Terminal { person: person.try_clone().unwrap(), terminal };
    sized.resize(rows, columns);
    let mut command = boxwright.command(args);
    command
        .env_remove("NO_COLOR")
        .env_remove("BUILDKIT_COLORS")
        .env("TERM", "xterm")
        .envs(env.iter().copied());
    let mut running = sized.start(&command);
    drop(sized);
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    // When the last program has closed the terminal, reading is an error.
    while let Ok(length @ 1..) = person.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    (String::from_utf8(text).unwrap(), running.wait())
}

fn failing() -> Context {
    Context::new(
        "FROM busybox AS a\n\
         RUN for n in 1 2 3 4 5 6 7 8 9; do printf '\\033[2J\\033]0;title\\007said %s\\n' $n; done; sleep 1\n\
         FROM busybox\n\
         COPY --from=a /etc/group /\n\
         RUN seq 101 119; printf '\\033[2Jlast words\\n'; exit 3\n",
    )
}

#[test]
fn on_a_terminal_one_frame_ends_with_every_step_and_the_report_follows() {
    let boxwright = Boxwright::with_busybox();
    for size in [(24, 80), (8, 40), (60, 200)] {
        let context = failing();
        let (text, status) = on_a_terminal(&boxwright, &["build", "--no-cache", context.path()], size, &[]);
        assert_eq!(status, 1);
        let screen = Screen::of(&text);
        let lines = screen.lines();
        let frame: Vec<&String> =
            lines.iter().take_while(|line| line.starts_with("[+]") || line.starts_with(" =>")).collect();
        assert!(frame[0].starts_with("[+] Building "), "{lines:#?}");
        assert!(frame.iter().any(|line| line.starts_with(" => [a 2/2] RUN for n in") && line.ends_with('s')));
        assert!(frame.last().unwrap().starts_with(" => ERROR ["), "{lines:#?}");
        assert!(frame.iter().all(|line| line.chars().count() <= usize::from(size.1)), "{lines:#?}");
        let report = lines[frame.len()..].join("\n");
        assert!(report.contains("last words") && report.contains("exit code: 3"), "{report}");
        assert!((101..120).all(|n| report.contains(&format!("\n{n}\n"))), "all that it said: {report}");
        assert!(size.0 == 8 || text.contains("said 9"), "while it ran, where there was room");
        let up = text.split("\u{1b}[").filter_map(|sequence| sequence.split_once('A')?.0.parse::<u16>().ok());
        assert!(up.max().unwrap() < size.0, "no frame is higher");
        assert!(text.contains("\u{1b}[34m => ") && text.contains("\u{1b}[31m => ERROR"), "colours");
    }
}

#[test]
fn variables_choose_the_display_and_its_colours() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch\nCOPY a /\n").file("a", "x");
    let build = |args: &[&str], env: &[(&str, &str)]| {
        on_a_terminal(&boxwright, &[&["build"], args, &[context.path()]].concat(), (24, 80), env).0
    };
    let coloured = build(&[], &[("BUILDKIT_COLORS", "run=1,2,3:error=pink")]);
    assert!(coloured.contains("\u{1b}[38;2;1;2;3m => ") && coloured.contains("\"error=pink\""), "{coloured}");
    let finished = Screen::of(&coloured).lines();
    assert!(
        finished.iter().any(|line| line.starts_with("[+] Building") && line.ends_with("FINISHED")),
        "{finished:#?}"
    );
    assert!(!build(&[], &[("NO_COLOR", "1")]).contains("m => "));
    for (args, env) in [
        (&["--progress=plain"][..], &[][..]),
        (&[], &[("BUILDKIT_PROGRESS", "plain")]),
        (&[], &[("TERM", "dumb")]),
        (&["--progress", "plain"], &[("BUILDKIT_PROGRESS", "tty")]),
    ] {
        let plain = build(args, env);
        assert!(plain.starts_with("#1 [internal] load") && !plain.contains('\u{1b}'), "{plain:?}");
    }
    for quiet in ["quiet", "none"] {
        assert_eq!(build(&["--progress", quiet], &[]), "");
    }
    let refused = |args: &[&str], words: &str| {
        boxwright.build(&context, args).fails_with(1).says(words);
    };
    refused(&["--progress", "tty"], "--progress tty needs a terminal");
    refused(&["--progress", "loud"], "invalid progress mode \"loud\"");
    refused(&["--progress", "plain", "-q"], "progress=plain and quiet cannot be used together");
    let mut command = boxwright.command(&["build", "-q", context.path()]);
    let id = boxwright_testdata::run(command.env("BUILDKIT_PROGRESS", "plain")).ok();
    assert!(id.starts_with("sha256:"), "{id}");
}

#[test]
fn ctrl_c_leaves_the_terminal_as_it_was_and_the_last_frame_on_it() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nRUN echo rea''dy; sleep 1000\n");
    let mut terminal = Terminal::new();
    terminal.resize(24, 80);
    let before = terminal.modes();
    let mut running = terminal.start(&boxwright.command(&["build", context.path()]));
    terminal.wait_for(" => => # ready");
    running.signal(Signal::INT);
    let last = terminal.wait_for("ERROR: canceled");
    assert!(last.contains(" => CANCELED [2/2] RUN echo") && last.contains("\u{1b}[?25h"), "{last:?}");
    assert_eq!(running.wait(), 130);
    assert!(terminal.has(&before));
}

#[test]
fn programs_read_buildkits_statuses() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox as a\nRUN echo out; printf err >&2\nMAINTAINER me\n");
    let statuses = |args: &[&str]| -> Vec<Value> {
        let ran = boxwright.build(&context, &[&["--progress", "rawjson"], args].concat());
        assert_eq!(ran.status, 0, "{ran}");
        ran.stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    };
    let told = statuses(&[]);
    let keys: BTreeSet<&String> = told.iter().flat_map(|status| status.as_object().unwrap().keys()).collect();
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), ["logs", "statuses", "vertexes", "warnings"]);
    let list = |name: &str| {
        told.iter().filter_map(|status| status[name].as_array()).flatten().cloned().collect::<Vec<_>>()
    };
    let mut vertexes: BTreeMap<String, Value> = BTreeMap::new();
    for vertex in list("vertexes") {
        vertexes.insert(vertex["digest"].as_str().unwrap().to_owned(), vertex);
    }
    assert!(
        vertexes.values().all(|v| v["started"].is_string() && v["completed"].is_string()),
        "{vertexes:#?}"
    );
    let run = vertexes.values().find(|v| v["name"] == "[2/2] RUN echo out; printf err >&2").unwrap();
    assert!(vertexes[run["inputs"][0].as_str().unwrap()]["name"].as_str().unwrap().contains("FROM"));
    let mut output: Vec<(u64, String)> = list("logs")
        .iter()
        .map(|log| (log["stream"].as_u64().unwrap(), log["data"].as_str().unwrap().to_owned()))
        .collect();
    output.sort();
    assert_eq!(output, [(1, "b3V0Cg==".to_owned()), (2, "ZXJy".to_owned())], "out and err in base64");
    assert!(list("logs").iter().all(|log| log["vertex"] == run["digest"]));
    let exported = list("statuses")
        .iter()
        .any(|status| status["id"].as_str().unwrap().starts_with("writing image sha256:"));
    assert!(exported);
    assert_eq!(list("warnings").len(), 2, "FROM … as, and MAINTAINER");
    let about = |warning: &Value| vertexes[warning["vertex"].as_str().unwrap()]["name"].clone();
    assert!(
        list("warnings").iter().all(|w| about(w) == "[internal] load build definition from Dockerfile"),
        "whoever reads them looks for their vertex"
    );
    let cached = statuses(&[]);
    let ran: Vec<&Value> = cached.iter().flat_map(|status| status["vertexes"].as_array()).flatten().collect();
    assert!(ran.iter().any(|v| v["name"] == run["name"] && v["cached"] == true));
}

#[test]
fn programs_meet_nothing_else_before_the_error_of_a_build() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox as a\nRUN echo said; exit 3\n");
    let ran = boxwright.build(&context, &["--progress", "rawjson", "--security-opt", "seccomp=unconfined"]);
    assert_eq!(ran.status, 1, "{ran}");
    let is_error = |line: &&str| line.starts_with("ERROR: failed to solve: process ");
    let told: Vec<Value> = ran
        .stderr
        .lines()
        .take_while(|line| !is_error(line))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let rest: Vec<&str> = ran.stderr.lines().skip(told.len()).collect();
    assert!(is_error(&rest[0]), "{ran}");
    assert!(!rest.contains(&"------"), "they have the step's output: {ran}");
    let warnings = told.iter().filter_map(|status| status["warnings"].as_array()).flatten();
    let short = |warning: &Value| {
        let text = BASE64_STANDARD.decode(warning["short"].as_str().unwrap()).unwrap();
        String::from_utf8(text).unwrap()
    };
    let warnings: Vec<String> = warnings.map(short).collect();
    assert!(warnings.iter().any(|text| text.contains("security-opt")), "{warnings:?}");
    assert!(warnings.iter().any(|text| text.starts_with("FromAsCasing: ")), "{warnings:?}");

    for args in [&["--check"][..], &["--call", "outline"], &["--call", "targets"]] {
        let args = [&["--progress", "rawjson", "--security-opt", "seccomp=unconfined"], args].concat();
        let ran = boxwright.build(&context, &args);
        assert!(ran.stderr.contains("warnings"), "{ran}");
        assert!(ran.stderr.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{ran}");
    }
}

/// What the process had in memory at most, in KiB, when that has not changed for a while.
fn settled_peak(running: &Running) -> u64 {
    let status = format!("/proc/{}/status", running.0.id());
    let (mut peak, mut looks) = (0, 0);
    eventually("the command takes no more memory", || {
        let status = std::fs::read_to_string(&status).unwrap();
        let now = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")).unwrap();
        let now = now.trim().parse().unwrap();
        looks = if now == peak { looks + 1 } else { 0 };
        peak = now;
        looks == 30
    });
    peak
}

#[test]
fn output_that_nobody_reads_is_held_and_ctrl_c_ends_the_build() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox AS a\nRUN yes | head -c 150000000\nFROM a\nRUN true\n");
    for mode in ["plain", "rawjson"] {
        let args = ["build", "--progress", mode, "--no-cache", context.path()];
        let mut running = Running::start(boxwright.command(&args).stderr(Stdio::piped()));
        let stderr = running.0.stderr.take().unwrap();
        eventually("nobody reads", || rustix::io::ioctl_fionread(&stderr).unwrap() > 32 << 10);
        let peak = settled_peak(&running);
        assert!(peak < 64 << 10, "{mode}: {peak} KiB");
        running.signal(Signal::INT);
        assert_eq!(running.wait(), 130, "{mode}");
    }
    let Terminal { person, terminal } = Terminal::new();
    let command = boxwright.command(&["build", "--no-cache", context.path()]);
    let mut running = Terminal { person: person.try_clone().unwrap(), terminal }.start(&command);
    eventually("it is shown", || rustix::io::ioctl_fionread(&person).unwrap() > 0);
    let peak = settled_peak(&running);
    assert!(peak < 64 << 10, "tty: {peak} KiB");
    running.signal(Signal::INT);
    assert_eq!(running.wait(), 130, "tty");
}

#[test]
fn a_terminal_that_nobody_reads_holds_no_build_after_ctrl_c() {
    let boxwright = Boxwright::with_busybox();
    let context =
        Context::new("FROM busybox\nRUN for n in $(seq 100); do seq 100 | xargs echo; done; sleep 1000\n");
    let terminal = Terminal::new();
    terminal.resize(100, 200);
    let mut command = boxwright.command(&["build", "--no-cache", context.path()]);
    command.env("TERM", "xterm").env("BUILDKIT_TTY_LOG_LINES", "50");
    let mut running = terminal.start(&command);
    // What is shown is painted again and again, and in the end there is room for a part of it only.
    eventually("no room is left", || {
        let mut fds = [PollFd::new(&terminal.terminal, PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
    });
    running.signal(Signal::INT);
    eventually("it ends", || running.0.try_wait().unwrap().is_some());
}
