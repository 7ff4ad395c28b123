//! `build -o type=image,…` and `type=registry,…`: in which form an image is kept and pushed, and under which names.

use std::fs;
use std::process::Command;

use boxwright_testdata::peer::{Registry, skopeo};
use boxwright_testdata::run;
use serde_json::{Value, json};

use crate::platforms::raw;
use crate::tool::{Boxwright, Context};

fn context() -> Context {
    Context::new("FROM busybox\nCOPY a /a\nCMD [\"cat\", \"/a\"]\n").file("a", "options")
}

/// The media types of a manifest's layers, what they have in common left out.
fn layers(manifest: &Value) -> Vec<String> {
    let of = |layer: &Value| layer["mediaType"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
    manifest["layers"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn an_image_is_pushed_in_the_form_that_was_asked_for() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = registry.name("app:1");
    let pushed = |options: &str| {
        let output = format!("type=registry,name={name},{options}");
        boxwright.build(&context(), &["-o", &output]).ok();
        layers(&raw(&name))
    };
    assert_eq!(pushed("compression=zstd,force-compression=true"), ["tar+zstd", "tar+zstd"]);
    assert_eq!(Boxwright::new().output_of(&name, &[]), "options");
    boxwright.ok(&["push", &name]);
    assert_eq!(layers(&raw(&name)), ["tar+zstd", "tar+zstd"], "and so by what is pushed later");
    assert_eq!(pushed("compression=uncompressed,force-compression=true"), ["tar", "tar"]);
    assert_eq!(pushed("compression=gzip,force-compression=true"), ["tar+gzip", "tar+gzip"]);
    // Where nothing is forced, the base is what it was.
    let base = pushed("push=true")[0].clone();
    assert_eq!(pushed("compression=zstd"), [base, "tar+zstd".to_owned()]);
}

#[test]
fn an_image_that_is_only_kept_is_pushed_in_its_form_later() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = registry.name("app:1");
    boxwright.build(&context(), &["-t", &name, "-o", "type=image,compression=zstd"]).ok();
    boxwright.ok(&["push", &name]);
    assert_eq!(layers(&raw(&name))[1], "tar+zstd");
    assert_eq!(Boxwright::new().output_of(&name, &[]), "options");
}

#[test]
fn what_was_lost_of_an_image_is_made_again_in_its_form() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = registry.name("app:1");
    boxwright.build(&context(), &["-t", &name, "-o", "type=image,compression=zstd"]).ok();
    let mut damaged = 0;
    for entry in fs::read_dir(boxwright.store().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        // The magic number of zstd.
        if fs::read(&path).unwrap().starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            fs::write(&path, "lost").unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    boxwright.run(&["system", "check", "--repair"]);
    boxwright.ok(&["push", &name]);
    assert_eq!(layers(&raw(&name))[1], "tar+zstd");
    assert_eq!(Boxwright::new().output_of(&name, &[]), "options");
}

#[test]
fn docker_media_types_are_those_of_manifest_index_and_archive() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let (one, two) = (registry.name("one"), registry.name("two"));
    let push = |name: &str| format!("type=registry,name={name},oci-mediatypes=false");
    let docker = "application/vnd.docker.";
    let manifest = |found: &Value| {
        assert_eq!(found["mediaType"], format!("{docker}distribution.manifest.v2+json"));
        assert_eq!(found["config"]["mediaType"], format!("{docker}container.image.v1+json"));
        let layers = found["layers"].as_array().unwrap();
        let media_types: Vec<_> = layers.iter().map(|layer| layer["mediaType"].as_str().unwrap()).collect();
        // The base came as a plain tar, and goes so unless it is forced.
        let plain = format!("{docker}image.rootfs.diff.tar");
        assert!(media_types.iter().all(|media_type| media_type.starts_with(&plain)), "{found}");
        assert_eq!(media_types.last().unwrap(), &format!("{plain}.gzip"));
    };
    let file = boxwright.scratch("metadata.json");
    let told = |args: &[&str], context: &Context| -> Value {
        boxwright.build(context, &[&["--metadata-file", file.to_str().unwrap()], args].concat()).ok();
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap()
    };
    let built = told(&["-o", &push(&one)], &context());
    manifest(&raw(&one));
    let media_type = format!("{docker}distribution.manifest.v2+json");
    assert_eq!(built["containerimage.descriptor"]["mediaType"], media_type);

    let scratch = Context::new("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /a\n");
    let scratch = scratch.file("amd64", "x").file("arm64", "y");
    let built = told(&["--platform", "linux/amd64,linux/arm64", "-o", &push(&two)], &scratch);
    let index = raw(&two);
    let list = format!("{docker}distribution.manifest.list.v2+json");
    assert_eq!(
        (&index["mediaType"], &built["containerimage.descriptor"]["mediaType"]),
        (&list.clone().into(), &list.into())
    );
    for entry in index["manifests"].as_array().unwrap() {
        let found = raw(&format!("{two}@{}", entry["digest"].as_str().unwrap()));
        assert_eq!(entry["mediaType"], found["mediaType"]);
        manifest(&found);
    }
    // There is none for zstd.
    boxwright.build(&context(), &["-o", &format!("{},compression=zstd", push(&one))]).ok();
    assert_eq!(raw(&one)["mediaType"], "application/vnd.oci.image.manifest.v1+json");

    let archive = boxwright.scratch("x.tar").display().to_string();
    let output = format!("type=oci,dest={archive},oci-mediatypes=false,force-compression=true");
    boxwright.build(&context(), &["-o", &output]).ok();
    let source = format!("oci-archive:{archive}");
    manifest(&serde_json::from_str(&skopeo(&["inspect", "--raw", &source]).ok()).unwrap());
}

/// Annotations are in no config, so these two have one id.
#[test]
fn names_of_one_image_keep_their_annotations() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let (plain, noted) = (registry.name("plain:1"), registry.name("noted:1"));
    let build = |args: &[&str]| boxwright.build(&context(), args).ok();
    let of = |found: &Value| found["annotations"].clone();
    build(&["-t", &noted, "--annotation", "a=b"]);
    build(&["-t", &plain]);
    let ids = boxwright.ok(&["images", "-q", "--no-trunc", "--filter", "since=busybox"]);
    let ids: Vec<&str> = ids.lines().collect();
    assert!(ids.len() == 2 && ids[0] == ids[1], "a row for each name: {ids:?}");
    let manifest = |of: &Boxwright, name: &str| of.inspect(name)["Descriptor"]["digest"].clone();
    assert_ne!(manifest(&boxwright, &plain), manifest(&boxwright, &noted));
    boxwright.ok(&["tag", &noted, "also"]);
    assert_eq!(manifest(&boxwright, "also"), manifest(&boxwright, &noted));

    let archive = boxwright.scratch("both.tar").display().to_string();
    boxwright.ok(&["save", "-o", &archive, &plain, &noted]);
    let other = Boxwright::new();
    other.ok(&["load", "-q", "-i", &archive]);
    for boxwright in [&boxwright, &other] {
        assert_ne!(manifest(boxwright, &plain), manifest(boxwright, &noted));
        boxwright.ok(&["push", &plain]);
        boxwright.ok(&["push", &noted]);
        assert_eq!((of(&raw(&plain)), of(&raw(&noted))), (Value::Null, json!({ "a": "b" })));
    }
    let tags = boxwright.inspect(&plain)["RepoTags"].as_array().unwrap().len();
    assert_eq!(tags, 3);
    boxwright.ok(&["rmi", &noted, "also"]).lines().for_each(|line| assert!(line.starts_with("Untagged: ")));
    assert_eq!(boxwright.output_of(&plain, &[]), "options");
    assert!(boxwright.ok(&["rmi", &plain]).contains("Deleted: "));
    assert!(boxwright.ok(&["system", "check"]).ends_with(": 0 wrong\n"));
}

#[test]
fn a_push_by_digest_moves_no_tag() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let (name, file) = (registry.name("app"), boxwright.scratch("metadata.json"));
    boxwright.build(&context(), &["-o", &format!("type=image,push=true,name={name}")]).ok();
    let before = raw(&name);
    let other = Context::new("FROM busybox\nCMD [\"echo\", \"other\"]\n");
    let output = "type=image,push-by-digest=true,name-canonical=true,push=true";
    let metadata = file.to_str().unwrap();
    boxwright.build(&other, &["-t", &name, "-o", output, "--metadata-file", metadata]).ok();
    let told: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(told["image.name"], name.as_str());
    let canonical = format!("{name}@{}", told["containerimage.digest"].as_str().unwrap());
    assert_eq!(raw(&name), before);
    assert_eq!(boxwright.output_of(&name, &[]), "options");
    assert_eq!(boxwright.inspect(&canonical)["Id"], told["containerimage.config.digest"]);
    assert_eq!(boxwright.inspect(&canonical)["RepoDigests"], serde_json::json!([canonical]));
    assert_eq!(Boxwright::new().output_of(&canonical, &[]), "other\n");
    let tagged = registry.name("app:1");
    boxwright.build(&other, &["-t", &tagged, "-o", output]).fails_with(1).says("can't push tagged ref");
}

#[test]
fn an_image_without_a_name_may_get_its_digest_as_one() {
    let boxwright = Boxwright::with_busybox();
    let file = boxwright.scratch("metadata.json");
    let output = "type=image,dangling-name-prefix=mine/app";
    boxwright.build(&context(), &["-o", output, "--metadata-file", file.to_str().unwrap()]).ok();
    let told: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let name = format!("mine/app@{}", told["containerimage.digest"].as_str().unwrap());
    assert_eq!(told["image.name"], format!("docker.io/{name}"));
    assert_eq!(boxwright.output_of(&name, &[]), "options");
}

#[test]
fn annotations_are_in_the_documents_that_they_name() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let context = Context::new("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /a\n");
    let context = context.file("amd64", "x").file("arm64", "y");
    let (many, one) = (registry.name("many:1"), registry.name("one:1"));
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let of = |found: &Value| found["annotations"].clone();
    let file = boxwright.scratch("metadata.json").display().to_string();
    let archive = boxwright.scratch("many.tar").display().to_string();
    let output = format!("type=registry,name={many},annotation-index.I=i,annotation.all=option");
    let to_archive = format!("type=oci,dest={archive},annotation-index-descriptor.top=t");
    let build = |args: &[&str]| boxwright.build(&context, args);
    let args = ["--annotation", "all=flag", "--annotation", "manifest[linux/arm64],manifest-descriptor:a=b"];
    build(&[&platforms[..], &args, &["-o", &output, "-o", &to_archive, "--metadata-file", &file]].concat())
        .ok();
    let index = raw(&many);
    assert_eq!(of(&index), json!({ "I": "i" }));
    for (entry, expected) in [(0, json!({ "all": "flag" })), (1, json!({ "all": "flag", "a": "b" }))] {
        let entry = &index["manifests"][entry];
        assert_eq!(of(entry), json!({ "a": "b" }));
        let name = format!("{}@{}", registry.name("many"), entry["digest"].as_str().unwrap());
        assert_eq!(of(&raw(&name)), expected);
    }
    let top = run(Command::new("tar").args(["-xOf", &archive, "index.json"])).ok();
    let top: Value = serde_json::from_str(&top).unwrap();
    assert_eq!(of(&top["manifests"][0]), json!({ "top": "t" }));

    // One image: its own, and what the metadata says of what names it. It keeps them when it is pushed later.
    let args = ["--annotation", "manifest,manifest-descriptor:org.X=y"];
    build(&[&["-t", &one, "--metadata-file", &file], &args[..]].concat()).ok();
    let told: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(of(&told["containerimage.descriptor"]), json!({ "org.X": "y" }));
    boxwright.ok(&["push", &one]);
    assert_eq!(of(&raw(&one)), json!({ "org.X": "y" }));

    // What has no place is refused before anything runs.
    for (args, words) in [
        (&["--annotation", "index:a=b"][..], "index annotations not supported for single platform export"),
        (&["--annotation", "manifest[linux/s390x]:a=b"], "nothing is built for linux/s390x"),
        (&["--annotation", "a"], "expected NAME=VALUE"),
        (
            &["--annotation", "a=b", "-o", "type=image,oci-mediatypes=false"],
            "annotations need OCI's media types",
        ),
    ] {
        let ran = build(args).fails_with(1).says(words);
        assert!(!ran.stderr.contains("COPY"), "{ran}");
    }
}

#[test]
fn an_archive_for_docker_has_dockers_media_types_unless_others_are_asked_for() {
    let boxwright = Boxwright::with_busybox();
    let archive = boxwright.scratch("docker.tar").display().to_string();
    let layout = boxwright.scratch("layout").display().to_string();
    let output = format!("type=docker,tar=false,dest={layout}");
    boxwright.build(&context(), &["-t", "app:1", "-o", &output]).ok();
    let index: Value = serde_json::from_slice(&fs::read(format!("{layout}/index.json")).unwrap()).unwrap();
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    assert_eq!(index["manifests"][0]["mediaType"], media_type);
    let above = Context::new("FROM base\n");
    boxwright
        .build(&above, &["--build-context", &format!("base=oci-layout://{layout}:1"), "-t", "above"])
        .ok();
    assert_eq!(boxwright.output_of("above", &[]), "options");
    let both = ["--platform", "linux/amd64,linux/arm64", "-o", &output];
    let scratch = Context::new("FROM scratch\nLABEL a=b\n");
    boxwright.build(&scratch, &both).fails_with(1).says("docker exporter does not currently support");
    for (options, media_type) in [
        ("", media_type),
        (",oci-mediatypes=true", "application/vnd.oci.image.manifest.v1+json"),
        (",annotation.a=b", "application/vnd.oci.image.manifest.v1+json"),
    ] {
        let output = format!("type=docker,dest={archive}{options}");
        boxwright.build(&context(), &["-t", "app:1", "-o", &output]).ok();
        let index = run(Command::new("tar").args(["-xOf", &archive, "index.json"])).ok();
        let index: Value = serde_json::from_str(&index).unwrap();
        assert_eq!(index["manifests"][0]["mediaType"], media_type, "{options}");
        let other = Boxwright::new();
        other.ok(&["load", "-i", &archive]);
        assert_eq!(other.output_of("app:1", &[]), "options");
    }
}
