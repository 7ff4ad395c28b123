//! The commands about images in the store: images, tag, rmi, inspect, history, prune, version, info.

use crate::tool::{Boxwright, Context};

#[test]
fn images_lists_names_ids_and_sizes_as_docker_does() {
    let boxwright = Boxwright::with_busybox();
    let table = boxwright.ok(&["images"]);
    let mut lines = table.lines();
    let header: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    let row: Vec<_> = lines.next().unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["busybox", "latest"]);
    let id = boxwright.inspect("busybox")["Id"].as_str().unwrap().to_owned();
    assert_eq!(format!("sha256:{}", row[2]), id[..7 + 12]);
    assert_eq!(boxwright.ok(&["images", "-q"]), format!("{}\n", row[2]));
    assert_eq!(boxwright.ok(&["images", "nosuch"]).lines().count(), 1);
}

#[test]
fn a_tag_is_another_name_and_rmi_takes_names_away_one_by_one() {
    let boxwright = Boxwright::with_busybox();
    boxwright.ok(&["tag", "busybox", "other:1"]);
    assert_eq!(boxwright.inspect("other:1")["Id"], boxwright.inspect("busybox")["Id"]);
    boxwright.run(&["rmi", "busybox"]).says("Untagged: busybox:latest").says_nothing_of("Deleted").ok();
    assert_eq!(boxwright.output_of("other:1", &["echo", "still"]), "still\n");
    boxwright.run(&["rmi", "other:1"]).says("Untagged: other:1").says("Deleted: sha256:").ok();
    assert_eq!(boxwright.ok(&["images", "-q"]), "");
}

#[test]
fn an_image_with_two_names_goes_by_id_only_with_force() {
    let boxwright = Boxwright::with_busybox();
    boxwright.ok(&["tag", "busybox", "other"]);
    let id = boxwright.ok(&["images", "-q", "busybox"]);
    boxwright.run(&["rmi", id.trim()]).fails_with(1).says("force");
    boxwright.ok(&["rmi", "-f", id.trim()]);
    assert_eq!(boxwright.ok(&["images", "-q"]), "");
}

#[test]
fn what_is_missing_is_named() {
    let boxwright = Boxwright::new();
    boxwright.run(&["tag", "nosuch", "x"]).fails_with(1).says("nosuch");
    boxwright.run(&["rmi", "nosuch"]).fails_with(1).says("No such image: nosuch");
    boxwright.run(&["rmi", "-f", "nosuch"]).fails_with(0);
    boxwright.run(&["history", "nosuch"]).fails_with(1).says("nosuch");
    boxwright.run(&["save", "nosuch", "-o", "/dev/null"]).fails_with(1).says("nosuch");
    let inspected =
        boxwright.run(&["image", "inspect", "nosuch"]).fails_with(1).says("No such image: nosuch");
    assert_eq!(inspected.stdout.trim(), "[]");
    boxwright.run(&["inspect", "nosuch"]).fails_with(1).says("nosuch");
}

#[test]
fn names_that_are_none_are_refused() {
    let boxwright = Boxwright::with_busybox();
    for name in ["UPPER", "a b", "x:", "../x", "x@sha256:12"] {
        boxwright.run(&["tag", "busybox", name]).fails_with(1).says("invalid reference");
    }
}

#[test]
fn inspect_shows_the_config_and_takes_a_format() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\nENV A=1\nEXPOSE 80\nVOLUME /v\nWORKDIR /w\nUSER nobody\nLABEL l=1\nSTOPSIGNAL SIGINT\nCMD [\"c\"]\n",
    );
    boxwright.build(&context, &["-t", "i"]).ok();
    let image = boxwright.inspect("i");
    let config = &image["Config"];
    assert_eq!(config["Cmd"], serde_json::json!(["c"]));
    assert_eq!(config["ExposedPorts"], serde_json::json!({ "80/tcp": {} }));
    assert_eq!(config["Volumes"], serde_json::json!({ "/v": {} }));
    assert_eq!((&config["WorkingDir"], &config["User"]), (&"/w".into(), &"nobody".into()));
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!(image["Os"], "linux");
    assert_eq!(image["RootFS"]["Type"], "layers");
    assert_eq!(boxwright.ok(&["image", "inspect", "-f", "{{.Config.User}}", "i"]), "nobody\n");
    assert_eq!(boxwright.ok(&["inspect", "--format", "{{json .Config.Cmd}}", "i"]), "[\"c\"]\n");
}

#[test]
fn history_has_a_line_for_each_instruction_newest_first() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nCOPY f /f\nRUN echo x > /x\nCMD [\"y\"]\n").file("f", "12345");
    boxwright.build(&context, &["-t", "h"]).ok();
    let history = boxwright.ok(&["history", "--no-trunc", "h"]);
    let lines: Vec<_> = history.lines().collect();
    assert!(lines[0].starts_with("IMAGE"), "{history}");
    assert!(lines[1].contains("CMD [\"y\"]") && lines[1].contains("sha256:"), "{history}");
    assert!(lines[2].contains("RUN /bin/sh -c echo x > /x") && lines[2].contains("<missing>"), "{history}");
    assert!(lines[3].contains("COPY f /f"), "{history}");
}

#[test]
fn system_prune_leaves_nothing_that_no_name_holds() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nRUN head -c 3000000 /dev/urandom > /big\n");
    boxwright.build(&context, &["-t", "big"]).ok();
    boxwright.ok(&["rmi", "big"]);
    boxwright.ok(&["system", "prune", "-f"]);
    boxwright.ok(&["builder", "prune", "-a", "-f"]);
    assert!(
        size_of(&boxwright.store()) < 3_000_000 + 2_500_000,
        "{} bytes are left",
        size_of(&boxwright.store())
    );
    assert_eq!(boxwright.output_of("busybox", &["echo", "kept"]), "kept\n");
    boxwright.ok(&["system", "prune", "-a", "-f"]);
    assert_eq!(boxwright.ok(&["images", "-q"]), "");
    assert!(size_of(&boxwright.store()) < 1_000_000, "{} bytes are left", size_of(&boxwright.store()));
}

fn size_of(dir: &std::path::Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        sum += if metadata.is_dir() { size_of(&entry.path()) } else { metadata.len() };
    }
    sum
}

#[test]
fn version_and_info_say_what_this_is() {
    let boxwright = Boxwright::new();
    boxwright.run(&["version"]).says("Version").ok();
    boxwright.run(&["info"]).says(boxwright.store().to_str().unwrap()).ok();
}
