//! Names with a digest: only what has that digest has such a name, and no tag is ever made or taken away by one.

use std::fs;
use std::process::Command;

use boxwright_cache::{Digest, Store};
use boxwright_testdata::peer::Registry;
use boxwright_testdata::tar::Tar;
use boxwright_testdata::{Ran, archive, run};

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

#[test]
fn what_is_saved_by_its_digest_moves_no_tag_where_it_is_loaded() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let (name, archive) = (registry.name("app"), boxwright.scratch("a.tar").display().to_string());
    boxwright.ok(&["tag", "busybox", &name]);
    boxwright.ok(&["push", &name]);
    let pushed = boxwright.inspect(&name)["RepoDigests"][0].as_str().unwrap().to_owned();
    boxwright.ok(&["save", "-o", &archive, &pushed]);
    let inside = |file: &str| run(Command::new("tar").args(["-xOf", &archive, file])).ok();
    assert!(inside("manifest.json").contains("\"RepoTags\":null"), "{}", inside("manifest.json"));
    assert_eq!(inside("repositories"), "{}");

    boxwright.build(&Context::new("FROM busybox\nRUN echo later > /later\n"), &["-t", &name]).ok();
    let later = boxwright.inspect(&name)["Id"].clone();
    boxwright.run(&["load", "-i", &archive]).says("Loaded image ID: sha256:").ok();
    assert_eq!(boxwright.inspect(&name)["Id"], later);
}

#[test]
fn an_archive_that_names_a_digest_moves_no_tag() {
    let boxwright = Boxwright::with_busybox();
    boxwright.ok(&["tag", "busybox", "h.test/a"]);
    let before = boxwright.inspect("busybox")["Id"].clone();
    let layer = [Tar::new().file("evil", 0o644, "EVIL").finish()];
    let load = |bytes: Vec<u8>| -> Ran {
        let file = boxwright.scratch("foreign.tar");
        fs::write(&file, bytes).unwrap();
        boxwright.run(&["load", "-i", file.to_str().unwrap()])
    };
    let (other, config) = (with_digest("h.test/a"), serde_json::json!({}));
    load(archive::docker(&other, &config, &layer)).fails_with(1).says("invalid tag");
    let unnamed = load(archive::oci(&other, &config, &layer)).says("Loaded image ID: sha256:").ok();
    let image = boxwright.inspect(unnamed.trim().rsplit_once(' ').unwrap().1);
    assert_eq!(image["RepoTags"], serde_json::json!([]));
    assert_eq!(boxwright.inspect("h.test/a")["Id"], before);

    // Its own digest is a name of it, and of nothing else.
    let own = format!("h.test/a@{}", image["Descriptor"]["digest"].as_str().unwrap());
    load(archive::oci(&own, &config, &layer)).says(&format!("Loaded image: {own}")).ok();
    assert_eq!(boxwright.inspect(&own)["Id"], image["Id"]);
    assert_eq!(boxwright.inspect(&own)["RepoDigests"], serde_json::json!([own]));
    assert_eq!(boxwright.inspect("h.test/a")["Id"], before);
}
