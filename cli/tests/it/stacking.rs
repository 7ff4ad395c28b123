//! Layers on top of layers that other tools wrote: the file system must be the one that dockerd (overlay2) makes of
//! the same archive, apart from the lines of `testdata/docker-differences.tsv`.

use std::fs;

use boxwright_testdata::archive;
use boxwright_testdata::listing::Listing;
use boxwright_testdata::peer::Dockerd;
use boxwright_testdata::tar::Tar;
use serde_json::json;

use crate::docker_equality::{Differences, docker_tar, our_tar};
use crate::tool::{Boxwright, Context};

fn base() -> Vec<u8> {
    Tar::new()
        .dir("tmp", 0o1777)
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .file("usr/lib/old", 0o644, "old")
        .symlink("lib", "usr/lib")
        .owner(5, 6)
        .dir("d", 0o750)
        .file("d/a", 0o640, "a")
        .file("d/b", 0o644, "b")
        .owner(0, 0)
        .dir("d/sub", 0o711)
        .file("d/sub/x", 0o644, "x")
        .file("f", 0o644, "f")
        .finish()
}

/// Layers on the base, each with a name that the table of differences can use.
fn cases() -> Vec<(&'static str, Vec<Tar>)> {
    let tar = Tar::new;
    vec![
        ("file-without-tmp", vec![tar().file("tmp/x", 0o644, "x")]),
        ("file-without-parents", vec![tar().file("new/deep/x", 0o644, "x")]),
        ("file-without-its-odd-parents", vec![tar().file("d/sub/y", 0o644, "y")]),
        ("parent-after-child", vec![tar().file("tmp/x", 0o644, "x").dir("tmp", 0o700)]),
        ("below-a-link", vec![tar().file("lib/foo", 0o644, "x")]),
        ("directory-over-a-link", vec![tar().dir("lib", 0o755).file("lib/foo", 0o644, "x")]),
        ("whiteout-below-a-link", vec![tar().whiteout("lib", "old")]),
        ("hard-link-in-layer", vec![tar().file("g", 0o644, "g").hard_link("h", "g")]),
        ("whiteout-file", vec![tar().dir("d", 0o755).whiteout("d", "a")]),
        ("whiteout-without-parent", vec![tar().whiteout("d", "a")]),
        ("whiteout-directory", vec![tar().whiteout("", "d")]),
        ("whiteout-of-nothing", vec![tar().whiteout("", "nothere")]),
        ("whiteout-in-no-directory", vec![tar().whiteout("nodir", "x")]),
        ("opaque", vec![tar().dir("d", 0o700).opaque("d")]),
        ("opaque-without-entry", vec![tar().opaque("d")]),
        ("opaque-then-added", vec![tar().dir("d", 0o755).opaque("d").file("d/a", 0o600, "new")]),
        ("added-then-opaque", vec![tar().dir("d", 0o755).file("d/a", 0o600, "new").opaque("d")]),
        ("whiteout-then-directory", vec![tar().whiteout("", "d").dir("d", 0o701).file("d/z", 0o644, "z")]),
        ("whiteout-then-file", vec![tar().whiteout("", "f").file("f", 0o600, "new")]),
        (
            "removed-and-made-again",
            vec![tar().whiteout("", "d"), tar().dir("d", 0o701).file("d/new", 0o644, "n")],
        ),
        ("opaque-and-added-above", vec![tar().dir("d", 0o755).opaque("d"), tar().file("d/c", 0o644, "c")]),
        ("directory-to-file", vec![tar().file("d", 0o644, "file")]),
        ("directory-to-link", vec![tar().symlink("d", "usr")]),
        ("file-to-directory", vec![tar().dir("f", 0o711).file("f/c", 0o644, "c")]),
        ("file-to-implied-directory", vec![tar().file("f/c", 0o644, "c")]),
        ("link-to-file", vec![tar().file("lib", 0o644, "file")]),
        ("metadata-alone", vec![tar().owner(1, 2).dir("d", 0o700)]),
        ("odd-names", vec![tar().file("./a1", 0o644, "").file("/b1", 0o644, "").file("c1//d1", 0o644, "")]),
        ("fifo", vec![tar().fifo("pipe", 0o640)]),
    ]
}

#[test]
fn stacked_layers_are_what_docker_makes_of_them() {
    let (dockerd, boxwright) = (Dockerd::start(), Boxwright::new());
    let mut differences = Differences::new("stacking");
    for (name, layers) in cases() {
        let layers: Vec<_> = [base()].into_iter().chain(layers.into_iter().map(Tar::finish)).collect();
        let image = format!("stack:{name}");
        let file = boxwright.scratch("stack.tar");
        fs::write(&file, archive::docker(&image, &json!({ "Cmd": ["/x"] }), &layers)).unwrap();
        dockerd.docker(&["load", "-i", file.to_str().unwrap()]).ok();
        boxwright.ok(&["load", "-i", file.to_str().unwrap()]);
        let context = Context::new(&format!("FROM {image}\n"));
        let theirs = Listing::of_tar(&docker_tar(&dockerd, &context));
        let ours = Listing::of_tar(&our_tar(&boxwright, &context));
        differences.compare(name, &ours, &theirs);
    }
    differences.assert_as_listed();
}

#[test]
fn a_hard_link_reaches_into_the_layer_below() {
    // dockerd refuses such an archive; the image specification allows it, and other tools write it.
    let boxwright = Boxwright::new();
    let layer = Tar::new().hard_link("h", "d/a").finish();
    let file = boxwright.scratch("link.tar");
    fs::write(&file, archive::docker("link", &json!({ "Cmd": ["/x"] }), &[base(), layer])).unwrap();
    boxwright.ok(&["load", "-i", file.to_str().unwrap()]);
    let listing = Listing::of_tar(&our_tar(&boxwright, &Context::new("FROM link\n")));
    assert_eq!(
        listing.entries["h"].split(" same-inode").next(),
        listing.entries["d/a"].split(" same-inode").next()
    );
}
