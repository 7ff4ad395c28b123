//! Images that put links where a container's own mounts go, or something else in their way, and what their configs name.

use std::fs;

use boxwright_testdata::tar::Tar;
use serde_json::json;

use super::race::{PATIENCE, while_exchanged};
use super::{Canary, PATH, load, patient, tries, try_load};
use crate::hardship::rounds;
use crate::tool::{Boxwright, Context, Who};

/// Writes to and reads from every place where something of ours is mounted.
const PROBE: &str = "for f in /dev/null /dev/new /dev/shm/new /dev/pts/new /dev/console /etc/hosts /etc/new /run/new; do \
    (echo x > $f); done 2>/dev/null; cat /dev/file /dev/shm/file /etc/file /run/file /proc/file /sys/file 2>/dev/null; echo done";

fn links_at_the_places_of_mounts_lead_nowhere_outside(who: Who) {
    // CVE-2026-41579, CVE-2025-52565, CVE-2019-19921, CVE-2024-9341
    let boxwright = Boxwright::of(who);
    for place in
        ["dev", "dev/pts", "dev/shm", "dev/console", "dev/null", "etc", "etc/hosts", "run", "proc", "sys"]
    {
        let canary = Canary::with(who, &["hosts", "resolv.conf", "null", "console"]);
        for (case, target) in canary.ways().iter().enumerate() {
            if !tries(who, case + place.len(), 2) {
                continue;
            }
            load(&boxwright, "links", Tar::new().symlink(place, target));
            let context = Context::new(&format!("FROM links\nRUN {PROBE}\n"));
            let commands = [
                boxwright.command(&["run", "--rm", "links", "sh", "-c", PROBE]),
                boxwright.command(&["run", "--rm", "-t", "links", "sh", "-c", PROBE]),
                boxwright.command(&["build", "--no-cache", "--progress", "plain", context.path()]),
            ];
            for command in commands {
                let ran = patient(&command);
                canary.assert_unknown_to(&ran);
                let must_be_real = ["proc", "sys"].contains(&place);
                assert!(!must_be_real || ran.status != 0, "/{place} -> {target}: {ran}");
                assert!(
                    ran.status != 0 || ran.stdout.contains("done") || ran.stderr.contains(" done"),
                    "{ran}"
                );
            }
        }
    }
}

fn a_link_put_over_a_mount_point_is_not_followed_when_that_is_taken_back(who: Who) {
    // CVE-2024-23652
    let (boxwright, canary) = (Boxwright::of(who), Canary::with(who, &["b"]));
    // What the image hides is made for the container alone, and taken back after it.
    load(&boxwright, "hidden", Tar::new().whiteout("", "a"));
    let shared = Context::new("").file("f", "shared");
    for target in canary.ways() {
        let script = format!("cat /a/b/f && mv /a /moved && ln -s {target} /a && ls -ld /a");
        let bind = format!("{}:/a/b", shared.path());
        let out = boxwright.ok(&["run", "--rm", "-v", &bind, "hidden", "sh", "-c", &script]);
        assert!(out.starts_with("shared") && out.contains(&format!("/a -> {target}")), "{out}");
        canary.assert_intact(&script);
        let file = format!("{}/f:/a/b", shared.path());
        boxwright.ok(&["run", "--rm", "-v", &file, "hidden", "sh", "-c", &script.replace("b/f", "b")]);
        canary.assert_intact(&script);
    }
}

fn a_directory_that_turns_into_a_link_while_a_container_starts_leads_nowhere_outside(who: Who) {
    // CVE-2021-30465, CVE-2024-45310
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let (shared, other) = (Context::new(""), Context::new("").file("f", "other"));
    fs::create_dir(shared.join("dir")).unwrap();
    // Where mount points are made, whoever starts the container has to be allowed to.
    who.own(shared.path().as_ref());
    who.own(&shared.join("dir"));
    std::os::unix::fs::symlink(canary.path(), shared.join("link")).unwrap();
    let (outer, inner) = (format!("{}:/s", shared.path()), format!("{}:/s/dir/new/deep", other.path()));
    let mut started = 0;
    while_exchanged(&shared.join("dir"), &shared.join("link"), || {
        let mut round = 0;
        while round < rounds(if who == Who::Root { 20 } else { 10 }) || (started == 0 && round < PATIENCE) {
            round += 1;
            let command = ["run", "--rm", "-v", &outer, "-v", &inner, "busybox", "cat", "/s/dir/file"];
            let ran = patient(&boxwright.command(&command));
            started += u32::from(ran.status == 1);
            canary.assert_unknown_to(&ran);
            let _ = fs::remove_dir_all(shared.join("dir/new"));
        }
    });
    canary.assert_intact("so many starts");
    assert!(started > 0, "no container has started");
}

fn an_absolute_link_on_the_way_to_a_volume_means_a_place_of_the_image(who: Who) {
    // GHSA-vp62: what the fix of GHSA-rg2x broke elsewhere
    let boxwright = Boxwright::of(who);
    load(&boxwright, "var-run", Tar::new().dir("run", 0o755).symlink("var/run", "/run"));
    let shared = Context::new("").file("f", "shared");
    let bind = format!("{}:/var/run/service", shared.path());
    let out =
        boxwright.ok(&["run", "--rm", "-v", &bind, "var-run", "cat", "/run/service/f", "/var/run/service/f"]);
    assert_eq!(out, "sharedshared");
    let file = format!("{}/f:/var/run/socket", shared.path());
    assert_eq!(boxwright.ok(&["run", "--rm", "-v", &file, "var-run", "cat", "/run/socket"]), "shared");
}

fn a_volume_of_an_image_shows_nothing_of_the_host(who: Who) {
    // CVE-2022-23648
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    let [absolute, climbing] = canary.ways();
    load(&boxwright, "base", Tar::new().symlink("link", &absolute));
    let volumes = [
        format!("/../../../../..{absolute}"),
        climbing,
        absolute.clone(),
        "/link".into(),
        "/link/below".into(),
        "/proc".into(),
    ];
    for volume in &volumes {
        let context = Context::new(&format!(
            "FROM base\nVOLUME [\"{volume}\"]\nRUN ls -a {absolute} /link/; touch /link/new; true\n"
        ));
        let ran =
            patient(&boxwright.command(&["build", "--progress", "plain", "-t", "volume", context.path()]));
        canary.assert_unknown_to(&ran);
        // The image may also come from elsewhere, with a config that no Dockerfile gives.
        let config = json!({ "Env": [PATH], "Cmd": ["sh"], "Volumes": { volume: {} } });
        try_load(&boxwright, "loaded", &config, vec![Tar::new().symlink("link", &absolute)]).ok();
        for image in ["volume", "loaded"] {
            let script = format!(
                "cat {absolute}/file /link/file .{volume}/file; touch /link/new; grep -q ' /proc proc ' /proc/mounts && echo real"
            );
            let ran = patient(&boxwright.command(&["run", "--rm", image, "sh", "-c", &script]));
            canary.assert_unknown_to(&ran);
            if volume == "/proc" {
                ran.fails_with(125).says("/proc");
            } else {
                assert_eq!(ran.stdout, "real\n", "{volume}: {ran}");
            }
        }
    }
}

fn a_working_directory_of_an_image_is_found_inside_or_refused(who: Who) {
    // CVE-2024-21626: the config is whatever its author wrote
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    let [absolute, climbing] = canary.ways();
    let places = [
        absolute.clone(),
        format!("/{climbing}"),
        "/link".into(),
        "/proc/self/cwd/../..".into(),
        "/proc/1/root".into(),
        climbing,
        "\u{0}".into(),
    ];
    for place in &places {
        let config =
            json!({ "Env": [PATH], "Cmd": ["sh", "-c", "touch new; cat file; ls -a"], "WorkingDir": place });
        let loaded = try_load(&boxwright, "cwd", &config, vec![Tar::new().symlink("link", &absolute)]);
        assert!(loaded.status <= 1, "{loaded}");
        canary.assert_unknown_to(&patient(&boxwright.command(&["run", "--rm", "cwd"])));
    }
}

fn labels_choose_nothing(who: Who) {
    // CVE-2026-53488, CVE-2026-53492
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let hook = format!("/bin/touch {}/hooked", canary.path());
    let labels: String = [
        "cdi.k8s.io/devices=vendor.example/device=all",
        "io.containerd.runc.v2.group=host",
        "io.kubernetes.cri-o.Devices=/dev/kmsg",
        "org.opencontainers.image.stopSignal=9",
        "run.oci.keep_original_groups=1",
        &format!("run.oci.hooks.prestart={hook}"),
        &format!("io.containers.capabilities=sys_admin {hook}"),
        &format!("io.containers.autoupdate={hook}"),
    ]
    .iter()
    .map(|label| {
        label.split_once('=').map(|(name, value)| format!("LABEL \"{name}\"=\"{value}\"\n")).unwrap()
    })
    .collect();
    boxwright.build(&Context::new(&format!("FROM busybox\n{labels}")), &["-t", "labelled"]).ok();
    assert_eq!(boxwright.inspect("labelled")["Config"]["Labels"].as_object().unwrap().len(), 8);
    let script = "id; ls /dev; grep -E '^(Cap|Sec|NoNew)' /proc/self/status; cut -d' ' -f2-3 /proc/mounts; ls /proc/self/fd";
    let plain = boxwright.output_of("busybox", &["sh", "-c", script]);
    assert_eq!(boxwright.output_of("labelled", &["sh", "-c", script]), plain);
    let step = Context::new("FROM labelled\nRUN true\n");
    boxwright.build(&step, &[]).ok();
    canary.assert_intact("hooks in labels");
}

super::by_both!(
    links_at_the_places_of_mounts_lead_nowhere_outside,
    a_link_put_over_a_mount_point_is_not_followed_when_that_is_taken_back,
    a_directory_that_turns_into_a_link_while_a_container_starts_leads_nowhere_outside,
    an_absolute_link_on_the_way_to_a_volume_means_a_place_of_the_image,
    a_volume_of_an_image_shows_nothing_of_the_host,
    a_working_directory_of_an_image_is_found_inside_or_refused,
    labels_choose_nothing,
);
