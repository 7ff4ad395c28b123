//! Rights and descriptors that nobody gave, and what a step puts over its mount points.

use std::process::Command;

use boxwright_testdata::run;
use boxwright_testdata::tar::Tar;
use serde_json::json;

use super::process::leaking;
use super::{Canary, PATH, load, try_load};
use crate::tool::{Boxwright, Context, Who};

/// Printed by a step that runs, and in no Dockerfile: what an error quotes is told from what has happened.
const MARK: &str = "echo $((6*7))ran";
const RAN: &str = "42ran";

fn rights_need_to_be_allowed_wherever_a_step_comes_from(who: Who) {
    // CVE-2024-23653
    let boxwright = Boxwright::with_busybox_of(who);
    for flag in ["--security=insecure", "--network=host"] {
        let step = format!("RUN {flag} {MARK}");
        let config = json!({ "Env": [PATH], "OnBuild": [step] });
        try_load(&boxwright, "trigger", &config, vec![Tar::new().dir("x", 0o755)]).ok();
        let stage = format!("FROM busybox AS first\n{step}\n");
        for (dockerfile, fails) in [
            ("FROM trigger\n".to_owned(), true),
            ("FROM trigger AS first\nFROM busybox\nCOPY --from=first /etc/passwd /\n".into(), true),
            (format!("{stage}FROM busybox\nCOPY --from=first /etc/passwd /\n"), true),
            (format!("{stage}FROM busybox\nRUN --mount=from=first,target=/m true\n"), true),
            // Nobody wants the stage: it is refused, or it does not run.
            (format!("{stage}FROM busybox\n"), false),
        ] {
            let context = Context::new(&dockerfile);
            let ran = boxwright.build(&context, &["--no-cache"]).says_nothing_of(RAN);
            assert!(ran.status == 1 || !fails && ran.status == 0, "{dockerfile}{ran}");
            assert!(ran.status == 0 || ran.stderr.contains("not allowed"), "{dockerfile}{ran}");
        }
        let ran = boxwright.build(&Context::new(&stage), &["--target", "first"]);
        ran.says_nothing_of(RAN).says("not allowed").fails_with(1);
    }
    boxwright.build(&Context::new(&format!("FROM busybox\nRUN {MARK}\n")), &[]).says(RAN).ok();
}

fn no_way_to_start_a_program_leaves_it_descriptors(who: Who) {
    // CVE-2024-21626: with a terminal, a first process, input, secrets and an agent, each of which has some of its own
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let script = "cd /proc/self/fd && echo descriptors: *";
    for flags in [&["--init"][..], &["-i"], &["-t"], &["--init", "-t"], &["--init", "-i"]] {
        let args = [&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat();
        let ran = run(&mut leaking(&canary, &boxwright.command(&args)));
        // The fourth is the directory that the shell reads.
        assert_eq!(ran.ok().trim_end(), "descriptors: 0 1 2 3", "{flags:?}");
    }
    let key = boxwright.scratch("key");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key)).ok();
    who.own(&key);
    let mounts = "--mount=type=secret,id=s --mount=type=secret,id=s,env=V --mount=type=ssh --mount=type=cache,target=/c";
    let context = Context::new(&format!(
        "FROM busybox\nRUN {mounts} test -S $SSH_AUTH_SOCK && test -n \"$V\" && {script}\n"
    ));
    let (secret, ssh) = (format!("id=s,src={}/file", canary.path()), format!("default={}", key.display()));
    let args = ["build", "--progress", "plain", "--secret", &secret, "--ssh", &ssh, context.path()];
    let ran = run(&mut leaking(&canary, &boxwright.command(&args)));
    assert!(ran.stderr.lines().any(|line| line.ends_with(" descriptors: 0 1 2 3")), "{ran}");
    canary.assert_unknown_to(&ran);
    ran.ok();
}

fn a_step_that_puts_a_link_over_its_mount_points_has_nothing_taken_away_behind_it(who: Who) {
    // CVE-2024-23652
    let (boxwright, canary) = (Boxwright::of(who), Canary::with(who, &["b"]));
    load(&boxwright, "hidden", Tar::new().whiteout("", "a"));
    for target in canary.ways() {
        for mount in ["source=f", "source=.", "type=cache", "type=tmpfs", "type=secret,id=s", "from=hidden"] {
            let run = format!(
                "RUN --mount={mount},target=/a/b ls -d /a/b && mv /a /moved && ln -s {target} /a && readlink /a"
            );
            let context = Context::new(&format!("FROM hidden\n{run}\n")).file("f", "");
            let secret = ["--no-cache", "--secret", "id=s,env=PATH", "-t", "moved"];
            let ran = boxwright.build(&context, &secret);
            canary.assert_unknown_to(&ran);
            ran.says(&format!(" {target}\n")).ok();
            let out = boxwright.output_of("moved", &["readlink", "/a"]);
            assert_eq!(out.trim_end(), target, "{mount}");
        }
    }
}

super::by_both!(
    rights_need_to_be_allowed_wherever_a_step_comes_from,
    no_way_to_start_a_program_leaves_it_descriptors,
    a_step_that_puts_a_link_over_its_mount_points_has_nothing_taken_away_behind_it,
);
