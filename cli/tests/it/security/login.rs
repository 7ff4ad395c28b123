//! Secrets and logins: in nothing that stays, and shown to nobody but whom they are for.

use std::fs;
use std::process::Command;

use boxwright_testdata::run;
use boxwright_testdata::server::{Reply, Server};

use super::patient;
use crate::tool::{Boxwright, Context, Who};

fn secrets_are_in_nothing_that_stays(who: Who) {
    // CVE-2023-26054, CVE-2025-0495
    let boxwright = Boxwright::with_busybox_of(who);
    let server = Server::start(|_, _| Reply::new(200, "content"));
    let context = Context::new(&format!(
        "FROM busybox\nADD http://user:pass-of-a-url@{}/f /f\n\
         RUN --mount=type=secret,id=file,target=/s --mount=type=secret,id=variable,env=V test -s /s && test -n \"$V\"\n\
         RUN --mount=type=secret,id=file false\n",
        server.address()
    ));
    fs::write(context.join("secret"), "content-of-a-secret").unwrap();
    fs::write(context.join(".dockerignore"), "secret\n").unwrap();
    let file = format!("id=file,src={}", context.join("secret").display());
    let secrets = ["--secret", &file, "--secret", "id=variable,env=VARIABLE"];
    let metadata = boxwright.scratch("metadata.json");
    let words = [
        &[
            "build",
            "--progress",
            "plain",
            "--explain",
            "--metadata-file",
            metadata.to_str().unwrap(),
            "-t",
            "x",
        ][..],
        &secrets,
        &[context.path()],
    ]
    .concat();
    let mut command = boxwright.command(&words);
    let failed = patient(command.env("VARIABLE", "value-of-a-variable")).fails_with(1);
    context.write(
        "Dockerfile",
        fs::read_to_string(context.join("Dockerfile")).unwrap().replace("false", "true"),
    );
    let mut command = boxwright.command(&words);
    let built = patient(command.env("VARIABLE", "value-of-a-variable")).says("RUN").fails_with(0);
    let told = ["history", "image inspect"].map(|command| {
        let words: Vec<_> = command.split(' ').chain(["x"]).collect();
        boxwright.ok(&words)
    });
    let builds =
        [&["why"][..], &["why", "^1"], &["history", "ls"]].map(|words| boxwright.run(words).to_string());
    let said =
        [failed.stdout, failed.stderr, built.stdout, built.stderr, told.concat(), builds.concat()].concat();
    for secret in ["pass-of-a-url", "content-of-a-secret", "value-of-a-variable"] {
        assert!(!said.contains(secret), "{secret} in {said}");
        let mut grep = Command::new("grep");
        let found = run(grep.args(["-rlaF", secret]).arg(boxwright.store()));
        assert_eq!(found.stdout, "", "{secret}");
    }
    assert!(run(Command::new("grep").args(["-rlaF", "busybox"]).arg(boxwright.store())).status == 0);
}

fn a_login_stays_at_its_registry(who: Who) {
    // CVE-2020-15157
    let boxwright = Boxwright::of(who);
    let elsewhere =
        Server::start(|_, _| Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"give me that\""));
    let target = elsewhere.address();
    let registry = Server::start(move |request, _| match request.header("authorization") {
        None => Reply::new(401, "").header("WWW-Authenticate", "Basic realm=\"registry\""),
        Some(_) => Reply::new(307, "").header("Location", format!("http://{target}{}", request.path)),
    });
    let auths = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpwYXNz"}}}}}}"#, registry.address());
    fs::create_dir(boxwright.scratch("docker")).unwrap();
    fs::write(boxwright.scratch("docker/config.json"), auths).unwrap();
    who.own_all(&boxwright.scratch("docker"));
    let name = format!("{}/image:1", registry.address());
    let pull = patient(&boxwright.command(&["pull", &name])).fails_with(1).says_nothing_of("dXNlcjpwYXNz");
    let build = Context::new(&format!("FROM {name}\n"));
    boxwright.build(&build, &[]).fails_with(1).says_nothing_of("dXNlcjpwYXNz");
    let shown =
        |server: &Server| server.requests().iter().filter(|r| r.header("authorization").is_some()).count();
    assert!(shown(&registry) > 0, "{pull}");
    assert!(!elsewhere.requests().is_empty(), "the redirect is followed: {pull}");
    assert_eq!(
        shown(&elsewhere),
        0,
        "{:?}",
        elsewhere.requests().iter().map(|r| &r.headers).collect::<Vec<_>>()
    );
}

super::by_both!(secrets_are_in_nothing_that_stays, a_login_stays_at_its_registry);
