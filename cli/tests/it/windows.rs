//! Images for Windows, as far as they can be made without it.

use std::fs;

use boxwright_testdata::listing::Listing;
use boxwright_testdata::peer::{Registry, skopeo};
use serde_json::{Value, json};

use crate::platforms::raw;
use crate::tool::{Boxwright, Context};

#[test]
fn what_has_only_files_is_built_beside_others_with_paths_and_shell_of_its_own() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let name = registry.name("app:1");
    let context = Context::new(
        "# escape=`\n\
         FROM scratch\n\
         ARG TARGETOS\n\
         WORKDIR /app\n\
         WORKDIR sub\n\
         COPY $TARGETOS ./\n\
         ENTRYPOINT run me\n",
    )
    .file("windows/app.exe", "MZ")
    .file("linux/app", "ELF");
    let dest = boxwright.scratch("out");
    let platforms = ["--platform", "windows(10.0.20348.1)/amd64,linux/amd64"];
    let local = dest.display().to_string();
    boxwright.build(&context, &[&platforms[..], &["-t", &name, "--push", "-o", &local]].concat()).ok();
    let names: Vec<String> =
        Listing::of_dir(&dest).entries.into_keys().filter(|name| name.ends_with(".exe")).collect();
    assert_eq!(names, ["windows(10.0.20348.1)_amd64/app/sub/app.exe"]);
    let index = raw(&name);
    let platform = json!({"architecture": "amd64", "os": "windows", "os.version": "10.0.20348.1"});
    assert_eq!(index["manifests"][0]["platform"], platform);
    let source = format!("docker://{name}");
    let arguments = ["inspect", "--tls-verify=false", "--override-os", "windows", "--config", &source];
    let config: Value = serde_json::from_str(&skopeo(&arguments).ok()).unwrap();
    assert_eq!(config["os.version"], "10.0.20348.1");
    let expected = json!({"Entrypoint": ["cmd", "/S", "/C", "run me"], "WorkingDir": "\\app\\sub"});
    assert_eq!(config["config"], expected);
    let linux = boxwright.inspect(&name);
    assert_eq!(linux["Config"]["WorkingDir"], "/app/sub");

    // From such an image, what makes no layer.
    let labelled = Context::new(&format!("FROM {name}\nLABEL a=b\nUSER ContainerUser\n"));
    boxwright.build(&labelled, &["--platform", "windows/amd64", "-t", "labelled"]).ok();
    let format = "{{.Os}} {{.OsVersion}} {{json .Config.Labels}}";
    let found = boxwright.ok(&["image", "inspect", "--format", format, "labelled"]);
    assert_eq!(found, "windows 10.0.20348.1 {\"a\":\"b\"}\n");
    assert!(linux.get("OsVersion").is_none(), "{linux}");
    boxwright
        .run(&["run", "--rm", "labelled"])
        .fails_with(125)
        .says("image operating system \"windows\" cannot be used on this platform");
}

#[test]
fn releases_of_windows_are_platforms_of_their_own() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let (name, repository) = (registry.name("app:1"), registry.name("app"));
    let context = Context::new(
        "FROM scratch\nARG TARGETPLATFORM\nARG TARGETOSVERSION\nENV VERSION=$TARGETOSVERSION\n\
         LABEL platform=$TARGETPLATFORM\nCOPY file /\n",
    )
    .file("file", "x");
    let dest = boxwright.scratch("out");
    let local = dest.display().to_string();
    let annotation = "manifest[windows(10.0.20348.1)/amd64]:for=one";
    let both = "windows(10.0.17763.1)/amd64,windows(10.0.20348.1)/amd64,windows(10.0.20348.2)/amd64";
    let flags = ["--platform", both, "-t", &name, "--push", "-o", &local, "--annotation", annotation];
    boxwright.build(&context, &flags).ok();
    let names: Vec<String> =
        Listing::of_dir(&dest).entries.into_keys().filter(|name| name.ends_with("file")).collect();
    let dirs = ["windows(10.0.17763.1)_amd64", "windows(10.0.20348.1)_amd64", "windows(10.0.20348.2)_amd64"];
    assert_eq!(names, dirs.map(|dir| format!("{dir}/file")));
    let annotated: Vec<Value> = raw(&name)["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            raw(&format!("{repository}@{}", entry["digest"].as_str().unwrap()))["annotations"].clone()
        })
        .collect();
    assert_eq!(annotated, [Value::Null, json!({"for": "one"}), Value::Null]);
    let configs = boxwright.ok(&["imagetools", "inspect", &name, "--format", "{{json .Image}}"]);
    let configs: Value = serde_json::from_str(&configs).unwrap();
    let found: Vec<&String> = configs.as_object().unwrap().keys().collect();
    assert_eq!(found, both.split(',').collect::<Vec<_>>());

    // What is asked for, what runs there, or nothing.
    let shown = "{{json .Config}}";
    for (asked, release) in [
        ("windows(10.0.20348.2)/amd64", "10.0.20348.2"),
        ("windows(10.0.17763.99)/amd64", "10.0.17763.1"),
        ("windows(10.0.26100.1)/amd64", "10.0.20348.1"),
        ("windows/amd64", "10.0.17763.1"),
    ] {
        let other = Boxwright::new();
        other.ok(&["pull", "-q", "--platform", asked, &name]);
        let found = other.ok(&["image", "inspect", "--format", shown, &name]);
        assert!(found.contains(release), "{asked} is {found}");
        let same = boxwright.ok(&["image", "inspect", "--platform", asked, "--format", shown, &name]);
        assert_eq!(same, found, "{asked}");
    }
    let absent = "windows(10.0.14393.1)/amd64";
    for command in ["pull", "save", "run"] {
        let status = if command == "run" { 125 } else { 1 };
        boxwright.run(&[command, "--platform", absent, &name]).fails_with(status).says(absent);
    }
}

#[test]
fn windows_paths_lead_to_its_drive() {
    let boxwright = Boxwright::new();
    let context =
        Context::new("# escape=`\nFROM scratch\nWORKDIR C:\\a\\b\nCOPY d\\file c:\\x\\\nCOPY d\\file here\n")
            .file("d/file", "x");
    let dest = boxwright.scratch("out");
    let platform = ["--platform", "windows/amd64"];
    let local = dest.display().to_string();
    boxwright.build(&context, &[&platform[..], &["-o", &local]].concat()).ok();
    assert_eq!(fs::read_to_string(dest.join("x/file")).unwrap(), "x");
    assert_eq!(fs::read_to_string(dest.join("a/b/here")).unwrap(), "x");
    for (instruction, words) in [
        ("WORKDIR D:\\a", "not on the system drive"),
        ("COPY d\\file \\\\host\\share", "UNC paths are not supported"),
        ("COPY ..\\..\\etc\\passwd x", "passwd"),
        ("RUN dir", "RUN can't run programs for windows/amd64 here"),
    ] {
        let context = Context::new(&format!("# escape=`\nFROM scratch\n{instruction}\n")).file("d/file", "x");
        boxwright.build(&context, &platform).fails_with(1).says(words);
    }
    let base = Context::new("FROM scratch\nCOPY d /\n").file("d/file", "x");
    boxwright.build(&base, &[&platform[..], &["-t", "base"]].concat()).ok();
    let above = Context::new("FROM base\nCOPY d /\n").file("d/file", "x");
    boxwright
        .build(&above, &platform)
        .fails_with(1)
        .says("layers over an image for Windows are not supported yet");
}
