//! Volumes, binds and tmpfs of `run`, and `volume`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::tool::{Boxwright, Context};

/// A store with the image `data`, which has files in `/data` and a mode and owner for it.
fn with_data() -> Boxwright {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\nRUN mkdir -m 1770 /data /empty && mkdir /data/sub && echo image > /data/sub/f && \
         ln /data/sub/f /data/hard && ln -s sub/f /data/link && chown -R 7:8 /data /empty\nRUN touch /file\n",
    );
    boxwright.build(&context, &["-t", "data"]).ok();
    boxwright
}

fn run(boxwright: &Boxwright, flags: &[&str], image: &str, script: &str) -> String {
    boxwright.ok(&[&["run", "--rm"], flags, &[image, "sh", "-c", script]].concat())
}

#[test]
fn a_named_volume_begins_with_what_the_image_has_and_stays() {
    let boxwright = with_data();
    let look = "cat /data/sub/f /data/link; stat -c '%a %u:%g' /data; stat -c %h /data/hard";
    assert_eq!(run(&boxwright, &["-v", "kept:/data"], "data", look), "image\nimage\n1770 7:8\n2\n");
    run(
        &boxwright,
        &["-v", "kept:/data"],
        "data",
        "echo mine > /data/sub/f; rm /data/link; echo new > /data/new",
    );
    // Neither another image nor what was removed brings anything back.
    let look = "cat /x/sub/f /x/new; ls /x";
    assert_eq!(run(&boxwright, &["-v", "kept:/x"], "busybox", look), "mine\nnew\nhard\nnew\nsub\n");
    assert_eq!(run(&boxwright, &["-v", "kept:/data"], "data", "ls /data"), "hard\nnew\nsub\n");
    boxwright
        .run(&["run", "--rm", "-v", "kept:/x:ro", "busybox", "touch", "/x/y"])
        .fails_with(1)
        .says("Read-only");
    assert_eq!(boxwright.ok(&["volume", "ls", "-q"]), "kept\n");
}

#[test]
fn a_volume_that_is_empty_takes_mode_and_owner_of_an_empty_directory() {
    let boxwright = with_data();
    boxwright.ok(&["volume", "create", "new"]);
    assert_eq!(run(&boxwright, &["-v", "new:/empty"], "data", "stat -c '%a %u:%g' /empty"), "1770 7:8\n");
    assert_eq!(
        run(&boxwright, &["-v", "other:/nowhere/yet"], "data", "stat -c '%a %u:%g' /nowhere/yet"),
        "755 0:0\n"
    );
}

#[test]
fn nocopy_leaves_a_volume_empty() {
    let boxwright = with_data();
    assert_eq!(run(&boxwright, &["-v", "one:/data:nocopy"], "data", "ls /data"), "");
    let fields = "source=two,target=/data,volume-nocopy";
    assert_eq!(run(&boxwright, &["--mount", fields], "data", "ls /data; touch /data/x"), "");
    assert_eq!(
        run(&boxwright, &["--mount", "type=volume,target=/data,volume-nocopy=1"], "data", "ls /data"),
        ""
    );
}

#[test]
fn a_volume_without_a_name_is_the_containers_own() {
    let boxwright = with_data();
    for flags in [["-v", "/data"], ["--mount", "target=/data"]] {
        let look = "cat /data/sub/f; stat -c '%a %u:%g' /data; echo mine > /data/sub/f; touch /data/new";
        for _ in 0..2 {
            assert_eq!(
                run(&boxwright, &[&["--read-only"][..], &flags].concat(), "data", look),
                "image\n1770 7:8\n"
            );
        }
    }
    assert_eq!(boxwright.ok(&["volume", "ls", "-q"]), "", "nothing is left");
    let mounts = "grep -c ' /var/lib/data ' /proc/self/mountinfo";
    assert_eq!(run(&boxwright, &["-v", "/var/lib/data"], "busybox", mounts), "1\n");
}

#[test]
fn flags_take_the_place_of_what_the_image_declares() {
    let boxwright = with_data();
    boxwright.build(&Context::new("FROM data\nVOLUME /data\n"), &["-t", "declares"]).ok();
    assert_eq!(run(&boxwright, &["--tmpfs", "/data"], "declares", "ls /data; stat -c %a /data"), "1777\n");
    run(&boxwright, &["-v", "kept:/data/"], "declares", "touch /data/here");
    assert_eq!(run(&boxwright, &["-v", "kept:/data"], "declares", "ls /data"), "hard\nhere\nlink\nsub\n");
}

#[test]
fn a_part_of_a_volume() {
    let boxwright = with_data();
    run(&boxwright, &["-v", "kept:/data"], "data", "ln -s / /data/out; ln -s sub /data/in");
    let part = |path: &str| format!("source=kept,target=/m,volume-subpath={path}");
    assert_eq!(run(&boxwright, &["--mount", &part("sub")], "busybox", "ls /m"), "f\n");
    for path in ["out", "out/etc", "in", "../..", "none", "/etc"] {
        boxwright.run(&["run", "--rm", "--mount", &part(path), "busybox", "ls", "/m"]).fails_with(125);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let boxwright = with_data();
    for (flags, words) in [
        (&["-v", "kept:/file"][..], "cannot mount volume over existing file"),
        (&["-v", "kept:/m", "-v", "other:/m"], "Duplicate mount point: /m"),
        (&["-v", "kept:/m", "--tmpfs", "/m/"], "Duplicate mount point: /m"),
        (&["-v", "a/b:/m"], "includes invalid characters"),
        (&["-v", "/:/"], "destination can't be '/'"),
        (&["-v", "../x:/m:shared,rslave,odd"], "invalid mode"),
        (&["--mount", "type=bind,source=/no/such/place,target=/m"], "bind source path does not exist"),
        (&["--mount", "type=image,source=x,target=/m"], "mount type \"image\""),
    ] {
        boxwright.run(&[&["run", "--rm"], flags, &["data", "true"]].concat()).fails_with(125).says(words);
    }
}

#[test]
fn binds_by_fields() {
    let boxwright = Boxwright::with_busybox();
    let shared = Context::new("").file("f", "from the host\n");
    let fields = format!("type=bind,source={},target=/m", shared.path());
    assert_eq!(
        run(&boxwright, &["--mount", &fields], "busybox", "cat /m/f; echo x > /m/g"),
        "from the host\n"
    );
    assert_eq!(fs::read_to_string(shared.join("g")).unwrap(), "x\n");
    let fields = format!("{fields},readonly");
    boxwright
        .run(&["run", "--rm", "--mount", &fields, "busybox", "touch", "/m/h"])
        .fails_with(1)
        .says("Read-only");
    let one = format!("{}/f:/etc/motd:ro", shared.path());
    assert_eq!(run(&boxwright, &["-v", &one], "busybox", "cat /etc/motd"), "from the host\n");
}

/// Runs a script in a mount namespace of its own, where `host` is a mount that is shared, with another one at `host/sub`.
/// `run` is the command under test, `mounts` lists the mounts of that namespace. The store's own directory may be
/// anywhere.
fn in_shared_mounts(boxwright: &Boxwright, host: &str, script: &str) -> boxwright_testdata::Ran {
    let mut command = boxwright.command(&[]);
    let program = format!("{} --root {}", command.get_program().display(), boxwright.store().display());
    let script = format!(
        "mount -t tmpfs none {host}; mount --make-shared {host}; cd {host}; mkdir sub later; mount -t tmpfs none sub; \
         touch sub/file; mkfifo go back; run() {{ {program} run --rm \"$@\"; }}; \
         mounts() {{ sed 's/ - .*//' /proc/self/mountinfo | sort; }}; {script}"
    );
    command = std::process::Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", &script]);
    boxwright_testdata::run(&mut command)
}

#[test]
fn mounts_of_a_container_reach_the_host_only_where_that_was_asked_for() {
    let boxwright = Boxwright::with_busybox();
    let host = tempfile::tempdir().unwrap();
    let path = host.path().to_str().unwrap();
    let out = |flags: &str| {
        let script = format!(
            "mounts > before; run --privileged {flags} busybox sh -c \
             'mount -t tmpfs none /m/later && touch /m/later/mark && ls /m/sub /m/later'; \
             mounts > after; diff before after | grep -c '^>' || :; grep -c ' {path}/later ' after || :; ls later"
        );
        in_shared_mounts(&boxwright, path, &script).ok()
    };
    let inside = "/m/later:\nmark\n\n/m/sub:\nfile\n";
    let fields = format!("--mount type=bind,source={path},target=/m");
    for flags in
        [format!("-v {path}:/m"), format!("-v {path}:/m:rslave"), format!("{fields},bind-propagation=slave")]
    {
        assert_eq!(out(&flags), format!("{inside}0\n0\n"), "{flags}");
    }
    for flags in [format!("-v {path}:/m:rshared"), format!("{fields},bind-propagation=rshared")] {
        assert_eq!(out(&flags), format!("{inside}1\n1\nmark\n"), "{flags}");
    }
    let inside = "/m/later:\nmark\n\n/m/sub:\n";
    assert_eq!(out(&format!("{fields},bind-nonrecursive")), format!("{inside}0\n0\n"), "nothing below");
}

#[test]
fn mounts_of_the_host_arrive_in_a_container_only_where_that_was_asked_for() {
    let boxwright = Boxwright::with_busybox();
    let host = tempfile::tempdir().unwrap();
    let path = host.path().to_str().unwrap();
    let out = |mode: &str| {
        let script = format!(
            "run --privileged -v {path}:/m{mode} busybox sh -c 'echo > /m/go; read go < /m/back; ls /m/later' & \
             read go < go; mount -t tmpfs none later; touch later/arrived; echo > back; wait $!"
        );
        in_shared_mounts(&boxwright, path, &script).ok()
    };
    for mode in ["", ":private", ":rprivate"] {
        assert_eq!(out(mode), "", "{mode}");
    }
    for mode in [":slave", ":rslave", ":shared", ":rshared"] {
        assert_eq!(out(mode), "arrived\n", "{mode}");
    }
}

#[test]
fn what_arrives_from_the_host_may_have_devices_that_the_container_cannot_open() {
    let boxwright = Boxwright::with_busybox();
    let host = tempfile::tempdir().unwrap();
    let path = host.path().to_str().unwrap();
    let out = |flags: &str| {
        let open = "echo > /m/go; read go < /m/back; head -c 3 /m/later/zero | wc -c; (: < /m/later/loop-control) && echo opened || echo refused";
        let script = format!(
            "run {flags} busybox sh -c '{open}' 2> /dev/null & \
             read go < go; mount -t tmpfs none later; mknod later/zero c 1 5; mknod later/loop-control c 10 237; echo > back; wait $!"
        );
        in_shared_mounts(&boxwright, path, &script).ok()
    };
    for mode in ["slave", "rshared"] {
        assert_eq!(out(&format!("-v {path}:/m:{mode}")), "3\nrefused\n", "{mode}");
        assert_eq!(out(&format!("--privileged -v {path}:/m:{mode}")), "3\nopened\n", "{mode}");
    }
}

/// Were it made, the host would have it as well, and keep it.
#[test]
fn nothing_is_mounted_below_a_shared_bind() {
    let boxwright = Boxwright::with_busybox();
    let image = |name: &str, text: &str| {
        boxwright.build(&Context::new(&format!("FROM busybox\n{text}\n")), &["-t", name]).ok();
    };
    image("below", "VOLUME /m/below");
    image("linked", "RUN mkdir -p /m/below && ln -s /m/below /link\nVOLUME /link");
    image("deep", "RUN mkdir -p /m/sub && ln -s /m/sub /link\nVOLUME /link");
    let host = tempfile::tempdir().unwrap();
    let path = host.path().to_str().unwrap();
    for (flags, target) in [
        (format!("-v {path}:/m:rshared below"), "/m/below"),
        (format!("-v {path}:/m:shared linked"), "/link"),
        (format!("-v {path}:/m:rshared deep"), "/link"),
        (format!("-v {path}:/etc:rshared busybox"), "/etc/"),
        (format!("-v {path}:/m:rshared --device /dev/zero:/m/zero busybox"), "/m/zero"),
        (format!("-v {path}:/m:rshared -v named:/m/named busybox"), "/m/named"),
        (format!("-v {path}:/m:rshared --tmpfs /m/tmp busybox"), "/m/tmp"),
        (format!("-v {path}:/m:rshared -v {path}/sub:/m/later busybox"), "/m/later"),
        (format!("-v {path}:/m:rshared -v {path}/sub:/m/later:rshared busybox"), "/m/later"),
    ] {
        let script = format!(
            "mkdir below; mounts > before; code=0; run --privileged {flags} true || code=$?; mounts > after; \
             diff before after; exit $code"
        );
        let ran = in_shared_mounts(&boxwright, path, &script).fails_with(125);
        assert_eq!(ran.stdout, "", "the mounts of the host are as before: {flags}");
        ran.says(&format!("cannot mount {target}")).says("below the shared bind");
    }
    // Beside it, and over it, everything is as ever.
    let script = format!("run --privileged -v {path}:/m/x:rshared -v {path}/sub:/m/y:ro below ls /m /m/y");
    assert_eq!(in_shared_mounts(&boxwright, path, &script).ok(), "/m:\nbelow\nx\ny\n\n/m/y:\nfile\n");
}

/// Docker's idiom for a container that looks after devices.
#[test]
fn the_hosts_dev_can_be_bound() {
    let boxwright = Boxwright::with_busybox();
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path().join("node");
    let kind = rustix::fs::FileType::CharacterDevice;
    let (mode, device) = (rustix::fs::Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 5));
    rustix::fs::mknodat(rustix::fs::CWD, &node, kind, mode, device).unwrap();
    let bind = format!("{}:/m", dir.path().display());
    let ordinary = "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 2 /dev/urandom | wc -c && \
                    grep -c ' /dev ' /proc/self/mountinfo";
    for flags in [&[][..], &["--privileged"]] {
        let flags = [&["-v", "/dev:/dev", "-v", &bind], flags].concat();
        assert_eq!(run(&boxwright, &flags, "busybox", ordinary), "3\n2\n2\n", "{flags:?}");
    }
    let read = "head -c 3 /m/node | wc -c";
    assert_eq!(run(&boxwright, &["--privileged", "-v", &bind], "busybox", read), "3\n");
    let refused = boxwright.run(&["run", "--rm", "-v", &bind, "busybox", "head", "-c", "3", "/m/node"]);
    refused.fails_with(1).says("Permission denied");
}

#[test]
fn a_directory_at_dev_is_left_as_it_is() {
    let boxwright = Boxwright::with_busybox();
    let dir = tempfile::tempdir().unwrap();
    let bind = format!("{}:/dev", dir.path().display());
    assert_eq!(run(&boxwright, &["-v", &bind], "busybox", "ls /dev; touch /dev/mine"), "");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["mine"]);
}

#[test]
fn a_mount_that_is_not_shared_shares_nothing() {
    let boxwright = Boxwright::with_busybox();
    let host = tempfile::tempdir().unwrap();
    let path = host.path().to_str().unwrap();
    for (mode, words) in
        [("shared", "it is not a shared mount"), ("rslave", "it is not a shared or slave mount")]
    {
        let script =
            format!("mount --make-private {path}; run --privileged -v {path}:/m:{mode} busybox true");
        in_shared_mounts(&boxwright, path, &script).fails_with(125).says(words);
    }
}

#[test]
fn volume_words() {
    let boxwright = Boxwright::with_busybox();
    assert_eq!(boxwright.ok(&["volume", "create", "--label", "a=b", "data"]), "data\n");
    assert_eq!(boxwright.ok(&["volume", "create", "data"]), "data\n", "it is there already");
    let anonymous = boxwright.ok(&["volume", "create"]).trim().to_owned();
    assert_eq!(anonymous.len(), 64);
    let list = boxwright.ok(&["volume", "ls"]);
    assert!(list.starts_with("DRIVER    VOLUME NAME\nlocal "), "{list}");
    assert_eq!(boxwright.ok(&["volume", "ls", "-q", "-f", "label=a=b"]), "data\n");
    assert_eq!(
        boxwright.ok(&["volume", "ls", "--filter", "name=dat", "--format", "{{.Name}} {{.Labels}}"]),
        "data a=b\n"
    );
    let inspected: serde_json::Value =
        serde_json::from_str(&boxwright.ok(&["volume", "inspect", "data"])).unwrap();
    assert_eq!(inspected[0]["Name"], "data");
    assert_eq!(inspected[0]["Driver"], "local");
    assert_eq!(inspected[0]["Scope"], "local");
    assert_eq!(inspected[0]["Labels"]["a"], "b");
    let mountpoint = boxwright.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", "data"]);
    run(&boxwright, &["-v", "data:/m"], "busybox", "echo x > /m/f");
    assert_eq!(fs::read_to_string(format!("{}/f", mountpoint.trim())).unwrap(), "x\n");
    assert_eq!(
        boxwright.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"]).lines().nth(2),
        Some("Local Volumes 2")
    );
    boxwright.run(&["volume", "inspect", "nosuch"]).fails_with(1).says("get nosuch: no such volume");
    boxwright.run(&["volume", "rm", "nosuch"]).fails_with(1).says("get nosuch: no such volume");
    boxwright.run(&["volume", "create", "a/b"]).fails_with(1).says("includes invalid characters");
    boxwright.run(&["volume", "create", "-d", "nfs", "x1"]).fails_with(1).says("not supported yet");
    boxwright.run(&["volume", "rm", "../../x"]).fails_with(1).says("no such volume");
    assert_eq!(boxwright.ok(&["volume", "rm", "-f", "nosuch"]), "nosuch\n");
    let pruned = boxwright.ok(&["volume", "prune", "-f"]);
    assert!(
        pruned.starts_with(&format!("Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: ")),
        "{pruned}"
    );
    assert_eq!(boxwright.ok(&["volume", "ls", "-q"]), "data\n", "a name keeps a volume");
    assert!(boxwright.ok(&["volume", "prune", "-af"]).contains("Deleted Volumes:\ndata\n"));
    assert_eq!(boxwright.ok(&["volume", "ls", "-q"]), "");
}

#[test]
fn a_volume_in_use_is_not_removed() {
    let boxwright = Boxwright::with_busybox();
    let script = "trap 'exit 0' TERM; echo ready; while :; do usleep 10000; done";
    let args = ["run", "--rm", "-v", "data:/m", "busybox", "sh", "-c", script];
    let mut running = crate::run::start(&boxwright, &args);
    boxwright.run(&["volume", "rm", "data"]).fails_with(1).says("remove data: volume is in use");
    assert_eq!(boxwright.ok(&["volume", "prune", "-af"]), "Total reclaimed space: 0B\n");
    assert_eq!(boxwright.ok(&["volume", "ls", "-q", "-f", "dangling=false"]), "data\n");
    // Another container uses it meanwhile.
    run(&boxwright, &["-v", "data:/m"], "busybox", "echo x > /m/f");
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.wait(), 0);
    assert_eq!(boxwright.ok(&["volume", "rm", "data"]), "data\n");
}

#[test]
fn an_image_can_not_lead_a_volume_out() {
    // CVE-2022-23648: what is copied into a volume is the image's, wherever its links lead.
    let boxwright = Boxwright::with_busybox();
    let canary = tempfile::tempdir().unwrap();
    fs::write(canary.path().join("secret"), "known to the host alone").unwrap();
    fs::set_permissions(canary.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let before = fs::metadata(canary.path()).unwrap();
    let context = Context::new(&format!(
        "FROM busybox\nRUN ln -s {0} /out && ln -s ../../../../../..{0} /up && mkdir /d && ln -s {0} /d/inner\n",
        canary.path().display()
    ));
    boxwright.build(&context, &["-t", "links"]).ok();
    // The script would say so: here the secret is where the links lead.
    let seen = format!("{0}:{0}:ro", canary.path().display());
    let look = "cat /out/secret /up/secret /d/inner/secret";
    assert_eq!(run(&boxwright, &["-v", &seen], "links", look), "known to the host alone".repeat(3));
    for (n, target) in
        ["/out", "/up", "/out/below", "/d", "/../../out", "/proc/self/root/out"].iter().enumerate()
    {
        let bind = format!("v{n}:{target}");
        let script = format!("ls {target}; cat {target}/secret {target}/inner/secret; echo x > {target}/new");
        let ran = boxwright.run(&["run", "--rm", "-v", &bind, "links", "sh", "-c", &script]);
        assert!(!ran.stdout.contains("known to the host") && !ran.stdout.contains("secret\n"), "{ran}");
        let anonymous = ["run", "--rm", "-v", target, "links", "sh", "-c", &script];
        assert!(!boxwright.run(&anonymous).stdout.contains("known to the host"));
    }
    // They were followed, in the container.
    for volume in ["v0", "v1", "v2", "v3"] {
        assert_eq!(
            run(&boxwright, &["-v", &format!("{volume}:/v")], "busybox", "cat /v/new"),
            "x\n",
            "{volume}"
        );
    }
    let after = fs::metadata(canary.path()).unwrap();
    assert_eq!((after.mtime(), after.mode()), (before.mtime(), before.mode()));
    assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 1);
}

#[test]
fn a_link_that_a_container_leaves_in_a_volume_leads_nowhere_outside() {
    let boxwright = Boxwright::with_busybox();
    let canary = tempfile::tempdir().unwrap();
    run(&boxwright, &["-v", "data:/m"], "busybox", &format!("ln -s {} /m/link", canary.path().display()));
    // The target of one mount lies behind a link that is in another. It leads to nothing in the container.
    let target = "other:/m/link/new";
    let ran = boxwright.run(&["run", "--rm", "-v", "data:/m", "-v", target, "busybox", "true"]);
    ran.fails_with(125).says("mounting /m/link/new: file exists");
    assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0);
    let link = boxwright.store().join("volumes/data/data/link");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    // And now to the root of the container.
    fs::remove_file(&link).unwrap();
    symlink("/", &link).unwrap();
    let behind = format!("{}/new", canary.path().display());
    let flags = ["-v", "data:/m", "-v", &format!("other:/m/link{behind}")];
    assert_eq!(run(&boxwright, &flags, "busybox", &format!("touch {behind}/x && ls /m/link{behind}")), "x\n");
    assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0);
    assert_eq!(run(&boxwright, &["-v", "other:/v"], "busybox", "ls /v"), "x\n", "it was the volume");
}
