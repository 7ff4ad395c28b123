//! Images between us and podman, buildah and dockerd, built on by them and run on both sides; archives of BuildKit, by hand. Each
//! form that a peer reads and writes is tried in `peers.rs`.

use std::path::Path;

use boxwright_testdata::archive::sha256;
use boxwright_testdata::peer::{Dockerd, Podman};
use boxwright_testdata::tar::Tar;
use boxwright_testdata::{base, run};
use serde_json::json;

use crate::tool::{Boxwright, Context, cache};

/// An image with what archives get wrong: whiteouts, hard links, odd modes, owners, a long name, xattr-free.
fn image(boxwright: &Boxwright) -> std::path::PathBuf {
    let long = "n".repeat(150);
    let context = Context::new(&format!(
        "FROM busybox\n\
         RUN mkdir -p /d/{long} && echo long > /d/{long}/f && rm -r /home && ln /d/{long}/f /hard && ln -s hard /soft\n\
         RUN rm /hard && chown 123456:654321 /soft -h && chmod 2755 /d && rm -rf /var && mkdir /var && touch /var/new\n\
         ENV GREETING=hello\n\
         CMD [\"sh\", \"-c\", \"echo $GREETING; cat /d/n*/f; ls -A /var; ls -d /home /hard; true\"]\n"
    ));
    boxwright.build(&context, &["-t", "interop:1"]).ok();
    let file = boxwright.scratch("interop.tar");
    boxwright.ok(&["save", "-o", file.to_str().unwrap(), "interop:1"]);
    file
}

/// What a history tells in odd ways, or not at all.
const ODD: &str = "ARG FROM=busybox\n\
    FROM $FROM AS first\nRUN echo \\\n  first > /first\n\
    FROM $FROM\nARG WHO=\"you there\" PORT=53\nMAINTAINER Me <me@host.example>\nLABEL a=\"x y\" 'b'=\"\\\"z\\\" \\$5\"\nENV OLD a b  c\n\
    COPY --from=first /first /\nCOPY --from=0 [\"/first\", \"/with space/\"]\nRUN echo \"$WHO\" | tr a-z A-Z && true # end\n\
    RUN [\"/bin/sh\", \"-c\", \"echo  'two  blanks'\"]\nEXPOSE $PORT/udp 80\nVOLUME /v /w\nWORKDIR /d/$OLD\nUSER 1:2\n\
    SHELL [\"/bin/sh\", \"-ec\"]\nRUN true\nSTOPSIGNAL 9\nHEALTHCHECK NONE\nONBUILD RUN echo \"$WHO\"\nENTRYPOINT [\"echo\", \"a  b\"]\nCMD c $d\n";

/// What is printed as the image's Dockerfile is one.
#[track_caller]
fn dockerfile_is_understood(boxwright: &Boxwright, name: &str) {
    let likely = boxwright.ok(&["dockerfile", name]);
    let checked = boxwright.build(&Context::new(&likely), &["--check"]);
    // It may have warnings.
    assert!(
        checked.stdout.starts_with("Check complete") && !checked.stderr.contains("ERROR"),
        "{checked}\n{likely}"
    );
    assert!(likely.lines().filter(|line| line.starts_with('#')).count() <= 3, "{likely}");
}

const SAYS: &str = "hello\nlong\nnew\n";

#[test]
fn dockerd_runs_ours_and_we_run_dockers() {
    let (boxwright, dockerd) = (Boxwright::with_busybox(), Dockerd::start());
    let file = image(&boxwright);
    dockerd.docker(&["load", "-i", file.to_str().unwrap()]).says("Loaded image: interop:1").ok();
    assert_eq!(dockerd.docker(&["run", "--rm", "--network=host", "interop:1"]).ok(), SAYS);

    let back = boxwright.scratch("docker.tar");
    dockerd.docker(&["save", "-o", back.to_str().unwrap(), "interop:1"]).ok();
    loads_and_runs(&back);

    let context = Context::new("FROM interop:1\nRUN echo by docker > /made\nCMD [\"cat\", \"/made\"]\n");
    dockerd.docker(&["build", "-q", "--network=host", "-t", "made", context.path()]).ok();
    dockerd.docker(&["save", "-o", back.to_str().unwrap(), "made"]).ok();
    boxwright.ok(&["load", "-i", back.to_str().unwrap()]);
    assert_eq!(boxwright.output_of("made", &[]), "by docker\n");

    let odd = ODD.replace("=busybox", "=interop:1");
    dockerd.docker(&["build", "-q", "--network=host", "-t", "odd", Context::new(&odd).path()]).ok();
    dockerd.docker(&["save", "-o", back.to_str().unwrap(), "odd"]).ok();
    boxwright.ok(&["load", "-i", back.to_str().unwrap()]);
    dockerfile_is_understood(&boxwright, "odd");
}

#[test]
fn buildah_takes_ours_and_we_take_what_it_builds_and_writes() {
    let (boxwright, peer) = (Boxwright::with_busybox(), Podman::new());
    let file = image(&boxwright);
    for format in ["docker-archive", "oci-archive"] {
        peer.buildah(&["pull", "-q", &format!("{format}:{}", file.display())]).ok();
    }
    let made = "ENV A=\"x y\" B=$HOME\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo by buildah > /made\n\
                HEALTHCHECK --interval=5s CMD true\nCMD [\"cat\", \"/made\"]\n";
    let context = Context::new(&format!("FROM localhost/interop:1\n{made}"));
    peer.podman(&["load", "-q", "-i", file.to_str().unwrap()]).ok();
    peer.buildah(&["build", "-q", "--layers", "--pull=never", "-t", "made:2", context.path()]).ok();
    for format in ["docker-archive", "oci-archive"] {
        let back = boxwright.scratch(format);
        let name = format!("{format}:{}:docker.io/library/made:2", back.display());
        peer.buildah(&["push", "-q", "localhost/made:2", &name]).ok();
        let fresh = Boxwright::new();
        fresh.run(&["load", "-i", back.to_str().unwrap()]).says("Loaded image: made:2").ok();
        assert_eq!(fresh.output_of("made:2", &[]), "by buildah\n");
        let likely = fresh.ok(&["dockerfile", "made:2"]);
        assert!(likely.ends_with(made), "{likely}");
    }
    let odd = Context::new(&ODD.replace("=busybox", "=localhost/interop:1"));
    peer.buildah(&["build", "-q", "--layers", "--pull=never", "-t", "odd", odd.path()]).ok();
    let back = boxwright.scratch("odd");
    let name = format!("oci-archive:{}:docker.io/library/odd:1", back.display());
    peer.buildah(&["push", "-q", "localhost/odd", &name]).ok();
    boxwright.ok(&["load", "-i", back.to_str().unwrap()]);
    dockerfile_is_understood(&boxwright, "odd:1");
}

#[test]
fn one_archive_of_podman_with_several_images_gives_all_of_them() {
    let (boxwright, podman) = (Boxwright::with_busybox(), Podman::new());
    let file = image(&boxwright);
    let busybox = base::busybox(cache());
    for file in [&file, &busybox] {
        podman.podman(&["load", "-q", "-i", file.to_str().unwrap()]).ok();
    }
    let both = boxwright.scratch("both.tar");
    podman.podman(&["save", "-q", "-m", "-o", both.to_str().unwrap(), "interop:1", "busybox"]).ok();
    let fresh = Boxwright::new();
    let said = fresh.ok(&["load", "-i", both.to_str().unwrap()]);
    for name in ["interop:1", "busybox"] {
        let loaded = said.lines().filter_map(|l| l.strip_prefix("Loaded image: ")).find(|l| l.contains(name));
        let loaded = loaded.unwrap_or_else(|| panic!("{name} is not in {said}"));
        assert_eq!(fresh.output_of(loaded, &["echo", "runs"]), "runs\n");
    }
}

/// An archive as BuildKit writes it (`type=oci`, and with docker's documents `type=docker`): layers are gzip, the index
/// names the image by annotations, and what tells how it was made stands beside it.
fn of_buildkit(boxwright: &Boxwright, docker: bool) -> std::path::PathBuf {
    let layer = std::fs::read(cache().join("busybox.tar")).unwrap();
    let diff_id = sha256(&layer);
    let plain = boxwright.scratch("layer");
    std::fs::write(&plain, layer).unwrap();
    run(std::process::Command::new("gzip").arg("-f").arg(&plain)).ok();
    let layer = std::fs::read(plain.with_extension("gz")).unwrap();
    let config = json!({ "architecture": architecture(), "os": "linux", "config": { "Cmd": ["echo", "of buildkit"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] } })
    .to_string();
    let blob = |kind: &str, bytes: &[u8]| {
        let kind = match docker {
            true => kind.replace("oci.image.layer.v1.tar+gzip", "docker.image.rootfs.diff.tar.gzip"),
            false => kind.to_owned(),
        };
        json!({ "mediaType": format!("application/vnd.{kind}"), "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len() })
    };
    let manifest = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("oci.image.config.v1+json", config.as_bytes()),
        "layers": [blob("oci.image.layer.v1.tar+gzip", &layer)] })
    .to_string();
    let told = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("oci.image.config.v1+json", b"{}"), "layers": [] })
    .to_string();
    let mut image = blob("oci.image.manifest.v1+json", manifest.as_bytes());
    image["platform"] = json!({ "architecture": architecture(), "os": "linux" });
    let mut attestation = blob("oci.image.manifest.v1+json", told.as_bytes());
    attestation["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let both = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [image, attestation] })
        .to_string();
    let mut top = blob("oci.image.index.v1+json", both.as_bytes());
    top["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/kit:1", "org.opencontainers.image.ref.name": "1" });
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [top] });
    let mut tar = Tar::new();
    for bytes in [config.as_bytes(), &layer, manifest.as_bytes(), told.as_bytes(), b"{}", both.as_bytes()] {
        tar = tar.file(&format!("blobs/sha256/{}", sha256(bytes)), 0o644, bytes);
    }
    tar = tar.file("index.json", 0o644, index.to_string());
    if docker {
        let path = |bytes: &[u8]| format!("blobs/sha256/{}", sha256(bytes));
        let entries =
            json!([{ "Config": path(config.as_bytes()), "RepoTags": ["kit:1"], "Layers": [path(&layer)] }]);
        tar = tar.file("manifest.json", 0o644, entries.to_string());
    }
    let file = boxwright.scratch("kit.tar");
    std::fs::write(&file, tar.file("oci-layout", 0o644, r#"{"imageLayoutVersion":"1.0.0"}"#).finish())
        .unwrap();
    file
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[test]
fn archives_in_the_form_of_buildkit_load() {
    base::busybox(cache());
    for docker in [false, true] {
        let boxwright = Boxwright::new();
        let file = of_buildkit(&boxwright, docker);
        boxwright.run(&["load", "-i", file.to_str().unwrap()]).says("Loaded image: kit:1").ok();
        assert_eq!(boxwright.output_of("kit:1", &[]), "of buildkit\n");
        boxwright.run(&["system", "check"]).ok();
    }
}

fn loads_and_runs(file: &Path) {
    let fresh = Boxwright::new();
    let said = fresh.ok(&["load", "-i", file.to_str().unwrap()]);
    let name =
        said.lines().find_map(|l| l.strip_prefix("Loaded image: ")).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(fresh.output_of(name, &[]), SAYS);
}

#[test]
fn gnu_tar_reads_our_layers_without_complaint() {
    let boxwright = Boxwright::with_busybox();
    let file = image(&boxwright);
    let dir = boxwright.scratch("layout");
    std::fs::create_dir(&dir).unwrap();
    run(std::process::Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(&dir)).ok();
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    for layer in layers {
        let listed =
            run(std::process::Command::new("tar").arg("-tvf").arg(dir.join(layer.as_str().unwrap())));
        assert_eq!(listed.stderr, "", "{listed}");
        listed.ok();
    }
}
