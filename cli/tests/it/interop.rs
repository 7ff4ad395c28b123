//! Images between us and skopeo, podman and dockerd, both ways, run on both sides.

use std::path::Path;

use boxwright_testdata::peer::{Dockerd, Podman, skopeo};
use boxwright_testdata::{base, run};

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

const SAYS: &str = "hello\nlong\nnew\n";

#[test]
fn skopeo_reads_both_layouts_of_what_we_save() {
    let boxwright = Boxwright::with_busybox();
    let file = image(&boxwright);
    for transport in ["docker-archive", "oci-archive"] {
        let copy = boxwright.scratch(transport);
        skopeo(&[
            "copy",
            "-q",
            &format!("{transport}:{}", file.display()),
            &format!("dir:{}", copy.display()),
        ])
        .ok();
        assert!(copy.join("manifest.json").exists());
    }
}

#[test]
fn what_skopeo_writes_we_load() {
    let boxwright = Boxwright::new();
    let source = format!("docker-archive:{}", base::busybox(cache()).display());
    for (transport, name) in
        [("docker-archive", "docker.io/library/from:docker"), ("oci-archive", "docker.io/library/from:oci")]
    {
        let file = boxwright.scratch(transport);
        skopeo(&["copy", "-q", &source, &format!("{transport}:{}:{name}", file.display())]).ok();
        boxwright.ok(&["load", "-i", file.to_str().unwrap()]);
        assert_eq!(boxwright.output_of(name, &["echo", "hi"]), "hi\n");
    }
}

#[test]
fn podman_runs_ours_and_we_run_podmans() {
    let (boxwright, podman) = (Boxwright::with_busybox(), Podman::new());
    let file = image(&boxwright);
    podman.podman(&["load", "-q", "-i", file.to_str().unwrap()]).ok();
    let theirs = podman.podman(&["run", "--rm", "interop:1"]).ok();
    assert_eq!(theirs, SAYS);
    assert_eq!(boxwright.output_of("interop:1", &[]), theirs);

    for format in ["docker-archive", "oci-archive"] {
        let back = boxwright.scratch(format);
        podman.podman(&["save", "-q", "--format", format, "-o", back.to_str().unwrap(), "interop:1"]).ok();
        loads_and_runs(&back);
    }
}

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
