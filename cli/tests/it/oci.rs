//! What the specifications of OCI ask, and no other test shows. `testdata/oci.tsv` has all of their sentences.

use std::fs;

use boxwright_testdata::tar::Tar;
use boxwright_testdata::{archive, base, run};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::tool::{Boxwright, Running, cache, eventually, wrapped};

#[test]
fn the_links_of_dev_lead_where_they_should() {
    let boxwright = Boxwright::with_busybox();
    let script = "cd /dev; for link in fd stdin stdout stderr ptmx; do echo $link $(readlink $link); done";
    let links = "fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\nptmx pts/ptmx\n";
    assert_eq!(boxwright.output_of("busybox", &["sh", "-c", script]), links);
}

#[test]
fn a_working_directory_is_absolute() {
    let boxwright = Boxwright::with_busybox();
    let ran = boxwright.run(&["run", "--rm", "-w", "here", "busybox", "pwd"]).fails_with(125);
    ran.says("the working directory \"here\" is invalid, it needs to be an absolute path");
}

#[test]
fn a_name_is_taken_once_at_a_time() {
    let boxwright = Boxwright::with_busybox();
    let again = || boxwright.run(&["run", "--rm", "--name", "only", "busybox", "echo", "another"]);
    let mut first =
        Running::start(&mut boxwright.command(&["run", "--rm", "--name", "only", "busybox", "sleep", "600"]));
    let running = boxwright.store().join("containers/only");
    eventually("the first one runs", || fs::read(&running).is_ok_and(|text| !text.is_empty()));
    again().fails_with(125).says("The container name \"/only\" is already in use").says_nothing_of("another");
    first.signal(Signal::KILL);
    first.wait();
    assert_eq!(again().ok(), "another\n");
}

#[test]
fn what_nobody_asked_to_change_stays() {
    let boxwright = Boxwright::with_busybox();
    let script = "cat /proc/self/oom_score_adj; grep Cpus_allowed_list /proc/self/status";
    let command = boxwright.command(&["run", "--rm", "busybox", "sh", "-c", script]);
    let settings = "echo 321 > /proc/self/oom_score_adj; exec taskset -c 0 \"$0\" \"$@\"";
    let ran = run(&mut wrapped(&["sh", "-ec", settings], &command));
    assert_eq!(ran.ok(), "321\nCpus_allowed_list:\t0\n");
}

/// An image of the OCI layout with one more field, annotation or entry in each document, all of them unknown.
fn strange(rootfs: &str) -> Vec<u8> {
    base::busybox(cache());
    let layer = fs::read(cache().join("busybox.tar")).unwrap();
    let mut tar = Tar::new().file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0","x":1}"#);
    let mut blob = |kind: &str, bytes: &[u8]| {
        let digest = archive::sha256(bytes);
        tar = std::mem::take(&mut tar).file(&format!("blobs/sha256/{digest}"), 0o644, bytes);
        json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len(),
                "annotations": { "example.unknown": "" }, "x": 1 })
    };
    let diff_id = format!("sha256:{}", archive::sha256(&layer));
    let config = json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }, "os": "linux", "x": [1],
        "config": { "Env": ["PATH=/bin"], "Cmd": ["echo", "known"], "X": { "a": null } },
        "rootfs": { "type": rootfs, "diff_ids": [diff_id] },
    });
    let mut document = |kind: &str, content: Value| {
        blob(&format!("application/vnd.oci.image.{kind}.v1+json"), content.to_string().as_bytes())
    };
    let config = document("config", config);
    let layer = blob("application/vnd.oci.image.layer.v1.tar", &layer);
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.unknown", "config": config, "layers": [layer],
        "annotations": { "example.unknown": "1" }, "x": 1 });
    let mut manifest = blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"]["org.opencontainers.image.ref.name"] = json!("strange:1");
    let unknown = blob("application/vnd.example.unknown", b"whatever it is");
    let index = json!({ "schemaVersion": 2, "manifests": [unknown, manifest], "x": 1 });
    tar.file("index.json", 0o644, index.to_string()).finish()
}

#[test]
fn what_nobody_knows_is_kept_and_changes_nothing() {
    let boxwright = Boxwright::new();
    let file = boxwright.scratch("strange.tar");
    let load = |rootfs: &str| {
        fs::write(&file, strange(rootfs)).unwrap();
        boxwright.run(&["load", "-i", file.to_str().unwrap()])
    };
    load("layers").ok();
    assert_eq!(boxwright.output_of("strange:1", &[]), "known\n");
    let saved = boxwright.scratch("saved.tar");
    boxwright.ok(&["save", "-o", saved.to_str().unwrap(), "strange:1"]);
    let bytes = fs::read(&saved).unwrap();
    let kept = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(kept(br#""X":{"a":null}"#) && kept(br#""x":[1]"#));
    load("heaps").fails_with(1).says("rootfs type \"heaps\"");
}
