//! `build -o type=image,…` and `type=registry,…`: in which form an image is kept and pushed, and under which names.

use std::fs;

use boxwright_testdata::peer::{Registry, skopeo};
use serde_json::Value;

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
