//! `--ssh ID=KEY`: keys in files sign for steps as an agent would, and never get there themselves.

use std::fs;
use std::path::Path;
use std::process::Command;

use boxwright_testdata::run;

use crate::tool::{Boxwright, Context};

fn generate(file: &Path, args: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    run(command.args(["-q", "-C", "me@test", "-f"]).arg(file).args(args)).ok();
}

const KINDS: [(&str, &[&str]); 6] = [
    ("ed25519", &["-t", "ed25519", "-N", ""]),
    ("rsa", &["-t", "rsa", "-b", "3072", "-N", ""]),
    ("p256", &["-t", "ecdsa", "-b", "256", "-N", ""]),
    ("p384", &["-t", "ecdsa", "-b", "384", "-N", ""]),
    ("pem", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]),
    ("pkcs8", &["-t", "ecdsa", "-b", "256", "-m", "PKCS8", "-N", ""]),
];

#[test]
fn keys_in_files_sign_for_a_step_and_stay_outside() {
    let boxwright = Boxwright::with_debian();
    let keys = tempfile::tempdir().unwrap();
    let path = |name: &str| keys.path().join(name);
    let mut context = Context::new("").file("message", "what is signed\n");
    let mut sign = String::new();
    for (name, args) in KINDS {
        generate(&path(name), args);
        context = context.file(&format!("keys/{name}.pub"), fs::read(path(&format!("{name}.pub"))).unwrap());
        sign += &format!(
            " && ssh-keygen -q -Y sign -f /keys/{name}.pub -n file - < /message > /signed/{name} 2>/errors"
        );
    }
    context.write(
        "Dockerfile",
        format!(
            "FROM debian:bookworm-slim\n\
             RUN apt-get update && apt-get install -y --no-install-recommends openssh-client\n\
             COPY message /message\nCOPY keys /keys\n\
             RUN --mount=type=ssh,id=all mkdir /signed && ssh-add -L > /listed{sign} && \
                 ! ssh-add -D 2>/dev/null && ! ssh-add -x < /dev/null 2>/dev/null\n"
        ),
    );
    let files: Vec<String> = KINDS.iter().map(|(name, _)| path(name).display().to_string()).collect();
    boxwright.built(&context, &["--ssh", &format!("all={}", files.join(","))]);
    let listed = boxwright.output_of("x", &["cat", "/listed"]);
    for ((name, _), line) in KINDS.iter().zip(listed.lines()) {
        let public = fs::read_to_string(path(&format!("{name}.pub"))).unwrap();
        let key = |line: &str| line.split(' ').take(2).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(key(line), key(&public), "{name}");
        fs::write(path("signature"), boxwright.output_of("x", &["cat", &format!("/signed/{name}")])).unwrap();
        fs::write(path("allowed"), format!("me@test {public}")).unwrap();
        let mut verify = Command::new("ssh-keygen");
        verify.args(["-Y", "verify", "-n", "file", "-I", "me@test", "-f"]).arg(path("allowed"));
        let message = fs::File::open(context.join("message")).unwrap();
        let verified = boxwright_testdata::run_with(verify.arg("-s").arg(path("signature")), message.into());
        assert!(verified.ok().contains("Good \"file\" signature"), "{name}");
        let secret = fs::read_to_string(path(name)).unwrap().lines().nth(4).unwrap_or("PRIVATE").to_owned();
        let mut search = Command::new("grep");
        search.args(["-rlaF", "-e", &secret]).arg(boxwright.store().join("layers"));
        if secret != "PRIVATE" && !secret.starts_with("-----") {
            assert_eq!(run(&mut search).status, 1, "{name} is in no layer");
        }
    }
    assert_eq!(listed.lines().count(), KINDS.len());
}

#[test]
fn keys_that_can_not_be_used_are_refused_with_a_reason() {
    let boxwright = Boxwright::with_busybox();
    let keys = tempfile::tempdir().unwrap();
    let path = |name: &str| keys.path().join(name);
    generate(&path("locked"), &["-t", "ed25519", "-N", "a passphrase"]);
    generate(&path("pem"), &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "a passphrase"]);
    generate(&path("p521"), &["-t", "ecdsa", "-b", "521", "-N", ""]);
    fs::write(path("none"), "nothing\n").unwrap();
    let context = Context::new("FROM busybox\nRUN true\n");
    for (name, words) in [
        ("locked", "it is protected by a passphrase"),
        ("locked", "help: add it to an ssh-agent (ssh-add "),
        ("pem", "it is protected by a passphrase"),
        ("p521", "keys of the type ecdsa-sha2-nistp521 can't be used"),
        ("p521.pub", "it is no private key"),
        ("none", "it is no private key"),
        ("missing", "looking for the ssh agent or key"),
    ] {
        let ran = boxwright.build(&context, &["--ssh", &format!("default={}", path(name).display())]);
        assert_eq!(ran.status, 1, "{ran}");
        ran.says(words).says(name).says_nothing_of("BEGIN");
    }
}
