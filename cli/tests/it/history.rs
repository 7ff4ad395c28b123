//! Records of builds: `why`, `build --explain` and `history ls|inspect|logs|rm`.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::tool::{Boxwright, Context, Running, eventually};

const DOCKERFILE: &str = "FROM busybox\nARG WHO=you\nCOPY a.txt b.txt /\nRUN echo \"hello $WHO\" > /greeting\nRUN cat /a.txt > /c\n";

/// What `why` says of the first step whose title has `part` in it.
#[track_caller]
fn because(boxwright: &Boxwright, part: &str) -> String {
    let told = boxwright.ok(&["why", "^", part, "--format", "json"]);
    let step: Value = serde_json::from_str(told.lines().next().unwrap()).unwrap();
    step["because"].as_str().unwrap().to_owned()
}

fn context() -> Context {
    Context::new(DOCKERFILE).file("a.txt", "a").file("b.txt", "b")
}

#[test]
fn why_names_the_file_the_variable_and_the_line_that_changed() {
    let (boxwright, context) = (Boxwright::with_busybox(), context());
    boxwright.build(&context, &[]).ok();
    assert_eq!(because(&boxwright, "RUN echo"), "runs: never built before");
    let first: Value =
        serde_json::from_str(&boxwright.ok(&["history", "inspect", "--format", "json"])).unwrap();
    let first = first["Ref"].as_str().unwrap();

    boxwright.build(&context, &[]).ok();
    assert_eq!(because(&boxwright, "RUN cat"), format!("cached: nothing changed since build {first}"));

    boxwright.build(&context, &["--build-arg", "WHO=me"]).ok();
    assert_eq!(because(&boxwright, "RUN echo"), "runs: variable WHO was \"you\", is \"me\"");

    context.write("b.txt", "other");
    boxwright.build(&context, &[]).ok();
    assert_eq!(because(&boxwright, "COPY"), "runs: b.txt changed");
    assert_eq!(because(&boxwright, "RUN echo"), "runs: [2/4] COPY a.txt b.txt / changed");

    context.write("Dockerfile", DOCKERFILE.replace("cat /a.txt", "cat /b.txt"));
    boxwright.build(&context, &[]).ok();
    assert_eq!(
        because(&boxwright, "RUN cat"),
        "runs: the command was \"cat /a.txt > /c\", is \"cat /b.txt > /c\""
    );
    assert!(because(&boxwright, "RUN echo").starts_with("cached: "));
}

#[test]
fn why_tells_results_that_are_gone_from_those_that_were_not_wanted() {
    let (boxwright, context) = (Boxwright::with_busybox(), context());
    boxwright.build(&context, &[]).ok();
    boxwright.ok(&["builder", "prune", "-af"]);
    boxwright.build(&context, &[]).ok();
    assert!(
        because(&boxwright, "RUN echo").ends_with("was removed since"),
        "{}",
        because(&boxwright, "RUN echo")
    );
    boxwright.build(&context, &["--no-cache"]).ok();
    assert_eq!(because(&boxwright, "RUN echo"), "runs: --no-cache");
    boxwright.run(&["why", "^", "RUN nothing like it"]).says("has no step").fails_with(1);
    boxwright.run(&["why", "0000"]).says("no record found").fails_with(1);
}

#[test]
fn a_build_explains_each_step_as_it_comes() {
    let (boxwright, context) = (Boxwright::with_busybox(), context());
    boxwright.build(&context, &[]).ok();
    context.write("a.txt", "other");
    let told = boxwright.built(&context, &["--explain"]);
    let after = |step: &str| {
        let number = told.lines().find(|line| line.contains(step)).unwrap().split(' ').next().unwrap();
        told.lines().filter(|line| line.starts_with(&format!("{number} "))).nth(1).unwrap().to_owned()
    };
    assert!(after("COPY a.txt").ends_with(" runs: a.txt changed"), "{told}");
    assert!(after("RUN echo").ends_with(" COPY a.txt b.txt / changed"), "{told}");
    let again = boxwright.built(&context, &["--explain"]);
    assert!(again.contains("cached: nothing changed since build"), "{again}");
}

#[test]
fn the_metadata_file_names_the_record_also_where_there_is_no_image() {
    let (boxwright, context) = (Boxwright::with_busybox(), context());
    let file = boxwright.scratch("metadata.json");
    for output in ["type=image", "type=cacheonly", "type=tar,dest=/dev/null"] {
        boxwright.build(&context, &["-o", output, "--metadata-file", file.to_str().unwrap()]).ok();
        let told: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let reference = told["buildx.build.ref"].as_str().unwrap();
        let newest: Value =
            serde_json::from_str(&boxwright.ok(&["history", "inspect", "--format", "json"])).unwrap();
        let parts: Vec<&str> = reference.split('/').collect();
        assert!(parts.len() == 3 && parts[2] == newest["Ref"], "{reference}: {newest}");
        assert!(boxwright.ok(&["buildx", "history", "logs", reference]).contains("RUN echo"));
        assert!(boxwright.ok(&["why", reference]).contains("RUN echo"));
    }
}

#[test]
fn every_build_leaves_a_record_with_all_that_it_printed() {
    let (boxwright, context) = (Boxwright::with_busybox(), context());
    let printed = boxwright.built(&context, &["-t", "named"]);
    let image = boxwright.inspect("named")["Id"].as_str().unwrap().to_owned();
    context.write("Dockerfile", "FROM busybox\nRUN echo about to fail && exit 3\nRUN true\n");
    boxwright.build(&context, &["-q"]).fails_with(1);
    context.write("Dockerfile", "FROM busybox\nNONSENSE\n");
    boxwright.build(&context, &[]).fails_with(1);

    let logs = |build: &str| boxwright.ok(&["history", "logs", build]);
    assert_eq!(logs("^2"), printed);
    assert!(logs("^1").contains("about to fail") && logs("^1").contains("ERROR: "), "{}", logs("^1"));
    let inspect = |build: &str| -> Value {
        serde_json::from_str(&boxwright.ok(&["history", "inspect", build, "--format", "json"])).unwrap()
    };
    let good = inspect("^2");
    assert_eq!((&good["Status"], &good["Image"]), (&"completed".into(), &image.into()));
    assert_eq!(good["Tags"][0], "docker.io/library/x:latest");
    assert_eq!(good["NumTotalSteps"], 5);
    assert_eq!(inspect("^1")["NumCachedSteps"], 1, "the base; the last step was not reached");
    for failed in [inspect("^1"), inspect("^")] {
        assert_eq!(failed["Status"], "error");
        assert!(!failed["Error"].as_str().unwrap().is_empty());
    }
    let listed = boxwright.ok(&["history", "ls"]);
    assert_eq!(listed.lines().count(), 4, "{listed}");
    assert!(
        listed.starts_with("BUILD ID") && listed.contains("Completed") && listed.contains("Error"),
        "{listed}"
    );

    boxwright.ok(&["history", "rm", good["Ref"].as_str().unwrap()]);
    assert_eq!(boxwright.ok(&["buildx", "history", "ls"]).lines().count(), 3);
    boxwright.ok(&["history", "rm", "--all"]);
    assert_eq!(boxwright.ok(&["history", "ls"]).lines().count(), 1);
    boxwright.run(&["why"]).says("no build is recorded").fails_with(1);
    boxwright.run(&["history", "named"]).says("RUN").ok();
}

#[test]
fn a_record_has_a_bound_and_the_end_of_each_step() {
    let boxwright = Boxwright::with_busybox();
    let long = "yes \"$(printf '%0999d' 0)\" | head -c 135000000; echo; echo the end";
    let context = Context::new(&format!("FROM busybox\nRUN {long}\nRUN echo after; exit 3\n"));
    boxwright.build(&context, &["-q"]).fails_with(1);
    let log = boxwright.ok(&["history", "logs"]);
    assert!(log.len() > 128 << 20 && log.len() < 134_900_000, "{}", log.len());
    let told = &log[log.find("[output clipped: ").unwrap()..];
    for said in [" bytes left out]\n", " the end\n", " after\n", "exit code: 3"] {
        assert!(told.contains(said), "{said}: {told}");
    }
}

#[test]
fn a_build_that_is_killed_is_told_as_such() {
    let (boxwright, context) =
        (Boxwright::with_busybox(), Context::new("FROM busybox\nRUN echo it runs && sleep 1000\n"));
    let mut command = boxwright.command(&["build", context.path()]);
    let mut build = Running::start(command.stderr(Stdio::null()));
    let status = || boxwright.ok(&["history", "ls", "--format", "{{.Status}}"]);
    eventually("the build is listed", || status() == "running\n");
    eventually("its output is there", || boxwright.ok(&["history", "logs"]).contains("it runs"));
    build.signal(Signal::KILL);
    build.wait();
    eventually("it is told as killed", || status() == "killed\n");
}

#[test]
fn secrets_are_in_no_record() {
    let (boxwright, context) = (
        Boxwright::with_busybox(),
        Context::new(
            "FROM busybox\nRUN --mount=type=secret,id=s,env=TOKEN --mount=type=secret,id=s test -n \"$TOKEN\"\n",
        ),
    );
    context.write("secret", "hunter2hunter2");
    let secret = format!("id=s,src={}", context.join("secret").display());
    boxwright.build(&context, &["--secret", &secret]).ok();
    let db = std::fs::read(boxwright.store().join("db")).unwrap();
    let wal = std::fs::read(boxwright.store().join("db-wal")).unwrap_or_default();
    for bytes in [db, wal] {
        assert!(!bytes.windows(14).any(|window| window == b"hunter2hunter2"));
    }
    boxwright.run(&["why", "--format", "json"]).says("TOKEN").ok();
}
