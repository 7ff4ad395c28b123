//! Several platforms in one build: what runs once, and the index that comes of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use boxwright_testdata::listing::Listing;
use boxwright_testdata::peer::{Dockerd, Podman, Registry, skopeo};
use boxwright_testdata::server::{Reply, Server};
use serde_json::Value;

use crate::tool::{Boxwright, Context};

const BOTH: &str = "linux/amd64,linux/arm64";

/// A stage that runs on this machine, once, and images that say which platform they are for.
fn context() -> Context {
    Context::new(
        "FROM --platform=$BUILDPLATFORM busybox AS made\n\
         RUN date +%N > /once\n\
         FROM --platform=$BUILDPLATFORM busybox AS each\n\
         ARG TARGETARCH\n\
         RUN echo for $TARGETARCH > /arch\n\
         FROM scratch\n\
         ARG TARGETPLATFORM\n\
         ENV PLATFORM=$TARGETPLATFORM\n\
         COPY --from=made /once /once\n\
         COPY --from=each /arch /arch\n\
         COPY same /same\n",
    )
    .file("same", "the same")
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The platforms of an index.
fn platforms(index: &Value) -> Vec<String> {
    let name = |entry: &Value| {
        let platform = &entry["platform"];
        format!("{}/{}", platform["os"].as_str().unwrap(), platform["architecture"].as_str().unwrap())
    };
    index["manifests"].as_array().unwrap().iter().map(name).collect()
}

pub(crate) fn raw(name: &str) -> Value {
    let source = format!("docker://{name}");
    serde_json::from_str(&skopeo(&["inspect", "--raw", "--tls-verify=false", &source]).ok()).unwrap()
}

fn variable(boxwright: &Boxwright, args: &[&str]) -> String {
    let mut all = vec!["image", "inspect", "--format", "{{.Architecture}} {{json .Config.Env}}"];
    all.extend(args);
    boxwright.ok(&all)
}

#[test]
fn what_does_not_differ_runs_once_and_each_image_has_its_own() {
    let boxwright = Boxwright::with_busybox();
    let said = boxwright.built(&context(), &["--platform", BOTH]);
    // Two steps make /arch, one makes /once; only steps of stages for a platform differ.
    for line in [
        "[linux/amd64 made 2/2] RUN date +%N > /once",
        "[linux/amd64->arm64 each 2/2] RUN echo for arm64 > /arch",
        "[linux/arm64 stage-2 2/3] COPY --from=each /arch /arch",
    ] {
        // A step is named again when others spoke in between, by its own number.
        let numbers: BTreeSet<&str> =
            said.lines().filter_map(|said| said.strip_suffix(line)).map(str::trim_end).collect();
        assert_eq!(numbers.len(), 1, "{line} in {said}");
    }
    assert!(!said.contains("[linux/arm64 made") && !said.contains("[linux/arm64 stage-2 1/3]"), "{said}");
    assert_eq!(variable(&boxwright, &["--platform", "linux/arm64", "x"]).matches("linux/arm64").count(), 1);
    assert!(variable(&boxwright, &["x"]).starts_with("amd64 "), "that of this machine");
    let dest = boxwright.scratch("out");
    boxwright
        .build(
            &context(),
            &["--platform", "linux/arm64", "--platform", "linux/amd64", "-o", dest.to_str().unwrap()],
        )
        .ok();
    let text = |name: &str| fs::read_to_string(dest.join(name)).unwrap();
    assert_eq!(
        (text("linux_amd64/arch"), text("linux_arm64/arch")),
        ("for amd64\n".into(), "for arm64\n".into())
    );
    assert_eq!(text("linux_amd64/once"), text("linux_arm64/once"));
    let tar = boxwright.scratch("out.tar");
    let to_tar = format!("type=tar,dest={}", tar.display());
    boxwright.build(&context(), &["--platform", BOTH, "-o", &to_tar]).ok();
    let in_tar = Listing::of_tar(&tar).entries;
    assert!(in_tar.contains_key("linux_amd64/same") && in_tar.contains_key("linux_arm64/same"));
    // In any order of platforms it is what was built before.
    let once = text("linux_amd64/once");
    boxwright.build(&context(), &["--platform", BOTH, "-o", dest.to_str().unwrap()]).ok();
    assert_eq!(text("linux_arm64/once"), once);
}

#[test]
fn an_index_is_listed_tagged_and_removed_as_one_image() {
    let boxwright = Boxwright::with_busybox();
    boxwright.built(&context(), &["--platform", BOTH]);
    let ids = boxwright.ok(&["images", "-q", "--no-trunc"]);
    assert_eq!(ids.lines().count(), 2, "busybox and the index, not its images: {ids}");
    let index = boxwright.ok(&["images", "-q", "--no-trunc", "x"]);
    assert_eq!(boxwright.ok(&["inspect", "--format", "{{.Id}}", "x"]), index);
    boxwright.ok(&["tag", "x", "y:1"]);
    assert_eq!(boxwright.ok(&["images", "-q", "--no-trunc", "y"]), index);
    assert_eq!(boxwright.ok(&["image", "prune", "-f"]).lines().next(), Some("Total reclaimed space: 0B"));
    boxwright.ok(&["rmi", "x"]);
    // The images of the index are named by ids of their own, and stay as long as it does.
    let arm = boxwright.ok(&["image", "inspect", "--platform", "linux/arm64", "--format", "{{.Id}}", "y:1"]);
    boxwright.run(&["rmi", arm.trim_end()]).fails_with(1).says("it is part of an index");
    let gone = boxwright.ok(&["rmi", "y:1"]);
    assert_eq!(gone, format!("Untagged: y:1\nDeleted: {index}"));
    boxwright.run(&["inspect", arm.trim_end()]).fails_with(1);
    boxwright.ok(&["builder", "prune", "-a", "-f"]);
    let layers = fs::read_dir(boxwright.store().join("layers")).unwrap().count();
    assert_eq!(layers, 1, "that of busybox");
}

#[test]
fn an_index_is_pushed_and_read_whole() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = registry.name("team/app:1");
    let (metadata, iid) = (boxwright.scratch("metadata"), boxwright.scratch("iid"));
    let files = ["--metadata-file", metadata.to_str().unwrap(), "--iidfile", iid.to_str().unwrap()];
    boxwright.build(&context(), &[&["--platform", BOTH, "--push", "-t", &name], &files[..]].concat()).ok();
    let puts: Vec<String> = registry.requests();
    let tags = puts.iter().filter_map(|asked| asked.strip_prefix("PUT /v2/team/app/manifests/"));
    assert_eq!(tags.map(|tag| &tag[..1]).collect::<String>(), "ss1", "images by their digests, then the tag");
    let index = raw(&name);
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    let told = json(&metadata);
    let digest = told["containerimage.digest"].as_str().unwrap();
    assert_eq!(told["containerimage.descriptor"]["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(told.get("containerimage.config.digest"), None);
    assert_eq!(
        fs::read_to_string(&iid).unwrap(),
        boxwright.ok(&["images", "-q", "--no-trunc", &name]).trim_end()
    );
    let source = format!("docker://{name}");
    let theirs = skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &source]).ok();
    assert_eq!(theirs.trim_end(), digest);
    // Another machine takes the platform that it asks for, and then knows both.
    let other = Boxwright::new();
    other.ok(&["pull", "-q", &name]);
    assert!(variable(&other, &[&name]).contains("linux/amd64"));
    let missing = other.run(&["image", "inspect", "--platform", "linux/arm64", &name]);
    missing.fails_with(1).says("does not provide the specified platform (linux/arm64); it has linux/amd64");
    other.ok(&["pull", "-q", "--platform", "linux/arm64", &name]);
    assert!(variable(&other, &[&name]).contains("linux/amd64"));
    assert!(variable(&other, &["--platform", "linux/arm64", &name]).contains("linux/arm64"));
    let copy = registry.name("copy:1");
    other.ok(&["tag", &name, &copy]);
    other.ok(&["push", &copy]);
    assert_eq!(raw(&copy), index, "it came and went unchanged");
    let one = registry.name("one:1");
    other.ok(&["tag", &name, &one]);
    other.ok(&["push", "--platform", "linux/arm64", &one]);
    assert!(raw(&one)["layers"].is_array());
    // What the registry does not have is said with what it has.
    let none = other.run(&["pull", "--platform", "linux/s390x", &name]);
    none.fails_with(1).says("for linux/s390x (there is: linux/amd64, linux/arm64)");
}

#[test]
fn an_index_is_saved_and_loaded_whole() {
    let boxwright = Boxwright::with_busybox();
    let file = |name: &str| boxwright.scratch(name).display().to_string();
    let (saved, built) = (file("saved.tar"), file("built.tar"));
    boxwright.built(&context(), &["--platform", BOTH]);
    boxwright
        .build(&context(), &["--platform", BOTH, "-t", "x", "-o", &format!("type=oci,dest={built}")])
        .ok();
    boxwright.ok(&["save", "-o", &saved, "x"]);
    for (archive, docker) in [(&saved, true), (&built, false)] {
        let entries = Listing::of_tar(archive.as_ref()).entries;
        assert_eq!(entries.contains_key("manifest.json"), docker);
        let copy = file(if docker { "s" } else { "b" });
        skopeo(&["copy", "-q", "--all", &format!("oci-archive:{archive}:latest"), &format!("oci:{copy}:1")])
            .ok();
        let other = Boxwright::new();
        assert_eq!(other.ok(&["load", "-i", archive]), "Loaded image: x:latest\n");
        assert!(variable(&other, &["--platform", "linux/arm64", "x"]).contains("linux/arm64"));
        assert!(variable(&other, &["x"]).contains("linux/amd64"));
        assert_eq!(other.ok(&["images", "-q"]).lines().count(), 1);
        let one = Boxwright::new();
        one.ok(&["load", "--platform", "linux/arm64", "-i", archive]);
        assert!(variable(&one, &["x"]).starts_with("arm64 "));
    }
    let other = Boxwright::new();
    other.ok(&["load", "-i", &saved]);
    assert_eq!(other.ok(&["images", "-q"]), boxwright.ok(&["images", "-q", "x"]), "the same index");
    // Readers of docker's own document find the image for this machine.
    skopeo(&["inspect", "--config", &format!("docker-archive:{saved}")]).says("linux/amd64").ok();
    boxwright.ok(&["save", "--platform", "linux/arm64", "-o", &saved, "x"]);
    skopeo(&["inspect", "--config", &format!("docker-archive:{saved}")]).says("linux/arm64").ok();
    let refused =
        boxwright.build(&context(), &["--platform", BOTH, "-o", &format!("type=docker,dest={saved}")]);
    refused.fails_with(1).says("docker exporter does not currently support exporting manifest lists");
}

#[test]
fn a_base_for_several_platforms_is_pulled_once_and_then_known() {
    let boxwright = Boxwright::with_busybox();
    let context = {
        let registry = Registry::start();
        let base = registry.name("base:1");
        boxwright.build(&self::context(), &["--platform", BOTH, "--push", "-t", &base]).ok();
        boxwright.ok(&["rmi", &base]);
        let context = Context::new(&format!("FROM {base}\nCOPY own /own\n")).file("own", "x");
        boxwright.built(&context, &["--platform", BOTH]);
        let lacking = boxwright.build(&context, &["--platform", "linux/amd64,linux/riscv64"]);
        lacking.fails_with(1).says("for linux/riscv64 (there is: linux/amd64, linux/arm64)").says("FROM");
        context
    };
    // The registry is gone.
    let again = boxwright.built(&context, &["--platform", BOTH]);
    assert!(again.contains("CACHED") && !again.contains("ERROR"), "{again}");
    for platform in ["linux/amd64", "linux/arm64"] {
        assert!(variable(&boxwright, &["--platform", platform, "x"]).contains(platform));
    }
}

/// An image for one platform, as a machine of its own would push it.
fn pushed(boxwright: &Boxwright, name: &str, platform: &str) -> Value {
    let context = Context::new("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n");
    context.write("amd64", "of amd64");
    context.write("arm64", "of arm64");
    boxwright.build(&context, &["--platform", platform, "--push", "-t", name]).ok();
    raw(name)
}

#[test]
fn what_two_machines_pushed_becomes_one_index() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let (one, two) = (registry.name("app:amd64"), registry.name("elsewhere/app:arm64"));
    let arm = pushed(&boxwright, &two, "linux/arm64");
    pushed(&boxwright, &one, "linux/amd64");
    let name = registry.name("app:1");
    let dry = boxwright.ok(&["imagetools", "create", "--dry-run", "-t", &name, &one, &two]);
    assert!(!registry.requests().iter().any(|asked| asked.ends_with("/app/manifests/1")), "nothing was sent");
    boxwright.ok(&["buildx", "imagetools", "create", "-t", &name, &one, &two]);
    let index = raw(&name);
    assert_eq!(index, serde_json::from_str::<Value>(&dry).unwrap());
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    let digest = index["manifests"][1]["digest"].as_str().unwrap();
    assert_eq!(raw(&format!("{}@{digest}", registry.name("app"))), arm, "it came from the other repository");
    // What was built for both at once has the same manifests.
    for platform in ["linux/amd64", "linux/arm64"] {
        let other = Boxwright::new();
        other.ok(&["pull", "-q", "--platform", platform, &name]);
        assert!(
            other
                .ok(&["image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", &name])
                .contains(platform)
        );
    }
    // Its own name, a digest, a descriptor with another platform, annotations.
    let size = index["manifests"][1]["size"].as_u64().unwrap();
    let file = boxwright.scratch("source");
    let descriptor = serde_json::json!({"mediaType": index["manifests"][1]["mediaType"], "digest": digest, "size": size,
        "platform": {"os": "linux", "architecture": "arm64", "variant": "v9"}});
    fs::write(&file, descriptor.to_string()).unwrap();
    let more = registry.name("app:2");
    boxwright.ok(&[
        "imagetools",
        "create",
        "-t",
        &more,
        "--annotation",
        "a=b",
        "--annotation",
        "manifest-descriptor[linux/arm64/v9]:c=d",
        "-f",
        file.to_str().unwrap(),
    ]);
    boxwright.ok(&[
        "imagetools",
        "create",
        "-t",
        &more,
        "--append",
        index["manifests"][0]["digest"].as_str().unwrap(),
    ]);
    let index = raw(&more);
    assert_eq!(platforms(&index), ["linux/arm64", "linux/amd64"]);
    assert_eq!(
        (&index["manifests"][0]["platform"]["variant"], &index["manifests"][0]["annotations"]["c"]),
        (&"v9".into(), &"d".into())
    );
    // Docker's lists have no place for annotations, OCI's indexes have.
    let old = registry.name("app:old");
    let output = format!("type=image,name={old},push=true,oci-mediatypes=false");
    let plain = Context::new("FROM scratch\nARG TARGETARCH\nENV A=$TARGETARCH\nCOPY a /\n").file("a", "x");
    boxwright.build(&plain, &["--platform", BOTH, "-o", &output]).ok();
    assert_eq!(raw(&old)["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    let annotation = ["--annotation", "index:a=b"];
    boxwright.ok(&[&["imagetools", "create", "-t", &old], &annotation[..], &[&old]].concat());
    let annotated = raw(&old);
    assert_eq!(annotated["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!((platforms(&annotated).len(), &annotated["annotations"]["a"]), (2, &"b".into()));
    let copy = registry.name("copy:1");
    boxwright.ok(&["imagetools", "create", "--prefer-index=false", "-t", &copy, &two]);
    assert_eq!(raw(&copy), arm);
    for (args, words) in [
        (&["create", "--dry-run"][..], "no sources specified"),
        (&["create", &one], "can't push with no tags specified"),
        (
            &["create", "-t", &name, "--annotation", "manifest:a=b", &one],
            "only those of index and manifest-descriptor",
        ),
        (&["inspect", &registry.name("app:none")], "app:none"),
    ] {
        boxwright.run(&[&["imagetools"], args].concat()).fails_with(1).says(words);
    }
}

#[test]
fn what_a_registry_has_is_shown() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = registry.name("app:1");
    boxwright.build(&context(), &["--platform", BOTH, "--push", "-t", &name]).ok();
    let other = Boxwright::new();
    let inspect = |args: &[&str]| other.ok(&[&["imagetools", "inspect"], args, &[&name]].concat());
    let index: Value = serde_json::from_str(&inspect(&["--raw"])).unwrap();
    assert_eq!(index, raw(&name));
    let digest = inspect(&["--format", "{{.Manifest.Digest}}"]);
    let entry = |at: usize| index["manifests"][at]["digest"].as_str().unwrap();
    let (kind, part) =
        ("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json");
    let expected = format!(
        "Name:      {name}\nMediaType: {kind}\nDigest:    {digest}           \nManifests: \n\
         \x20 Name:      {name}@{}\n  MediaType: {part}\n  Platform:  linux/amd64\n             \n\
         \x20 Name:      {name}@{}\n  MediaType: {part}\n  Platform:  linux/arm64\n",
        entry(0),
        entry(1)
    );
    assert_eq!(inspect(&[]), expected);
    let images: Value = serde_json::from_str(&inspect(&["--format", "{{json .Image}}"])).unwrap();
    assert_eq!(images["linux/arm64"]["architecture"], "arm64");
    let manifest: Value = serde_json::from_str(&inspect(&["--format", "{{json .Manifest}}"])).unwrap();
    assert_eq!((&manifest["mediaType"], &manifest["manifests"]), (&kind.into(), &index["manifests"]));
    assert_eq!(other.ok(&["images", "-q"]), "", "nothing came into the store");
}

#[test]
fn a_registry_cannot_have_what_it_likes_read_to_be_shown() {
    let manifest = serde_json::json!({"schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [], "config": {
            "mediaType": "application/octet-stream", "size": 1_u64 << 40, "digest": format!("sha256:{:064}", 0)}});
    let server = Server::start(move |request, _| match request.path.contains("/manifests/") {
        true => Reply::new(200, manifest.to_string())
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json"),
        false => Reply::new(200, "x".repeat(1 << 20)),
    });
    let name = format!("{}/app:1", server.address());
    let inspected = Boxwright::new().run(&["imagetools", "inspect", "--format", "{{json .Image}}", &name]);
    inspected.fails_with(1).says("configs of more than 8388608 bytes");
    assert!(server.requests().iter().all(|request| !request.path.contains("/blobs/")));
}

#[test]
fn a_tree_shows_what_an_index_has_and_what_is_here_of_it() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = registry.name("app:1");
    boxwright
        .build(&context(), &["--platform", "linux/amd64,linux/arm64,linux/arm/v7", "--push", "-t", &name])
        .ok();
    boxwright.ok(&["tag", &name, "app:2"]);
    let shown = |boxwright: &Boxwright, name: &str| -> Vec<Vec<String>> {
        let text = boxwright.ok(&["images", "--tree", name]);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        text.lines().map(words).collect()
    };
    let rows = shown(&boxwright, "app");
    assert_eq!(rows[0], ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE"]);
    assert_eq!(
        rows[1][..2],
        ["app:2".to_owned(), boxwright.ok(&["images", "-q", "app"]).trim_end().to_owned()]
    );
    let children: Vec<String> = rows[2..].iter().map(|row| row[..2].join(" ")).collect();
    assert_eq!(children, ["├─ linux/amd64", "├─ linux/arm64", "└─ linux/arm/v7"]);
    let manifests = raw(&name)["manifests"].clone();
    let other = Boxwright::new();
    for platform in ["linux/amd64", "linux/arm/v7"] {
        other.ok(&["pull", "-q", "--platform", platform, &name]);
    }
    let rows = shown(&other, registry.name("app").as_str());
    let digest = |at: usize| manifests[at]["digest"].as_str().unwrap()[7..19].to_owned();
    assert_eq!(rows[3], ["├─", "linux/arm64", &digest(1), "0B", "0B"], "it is not here");
    assert_eq!((&rows[2][2], &rows[4][2]), (&digest(0), &digest(2)));
    assert!(rows[2][3] != "0B" && rows[2][4] != "0B", "{rows:?}");
    // Nothing is pushed that is not whole; what is here can be.
    let push = other.run(&["push", &name]);
    push.fails_with(1).says("image of the index not found").says("linux/arm64");
    // One of them can go alone; with the last one goes the name.
    let gone = other.ok(&["rmi", "--platform", "linux/arm/v7", &name]);
    assert!(gone.starts_with("Deleted: sha256:") && gone.lines().count() == 1, "{gone}");
    other.run(&["image", "inspect", "--platform", "linux/arm/v7", &name]).fails_with(1);
    other.run(&["rmi", "--platform", "linux/s390x", &name]).fails_with(1).says("it has linux/amd64");
    let last = other.ok(&["rmi", "--platform", "linux/amd64", &name]);
    assert!(last.starts_with(&format!("Untagged: {name}\n")), "{last}");
    assert_eq!(other.ok(&["images", "-q"]), "");
    assert!(other.ok(&["system", "check"]).contains("0 images"));
}

#[test]
fn other_machines_find_the_results_for_all_platforms() {
    let registry = Registry::start();
    let local = tempfile::tempdir().unwrap();
    let (app, cache) = (registry.name("app:1"), registry.name("cache:1"));
    let dir = local.path().join("cache").display().to_string();
    let kinds = [
        ("type=inline".to_owned(), format!("type=registry,ref={app}")),
        (format!("type=registry,ref={cache},mode=max"), format!("type=registry,ref={cache}")),
        (format!("type=local,dest={dir},mode=max"), format!("type=local,src={dir}")),
    ];
    for (to, from) in kinds {
        let (one, other) = (Boxwright::with_busybox(), Boxwright::with_busybox());
        let once = |boxwright: &Boxwright, flag: &str, cache: &str| {
            let dest = boxwright.scratch("out");
            let (dest, push) = (dest.display().to_string(), flag == "--cache-to");
            let mut args = vec!["--platform", BOTH, flag, cache, "-o", dest.as_str()];
            let named = ["--push", "-t", app.as_str()];
            args.extend(named.iter().filter(|_| push));
            let said = boxwright.build(&context(), &args);
            assert_eq!(said.status, 0, "{said}");
            let text = |name: &str| fs::read_to_string(boxwright.scratch("out").join(name)).unwrap();
            assert_eq!(text("linux_arm64/arch"), "for arm64\n");
            (text("linux_amd64/once"), text("linux_arm64/once"))
        };
        let made = once(&one, "--cache-to", &to);
        // The stages that only others copy from are no part of an image, but what they were copied to is.
        assert_eq!(once(&other, "--cache-from", &from), made, "{to}");
    }
}

#[test]
fn checks_outlines_and_records_know_of_all_platforms_once() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox as a\nARG TARGETARCH\nARG X=1\nENV A=$TARGETARCH\nFROM scratch\nARG TARGETARCH\nARG LAST=1\nCOPY $TARGETARCH /\n")
        .file("amd64", "a")
        .file("arm64", "b");
    for call in ["--call=check", "--call=outline", "--call=targets"] {
        let told = |platforms: &str| {
            let ran = boxwright.build(&context, &[call, "--platform", platforms]);
            (ran.status, ran.stdout)
        };
        let one = told("linux/amd64");
        assert_eq!(told(BOTH), one, "{call}");
        assert!(!one.1.is_empty());
    }
    let said = boxwright.built(&context, &["--platform", BOTH]);
    assert!(said.contains(" 1 warning found:"), "{said}");
    let record: Value =
        serde_json::from_str(&boxwright.ok(&["history", "inspect", "--format", "json"])).unwrap();
    assert!(record.to_string().contains("linux/amd64,linux/arm64"), "{record}");
    context.write("arm64", "changed");
    boxwright.built(&context, &["--platform", BOTH]);
    let why = boxwright.ok(&["why"]);
    let ran: Vec<&str> = why.lines().filter(|line| line.contains("COPY")).collect();
    assert!(ran.iter().any(|line| line.contains("[linux/arm64 stage-1 1/1] COPY arm64 /")), "{why}");
    let graph: Value = serde_json::from_str(&boxwright.ok(&[
        "debug",
        "graph",
        "--platform",
        BOTH,
        "--format",
        "json",
        context.path(),
    ]))
    .unwrap();
    let outputs = graph["outputs"].as_object().unwrap();
    assert_eq!(outputs.keys().collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
    assert_ne!(outputs["linux/amd64"], outputs["linux/arm64"]);
}

#[test]
fn other_tools_read_a_saved_index_and_what_they_write_comes_back() {
    let (boxwright, dockerd, podman) = (Boxwright::with_busybox(), Dockerd::start(), Podman::new());
    let file = |name: &str| boxwright.scratch(name).display().to_string();
    let (saved, copied) = (file("saved.tar"), file("copied.tar"));
    boxwright.built(&context(), &["--platform", BOTH, "-t", "app:1"]);
    boxwright.ok(&["save", "-o", &saved, "app:1"]);
    // They take the image for this machine.
    dockerd.docker(&["load", "-i", &saved]).says("Loaded image: app:1").ok();
    assert_eq!(
        dockerd.docker(&["image", "inspect", "--format", "{{.Architecture}}", "app:1"]).ok().trim(),
        "amd64"
    );
    podman.podman(&["load", "-i", &saved]).ok();
    assert_eq!(
        podman
            .podman(&["image", "inspect", "--format", "{{.Architecture}}", "docker.io/library/app:1"])
            .ok()
            .trim(),
        "amd64"
    );
    // Skopeo moves all of it.
    let (from, to) = (format!("oci-archive:{saved}:1"), format!("oci-archive:{copied}:host.example/app:2"));
    skopeo(&["copy", "-q", "--all", &from, &to]).ok();
    let other = Boxwright::new();
    assert_eq!(other.ok(&["load", "-i", &copied]), "Loaded image: host.example/app:2\n");
    // It compresses layers, so the index is another one; the images are the same.
    for platform in ["linux/amd64", "linux/arm64"] {
        let args = ["image", "inspect", "--platform", platform, "--format", "{{.Id}}"];
        let id = |boxwright: &Boxwright, name: &str| boxwright.ok(&[&args[..], &[name]].concat());
        assert_eq!(id(&other, "host.example/app:2"), id(&boxwright, "app:1"), "{platform}");
    }
}

#[test]
fn a_base_that_only_this_store_has_says_for_which_platforms() {
    let boxwright = Boxwright::with_busybox();
    // Nobody is there.
    let name = "127.0.0.1:9/app:1";
    boxwright.build(&context(), &["--platform", BOTH, "-t", name]).ok();
    let on_it = Context::new(&format!("FROM {name}\nCOPY a /a\n")).file("a", "a");
    let lacking = boxwright.build(&on_it, &["--platform", "linux/arm64,linux/riscv64"]);
    lacking
        .fails_with(1)
        .says("for linux/riscv64 (here it is for linux/amd64, linux/arm64; ")
        .says("Dockerfile:1");
    boxwright.build(&on_it, &["--platform", "linux/arm64,linux/amd64", "-t", "on"]).ok();
    // By its id it is the same.
    let id = boxwright.ok(&["images", "-q", "--no-trunc", name]);
    let by_id = Context::new(&format!("FROM {}\nCOPY a /a\n", id.trim())).file("a", "a");
    boxwright.build(&by_id, &["--platform", BOTH, "-t", "by-id"]).ok();
    assert_eq!(boxwright.ok(&["images", "-q", "by-id"]).len(), 13);
    let none = boxwright.build(&by_id, &["--platform", "linux/s390x"]);
    none.fails_with(1).says("for linux/s390x (there is: linux/amd64, linux/arm64)");
    let layers = |image: &str| {
        boxwright.ok(&[
            "image",
            "inspect",
            "--platform",
            "linux/arm64",
            "--format",
            "{{json .RootFS.Layers}}",
            image,
        ])
    };
    assert_eq!(layers("on"), layers("by-id"));
}
