//! A failed step is no dead end: what it left is kept, and a shell opens in it at once or later, as in steps that went well.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use boxwright_testdata::{Ran, run, run_with};
use rustix::process::Signal;

use crate::terminal::Terminal;
use crate::tool::{Boxwright, Context, eventually, sleeping};

/// A store in which the collection that follows the first command is over: on a disk that is almost full it would take
/// what the test looks into.
fn with_busybox() -> Boxwright {
    let boxwright = Boxwright::with_busybox();
    boxwright.ok(&["sync-store"]);
    boxwright
}

/// The command that the report of a failed build tells.
#[track_caller]
fn told(ran: &Ran) -> Vec<String> {
    let at = ran.stderr.find("to look into what it left: boxwright ").unwrap_or_else(|| panic!("{ran}"));
    let line = ran.stderr[at..].lines().next().unwrap();
    line.split(' ').skip(7).map(str::to_owned).collect()
}

/// `debug shell` with these words, and these lines typed into it.
fn type_into(boxwright: &Boxwright, words: &[&str], lines: &str) -> Ran {
    let mut command = boxwright.command(&[&["debug", "shell"], words].concat());
    let file = boxwright.scratch("typed");
    fs::write(&file, lines).unwrap();
    run_with(&mut command, fs::File::open(file).unwrap().into())
}

const DOCKERFILE: &str = "FROM busybox AS other\n\
    RUN mkdir /d && echo stage > /d/f\n\
    FROM busybox\n\
    WORKDIR /work\n\
    ENV GREETING='hello there'\n\
    RUN echo one > /one\n\
    USER daemon\n\
    RUN --mount=type=cache,target=/cache,uid=1 --mount=type=secret,id=word,uid=1 --mount=type=tmpfs,target=/t,size=1m \
        --mount=from=other,source=/d,target=/d \
        echo half > /tmp/left; echo kept > /cache/f; exit 3\n";

#[test]
fn what_a_failed_step_left_is_found_by_the_command_that_the_report_tells() {
    let boxwright = with_busybox();
    let failed = boxwright.build(&Context::new(DOCKERFILE), &["--on-error", "shell"]);
    assert_eq!(failed.status, 1, "{failed}");
    let failed = failed.says("exit code: 3").says("--on-error=shell needs a terminal");
    let words = told(&failed);
    assert_eq!(words[..2], ["--root", boxwright.store().to_str().unwrap()], "{words:?}");
    let mut typed = Command::new(crate::tool::binary());
    let script = "id -u; pwd; echo $GREETING; cat /tmp/left /one /cache/f /d/f; df -k /t | awk 'NR==2{print $2}'; \
                  ls /run/secrets/word 2>/dev/null; touch /tmp/new && exit 5";
    typed.args(&words).args(["sh", "-c", script]).stdin(Stdio::null());
    let ran = run(&mut typed);
    assert_eq!(ran.status, 5, "{ran}");
    assert_eq!(ran.stdout, "1\n/work\nhello there\nhalf\none\nkept\nstage\n1024\n");
    let (build, step) = (words[4].as_str(), words[5].as_str());
    let again = type_into(&boxwright, &[build, step], "ls /tmp; echo more >> /cache/f\nexit 4\n");
    assert_eq!((again.status, again.stdout.as_str()), (4, "left\n"), "what was changed is gone: {again}");
    // What it is lent is asked for again, and what others wrote to the cache is there.
    let secret = boxwright.scratch("secret");
    fs::write(&secret, "horse").unwrap();
    let flag = format!("id=word,src={}", secret.display());
    let seen = boxwright.ok(&[
        "debug",
        "shell",
        "--secret",
        &flag,
        "^",
        step,
        "cat",
        "/cache/f",
        "/run/secrets/word",
    ]);
    assert_eq!(seen, "kept\nmore\nhorse");
}

#[test]
fn steps_that_went_well_can_be_looked_into_too() {
    let boxwright = with_busybox();
    let context = Context::new(
        "FROM busybox\nRUN echo 1 > /one\nRUN echo 2 > /two\nCOPY Dockerfile /three\nRUN rm /one /two && cat /three\n",
    );
    boxwright.built(&context, &[]);
    boxwright.built(&context, &[]);
    let seen = |step: &str| {
        boxwright.ok(&[
            "debug",
            "shell",
            "^",
            step,
            "sh",
            "-c",
            "cd / && ls -d one two three 2>/dev/null || true",
        ])
    };
    assert_eq!(seen("RUN echo 1"), "one\n");
    assert_eq!(seen("RUN echo 2"), "one\ntwo\n");
    assert_eq!(seen("COPY"), "one\nthree\ntwo\n");
    assert_eq!(seen("RUN rm"), "three\n");
    for (step, words) in [
        ("RUN", "several steps have \"RUN\""),
        ("99", "has no step \"99\""),
        ("none", "has no step \"none\""),
        ("FROM", "nothing is kept"),
    ] {
        boxwright.run(&["debug", "shell", "^", step, "true"]).fails_with(1).says(words);
    }
    let wrong = Context::new("FROM busybox\nRUN --mount=type=secret,id=gone,required true\n");
    boxwright.build(&wrong, &[]).fails_with(1).says("secret gone: not found").says_nothing_of("look into");
    boxwright.built(&context, &[]);
    boxwright.run(&["debug", "shell", "beef", "1"]).fails_with(1).says("no record found");
    boxwright.ok(&["rmi", "-f", "x"]);
    boxwright.ok(&["builder", "prune", "-af"]);
    boxwright.run(&["debug", "shell", "^", "RUN rm", "true"]).fails_with(1).says("nothing is kept of step");
}

#[test]
fn a_failure_is_never_a_result_and_only_the_newest_stay() {
    let boxwright = with_busybox();
    let context = Context::new("FROM busybox\nARG N\nRUN echo ran-$((1)); echo $N > /n; exit 1\n");
    let build =
        |n: usize| boxwright.build(&context, &["--build-arg", &format!("N={n}")]).fails_with(1).says("ran-1");
    build(0);
    build(0);
    // An equal result of a step that goes well is a new one.
    let same = Context::new("FROM busybox\nARG N=0\nRUN echo $N > /n && touch -d @1 /n\n");
    boxwright.built(&same, &[]);
    for n in 1..=11 {
        build(n);
    }
    let step = |n: usize| boxwright.run(&["debug", "shell", &format!("^{n}"), "RUN echo", "cat", "/n"]);
    assert_eq!(step(0).ok(), "11\n");
    assert_eq!(step(9).ok(), "2\n");
    step(10).fails_with(1).says("of failed steps the newest 10 stay");
    let count = || boxwright.ok(&["system", "df", "-v"]).matches("regular").count();
    assert_eq!(count(), 11, "the ten, and the step that went well");
    boxwright.ok(&["builder", "prune", "-f"]);
    assert_eq!(count(), 1);
    step(0).fails_with(1).says("nothing is kept");
}

#[test]
fn flags_of_steps_count_for_a_shell() {
    let boxwright = with_busybox();
    boxwright.built(&Context::new("FROM busybox\nRUN true\n"), &[]);
    let shell = |flags: &[&str], script: &str| {
        boxwright.run(&[&["debug", "shell"], flags, &["^", "RUN", "sh", "-c", script]].concat())
    };
    let flags = ["--add-host", "a.test:192.0.2.7", "--dns", "192.0.2.8", "--ulimit", "nofile=99"];
    let seen = shell(&flags, "grep a.test /etc/hosts; cat /etc/resolv.conf; ulimit -n").ok();
    assert!(
        seen.starts_with("192.0.2.7\ta.test\nnameserver 192.0.2.8\n") && seen.ends_with("99\n"),
        "{seen}"
    );
    shell(&["--step-timeout", "200ms"], "sleep 987652").fails_with(137).says("time limit of 200ms exceeded");
}

#[test]
fn a_shell_asks_for_what_its_step_was_granted() {
    let boxwright = with_busybox();
    for (flag, entitlement) in
        [("--network=host", "network.host"), ("--security=insecure", "security.insecure")]
    {
        let context = Context::new(&format!("FROM busybox\nRUN {flag} exit 1\n"));
        boxwright.build(&context, &["--allow", entitlement]).fails_with(1);
        let shell = ["debug", "shell", "^", "RUN", "grep", "CapEff", "/proc/self/status"];
        boxwright.run(&shell).fails_with(1).says(&format!("{entitlement} is not allowed"));
        let allowed = [&["debug", "shell", "--allow", entitlement], &shell[2..]].concat();
        let insecure = entitlement == "security.insecure";
        assert_eq!(boxwright.ok(&allowed).contains("a80425fb"), !insecure);
    }
}

#[test]
fn an_image_without_a_shell_gets_one() {
    let boxwright = with_busybox();
    let context = Context::new(
        "FROM scratch\nCOPY Dockerfile /etc/file\nENV A=b\nUSER 5:6\nWORKDIR /etc\nRUN [\"/no/such\", \"x\"]\n",
    );
    boxwright.build(&context, &[]).fails_with(1).says("exit code: 127");
    let lines = "pwd\necho \"$A\" '$A'\nid\ncat file; cd /\nls etc\nmissing || echo $?\nls | cat\nexit 7\necho never\n";
    let ran = type_into(&boxwright, &["^", "RUN"], lines);
    assert_eq!(ran.status, 7, "{ran}");
    let listed: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(listed[..4], ["/etc", "b $A", "uid=5 gid=6 groups=6", "FROM scratch"], "{ran}");
    assert!(
        ran.stdout.contains("-0644 ") && ran.stdout.contains(" file\n") && ran.stdout.ends_with("\n127\n"),
        "{ran}"
    );
    let ran = ran.says("missing: not found").says("`|` is not known here");
    assert!(!ran.stdout.contains("never"));
    // It is a copy that can't be written, and has nothing of ours but itself.
    let ran = type_into(&boxwright, &["^", "RUN"], "env\nls -l /proc/self/fd\n");
    let names = ran.stdout.lines().filter_map(|line| line.split_once('=').map(|(name, _)| name));
    assert_eq!(names.collect::<Vec<_>>(), ["A", "HOME", "PATH"], "{ran}");
    let ran = boxwright.run(&["debug", "shell", "^", "RUN", "/no/such"]).fails_with(127);
    ran.says("Error: exec: \"/no/such\"").says_nothing_of("run --help");
}

#[test]
fn a_shell_opens_at_once_on_a_terminal() {
    let boxwright = with_busybox();
    let context =
        Context::new("FROM busybox\nRUN --mount=type=secret,id=word,required echo half > /left; false\n");
    let mut terminal = Terminal::new();
    let word = boxwright.scratch("word");
    fs::write(&word, "horse\n").unwrap();
    let secret = format!("id=word,src={}", word.display());
    let args = [
        "build",
        "--on-error=shell",
        "--secret",
        &secret,
        "--build-arg",
        "http_proxy=http://p.test",
        context.path(),
    ];
    let mut command = boxwright.command(&args);
    command.env_remove("CI");
    let mut running = terminal.start(&command);
    let report = terminal.wait_for("what is changed here is thrown away");
    assert!(report.contains("exit code: 1") && report.contains("boxwright --root"), "{report}");
    terminal
        .person
        .write_all(b"cat /left /run/secrets/word; echo $HTTP_PROXY; test -t 0 && echo termi''nal\r")
        .unwrap();
    terminal.wait_for("half\r\nhorse\r\nhttp://p.test\r\nterminal\r\n");
    terminal.person.write_all(b"exit 9\r").unwrap();
    assert_eq!(running.wait(), 1, "the outcome is the build's");
    // Nobody sits at a CI's terminal.
    command.env("CI", "true");
    let terminal = Terminal::new();
    assert_eq!(terminal.start(&command).wait(), 1);
    // One that goes well is a build like any other.
    let well = Context::new("FROM busybox\nRUN true\n");
    let mut command = boxwright.command(&["build", "--on-error=shell", well.path()]);
    assert_eq!(Terminal::new().start(command.env_remove("CI")).wait(), 0);
}

#[test]
fn a_killed_shell_leaves_nothing_running() {
    let boxwright = with_busybox();
    boxwright.build(&Context::new("FROM busybox\nRUN false\n"), &[]).fails_with(1);
    let mut terminal = Terminal::new();
    let seconds = format!("87{}", std::process::id());
    let mut running = terminal.start(&boxwright.command(&["debug", "shell", "^", "RUN", "sleep", &seconds]));
    eventually("it sleeps", || sleeping(&seconds) > 0);
    running.signal(Signal::KILL);
    running.wait();
    eventually("it is gone", || sleeping(&seconds) == 0);
    drop(terminal.person.flush());
}

#[test]
fn what_a_failed_step_left_is_kept_without_being_read() {
    let boxwright = with_busybox();
    // To read this takes a quarter of an hour, and it takes no room.
    let context =
        Context::new("FROM busybox\nRUN truncate -s 1099511627776 /big && echo left > /small && false\n");
    let failed = boxwright.build(&context, &[]);
    assert_eq!(failed.status, 1, "{failed}");
    let mut typed = Command::new(crate::tool::binary());
    typed.args(told(&failed)).args(["sh", "-c", "cat /small; stat -c %s /big"]).stdin(Stdio::null());
    assert_eq!(run(&mut typed).ok(), "left\n1099511627776\n");
    // Nor is it damage.
    boxwright.ok(&["system", "check", "--repair"]);
    assert_eq!(run(&mut typed).ok(), "left\n1099511627776\n");
}
