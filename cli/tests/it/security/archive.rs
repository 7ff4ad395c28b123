//! Archives made to be understood wrongly, or to become more than they are: `load`, and ADD of a local archive.

use std::fs;
use std::path::Path;
use std::process::Command;

use boxwright_testdata::archive::{self, sha256};
use boxwright_testdata::listing::Listing;
use boxwright_testdata::run;
use boxwright_testdata::tar::Tar;
use serde_json::{Value, json};

use super::{Canary, load_bytes, patient, wrapped};
use crate::tool::{Boxwright, Context, Who};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An OCI archive with this index and these blobs.
fn layout(index: &Value, blobs: &[&[u8]]) -> Vec<u8> {
    let tar = Tar::new().file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#);
    let tar = tar.file("index.json", 0o644, index.to_string());
    blobs
        .iter()
        .fold(tar, |tar, blob| tar.file(&format!("blobs/sha256/{}", sha256(blob)), 0o644, blob))
        .finish()
}

/// Archives that two readers have once understood differently, by what makes them so.
fn desynchronised() -> Vec<(&'static str, Vec<u8>)> {
    let hidden = Tar::new().file("smuggled", 0o4755, "").unfinished();
    let size = hidden.len().to_string();
    let pax = |value: &str| Tar::new().pax(b'x', &[("size", value)]);
    vec![
        ("plain size 0, extended size of the content", {
            let tar = pax(&size).file_of_size("carrier", 0, &hidden);
            tar.file("after", 0o644, "x").finish()
        }),
        ("plain size of the content, extended size 0", {
            let tar = pax("0").file_of_size("carrier", hidden.len() as u64, &hidden);
            tar.file("after", 0o644, "x").finish()
        }),
        ("two extended headers that contradict", {
            let tar = pax("0").pax(b'x', &[("size", &size)]).file_of_size("carrier", 0, &hidden);
            tar.file("after", 0o644, "x").finish()
        }),
        ("a record twice", {
            let tar = Tar::new().pax(b'x', &[("size", "0"), ("size", &size)]);
            tar.file_of_size("carrier", 0, &hidden).file("after", 0o644, "x").finish()
        }),
        ("a size for all that follow", {
            let tar = Tar::new().pax(b'g', &[("size", &size)]);
            tar.file_of_size("carrier", 0, &hidden).file("after", 0o644, "x").finish()
        }),
        ("a directory that has content", {
            let mut bytes = Tar::new().file_of_size("carrier", hidden.len() as u64, &hidden).unfinished();
            bytes[156] = b'5';
            let sum = 8 * 32
                + bytes[..512]
                    .iter()
                    .enumerate()
                    .filter(|(n, _)| !(148..156).contains(n))
                    .map(|(_, b)| u32::from(*b))
                    .sum::<u32>();
            bytes[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
            [bytes, Tar::new().file("after", 0o644, "x").finish()].concat()
        }),
        (
            "an end in the middle",
            [Tar::new().file("before", 0o644, "x").finish(), Tar::new().file("after", 0o4755, "x").finish()]
                .concat(),
        ),
        ("one block of zeros in the middle", {
            [
                Tar::new().file("before", 0o644, "x").unfinished(),
                vec![0; 512],
                Tar::new().file("after", 0o644, "x").finish(),
            ]
            .concat()
        }),
    ]
}

fn archives_that_readers_disagree_about_mean_what_gnu_tar_says_or_are_refused(who: Who) {
    // CVE-2025-62518, RUSTSEC-2026-0112
    let boxwright = Boxwright::of(who);
    let mut accepted = Vec::new();
    for (what, bytes) in desynchronised() {
        let context = Context::new("FROM scratch\nADD a.tar /\n").file("a.tar", &bytes);
        let theirs = tempfile::tempdir().unwrap();
        let gnu =
            run(Command::new("tar").arg("-xpf").arg(context.join("a.tar")).arg("-C").arg(theirs.path()));
        let loaded = load_bytes(
            &boxwright,
            &archive::docker("tar", &json!({ "Cmd": ["x"] }), std::slice::from_ref(&bytes)),
        );
        let base = Context::new("FROM tar\n");
        for (by, context, ready) in [("ADD", &context, true), ("load", &base, loaded.status == 0)] {
            let out = boxwright.scratch("out.tar");
            let output = format!("type=tar,dest={}", out.display());
            let arguments = ["build", "--progress", "plain", "-o", &output, context.path()];
            if !ready || patient(&boxwright.command(&arguments)).status != 0 {
                continue;
            }
            accepted.push((what, by));
            assert_eq!(gnu.status, 0, "{what}: GNU tar refuses it");
            let (ours, theirs) = (Listing::of_tar(&out), Listing::of_dir(theirs.path()));
            assert_eq!(ours.entries, theirs.entries, "{what}, by {by}");
        }
        boxwright.run(&["rmi", "tar"]);
    }
    assert!(
        accepted.iter().any(|(what, by)| what.starts_with("plain size 0") && *by == "load"),
        "{accepted:?}"
    );
    assert!(
        accepted.iter().any(|(what, by)| what.starts_with("plain size 0") && *by == "ADD"),
        "{accepted:?}"
    );
}

#[test]
fn a_digest_that_is_a_path_names_nothing() {
    // CVE-2024-3727
    let (boxwright, canary) = (Boxwright::with_busybox(), Canary::of(Who::Root));
    let before = Listing::of_dir(&boxwright.store().join("blobs")).entries;
    let document = json!({ "schemaVersion": 2, "config": {}, "layers": [] }).to_string();
    let long = format!("sha256:{}", "a".repeat(65));
    let upper = format!("sha256:{}", sha256(document.as_bytes()).to_uppercase());
    let mut digests = vec![
        "sha256:../../x".to_owned(),
        "sha256:".into(),
        "md5:d41d8cd98f00b204e9800998ecf8427e".into(),
        "../x".into(),
        long,
        upper,
    ];
    digests.extend(canary.ways().map(|way| format!("sha256:{way}/file")));
    digests.push(format!("sha256:{}/", sha256(document.as_bytes())));
    for digest in &digests {
        let entry = |kind: &str| json!({ "mediaType": kind, "digest": digest, "size": document.len() });
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": entry("application/vnd.oci.image.config.v1+json"),
            "layers": [entry("application/vnd.oci.image.layer.v1.tar")] }).to_string();
        let good = json!({ "mediaType": MANIFEST, "digest": format!("sha256:{}", sha256(manifest.as_bytes())), "size": manifest.len() });
        let listed = |entry: Value| json!({ "schemaVersion": 2, "manifests": [entry] });
        let archives = [
            layout(&listed(entry(MANIFEST)), &[document.as_bytes()]),
            layout(&listed(entry(INDEX)), &[document.as_bytes()]),
            layout(&listed(good), &[document.as_bytes(), manifest.as_bytes()]),
            Tar::new()
                .file(
                    "manifest.json",
                    0o644,
                    json!([{ "Config": digest, "RepoTags": ["x"], "Layers": [digest] }]).to_string(),
                )
                .finish(),
        ];
        for bytes in archives {
            let ran = load_bytes(&boxwright, &bytes).fails_with(1);
            canary.assert_unknown_to(&ran);
        }
        boxwright.run(&["run", "--rm", &format!("busybox@{digest}"), "true"]).fails_with(125);
        boxwright.build(&Context::new(&format!("FROM busybox@{digest}\n")), &[]).fails_with(1);
        boxwright.run(&["rmi", digest]).fails_with(1);
    }
    assert_eq!(Listing::of_dir(&boxwright.store().join("blobs")).entries, before);
}

#[test]
fn giant_and_deep_documents_are_refused_without_the_memory_they_ask_for() {
    let boxwright = Boxwright::new();
    let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
    let giant = format!("[{}{{}}]", "{},".repeat(100 << 20 >> 2));
    for document in [deep.as_bytes(), giant.as_bytes()] {
        let digest = format!("sha256:{}", sha256(document));
        let entry = json!({ "mediaType": MANIFEST, "digest": digest, "size": document.len() });
        let archives = [
            Tar::new().file("manifest.json", 0o644, document).finish(),
            Tar::new().file("oci-layout", 0o644, "{}").file("index.json", 0o644, document).finish(),
            layout(&json!({ "schemaVersion": 2, "manifests": [entry] }), &[document]),
            Tar::new()
                .file("manifest.json", 0o644, r#"[{"Config":"c","RepoTags":["x"],"Layers":[]}]"#)
                .file("c", 0o644, document)
                .finish(),
        ];
        for bytes in archives {
            let file = boxwright.scratch("giant.tar");
            fs::write(&file, bytes).unwrap();
            let load = boxwright.command(&["load", "-i", file.to_str().unwrap()]);
            let ran = patient(&wrapped(&["prlimit", "--data=402653184"], &load)).fails_with(1);
            assert!(ran.stderr.starts_with("Error: ") && ran.stderr.len() < 4096, "{ran}");
        }
    }
    assert_eq!(boxwright.ok(&["images", "-q"]), "");
}

#[test]
fn entries_larger_or_deeper_than_anything_real_are_refused_at_once() {
    let boxwright = Boxwright::new();
    let (deep, most) = ("d/".repeat(2100), "d/".repeat(2040));
    let long = "n".repeat(300);
    let pax = |name: &str, value: &str| Tar::new().pax(b'x', &[(name, value)]);
    let sparse = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.realsize", "9223372036854775807"),
    ];
    let hostile = [
        ("8 EiB", pax("size", "9223372036854775807").file_of_size("f", 0, "")),
        ("more than any number", pax("size", "18446744073709551616").file_of_size("f", 0, "")),
        ("8 GiB that are not there", Tar::new().file_of_size("f", 0o77_777_777_777, "")),
        ("8 EiB of holes", Tar::new().pax(b'x', &sparse).file("f", 0o644, "1\n0\n0\n")),
        ("deeper than a path", pax("path", &format!("{deep}f")).file("f", 0o644, "")),
        ("longer than a name", pax("path", &long).file("f", 0o644, "")),
        ("a link to a deeper place", pax("linkpath", &format!("{deep}f")).hard_link("l", "f")),
    ];
    for (what, tar) in hostile {
        let bytes = tar.finish();
        let ran = load_bytes(
            &boxwright,
            &archive::docker("x", &json!({ "Cmd": ["x"] }), std::slice::from_ref(&bytes)),
        );
        // A layer is unpacked when it is needed; by then at the latest its archive is read.
        let used = Context::new("FROM x\nCOPY Dockerfile /d/f\n");
        let refused =
            ran.status == 1 || boxwright.build(&used, &["-o", "type=tar,dest=/dev/null"]).status == 1;
        assert!(refused, "{what}: {ran}");
        let added = Context::new("FROM scratch\nADD a.tar /\n").file("a.tar", bytes);
        patient(&boxwright.command(&["build", "--progress", "plain", added.path()])).fails_with(1);
        boxwright.run(&["rmi", "x"]);
    }
    // As deep as a path can be is no reason to fail, here or later.
    let tar = pax("path", &format!("{most}f")).file("f", 0o644, "deep").finish();
    load_bytes(&boxwright, &archive::docker("deep", &json!({ "Cmd": ["x"] }), &[tar])).ok();
    let out = boxwright.scratch("out.tar");
    let output = format!("type=tar,dest={}", out.display());
    boxwright.build(&Context::new("FROM deep\nCOPY Dockerfile /f\n"), &["-o", &output]).ok();
    assert!(names(&out).lines().any(|name| name.len() == most.len() + 1), "{}", names(&out).len());
    boxwright.ok(&["rmi", "deep"]);
    boxwright.ok(&["system", "prune", "-a", "-f"]);
    assert_eq!(fs::read_dir(boxwright.store().join("layers")).unwrap().count(), 0);
}

#[test]
fn a_tree_as_deep_as_a_path_needs_few_descriptors() {
    let boxwright = Boxwright::new();
    let few =
        |args: &[&str]| patient(&wrapped(&["prlimit", "--nofile=200:200"], &boxwright.command(args))).ok();
    let path = format!("{}f", "d/".repeat(2040));
    let tar = Tar::new().pax(b'x', &[("path", &path)]).file("f", 0o644, "deep").finish();
    let file = boxwright.scratch("deep.tar");
    fs::write(&file, archive::docker("deep", &json!({ "Cmd": ["x"] }), std::slice::from_ref(&tar))).unwrap();
    few(&["load", "-i", file.to_str().unwrap()]);
    let build = "FROM scratch AS added\nADD a.tar /\nFROM deep\nCOPY --from=added /d /e\n";
    let context = Context::new(build).file("a.tar", &tar);
    let out = boxwright.scratch("out.tar");
    let output = format!("type=tar,dest={}", out.display());
    let outputs = ["-t", "built", "-o", "type=image", "-o", &output];
    few(&[&["build", "--progress", "plain"][..], &outputs, &[context.path()]].concat());
    few(&["save", "-o", boxwright.scratch("saved.tar").to_str().unwrap(), "built"]);
    for path in [path.clone(), path.replacen('d', "e", 1)] {
        assert!(names(&out).lines().any(|name| name == path), "{} bytes", path.len());
    }
    few(&["rmi", "built"]);
    few(&["rmi", "deep"]);
    few(&["builder", "prune", "-a", "-f"]);
    few(&["system", "prune", "-a", "-f"]);
    assert_eq!(fs::read_dir(boxwright.store().join("layers")).unwrap().count(), 0);
}

#[test]
fn a_name_longer_than_any_ends_in_a_message_that_can_be_read() {
    let boxwright = Boxwright::new();
    let tar = Tar::new().pax(b'x', &[("path", &"n/".repeat(1 << 15))]).file("f", 0o644, "").finish();
    let context = Context::new("FROM scratch\nADD a.tar /\n").file("a.tar", &tar);
    let image = archive::docker("x", &json!({ "Cmd": ["x"] }), &[tar]);
    let added = patient(&boxwright.command(&["build", "--progress", "plain", context.path()]));
    for ran in [load_bytes(&boxwright, &image), added] {
        let ran = ran.fails_with(1).says("archive entry \"n/n/n/");
        assert!(ran.stderr.len() < 4096, "{} bytes", ran.stderr.len());
    }
}

fn names(tar: &Path) -> String {
    run(Command::new("tar").arg("-tf").arg(tar)).ok()
}

fn a_tree_deeper_than_any_path_is_built_or_refused_and_goes_again(who: Who) {
    let boxwright = Boxwright::with_busybox_of(who);
    let name = "n".repeat(200);
    let make = format!("for i in $(seq 30); do mkdir {name} && cd -P {name} || exit 9; done; echo deep > f");
    let context = Context::new(&format!(
        "FROM busybox AS deep\nRUN {make}\nFROM busybox AS last\nCOPY --from=deep /{name} /copied\nRUN ls /copied\n"
    ));
    for target in ["deep", "last"] {
        let arguments = ["build", "--progress", "plain", "-t", target, "--target", target, context.path()];
        let ran = patient(&boxwright.command(&arguments)).says_nothing_of("exit code: 9");
        assert!(ran.status <= 1, "{ran}");
    }
    boxwright.ok(&["system", "prune", "-a", "-f"]);
    assert_eq!(fs::read_dir(boxwright.store().join("layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(boxwright.store().join("tmp")).unwrap().count(), 0);
}

super::by_both!(
    archives_that_readers_disagree_about_mean_what_gnu_tar_says_or_are_refused,
    a_tree_deeper_than_any_path_is_built_or_refused_and_goes_again,
);
