//! `pull`, `push` and FROM with a real registry, filled by skopeo.

use std::fs;

use boxwright_testdata::peer::{Registry, skopeo};
use boxwright_testdata::{base, run};
use serde_json::Value;

use crate::tool::{Boxwright, Context, cache};

fn busybox_in(registry: &Registry) -> String {
    registry.push(&base::busybox(cache()), "busybox:1")
}

/// The manifest as the registry gives it.
fn manifest(name: &str) -> Value {
    serde_json::from_str(
        &skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]).ok(),
    )
    .unwrap()
}

#[test]
fn a_pulled_image_runs_and_its_digest_is_known() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let name = busybox_in(&registry);
    let said = boxwright.ok(&["pull", &name]);
    assert!(
        said.contains("Digest: sha256:") && said.contains("Status: Downloaded newer image for"),
        "{said}"
    );
    assert_eq!(boxwright.output_of(&name, &["echo", "hi"]), "hi\n");
    let again = boxwright.ok(&["pull", &name]);
    assert!(again.contains(&format!("Status: Image is up to date for {name}\n")), "{again}");
    boxwright.build(&Context::new("FROM scratch\nLABEL a=b\n"), &["-t", &name]).ok();
    boxwright.run(&["pull", &name]).says("Status: Downloaded newer image for").ok();
    assert_eq!(boxwright.ok(&["pull", "-q", &name]), format!("{name}\n"));

    let digest = said.lines().find_map(|l| l.strip_prefix("Digest: ")).unwrap();
    let by_digest = format!("{}@{digest}", registry.name("busybox"));
    let fresh = Boxwright::new();
    fresh.ok(&["pull", "-q", &by_digest]);
    assert_eq!(fresh.output_of(&by_digest, &["echo", "hi"]), "hi\n");
    assert_eq!(fresh.inspect(&by_digest)["Id"], boxwright.inspect(&name)["Id"]);
}

#[test]
fn a_repository_goes_there_and_comes_back_whole() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let repository = registry.name("team/app");
    for tag in ["1", "2"] {
        boxwright.ok(&["tag", "busybox", &format!("{repository}:{tag}")]);
    }
    boxwright.ok(&["tag", "busybox", &registry.name("team/other:3")]);
    let said = boxwright.ok(&["push", "--disable-content-trust", "--all-tags", &repository]);
    assert!(said.starts_with(&format!("The push refers to repository [{repository}]\n")), "{said}");
    assert!(said.contains("\n1: digest: sha256:") && said.contains("\n2: digest: sha256:"), "{said}");
    let other = Boxwright::new();
    let said = other.ok(&["pull", "--disable-content-trust", "-a", &repository]);
    assert_eq!(said.matches("Digest: sha256:").count(), 2, "{said}");
    let end = format!("Status: Downloaded newer image for {repository}\n{repository}\n");
    assert!(said.ends_with(&end), "{said}");
    assert_eq!(other.ok(&["images", "-q", &repository]).lines().count(), 2);
    other.run(&["pull", "-a", &repository]).says("Status: Image is up to date for").ok();
    for command in ["pull", "push"] {
        let refused = other.run(&[command, "-a", &format!("{repository}:1")]);
        refused.fails_with(1).says("tag can't be used with --all-tags/-a");
        let refused = other.run(&[command, "--disable-content-trust=false", &format!("{repository}:1")]);
        refused.fails_with(1).says("--disable-content-trust=false is not supported yet");
    }
}

#[test]
fn from_and_run_pull_what_is_absent() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let name = busybox_in(&registry);
    let context = Context::new(&format!("FROM {name}\nRUN echo built > /b\n"));
    boxwright.build(&context, &["-t", "x"]).ok();
    assert_eq!(boxwright.output_of("x", &["cat", "/b"]), "built\n");
    let other = Boxwright::new();
    assert_eq!(other.output_of(&name, &["echo", "hi"]), "hi\n");
}

#[test]
fn a_tag_that_the_store_has_needs_no_network_and_pull_asks_again() {
    let boxwright = Boxwright::new();
    let context = Context::new("");
    let name = {
        let registry = Registry::start();
        let name = busybox_in(&registry);
        context
            .write("Dockerfile", format!("FROM {name}\nRUN cat /etc/os-release 2>/dev/null; echo 1 > /1\n"));
        boxwright.build(&context, &["-t", "x"]).ok();
        name
    };
    boxwright.build(&context, &["-t", "x"]).ok();
    boxwright.run(&["run", "--rm", &name, "true"]).ok();
    boxwright.build(&context, &["--pull", "-t", "x"]).fails_with(1).says("127.0.0.1");
}

#[test]
fn pull_takes_a_changed_tag() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = busybox_in(&registry);
    let context = Context::new(&format!("FROM {name}\nRUN cat /new || true\n"));
    boxwright.build(&context, &[]).says("No such file").ok();
    let changed = Context::new("FROM busybox\nRUN echo news > /new\n");
    boxwright.build(&changed, &["-t", "changed"]).ok();
    let file = boxwright.scratch("changed.tar");
    boxwright.ok(&["save", "-o", file.to_str().unwrap(), "changed"]);
    registry.push(&file, "busybox:1");
    boxwright.build(&context, &[]).says_nothing_of("news").ok();
    boxwright.build(&context, &["--pull"]).says("news").ok();
}

#[test]
fn what_we_push_others_pull() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = registry.name("team/pushed:2");
    let context = Context::new("FROM busybox\nRUN echo pushed > /p\nENV A=b\n");
    boxwright.build(&context, &["-t", &name]).ok();
    let said = boxwright.ok(&["push", &name]);
    assert!(said.contains("2: digest: sha256:"), "{said}");
    let pulled = manifest(&name);
    assert_eq!(pulled["layers"].as_array().unwrap().len(), 2);
    skopeo(&[
        "copy",
        "-q",
        "--src-tls-verify=false",
        &format!("docker://{name}"),
        &format!("dir:{}", boxwright.scratch("dir").display()),
    ])
    .ok();
    let other = Boxwright::new();
    assert_eq!(other.output_of(&name, &["cat", "/p"]), "pushed\n");
    boxwright.run(&["push", &registry.name("nosuch")]).fails_with(1).says("nosuch");
}

#[test]
fn what_was_pushed_is_known_by_its_digest_there() {
    let ([one, two], boxwright) = ([Registry::start(), Registry::start()], Boxwright::with_busybox());
    let names = [&one, &two].map(|registry| registry.name("app:1"));
    let context = Context::new("FROM busybox\nRUN echo pushed > /p\n");
    let build = |more: &[&str]| boxwright.build(&context, &[&["-t", &names[0]][..], more].concat()).ok();
    let digests = || boxwright.inspect(&names[0])["RepoDigests"].clone();
    build(&[]);
    assert_eq!(digests(), serde_json::json!([]));
    let pushed =
        |said: &str| said.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap().to_owned();
    let digest = pushed(&boxwright.ok(&["push", &names[0]]));
    boxwright.ok(&["tag", &names[0], &names[1]]);
    boxwright.ok(&["push", &names[1]]);
    // The layer was compressed on its way, so the manifest is not the one that is here.
    assert_ne!(boxwright.inspect(&names[0])["Descriptor"]["digest"], digest);
    let mut expected = [&one, &two].map(|registry| format!("{}@{digest}", registry.name("app")));
    expected.sort();
    assert_eq!(digests(), serde_json::json!(expected));
    assert_eq!(boxwright.inspect(&expected[0])["Id"], boxwright.inspect(&names[0])["Id"]);
    let listed = boxwright.ok(&["images", "--format", "{{.Digest}}", &one.name("app")]);
    assert_eq!(listed, format!("{digest}\n"));
    build(&[]);
    assert_eq!(digests(), serde_json::json!(expected), "the same build is the same image");

    context.write("Dockerfile", "FROM busybox\nRUN echo other > /p\n");
    build(&[]);
    assert_eq!(digests(), serde_json::json!([]), "the name is that of another image");
    for (more, platforms) in [(&["--push"][..], 1), (&["--push", "--platform", "linux/amd64,linux/arm64"], 2)]
    {
        context.write("Dockerfile", format!("FROM scratch\nCOPY Dockerfile /{platforms}\n"));
        build(more);
        let there = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{}", names[0])]);
        let digest = boxwright_cache::Digest::of(there.ok().as_bytes());
        assert_eq!(digests(), serde_json::json!([format!("{}@{digest}", one.name("app"))]), "{more:?}");
    }
    // An index is what it was when one of its images was pushed alone.
    let index = digests();
    boxwright.ok(&["push", "--platform", "linux/arm64", &names[0]]);
    assert_eq!(digests(), index);
}

#[test]
fn all_tags_of_a_repository_are_pushed() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let (app, other) = (registry.name("team/app"), registry.name("other"));
    let names = ["1", "2"].map(|tag| format!("{app}:{tag}"));
    boxwright.build(&Context::new("FROM busybox\nENV A=1\n"), &["-t", &names[0], "-t", &other]).ok();
    boxwright.ok(&["tag", "busybox", &names[1]]);
    let said = boxwright.ok(&["push", "--all-tags", &app]);
    for (name, tag) in names.iter().zip(["1", "2"]) {
        let digests = boxwright.inspect(name)["RepoDigests"].clone();
        let digest = digests[0].as_str().unwrap().strip_prefix(&format!("{app}@")).unwrap();
        assert!(said.contains(&format!("\n{tag}: digest: {digest} size: ")), "{said}");
        assert_eq!(manifest(name)["schemaVersion"], 2);
    }
    assert_eq!(boxwright.ok(&["push", "-aq", &app]), format!("{}\n{}\n", names[0], names[1]));
    assert_eq!(
        boxwright.inspect(&other)["RepoDigests"].as_array().unwrap().len(),
        1,
        "that of the other name"
    );
    boxwright.run(&["push", "-a", &names[0]]).fails_with(1).says("tag can't be used with --all-tags/-a");
    let nosuch = registry.name("nosuch");
    boxwright.run(&["push", "-a", &nosuch]).fails_with(1).says(&format!("locally with the tag: {nosuch}"));
}

#[test]
fn what_is_not_there_is_named() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let missing = registry.name("nosuch:1");
    boxwright.run(&["pull", &missing]).fails_with(1).says(&missing);
    let context = Context::new(&format!("FROM scratch\nFROM {missing}\n"));
    boxwright.build(&context, &[]).fails_with(1).says(&missing).says("Dockerfile:2");
}

#[test]
fn a_damaged_blob_is_refused_and_the_next_pull_is_whole() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let name = busybox_in(&registry);
    let digest = manifest(&name)["layers"][0]["digest"].as_str().unwrap().to_owned();
    let blob = registry.blob(&digest);
    let good = fs::read(&blob).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&blob, &bad).unwrap();
    boxwright.run(&["pull", &name]).fails_with(1).says(&digest);
    assert_eq!(boxwright.ok(&["images", "-q"]), "");
    fs::write(&blob, &good).unwrap();
    boxwright.ok(&["pull", &name]);
    assert_eq!(boxwright.output_of(&name, &["echo", "hi"]), "hi\n");
}

#[test]
fn a_blob_that_went_bad_here_is_fetched_again_at_once() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let name = busybox_in(&registry);
    boxwright.ok(&["pull", &name]);
    for layer in fs::read_dir(boxwright.store().join("layers")).unwrap() {
        fs::remove_dir_all(layer.unwrap().path()).unwrap();
    }
    boxwright.run(&["system", "check", "--repair"]).says_nothing_of("gave up").ok();
    let digest = manifest(&name)["layers"][0]["digest"].as_str().unwrap().to_owned();
    let blob = boxwright.store().join("blobs").join(digest.replace(':', "/"));
    assert!(blob.is_file());
    fs::write(blob, "something else").unwrap();
    assert_eq!(boxwright.output_of(&name, &["echo", "hi"]), "hi\n");
}

#[test]
fn of_a_list_the_manifest_of_this_platform_is_taken() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = busybox_in(&registry);
    // A list whose first manifest is for a machine that this is not: taking it would run nothing.
    let dir = boxwright.scratch("list");
    skopeo(&[
        "copy",
        "-q",
        "--src-tls-verify=false",
        &format!("docker://{name}"),
        &format!("dir:{}", dir.display()),
    ])
    .ok();
    let raw = fs::read(dir.join("manifest.json")).unwrap();
    let kind = manifest(&name)["mediaType"].as_str().unwrap().to_owned();
    let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let entry = |digest: String, architecture: &str| {
        serde_json::json!({ "mediaType": kind, "size": raw.len(), "digest": digest,
                            "platform": { "os": "linux", "architecture": architecture } })
    };
    let digest = format!("sha256:{}", boxwright_testdata::archive::sha256(&raw));
    let list = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [entry(digest.clone(), "s390x"), entry(digest, here)],
    });
    put_manifest(&registry, "busybox", "list", &list);
    let fresh = Boxwright::new();
    assert_eq!(fresh.output_of(&registry.name("busybox:list"), &["echo", "hi"]), "hi\n");
    let foreign = serde_json::json!({ "schemaVersion": 2, "mediaType": list["mediaType"], "manifests": [list["manifests"][0]] });
    put_manifest(&registry, "busybox", "foreign", &foreign);
    fresh.run(&["pull", &registry.name("busybox:foreign")]).fails_with(1).says("linux");
}

/// Uploads a manifest as it is, over a plain socket.
fn put_manifest(registry: &Registry, repository: &str, tag: &str, manifest: &Value) {
    use std::io::{Read, Write};
    let host = registry.name("");
    let host = host.trim_end_matches('/');
    let body = manifest.to_string();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(
        stream,
        "PUT /v2/{repository}/manifests/{tag} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{body}",
        manifest["mediaType"].as_str().unwrap(),
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[test]
fn an_oci_layout_is_a_base_without_a_registry() {
    let boxwright = Boxwright::new();
    let layout = boxwright.scratch("layout");
    skopeo(&[
        "copy",
        "-q",
        &format!("docker-archive:{}", base::busybox(cache()).display()),
        &format!("oci:{}:latest", layout.display()),
    ])
    .ok();
    let context =
        Context::new(&format!("FROM oci-layout://{}\nRUN echo from-layout > /l\n", layout.display()));
    boxwright.build(&context, &["-t", "l"]).ok();
    assert_eq!(boxwright.output_of("l", &["cat", "/l"]), "from-layout\n");
}

#[test]
fn a_registry_behind_a_proxy_is_asked_for_there_and_others_directly() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = proxy.accept().unwrap();
        let mut request = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(&stream), &mut request).unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        request
    });
    let boxwright = Boxwright::new();
    let pull = |name: &str, without: &str| {
        let mut command = boxwright.command(&["pull", name]);
        command.env_remove("https_proxy").env("HTTPS_PROXY", &address).env("NO_PROXY", without);
        run(&mut command).fails_with(1)
    };
    pull("registry.direct.invalid/a", "direct.invalid").says("registry.direct.invalid");
    pull("registry.invalid/a", "direct.invalid").says("registry.invalid");
    assert_eq!(asked.join().unwrap(), "CONNECT registry.invalid:443 HTTP/1.1\r\n");
}
