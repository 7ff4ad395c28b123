//! Names with a digest: only what has that digest has such a name, and no tag is ever made or taken away by one.

use boxwright_cache::{Digest, Store};
use boxwright_testdata::peer::Registry;

use crate::tool::{Boxwright, Context};

/// The name `repository` with the digest of something that is nowhere.
fn with_digest(repository: &str) -> String {
    format!("{repository}@{}", Digest::of(b"something else"))
}

#[test]
fn a_build_and_a_push_take_no_digest_in_a_name() {
    let (boxwright, context) =
        (Boxwright::with_busybox(), Context::new("FROM busybox\nRUN echo EVIL > /e\n"));
    let (name, archive) = (with_digest("h.test/a"), boxwright.scratch("a.tar"));
    let (image, oci) =
        (format!("type=image,name={name}"), format!("type=oci,name={name},dest={}", archive.display()));
    for args in [&["-t", &name][..], &["-t", &name, "--push"], &["-o", &image], &["-o", &oci]] {
        boxwright.build(&context, args).fails_with(1).says("build tag cannot contain a digest");
    }
    assert!(!archive.exists());
    boxwright.run(&["inspect", &name]).fails_with(1).says("No such object");
    boxwright.run(&["push", &name]).fails_with(1).says("cannot push a digest reference");
}

#[test]
fn what_is_only_called_so_does_not_have_the_digest() {
    let boxwright = Boxwright::with_busybox();
    let id: Digest = boxwright.inspect("busybox")["Id"].as_str().unwrap().parse().unwrap();
    let name = with_digest("h.test/a");
    assert!(Store::open(&boxwright.store()).unwrap().set_name(&name.parse().unwrap(), &id).unwrap());
    boxwright.run(&["inspect", &name]).fails_with(1).says("No such object");
    boxwright.run(&["run", "--pull=never", &name, "true"]).fails_with(125).says("No such image");
    let build = boxwright.build(&Context::new(&format!("FROM {name}\n")), &[]).fails_with(1);
    build.says_nothing_of("exporting");
    assert_eq!(boxwright.inspect("busybox")["RepoDigests"], serde_json::json!([]));
}

#[test]
fn rmi_of_a_digest_that_no_registry_gave_leaves_the_tags() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let image = boxwright.inspect("busybox");
    for digest in [&image["Id"], &image["Descriptor"]["digest"]] {
        let name = format!("busybox@{}", digest.as_str().unwrap());
        boxwright.ok(&["inspect", &name]);
        boxwright.run(&["rmi", &name]).fails_with(1).says("No such image").says_nothing_of("Untagged");
    }
    let name = registry.name("app:1");
    boxwright.ok(&["tag", "busybox", &name]);
    boxwright.ok(&["push", &name]);
    let pushed = boxwright.inspect(&name)["RepoDigests"][0].as_str().unwrap().to_owned();
    assert_eq!(boxwright.ok(&["rmi", &pushed]), format!("Untagged: {pushed}\n"));
    assert_eq!(boxwright.inspect("busybox")["RepoTags"], serde_json::json!([name, "busybox:latest"]));
}
