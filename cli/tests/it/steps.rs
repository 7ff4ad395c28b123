//! What RUN gets that is no part of what a step is: resolvers, proxies, a limit of time, and all that it prints.

use std::time::{Duration, Instant};

use boxwright_testdata::{run, run_with};

use crate::tool::{Boxwright, Context, Who, sleeping};

#[test]
fn steps_ask_the_name_servers_of_the_command_line() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nRUN cat /etc/resolv.conf > /seen\n");
    let flags =
        ["--dns", "192.0.2.1", "--dns", "2001:db8::1", "--dns-search", "a.test", "--dns-option", "ndots:3"];
    boxwright.built(&context, &flags);
    assert_eq!(
        boxwright.output_of("x", &["cat", "/seen"]),
        "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch a.test\noptions ndots:3\n"
    );
    let again = boxwright.built(&context, &["--dns", "192.0.2.2"]);
    assert_eq!(again.matches(" CACHED").count(), 2, "who answers is in no key: {again}");
    for (flag, value, words) in [
        ("--dns", "ns.test", "ns.test is not an ip address"),
        ("--dns-search", "a b", "no word for the resolver's configuration"),
    ] {
        let ran = boxwright.build(&context, &[flag, value]);
        assert!(ran.status == 1 && ran.stderr.contains(words), "{ran}");
    }
}

#[test]
fn proxies_reach_steps_and_nothing_else() {
    const NAMES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nRUN env | grep -i _proxy= | sort > /seen\n");
    let mut command = boxwright.command(&["build", "--progress", "plain", "-t", "x"]);
    let mut expected = Vec::new();
    for (n, name) in NAMES.iter().enumerate() {
        let upper = name.to_uppercase();
        // Either case is taken, and both are given.
        let given = if n % 2 == 0 { (*name).to_owned() } else { upper.clone() };
        command.args(["--build-arg", &format!("{given}=http://canary-{n}.test")]);
        expected
            .extend([format!("{name}=http://canary-{n}.test"), format!("{upper}=http://canary-{n}.test")]);
    }
    expected.sort();
    run(command.arg(context.path())).ok();
    assert_eq!(boxwright.output_of("x", &["cat", "/seen"]).lines().collect::<Vec<_>>(), expected);
    assert!(!boxwright.inspect("x").to_string().contains("canary"), "nothing is in the config");
    assert!(!boxwright.ok(&["history", "--no-trunc", "x"]).contains("canary"), "nor in the history");
    let mut command = boxwright.command(&["build", "--progress", "plain", "--build-arg", "HTTP_PROXY"]);
    let again = run(command.env("HTTP_PROXY", "http://other.test").arg(context.path()));
    assert!(again.status == 0 && again.stderr.contains("CACHED"), "nor in a key: {again}");
}

#[test]
fn proxies_of_dockers_configuration_are_told_to_steps_and_containers() {
    let boxwright = Boxwright::with_busybox();
    let docker = boxwright.scratch("docker");
    std::fs::create_dir_all(&docker).unwrap();
    let config =
        r#"{"proxies": {"default": {"httpProxy": "http://canary.test:1", "noProxy": "inside.test"}}}"#;
    std::fs::write(docker.join("config.json"), config).unwrap();
    let context = Context::new("FROM busybox\nRUN env | grep -i _proxy= | sort > /seen\n");
    let told = "HTTP_PROXY=http://canary.test:1\nNO_PROXY=inside.test\nhttp_proxy=http://canary.test:1\nno_proxy=inside.test\n";
    boxwright.build(&context, &["-t", "x"]).ok();
    assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), told);
    assert!(!boxwright.inspect("x").to_string().contains("canary"), "nothing is in the config");
    let env = |flags: &[&str]| {
        let script = ["busybox", "sh", "-c", "env | grep -i _proxy= | sort"];
        boxwright.ok(&[&["run", "--rm"], flags, &script].concat())
    };
    assert_eq!(env(&[]), told);
    assert_eq!(
        env(&["-e", "NO_PROXY=all.test", "-e", "http_proxy"]),
        told.replace("Y=inside", "Y=all").replace("http_proxy=http://canary.test:1\n", "")
    );
    // An argument stands for both spellings.
    boxwright.build(&context, &["--no-cache", "-t", "x", "--build-arg", "http_proxy=http://given.test"]).ok();
    assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), told.replace("canary.test:1", "given.test"));
    // Neither fails because of what it can't read, and says so.
    std::fs::write(docker.join("config.json"), "{").unwrap();
    boxwright.run(&["run", "--rm", "busybox", "true"]).says("containers are told of no proxy: ").ok();
    boxwright.build(&context, &[]).says("containers are told of no proxy: ").ok();
}

#[test]
fn a_step_that_takes_too_long_is_killed_with_all_that_it_started() {
    let boxwright = Boxwright::with_busybox();
    let seconds = format!("98{}", std::process::id());
    let context = Context::new(&format!(
        "FROM busybox\n\
         RUN echo printed-$((1)); sleep {seconds} & trap '' TERM INT; sleep {seconds}; true\n",
    ));
    let started = Instant::now();
    let ran = boxwright.build(&context, &["--step-timeout", "500ms"]);
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(ran.status, 1, "{ran}");
    for words in
        ["printed-1", "exit code: 137: time limit of 500ms exceeded", "Dockerfile:2", "--step-timeout"]
    {
        assert!(ran.stderr.contains(words), "{words:?} in {ran}");
    }
    assert_eq!(sleeping(&seconds), 0);
    boxwright.built(&Context::new("FROM busybox\nRUN true\n"), &["--step-timeout", "1h30m"]);
    for text in ["0s", "-5s", "ten", "5"] {
        let ran = boxwright.build(&context, &[&format!("--step-timeout={text}")]);
        assert!(ran.status == 1 && ran.stderr.contains(&format!("{text:?} for --step-timeout")), "{ran}");
    }
}

#[test]
fn all_that_a_step_prints_is_shown_and_remembered() {
    const LINES: usize = 100_000;
    let boxwright = Boxwright::with_busybox();
    // 100 MB, as fast as it can be printed.
    let script = format!("awk 'BEGIN {{ while (++n <= {LINES}) printf \"line %990d\\n\", n }}'");
    let context = Context::new(&format!("FROM busybox\nRUN {script}\n"));
    let ran = boxwright.build(&context, &[]);
    assert_eq!(ran.status, 0);
    let complete = |text: &str, what: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(" line ").map(|(_, number)| number));
        let numbers: Vec<usize> =
            lines.filter(|n| n.len() == 990).map(|n| n.trim_start().parse().unwrap()).collect();
        assert!(numbers.iter().copied().eq(1..=LINES), "{what}: {}", numbers.len());
    };
    complete(&ran.stderr, "what is shown");
    complete(&boxwright.ok(&["history", "logs", "^"]), "what is remembered");
}

#[test]
fn nothing_can_be_read_from_a_steps_standard_input() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nRUN readlink /proc/self/fd/0 > /seen; wc -c >> /seen\n");
    let mut command = boxwright.command(&["build", "-t", "x", context.path()]);
    run_with(&mut command, std::fs::File::open("/dev/zero").unwrap().into()).ok();
    assert_eq!(boxwright.output_of("x", &["cat", "/seen"]), "/dev/null\n0\n");
}

/// Without root that is a user namespace of its own, which owns all that the step is in.
#[test]
fn a_step_with_all_rights_has_them_over_all_that_is_its_own() {
    const WORK: &str = "set -e; mkdir /p /s /t /b; mount -t proc p /p; test -d /p/self; mount -t sysfs s /s; test -d /s/class/net/lo; \
        mount -t tmpfs t /t; mount --bind /etc /b; mount -o remount,bind,ro /b; ! touch /b/x; umount /b /t /s /p; umount -l /sys; \
        ip link set lo down; ip addr add 10.1.2.3/32 dev lo; ip link set lo up; hostname mine; hostname; \
        chroot / unshare -m -p -f sh -c 'mount -t proc p /p && ls /p/1/comm'; touch /made; chown 0:0 /made; chmod 4755 /made";
    for who in [Who::Root, Who::User, Who::Single] {
        let boxwright = Boxwright::with_busybox_of(who);
        let context = Context::new(&format!(
            "FROM busybox\nRUN --security=insecure {{ {WORK}; }} > /seen\nRUN --security=insecure --network=none ip link set lo down\n\
             RUN stat -c '%a %u:%g' /made >> /seen; ip link set lo down 2>> /seen || true\n"
        ));
        boxwright.built(&context, &["--allow", "security.insecure"]);
        let seen = boxwright.output_of("x", &["cat", "/seen"]);
        let expected = "mine\n/p/1/comm\n4755 0:0\n";
        assert!(seen.starts_with(expected) && seen.contains("Operation not permitted"), "{who:?}: {seen}");
    }
}
