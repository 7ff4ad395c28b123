//! `import`: images made of one archive that holds a root file system.

use std::fs;
use std::process::{Command, Stdio};

use boxwright_testdata::peer::Dockerd;
use boxwright_testdata::server::{Reply, Server};
use boxwright_testdata::tar::Tar;
use boxwright_testdata::{Ran, base};
use serde_json::Value;

use crate::tool::{Boxwright, cache};

/// The path of busybox's root file system as a tar.
fn busybox() -> String {
    base::busybox(cache());
    cache().join("busybox.tar").to_str().unwrap().to_owned()
}

#[test]
fn an_archive_becomes_an_image_with_the_config_of_its_changes() {
    let boxwright = Boxwright::new();
    let changes =
        ["-c", "CMD [\"sh\", \"-c\", \"echo $A in $PWD\"]", "--change", "ENV A=1", "-c", "WORKDIR /tmp"];
    let root = busybox();
    let arguments = [&["import"][..], &changes, &["-m", "by hand", &root, "made:1"]].concat();
    let id = boxwright.ok(&arguments);
    let image = boxwright.inspect("made:1");
    assert_eq!(id.trim_end(), image["Id"].as_str().unwrap());
    assert_eq!(image["Config"]["Env"], serde_json::json!(["A=1"]));
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    assert_eq!(boxwright.output_of("made:1", &[]), "1 in /tmp\n");
    assert!(boxwright.ok(&["history", "made:1"]).contains("by hand"));
    boxwright.run(&["system", "check"]).ok();
}

#[test]
fn it_comes_from_a_file_standard_input_or_a_url_in_any_compression() {
    let boxwright = Boxwright::new();
    let packed = |program: &str| {
        let output =
            Command::new(program).args(["-c", &busybox()]).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{program}");
        output.stdout
    };
    let mut layers = Vec::new();
    for program in ["gzip", "bzip2", "xz", "zstd", "cat"] {
        let bytes = if program == "cat" { fs::read(busybox()).unwrap() } else { packed(program) };
        let file = boxwright.scratch(program);
        fs::write(&file, bytes).unwrap();
        let mut import = boxwright.command(&["image", "import", "-", program]);
        let output = import.stdin(fs::File::open(file).unwrap()).output().unwrap();
        Ran::new("import -".to_owned(), &output).ok();
        layers.push(boxwright.inspect(program)["RootFS"]["Layers"].clone());
    }
    let server = Server::start(|_, _| Reply::new(200, fs::read(busybox()).unwrap()));
    boxwright.ok(&["import", &format!("http://user:secret@{}/root.tar", server.address()), "url"]);
    layers.push(boxwright.inspect("url")["RootFS"]["Layers"].clone());
    assert!(layers.iter().all(|l| *l == layers[0]), "{layers:?}");
    let history = boxwright.ok(&["history", "--no-trunc", "url"]);
    assert!(history.contains("Imported from http://127.0.0.1") && !history.contains("secret"), "{history}");
    let server = Server::start(|_, _| Reply::new(404, "gone"));
    boxwright.run(&["import", &format!("http://{}/x", server.address())]).fails_with(1).says("404");
}

#[test]
fn what_can_not_be_imported_is_one_clear_error_and_leaves_nothing() {
    let boxwright = Boxwright::new();
    let whole = fs::read(busybox()).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(boxwright.scratch(name), bytes).unwrap();
        boxwright.scratch(name).to_str().unwrap().to_owned()
    };
    let cut = write("cut", &whole[..whole.len() / 2]);
    let text = write("text", &b"no archive\n".repeat(100));
    let link = write("link", &Tar::new().hard_link("passwd", "etc/passwd").finish());
    let escape = write("escape", &Tar::new().file("../../canary", 0o644, "x").finish());
    for (arguments, why) in [
        (&[cut.as_str(), "x"][..], "ends too early"),
        (&[&text, "x"], "a header was expected"),
        (&[&link, "x"], "passwd is a link to etc/passwd, which is not in it"),
        (&[&escape, "x"], "leads out of the archive"),
        (&["/nosuch.tar", "x"], "/nosuch.tar"),
        (&["/etc", "x"], "/etc"),
        (&["-c", "RUN true", &busybox()], "run is not a valid change command"),
        (&["-c", "EXPOSE x", &busybox()], "invalid change"),
        (&[&busybox(), "X"], "must be lowercase"),
        (&[&busybox(), &format!("x@sha256:{}", "0".repeat(64))], "cannot import digest reference"),
    ] {
        let ran = boxwright.run(&[&["import"], arguments].concat()).fails_with(1).says(why);
        assert_eq!(ran.stderr.trim_end().lines().count(), 1, "{ran}");
        for what in ["tmp", "layers"] {
            assert_eq!(fs::read_dir(boxwright.store().join(what)).unwrap().count(), 0, "{what} after {ran}");
        }
    }
    assert_eq!(boxwright.ok(&["images", "-q"]), "");
    boxwright.run(&["system", "check"]).ok();
}

#[test]
fn docker_makes_the_same_of_it() {
    let (boxwright, dockerd) = (Boxwright::new(), Dockerd::start());
    let changes = [
        "CMD echo hi",
        "ENTRYPOINT [\"a\"]",
        "ENV A=b C=\"d e\"",
        "EXPOSE 80/udp",
        "LABEL x=y",
        "USER 1:2",
        "VOLUME /v",
        "WORKDIR /w",
        "ONBUILD RUN x",
    ];
    let flags: Vec<&str> = changes.iter().flat_map(|change| ["-c", change]).collect();
    let root = busybox();
    let arguments = [&["import"][..], &flags, &[&root, "made"]].concat();
    boxwright.ok(&arguments);
    dockerd.docker(&arguments).ok();
    let theirs: Value = serde_json::from_str(&dockerd.docker(&["image", "inspect", "made"]).ok()).unwrap();
    let (ours, theirs) = (boxwright.inspect("made"), &theirs[0]);
    for key in
        ["Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "User", "Volumes", "WorkingDir", "OnBuild"]
    {
        assert_eq!(ours["Config"][key], theirs["Config"][key], "{key}");
    }
    for key in ["Architecture", "Os", "RepoTags"] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    let comment = |history: String| history.lines().nth(1).unwrap().trim_end().ends_with("Imported from -");
    assert!(comment(boxwright.ok(&["history", "made"])));
    assert!(comment(dockerd.docker(&["history", "made"]).ok()));
}
