//! `save` and `load`: layouts, compressions, damage.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use boxwright_testdata::tar::Tar;
use boxwright_testdata::{Ran, archive, base, run};
use serde_json::{Value, json};

use crate::tool::{Boxwright, Context, cache};

#[test]
fn what_is_saved_is_loaded_as_it_was() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\nRUN ln /etc/passwd /p; mkfifo /f; chmod 4755 /bin/busybox\nCMD [\"cat\", \"/p\"]\n",
    );
    boxwright.build(&context, &["-t", "a:1", "-t", "b:2"]).ok();
    let file = boxwright.scratch("a.tar");
    boxwright.ok(&["save", "-o", file.to_str().unwrap(), "a:1", "b:2", "busybox"]);
    let other = Boxwright::new();
    let said = other.ok(&["load", "-i", file.to_str().unwrap()]);
    for name in ["a:1", "b:2", "busybox:latest"] {
        assert!(said.lines().any(|l| l == format!("Loaded image: {name}")), "{said}");
    }
    for name in ["a:1", "b:2", "busybox"] {
        assert_eq!(other.inspect(name)["Id"], boxwright.inspect(name)["Id"]);
        assert_eq!(other.inspect(name)["RootFS"], boxwright.inspect(name)["RootFS"]);
    }
    assert_eq!(other.output_of("a:1", &[]), boxwright.output_of("a:1", &[]));
    assert_eq!(other.output_of("a:1", &["stat", "-c", "%a %h", "/bin/busybox"]), "4755 1\n");
    assert_eq!(other.output_of("a:1", &["stat", "-c", "%h", "/p"]), "2\n");
}

#[test]
fn saving_twice_gives_the_same_bytes_on_either_way_out() {
    let boxwright = Boxwright::with_busybox();
    let (one, two) = (boxwright.scratch("1"), boxwright.scratch("2"));
    boxwright.ok(&["save", "-o", one.to_str().unwrap(), "busybox"]);
    let out = fs::File::create(&two).unwrap();
    assert!(boxwright.command(&["save", "busybox"]).stdout(out).status().unwrap().success());
    assert_eq!(archive::sha256(&fs::read(one).unwrap()), archive::sha256(&fs::read(two).unwrap()));
}

#[test]
fn one_archive_holds_both_layouts_and_every_blob_is_what_its_name_says() {
    let boxwright = Boxwright::with_busybox();
    let file = boxwright.scratch("a.tar");
    boxwright.ok(&["save", "-o", file.to_str().unwrap(), "busybox"]);
    let dir = boxwright.scratch("unpacked");
    fs::create_dir(&dir).unwrap();
    run(Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(&dir)).ok();
    let json = |name: &str| -> Value { serde_json::from_slice(&fs::read(dir.join(name)).unwrap()).unwrap() };
    assert_eq!(json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let docker = json("manifest.json");
    assert_eq!(docker[0]["RepoTags"], json!(["busybox:latest"]));
    assert!(dir.join(docker[0]["Config"].as_str().unwrap()).exists());
    let manifest = json("index.json")["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let manifest = json(&format!("blobs/{manifest}"));
    for layer in manifest["layers"].as_array().unwrap() {
        assert!(dir.join(format!("blobs/{}", layer["digest"].as_str().unwrap().replace(':', "/"))).exists());
    }
    for blob in fs::read_dir(dir.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        assert_eq!(archive::sha256(&fs::read(blob.path()).unwrap()), blob.file_name().to_str().unwrap());
    }
}

/// A layer over nothing with one static program, which says hello.
fn layer() -> Vec<u8> {
    let busybox = fs::read(which_busybox()).unwrap();
    Tar::new().dir("bin", 0o755).file("bin/busybox", 0o755, busybox).symlink("bin/echo", "busybox").finish()
}

fn which_busybox() -> &'static str {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find(|p| Path::new(p).exists())
        .expect("busybox-static is installed")
}

fn config() -> Value {
    json!({ "Env": ["PATH=/bin"], "Cmd": ["echo", "hello"] })
}

#[test]
fn layouts_and_compressions_that_others_write_are_read() {
    let boxwright = Boxwright::new();
    let archives = [
        ("docker:1", archive::docker("docker:1", &config(), &[layer()])),
        ("docker.io/library/oci:1", archive::oci("docker.io/library/oci:1", &config(), &[layer()])),
    ];
    for (name, bytes) in archives {
        let plain = boxwright.scratch("plain");
        fs::write(&plain, bytes).unwrap();
        for compressor in [None, Some("gzip"), Some("bzip2"), Some("xz"), Some("zstd")] {
            let file = boxwright.scratch("compressed");
            match compressor {
                None => fs::copy(&plain, &file).map(drop).unwrap(),
                Some(c) => assert!(
                    Command::new(c)
                        .arg("-c")
                        .arg(&plain)
                        .stdout(fs::File::create(&file).unwrap())
                        .status()
                        .unwrap()
                        .success()
                ),
            }
            boxwright.ok(&["load", "-i", file.to_str().unwrap()]);
            assert_eq!(boxwright.output_of(name, &[]), "hello\n", "{name} {compressor:?}");
            boxwright.ok(&["rmi", name]);

            let input = fs::File::open(&file).unwrap();
            let output = boxwright.command(&["load"]).stdin(input).stderr(Stdio::inherit()).output().unwrap();
            Ran::new(format!("load < {name} {compressor:?}"), &output).ok();
            assert_eq!(boxwright.output_of(name, &[]), "hello\n");
            boxwright.ok(&["rmi", name]);
        }
    }
}

#[test]
fn broken_archives_are_refused_and_leave_nothing() {
    let boxwright = Boxwright::new();
    let good = archive::docker("x", &config(), &[layer()]);
    let mut flipped = good.clone();
    // In the middle of busybox, so that only the digest of the layer tells.
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let broken: [(&str, Vec<u8>); 6] = [
        ("empty", Vec::new()),
        ("text", b"this is no archive\n".repeat(100)),
        ("cut", good[..good.len() / 2].to_vec()),
        ("flipped", flipped),
        ("an empty tar", Tar::new().finish()),
        (
            "no config",
            Tar::new()
                .file("manifest.json", 0o644, r#"[{"Config":"nosuch","RepoTags":["x"],"Layers":[]}]"#)
                .finish(),
        ),
    ];
    for (what, bytes) in broken {
        let file = boxwright.scratch("broken.tar");
        fs::write(&file, bytes).unwrap();
        let ran = boxwright.run(&["load", "-i", file.to_str().unwrap()]);
        assert_eq!(ran.status, 1, "{what}: {ran}");
        assert!(!ran.stderr.trim().is_empty() && ran.stderr.lines().count() <= 4, "{what}: {ran}");
        assert_eq!(boxwright.ok(&["images", "-q"]), "", "{what}");
    }
    boxwright.run(&["load", "-i", "/nosuch.tar"]).fails_with(1).says("/nosuch.tar");
}

#[test]
fn layers_that_climb_out_write_nothing_outside() {
    let canary = tempfile::tempdir().unwrap();
    let outside = canary.path().to_str().unwrap();
    let evil = [
        Tar::new().file(&format!("../../../../../../..{outside}/x"), 0o644, "x"),
        Tar::new().symlink("s", outside).file("s/x", 0o644, "x"),
        Tar::new().symlink("s", "../../../../../../../..").file(&format!("s{outside}/x"), 0o644, "x"),
        Tar::new().symlink("s", outside).dir("s", 0o777).file("s/x", 0o644, "x"),
        Tar::new().hard_link("h", &format!("../../../../../../..{outside}/x")),
        Tar::new().whiteout("", "."),
        Tar::new().symlink(".", outside).file("x", 0o644, "x"),
    ];
    for (number, tar) in evil.into_iter().enumerate() {
        let boxwright = Boxwright::new();
        let file = boxwright.scratch("evil.tar");
        fs::write(&file, archive::docker("evil", &config(), &[layer(), tar.finish()])).unwrap();
        // Refusing is right, and so is resolving inside of the root; writing outside never is.
        let ran = boxwright.run(&["load", "-i", file.to_str().unwrap()]);
        assert!(ran.status == 0 || ran.status == 1, "{number}: {ran}");
        if ran.status == 0 {
            boxwright.run(&["run", "--rm", "evil"]);
        }
        assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0, "archive {number} wrote outside");
    }
}

#[test]
fn loading_again_is_no_error() {
    let boxwright = Boxwright::with_busybox();
    let before = boxwright.inspect("busybox")["Id"].clone();
    boxwright.ok(&["load", "-i", base::busybox(cache()).to_str().unwrap()]);
    assert_eq!(boxwright.inspect("busybox")["Id"], before);
}
