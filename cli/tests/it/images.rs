//! The commands about images in the store: images, tag, rmi, inspect, history, dockerfile, prune, version, info.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use boxwright_testdata::peer::Registry;
use boxwright_testdata::run;

use crate::tool::{Boxwright, Context, Running};

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

/// Two images, the second made of the first, and one without a name.
fn several() -> Boxwright {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nCOPY f /web\nLABEL kind=web stage=one\n").file("f", "");
    boxwright.build(&context, &["-t", "shop/web:1", "-t", "shop/web:2"]).ok();
    context.write("Dockerfile", "FROM shop/web:1\nCOPY f /db\nLABEL kind=db\n");
    boxwright.build(&context, &["-t", "db"]).ok();
    context.write("Dockerfile", "FROM busybox\nCOPY f /none\nLABEL kind=none\n");
    boxwright.build(&context, &[]).ok();
    boxwright
}

#[test]
fn filters_choose_images() {
    let boxwright = several();
    let unnamed = "<none>:<none>";
    for (filters, expected) in [
        (&[][..], &[unnamed, "db:latest", "shop/web:1", "shop/web:2", "busybox:latest"][..]),
        (&["dangling=true"], &[unnamed]),
        (&["dangling=false", "since=busybox"], &["db:latest", "shop/web:1", "shop/web:2"]),
        (&["before=db"], &["shop/web:1", "shop/web:2", "busybox:latest"]),
        (&["since=shop/web:1"], &[unnamed, "db:latest"]),
        (&["reference=shop/*:2"], &["shop/web:2"]),
        (&["reference=db", "reference=busy*"], &["db:latest", "busybox:latest"]),
        (&["label=stage"], &["db:latest", "shop/web:1", "shop/web:2"]),
        (&["label=stage=one", "label=kind=web"], &["shop/web:1", "shop/web:2"]),
        (&["label!=stage"], &[unnamed, "busybox:latest"]),
        (&["label!=stage", "label!=nosuch"], &[unnamed, "busybox:latest"]),
        (&["until=1000h", "label=kind"], &[]),
        (&["label=nosuch"], &[]),
    ] {
        let mut args = vec!["images", "-a", "--format", "{{.Repository}}:{{.Tag}}"];
        args.extend(filters.iter().flat_map(|filter| ["--filter", *filter]));
        assert_eq!(boxwright.ok(&args).lines().collect::<Vec<_>>(), expected, "{filters:?}");
    }
    assert_eq!(boxwright.ok(&["image", "ls", "-q", "-f", "dangling=1", "shop/web"]), "");
    let ids = boxwright.ok(&["images", "-q", "--no-trunc", "-f", "reference=shop/*", "db"]);
    let id = |name: &str| boxwright.inspect(name)["Id"].as_str().unwrap().to_owned();
    assert_eq!(ids, [id("db"), id("shop/web:1"), id("shop/web:2")].join("\n") + "\n");
}

#[test]
fn filters_that_are_none_are_refused() {
    let boxwright = Boxwright::new();
    for (filter, code, refusal) in [
        ("colour=red", 1, "invalid filter 'colour'"),
        ("dangling=maybe", 1, "invalid filter 'dangling=maybe'"),
        ("dangling", 125, "bad format of filter (expected name=value)"),
        ("since=nosuch", 1, "No such image: nosuch"),
    ] {
        boxwright.run(&["images", "--filter", filter]).fails_with(code).says(refusal);
    }
    boxwright.run(&["images", "--format", "table {{.ID}}"]).fails_with(1).says("not supported yet");
    for filter in ["reference=x", "dangling=maybe", "since=x"] {
        boxwright.run(&["image", "prune", "-f", "--filter", filter]).fails_with(1).says("invalid filter");
    }
}

#[test]
fn image_prune_takes_images_without_a_name_or_all_that_filters_choose() {
    let boxwright = several();
    let unnamed = boxwright.ok(&["images", "-q", "--no-trunc", "-f", "dangling=true"]);
    assert_eq!(
        boxwright.ok(&["image", "prune", "-f", "--filter", "label!=kind=none"]),
        "Total reclaimed space: 0B\n"
    );
    let told = boxwright.ok(&["image", "prune", "-f", "--filter", "label=kind"]);
    assert!(told.starts_with(&format!("Deleted Images:\ndeleted: {unnamed}\nTotal reclaimed")), "{told}");
    for filter in ["until=1971-01-01", "until=1971-01-01T00:00:00", "dangling=true"] {
        let told =
            boxwright.ok(&["image", "prune", "-a", "-f", "--filter", "label=kind", "--filter", filter]);
        assert_eq!(told, "Total reclaimed space: 0B\n", "{filter}");
    }
    let all =
        boxwright.ok(&["image", "prune", "-f", "--filter", "dangling=false", "--filter", "label=kind=web"]);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines[..3], ["Deleted Images:", "untagged: shop/web:1", "untagged: shop/web:2"]);
    assert!(lines[3].starts_with("deleted: sha256:"), "{all}");
    let left = boxwright.ok(&["images", "--format", "{{.Repository}}"]);
    assert_eq!(left, "db\nbusybox\n");
    boxwright.run(&["image", "prune", "-a"]).says("all images without at least one container").ok();
    assert_eq!(boxwright.ok(&["images", "--format", "{{.Repository}}"]), left, "nobody said yes");
}

#[test]
fn the_digest_of_a_repository_goes_with_its_last_name() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = registry.name("app:1");
    boxwright.ok(&["tag", "busybox", &name]);
    boxwright.ok(&["push", &name]);
    boxwright.ok(&["rmi", &name]);
    boxwright.ok(&["pull", &name]);
    let digests = || boxwright.inspect("busybox")["RepoDigests"].clone();
    let by_digest = digests()[0].as_str().unwrap().to_owned();
    let digest = by_digest.split_once('@').unwrap().1.to_owned();
    let (other, repository) = (registry.name("app:2"), registry.name("app"));
    boxwright.ok(&["tag", &name, &other]);
    let listed = boxwright.ok(&["images", "--digests", "--format", "{{.Tag}} {{.Digest}}", &repository]);
    assert_eq!(listed, format!("1 {digest}\n2 {digest}\n"));
    boxwright.run(&["images", "--digests", &repository]).says("DIGEST").says(&digest).ok();

    assert_eq!(boxwright.ok(&["rmi", &by_digest]), format!("Untagged: {by_digest}\n"));
    assert_eq!(digests(), serde_json::json!([]));
    boxwright.ok(&["pull", &name]);
    assert_eq!(boxwright.ok(&["rmi", &other]), format!("Untagged: {other}\n"));
    assert_eq!(boxwright.ok(&["rmi", &name]), format!("Untagged: {name}\nUntagged: {by_digest}\n"));
    assert_eq!(boxwright.output_of("busybox", &["echo", "left"]), "left\n");
}

#[test]
fn an_image_with_two_tags_of_one_repository_goes_by_id_only_with_force() {
    let boxwright = Boxwright::with_busybox();
    boxwright.ok(&["tag", "busybox", "busybox:2"]);
    let id = boxwright.inspect("busybox")["Id"].as_str().unwrap().to_owned();
    boxwright.run(&["rmi", &id]).fails_with(1).says(&format!(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
        &id[7..19]
    ));
    assert_eq!(
        boxwright.ok(&["image", "rm", "-f", &id]),
        format!("Untagged: busybox:2\nUntagged: busybox:latest\nDeleted: {id}\n")
    );
}

#[test]
fn the_image_of_a_container_that_runs_stays() {
    let boxwright = Boxwright::with_busybox();
    let mut command = boxwright.command(&["run", "-i", "--rm", "busybox", "sh", "-c", "echo up; cat"]);
    let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let id = boxwright.inspect("busybox")["Id"].as_str().unwrap().to_owned();
    let short = &id[7..19];
    let conflict =
        "conflict: unable to remove repository reference \"busybox\" (must force) - container ".to_owned();
    let refused = boxwright.run(&["rmi", "busybox"]).fails_with(1).says(&conflict);
    refused.says(&format!(" is using its referenced image {short}\n")).says_nothing_of("Untagged");
    for args in [&["rmi", &id][..], &["rmi", "-f", &id]] {
        let conflict =
            format!("conflict: unable to delete {short} (cannot be forced) - image is being used by");
        boxwright.run(args).fails_with(1).says(&conflict);
    }
    assert_eq!(boxwright.ok(&["image", "prune", "-af"]), "Total reclaimed space: 0B\n");
    boxwright.ok(&["tag", "busybox", "other"]);
    assert_eq!(boxwright.ok(&["rmi", "other"]), "Untagged: other:latest\n");
    assert_eq!(boxwright.ok(&["rmi", "-f", "busybox"]), "Untagged: busybox:latest\n");
    boxwright.ok(&["system", "prune", "-f"]);
    assert_eq!(boxwright.inspect(&id)["RepoTags"], serde_json::json!([]));

    // What a killed command leaves of its container says nothing any more.
    running.signal(rustix::process::Signal::KILL);
    running.wait();
    assert_eq!(boxwright.ok(&["rmi", &id]), format!("Deleted: {id}\n"));
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
    boxwright.run(&["rmi", "-f", "nosuch"]).fails_with(0).says("No such image: nosuch");
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
    let steps = boxwright.ok(&["history", "--format", "{{.CreatedBy}}, {{.Size}}", "-H=false", "h"]);
    assert!(steps.starts_with("CMD [\"y\"], 0\nRUN /bin/sh -c echo x > /x # buildkit, "), "{steps}");
    assert!(boxwright.ok(&["history", "--format", "json", "h"]).starts_with("{\"Comment\":\"buildkit"));
}

#[test]
fn the_dockerfile_of_an_image_builds_it_again() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox AS first\nENV OPTS=\"a B=c\" P=/x\nLABEL text=\"it costs \\$5\"\nARG WHO=you\n\
         RUN echo \"hello $WHO\" > /greeting\nCOPY --chown=1:2 f /d/\nWORKDIR /d\nUSER 1\nEXPOSE 80\n\
         RUN <<END\necho a\necho b\nEND\nSHELL [\"/bin/ash\", \"-c\"]\nRUN true\n\
         HEALTHCHECK --interval=5s CMD true\nVOLUME /v\nSTOPSIGNAL SIGINT\nONBUILD RUN echo x\n\
         ENTRYPOINT [\"echo\"]\nCMD echo \"hi\"\n",
    )
    .file("f", "12345");
    boxwright.build(&context, &["-t", "i"]).ok();
    let text = boxwright.ok(&["dockerfile", "i"]);
    let (heading, instructions) = text.split_once('\n').unwrap();
    assert!(heading.starts_with("# The likely Dockerfile of i"), "{text}");
    assert_eq!(
        instructions,
        "FROM busybox:latest\nENV OPTS=\"a B=c\" P=/x\nLABEL text=\"it costs \\$5\"\nARG WHO=you\n\
         RUN echo \"hello $WHO\" > /greeting\nCOPY --chown=1:2 f /d/\nWORKDIR /d\nUSER 1\nEXPOSE 80/tcp\n\
         RUN <<EOF\necho a\necho b\nEOF\nSHELL [\"/bin/ash\", \"-c\"]\nRUN true\n\
         HEALTHCHECK --interval=5s CMD true\nVOLUME [\"/v\"]\nSTOPSIGNAL SIGINT\n\
         ENTRYPOINT [\"echo\"]\nCMD echo \"hi\"\nONBUILD RUN echo x\n"
    );
    context.write("Dockerfile", &text);
    boxwright.build(&context, &["-t", "again"]).ok();
    assert_eq!(boxwright.inspect("again")["Config"], boxwright.inspect("i")["Config"]);
    boxwright.run(&["dockerfile", "nosuch"]).fails_with(1).says("No such image: nosuch");
    boxwright.run(&["dockerfile"]).fails_with(1).says("requires exactly 1 argument");
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

/// Of all files but the room that is kept for removals on a full disk.
fn size_of(dir: &std::path::Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap).filter(|e| e.file_name() != "reserve") {
        let metadata = entry.metadata().unwrap();
        sum += if metadata.is_dir() { size_of(&entry.path()) } else { metadata.len() };
    }
    sum
}

#[test]
fn version_and_info_say_what_this_is() {
    let boxwright = Boxwright::new();
    boxwright.run(&["version"]).says("Version").ok();
    assert!(!boxwright.store().exists(), "version needs no store");
    boxwright.run(&["info"]).says(boxwright.store().to_str().unwrap()).ok();
    // The store of another release.
    let script = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA user_version = 1')";
    run(Command::new("python3").args(["-c", script]).arg(boxwright.store().join("db"))).ok();
    boxwright.run(&["info"]).says("its format is version 1, this program reads version 7").fails_with(1);
    boxwright.run(&["version"]).says("Version").ok();
    boxwright.run(&["buildx", "version"]).says("Version").ok();
}
