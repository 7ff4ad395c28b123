//! Archives between us and each peer in every form that it reads and writes, compared by the digest of the config, the
//! diff ids, and the files that a container sees. The gate tries the first form of each, `scripts/slow peers` all of them. What apt
//! does not have stands in other places, made by hand after its format: archives of docker 25 and of BuildKit in `interop.rs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use boxwright_testdata::archive::sha256;
use boxwright_testdata::peer::{Dockerd, Podman, skopeo};
use boxwright_testdata::{Ran, run};
use serde_json::Value;

use crate::hardship::rounds;
use crate::tool::{Boxwright, Context};

/// Whiteouts, hard links, odd modes and owners, a long name; two layers of its own over the base.
fn context() -> Context {
    let long = "n".repeat(150);
    Context::new(&format!(
        "FROM busybox\n\
         RUN mkdir -p /d/{long} && echo long > /d/{long}/f && rm -r /home && ln /d/{long}/f /hard && ln -s hard /soft\n\
         RUN rm /hard && chown 123456:654321 /soft -h && chmod 2755 /d && rm -rf /var && mkdir /var && touch /var/new\n\
         ENV GREETING=hello\nCMD [\"sh\"]\n"
    ))
}

/// Prints what a container sees, but for what runtimes bring; podman's has a root of mode 0555.
const LOOK: &str = "cd /; for n in proc sys dev run etc/hosts etc/hostname etc/resolv.conf etc/mtab .dockerenv; do p=\"$p -path ./$n -prune -o\"; done; \
    { echo $GREETING; find . $p -type d ! -path . -exec stat -c '%n %A %u:%g' {} +; find . $p ! -type d -exec stat -c '%N %A %u:%g %h %Y' {} +; \
    find . $p -type f -exec sha256sum {} +; } | sort";

/// What an image is.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    id: String,
    diff_ids: Vec<String>,
    files: String,
}

impl Seen {
    fn of(id: &str, diff_ids: &Value, files: String) -> Seen {
        assert!(files.lines().count() > 100, "{files}");
        let diff_ids = diff_ids.as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned());
        let id = id.trim().trim_start_matches("sha256:").to_owned();
        Seen { id, diff_ids: diff_ids.collect(), files }
    }
}

/// Fails with the lines that differ.
#[track_caller]
fn same_files(seen: &str, expected: &str, form: &str) {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (seen, expected) = (lines(seen), lines(expected));
    let differ: Vec<_> = seen.symmetric_difference(&expected).collect();
    assert!(differ.is_empty(), "{form}: {differ:#?}");
}

#[track_caller]
fn same(seen: &Seen, expected: &Seen, form: &str) {
    assert_eq!((&seen.id, &seen.diff_ids), (&expected.id, &expected.diff_ids), "{form}");
    same_files(&seen.files, &expected.files, form);
}

/// A store of ours that has nothing but what is in the archive.
fn ours(archive: &Path) -> Seen {
    let boxwright = Boxwright::new();
    let said = boxwright.ok(&["load", "-i", archive.to_str().unwrap()]);
    let name =
        said.lines().find_map(|line| line.split_once(": ").filter(|(word, _)| word.starts_with("Loaded")));
    let name = name.unwrap_or_else(|| panic!("{said}")).1;
    let image = boxwright.inspect(name);
    let files = boxwright.output_of(name, &["sh", "-c", LOOK]);
    Seen::of(image["Id"].as_str().unwrap(), &image["RootFS"]["Layers"], files)
}

/// The programs that apt has.
struct Peers {
    docker: Dockerd,
    podman: Podman,
    scratch: tempfile::TempDir,
}

const RUN: [&str; 3] = ["run", "--rm", "--network=host"];
const SHOWN: &str = "{{.Id}} {{json .RootFS.Layers}}";
const NAME: &str = "docker.io/library/app:1";

impl Peers {
    fn new() -> Peers {
        Peers { docker: Dockerd::start(), podman: Podman::new(), scratch: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn look(&self, program: &dyn Fn(&[&str]) -> Ran, name: &str) -> Seen {
        let shown = program(&["image", "inspect", "--format", SHOWN, name]).ok();
        let (id, diff_ids) = shown.split_once(' ').unwrap();
        let files = program(&[&RUN[..], &[name, "sh", "-c", LOOK]].concat()).ok();
        Seen::of(id, &serde_json::from_str(diff_ids).unwrap(), files)
    }

    fn docker(&self, archive: &Path) -> Result<Seen, Ran> {
        let loaded = self.docker.docker(&["load", "-q", "-i", archive.to_str().unwrap()]);
        if loaded.status != 0 {
            return Err(loaded);
        }
        Ok(self.look(&|args| self.docker.docker(args), NAME))
    }

    fn containerd(&self, archive: &Path) -> Seen {
        self.docker.ctr(&["images", "import", archive.to_str().unwrap()]).ok();
        let copy = self.file("ctr.tar");
        self.docker.ctr(&["images", "export", copy.to_str().unwrap(), NAME]).ok();
        ours(&copy)
    }

    fn podman(&self, archive: &Path) -> Seen {
        let name = self.podman_load(archive.to_str().unwrap());
        self.look(&|args| self.podman.podman(args), &name)
    }

    /// Gives the name that it has there.
    fn podman_load(&self, archive: &str) -> String {
        let said = self.podman.podman(&["load", "-q", "-i", archive]).ok();
        let name = said.lines().find(|line| line.ends_with("app:1")).unwrap_or_else(|| panic!("{said}"));
        name.trim_start_matches("Loaded image: ").to_owned()
    }

    fn buildah(&self, source: &str) -> Seen {
        let id = self.podman.buildah(&["pull", "-q", source]).ok();
        self.look(&|args| self.podman.podman(args), id.trim())
    }

    /// Its copy, in a form that it likes.
    fn skopeo(&self, source: &str) -> (String, Vec<String>) {
        let copy = format!("dir:{}", self.file("dir").display());
        skopeo(&["copy", "-q", source, &copy]).ok();
        config_in(&copy)
    }
}

/// The digest of the config, and the diff ids in it, as skopeo reads them.
fn config_in(place: &str) -> (String, Vec<String>) {
    let config = skopeo(&["inspect", "--config", "--raw", place]).ok();
    let parsed: Value = serde_json::from_str(&config).unwrap();
    let diff_ids = parsed["rootfs"]["diff_ids"].as_array().unwrap().iter();
    (sha256(config.as_bytes()), diff_ids.map(|id| id.as_str().unwrap().to_owned()).collect())
}

/// What it writes, and how; whether docker of that age reads it.
const FORMS: [(&str, bool); 8] = [
    ("save", true),
    ("save several", true),
    ("type=docker", true),
    ("type=docker,compression=gzip,force-compression=true", true),
    ("type=oci", false),
    ("type=oci,compression=gzip,force-compression=true", false),
    ("type=oci,compression=zstd,force-compression=true", false),
    ("type=oci,oci-mediatypes=false,compression=gzip,force-compression=true", false),
];

#[test]
fn what_we_write_is_the_same_image_to_each_peer() {
    let (boxwright, peers) = (Boxwright::with_busybox(), Peers::new());
    boxwright.build(&context(), &["-t", "app:1"]).ok();
    let files = boxwright.output_of("app:1", &["sh", "-c", LOOK]);
    for (form, for_docker) in FORMS.into_iter().take(rounds(1) as usize) {
        let archive = boxwright.scratch("archive.tar");
        let path = archive.to_str().unwrap();
        match form {
            "save" => drop(boxwright.ok(&["save", "-o", path, "app:1"])),
            "save several" => drop(boxwright.ok(&["save", "-o", path, "app:1", "busybox"])),
            form => {
                drop(boxwright.build(&context(), &["-o", &format!("{form},dest={path},name=app:1")]).ok())
            }
        }
        let expected = ours(&archive);
        same_files(&expected.files, &files, form);
        match peers.docker(&archive) {
            Ok(seen) => {
                assert!(for_docker, "{form}");
                same(&seen, &expected, form);
            }
            Err(refused) => assert!(!for_docker, "{form}: {refused}"),
        }
        same(&peers.podman(&archive), &expected, form);
        let oci = format!("oci-archive:{path}{}", if form == "save several" { ":1" } else { "" });
        let mut transports = vec![oci];
        if for_docker {
            same(&peers.containerd(&archive), &expected, form);
            transports.push(format!("docker-archive:{path}:app:1"));
        }
        for source in transports {
            same_files(&peers.buildah(&source).files, &files, &source);
            assert_eq!(
                peers.skopeo(&source),
                (expected.id.clone(), expected.diff_ids.clone()),
                "{form} {source}"
            );
        }
    }
}

#[test]
fn what_each_peer_writes_is_the_same_image_to_us() {
    let (boxwright, peers) = (Boxwright::with_busybox(), Peers::new());
    boxwright.build(&context(), &["-t", "app:1"]).ok();
    let files = boxwright.output_of("app:1", &["sh", "-c", LOOK]);
    let archive = boxwright.scratch("archive.tar");
    let path = archive.to_str().unwrap();
    boxwright.ok(&["save", "-o", path, "app:1", "busybox"]);
    peers.docker.docker(&["load", "-q", "-i", path]).ok();
    let name = peers.podman_load(path);
    peers.docker.ctr(&["images", "import", path]).ok();
    let written = peers.file("written.tar");
    let to = written.display().to_string();
    let (docker_to, oci_to) = (format!("docker-archive:{to}:app:1"), format!("oci-archive:{to}:{NAME}"));
    let (docker_from, layout) =
        (format!("docker-archive:{path}:app:1"), peers.file("layout").display().to_string());
    let oci_layout = format!("oci:{layout}:{NAME}");
    let podman = |args: &[&str]| drop(peers.podman.podman(&[&["save", "-q", "-o", &to], args].concat()).ok());
    let buildah = |place: &str| drop(peers.podman.buildah(&["push", "-q", &name, place]).ok());
    let copy = |args: &[&str]| drop(skopeo(&[&["copy", "-q"], args].concat()).ok());
    let packed = || drop(run(std::process::Command::new("tar").args(["-C", &layout, "-cf", &to, "."])).ok());
    let forms: [(&str, &dyn Fn()); 14] = [
        ("docker", &|| drop(peers.docker.docker(&["save", "-o", &to, "app:1"]).ok())),
        ("containerd", &|| drop(peers.docker.ctr(&["images", "export", &to, NAME]).ok())),
        ("podman, docker's", &|| podman(&["--format", "docker-archive", &name])),
        ("podman, OCI", &|| podman(&["--format", "oci-archive", &name])),
        ("buildah, docker's", &|| buildah(&docker_to)),
        ("buildah, OCI", &|| buildah(&oci_to)),
        ("skopeo, docker's", &|| copy(&[&docker_from, &docker_to])),
        ("skopeo, OCI", &|| copy(&[&docker_from, &oci_to])),
        ("docker, several", &|| drop(peers.docker.docker(&["save", "-o", &to, "app:1", "busybox"]).ok())),
        ("podman, several", &|| podman(&["-m", &name, "busybox"])),
        ("buildah, a layout", &|| {
            buildah(&oci_layout);
            packed();
        }),
        ("skopeo, zstd", &|| {
            copy(&["--dest-compress", "--dest-compress-format=zstd", &docker_from, &oci_layout]);
            packed();
        }),
        ("docker, by id", &|| {
            let id = peers.docker.docker(&["image", "inspect", "--format", "{{.Id}}", NAME]).ok();
            peers.docker.docker(&["save", "-o", &to, id.trim()]).ok();
        }),
        ("docker, compressed", &|| {
            peers.docker.docker(&["save", "-o", &to, "app:1"]).ok();
            run(std::process::Command::new("zstd").args([
                "-q",
                "--rm",
                "-f",
                &to,
                "-o",
                &format!("{to}.zst"),
            ]))
            .ok();
            std::fs::rename(format!("{to}.zst"), &to).unwrap();
        }),
    ];
    // One of each peer, or all.
    for (form, write) in forms.into_iter().take(if rounds(1) == 1 { 8 } else { 14 }) {
        for left in [&written, &peers.file("layout")] {
            let _ = std::fs::remove_file(left).or_else(|_| std::fs::remove_dir_all(left));
        }
        write();
        let seen = ours(&written);
        same_files(&seen.files, &files, form);
        let single = !form.contains("several") && !form.contains("zstd") && !form.contains("compressed");
        let transport = match form {
            form if form.contains("OCI") => "oci-archive",
            form if form.contains("layout") || form == "containerd" => continue,
            _ => "docker-archive",
        };
        if single {
            let theirs = config_in(&format!("{transport}:{to}"));
            assert_eq!(theirs, (seen.id, seen.diff_ids), "{form}");
        }
    }
}
