//! What docker's scripts do about builders and attestations before and while they build.

use crate::tool::{Boxwright, Context};

#[test]
fn scripts_that_set_up_a_builder_find_it() {
    let boxwright = Boxwright::new();
    let create =
        ["buildx", "create", "--name", "mine", "--driver", "docker-container", "--bootstrap", "--use"];
    assert_eq!(boxwright.ok(&create), "mine\n");
    assert_eq!(boxwright.ok(&["buildx", "create", "--use"]), "boxwright\n");
    boxwright.ok(&["buildx", "use", "--global", "mine"]);
    let shown = boxwright.ok(&["buildx", "inspect", "--bootstrap", "--builder", "mine"]);
    let platform =
        format!("Platforms:         linux/{}\n", boxwright_cache::oci::Platform::host().architecture);
    assert!(shown.starts_with("Name:   mine\nDriver: boxwright\n") && shown.ends_with(&platform), "{shown}");
    assert_eq!(boxwright.ok(&["buildx", "ls"]).lines().count(), 2);
    let context = Context::new("FROM scratch\nCOPY a /a\n").file("a", "x");
    let flags =
        ["--builder", "mine", "--provenance=false", "--sbom=false", "--load", "-t", "x", context.path()];
    boxwright.ok(&[&["buildx", "build"][..], &flags].concat());
    boxwright.ok(&["inspect", "x"]);
    // Scripts pass what their variables hold.
    let empty = [
        "-f",
        "",
        "-o",
        "",
        "--cache-from=",
        "--cache-to=",
        "--iidfile=",
        "--metadata-file",
        "",
        "--platform=",
    ];
    assert!(boxwright.build(&context, &[&empty[..], &["-q"]].concat()).ok().starts_with("sha256:"));
    // As buildx does.
    let warned = boxwright.build(&context, &["--security-opt", "seccomp=unconfined"]);
    assert!(warned.status == 0 && warned.stderr.contains("not heeded: --security-opt"), "{warned}");
    let warned = boxwright.build(&context, &["--rm=false"]);
    assert!(warned.status == 0 && warned.stderr.contains("not heeded: --rm=false"), "{warned}");
    boxwright.build(&context, &["--rm"]).says_nothing_of("not heeded").ok();
    boxwright.ok(&["buildx", "--builder", "mine", "build", "-q", context.path()]);
    assert!(boxwright.ok(&["buildx", "--builder=mine", "inspect"]).starts_with("Name:   mine\n"));
    assert_eq!(boxwright.ok(&["buildx", "rm", "-f", "mine"]), "mine removed\n");
    boxwright.ok(&["buildx", "stop"]);
    // As buildx has it, every command takes the name.
    for command in ["use mine", "stop", "ls", "create", "du", "prune -f", "version", "history ls"] {
        let words: Vec<&str> = command.split(' ').collect();
        boxwright.ok(&[&["buildx", "--builder", "mine"], &words[..]].concat());
        boxwright.ok(&[&["buildx"], &words[..], &["--builder=mine"]].concat());
    }
    assert_eq!(boxwright.ok(&["buildx", "rm", "--builder", "mine"]), "mine removed\n");
    let missing = ["buildx", "imagetools", "create", "--builder", "mine"];
    boxwright.run(&missing).fails_with(1).says("no sources specified");
    boxwright.run(&["images", "--builder", "mine"]).fails_with(125).says("unknown flag: --builder");
    boxwright.ok(&["inspect", "x"]);
    // What nobody here can do is said.
    let settings = ["buildx", "create", "--driver-opt", "network=host", "--config", "/etc/buildkitd.toml"];
    let ran = boxwright.run(&settings);
    assert!(ran.stderr.contains("--driver-opt") && ran.stderr.contains("config.toml"), "{ran}");
    boxwright.run(&["buildx", "create", "--driver", "kubernetes"]).fails_with(1).says("there is no driver");
    boxwright.run(&["buildx", "create", "tcp://host:1234"]).fails_with(1).says("without a daemon");
    boxwright
        .run(&["buildx", "--builder", "mine", "bake"])
        .fails_with(1)
        .says("'bake' is not a boxwright buildx command yet");
}

#[test]
fn an_inline_cache_can_be_asked_for_by_a_build_argument() {
    let (registry, boxwright) = (boxwright_testdata::peer::Registry::start(), Boxwright::with_busybox());
    let name = registry.name("cached:1");
    let context = Context::new("FROM busybox\nRUN date +%N > /a\n");
    boxwright.build(&context, &["--push", "-t", &name, "--build-arg", "BUILDKIT_INLINE_CACHE=1"]).ok();
    let is_cached = || {
        let ran = Boxwright::with_busybox().build(&context, &["--cache-from", &name]);
        let mut step = ran.stderr.lines().skip_while(|line| !line.ends_with("RUN date +%N > /a"));
        step.nth(1).expect("what became of the step").ends_with(" CACHED")
    };
    assert!(is_cached());
    boxwright.build(&context, &["--push", "-t", &name, "--build-arg", "BUILDKIT_INLINE_CACHE=0"]).ok();
    assert!(!is_cached());
}
