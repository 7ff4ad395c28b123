//! `--cache-to` and `--cache-from`: results of steps that travel between machines, which here are stores.

use boxwright_testdata::peer::{Dockerd, Registry, skopeo};
use serde_json::Value;

use crate::tool::{Boxwright, Context};

/// A stage that only gives a file away, and an image of two layers. The base is an image that both machines have.
const DOCKERFILE: &str = "FROM busybox AS tools
RUN echo ran-\"$((1))\"-tool && head -c 300000 /dev/urandom > /tool && echo tool > /name
FROM busybox
RUN echo ran-\"$((1))\"-first && head -c 200000 /dev/urandom > /first
COPY --from=tools /name /name
RUN echo ran-\"$((1))\"-last && cat /name > /last
";

fn context() -> Context {
    Context::new(DOCKERFILE)
}

/// Builds as `out` and gives the steps that ran.
#[track_caller]
fn ran(machine: &Boxwright, context: &Context, flags: &[&str]) -> Vec<&'static str> {
    let mut all = vec!["-t", "out"];
    all.extend(flags);
    let built = machine.build(context, &all);
    assert_eq!(built.status, 0, "{built}");
    ["tool", "first", "last"]
        .into_iter()
        .filter(|step| built.stderr.contains(&format!("ran-1-{step}")))
        .collect()
}

/// The digest of what `/first` is, which is another one each time it is made.
fn first(machine: &Boxwright) -> String {
    machine.output_of("out", &["sha256sum", "/first"])
}

fn registry_cache(registry: &Registry, mode: &str) -> (String, String) {
    let name = registry.name("cache:1");
    (format!("type=registry,ref={name},mode={mode}"), format!("type=registry,ref={name}"))
}

/// The document that says what the cache of [`registry_cache`] holds.
fn manifest(registry: &Registry) -> Value {
    let name = format!("docker://{}", registry.name("cache:1"));
    serde_json::from_str(&skopeo(&["inspect", "--raw", "--tls-verify=false", &name]).ok()).unwrap()
}

/// The blobs that the registry was asked for.
fn fetched(registry: &Registry) -> Vec<String> {
    let requests = registry.requests();
    requests
        .iter()
        .filter_map(|asked| asked.strip_prefix("GET ")?.split("/blobs/").nth(1))
        .map(str::to_owned)
        .collect()
}

#[test]
fn another_machine_runs_nothing_that_one_has_made() {
    let (registry, context) = (Registry::start(), context());
    let (to, from) = registry_cache(&registry, "max");
    let (one, other) = (Boxwright::with_busybox(), Boxwright::with_busybox());
    assert_eq!(ran(&one, &context, &["--cache-to", &to]), ["tool", "first", "last"]);
    assert_eq!(ran(&other, &context, &["--cache-from", &from]), [""; 0]);
    assert_eq!(first(&other), first(&one));
    let why = other.ok(&["why", "^", "RUN echo ran-\"$((1))\"-last"]);
    assert!(why.contains("imported from") && why.contains("cache:1"), "{why}");
    // What was imported is as good as its own now.
    assert_eq!(ran(&other, &context, &[]), [""; 0]);
    let manifest = manifest(&registry);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
}

#[test]
fn layers_stay_where_they_are_until_something_reads_them() {
    let (registry, context) = (Registry::start(), context());
    let (to, from) = registry_cache(&registry, "max");
    let (one, other) = (Boxwright::with_busybox(), Boxwright::with_busybox());
    ran(&one, &context, &["--cache-to", &to]);
    assert_eq!(fetched(&registry), [""; 0]);
    // The image needs its own layers, nobody those of the stage that gave it a file; the base is there.
    ran(&other, &context, &["--cache-from", &from]);
    let config = 1;
    assert_eq!(fetched(&registry).len(), config + 3);
    let third = Boxwright::with_busybox();
    context.write("Dockerfile", DOCKERFILE.replace("cat /name > /last", "cat /name /first > /last"));
    assert_eq!(ran(&third, &context, &["--cache-from", &from]), ["last"]);
    assert_eq!(fetched(&registry).len(), 2 * config + 3 + 2, "the last layer is another one now");
}

#[test]
fn min_holds_what_the_image_consists_of_and_auto_what_took_long() {
    let (registry, context) = (Registry::start(), context());
    let (to, from) = registry_cache(&registry, "min");
    ran(&Boxwright::with_busybox(), &context, &["--cache-to", &to]);
    assert_eq!(ran(&Boxwright::with_busybox(), &context, &["--cache-from", &from]), [""; 0]);
    assert_eq!(
        ran(&Boxwright::with_busybox(), &context, &["--cache-from", &from, "--target", "tools"]),
        ["tool"]
    );
    // To fetch the last one would take longer than to make it.
    let slow = Context::new(
        "FROM busybox\nRUN echo ran-\"$((1))\"-first && sleep 1 && touch /slow\nRUN echo ran-\"$((1))\"-last && head -c 100000000 /dev/zero > /quick\n",
    );
    let (to, from) = registry_cache(&registry, "auto");
    let (one, other) = (Boxwright::with_busybox(), Boxwright::with_busybox());
    ran(&one, &slow, &["--cache-to", &to]);
    assert_eq!(ran(&other, &slow, &["--cache-from", &from]), ["last"]);
}

#[test]
fn a_directory_and_the_image_itself_are_caches_too() {
    let (registry, context) = (Registry::start(), context());
    let (one, other) = (Boxwright::with_busybox(), Boxwright::with_busybox());
    let dir = one.scratch("cache");
    let dir = dir.to_str().unwrap();
    ran(&one, &context, &["--cache-to", &format!("type=local,dest={dir},mode=max")]);
    assert_eq!(ran(&other, &context, &["--cache-from", &format!("type=local,src={dir}")]), [""; 0]);
    assert_eq!(first(&other), first(&one));

    let (one, other, name) = (Boxwright::with_busybox(), Boxwright::with_busybox(), registry.name("app:1"));
    ran(&one, &context, &["-t", &name, "--cache-to", "type=inline"]);
    one.ok(&["push", &name]);
    assert_eq!(ran(&other, &context, &["--cache-from", &name]), [""; 0]);
    assert_eq!(first(&other), first(&one));
}

#[test]
fn a_cache_that_is_gone_or_broken_costs_a_build_nothing_but_time() {
    let (registry, context) = (Registry::start(), context());
    let (to, from) = registry_cache(&registry, "max");
    ran(&Boxwright::with_busybox(), &context, &["--cache-to", &to]);
    let all = ["tool", "first", "last"];
    for bad in
        [registry.name("nothing:here"), "127.0.0.1:1/x".to_owned(), "type=local,src=/nowhere".to_owned()]
    {
        let machine = Boxwright::with_busybox();
        let built = machine.build(&context, &["--cache-from", &bad, "--cache-to", "127.0.0.1:1/x"]);
        let built = built.says("importing cache manifest from").says("ERROR: ").says("exporting cache to");
        assert_eq!(built.status, 0, "{built}");
    }
    // The manifest promises layers that are gone, or others.
    let manifest = manifest(&registry);
    let layers: Vec<&str> =
        manifest["layers"].as_array().unwrap().iter().map(|l| l["digest"].as_str().unwrap()).collect();
    for layer in &layers {
        std::fs::write(registry.blob(layer), "something else").unwrap();
    }
    let machine = Boxwright::with_busybox();
    assert_eq!(ran(&machine, &context, &["--cache-from", &from]), all);
    for layer in &layers {
        std::fs::remove_file(registry.blob(layer)).unwrap();
    }
    let machine = Boxwright::with_busybox();
    assert_eq!(ran(&machine, &context, &["--cache-from", &from]), all);
    assert_eq!(machine.output_of("out", &["cat", "/last"]), "tool\n");
    machine.ok(&["system", "check"]);
}

#[test]
fn docker_and_boxwright_read_each_others_inline_caches() {
    let (registry, docker, boxwright) = (Registry::start(), Dockerd::start(), Boxwright::with_busybox());
    let context = Context::new("FROM scratch\nCOPY a /a\nCOPY b /b\n").file("a", "a").file("b", "b");
    let (theirs, ours) = (registry.name("theirs:1"), registry.name("ours:1"));
    let build = |tag: &str, from: &str| {
        let inline = "BUILDKIT_INLINE_CACHE=1";
        docker.docker(&["build", "--build-arg", inline, "--cache-from", from, "-t", tag, context.path()])
    };
    build(&theirs, &theirs).ok();
    docker.docker(&["push", "-q", &theirs]).ok();
    boxwright
        .build(&context, &["-t", &ours, "--cache-from", &theirs, "--cache-to", "type=inline"])
        .says_nothing_of("ERROR")
        .ok();
    boxwright.ok(&["push", &ours]);
    build("again", &ours).says_nothing_of("ERROR").ok();
}
