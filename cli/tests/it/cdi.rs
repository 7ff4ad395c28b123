//! Devices by the names of their vendors: files that say what of the host belongs to one, in steps, in `run` and in a
//! shell in a step, by root and by a user.

use boxwright_testdata::run;

use crate::tool::{Boxwright, Context, Who, wrapped};

/// What a container has of the device.
const PROBE: &str = "head -c 2 /dev/vendor0 | wc -c; stat -c '%F %t:%T' /dev/vendor0; cat /vendor/file; \
                     (echo x > /vendor/file) 2>&1 | grep -o 'Read-only.*'; echo $VENDOR $ONE; id -G";
const SEEN: [&str; 6] =
    ["2", "character special file 1:5", "driver", "Read-only file system", "all one", "0 10 44"];

/// A directory with a file in JSON and one in YAML.
fn files(who: Who) -> Context {
    let files = Context::new("").file("driver", "driver\n");
    let host = files.path().to_owned();
    files.write(
        "cdi/vendor.yaml",
        format!(
            "---\ncdiVersion: 0.7.0\nkind: vendor.example/dev\nannotations: {{}}\ncontainerEdits:\n  env:\n  - VENDOR=all\n\
             devices:\n- name: one\n  containerEdits:\n    env: [\"ONE=one\"]\n    additionalGids: [44]\n    deviceNodes:\n    \
             - path: /dev/vendor0\n      hostPath: /dev/zero\n      type: c\n      major: 1\n      minor: 5\n      \
             fileMode: 0666\n      permissions: rw\n    mounts:\n    - hostPath: {host}/driver\n      \
             containerPath: /vendor/file\n      options: [ro, nosuid, nodev, rbind, rprivate]\n"
        ),
    );
    let device =
        |name: &str, edits: &str| format!("{{\"name\": \"{name}\", \"containerEdits\": {{{edits}}}}}");
    let devices = [
        device("plain", "\"env\": [\"VENDOR=plain\"]"),
        device("gone", "\"deviceNodes\": [{\"path\": \"/dev/vendor-gone\"}]"),
        device("other", "\"deviceNodes\": [{\"path\": \"/dev/zero\", \"major\": 1, \"minor\": 3}]"),
        device(
            "file",
            &format!("\"deviceNodes\": [{{\"path\": \"/dev/x\", \"hostPath\": \"{host}/driver\"}}]"),
        ),
        device("proc", "\"mounts\": [{\"hostPath\": \"/etc\", \"containerPath\": \"/proc/self\"}]"),
        device(
            "option",
            "\"mounts\": [{\"hostPath\": \"/etc\", \"containerPath\": \"/m\", \"options\": [\"rshared\"]}]",
        ),
        device(
            "any",
            "\"deviceNodes\": [{\"path\": \"/dev/any\", \"hostPath\": \"/dev/zero\", \"permissions\": \"\"}]",
        ),
        device(
            "read",
            "\"deviceNodes\": [{\"path\": \"/dev/read\", \"hostPath\": \"/dev/loop-control\", \"permissions\": \"r\"}]",
        ),
        device(
            "hook",
            &format!(
                "\"hooks\": [{{\"hookName\": \"createContainer\", \"path\": \"/usr/bin/touch\", \"args\": [\"touch\", \
                 \"{host}/hooked\"]}}]"
            ),
        ),
    ];
    files.write(
        "cdi/json.json",
        format!(
            "{{\"cdiVersion\": \"0.6.0\", \"kind\": \"json.example/dev\", \"devices\": [{}]}}",
            devices.join(",")
        ),
    );
    files.write("cdi/broken.yaml", "kind: [\n");
    files.write("cdi/README", "no description");
    who.own(files.path().as_ref());
    files
}

fn dir(files: &Context) -> String {
    format!("{}/cdi", files.path())
}

fn a_device_comes_with_all_that_belongs_to_it(who: Who) {
    let (boxwright, files) = (Boxwright::with_busybox_of(who), files(who));
    let dir = dir(&files);
    let run = [
        "run",
        "--rm",
        "--cdi-spec-dir",
        &dir,
        "--device",
        "vendor.example/dev=one",
        "busybox",
        "sh",
        "-c",
        PROBE,
    ];
    let seen: Vec<_> = boxwright.ok(&run).lines().map(str::to_owned).collect();
    assert_eq!(seen, SEEN);
    // Permissions that are empty are all of them.
    let any = ["run", "--rm", "--cdi-spec-dir", &dir, "--device", "json.example/dev=any", "busybox"];
    let used = [&any[..], &["sh", "-c", "echo x > /dev/any && head -c 3 /dev/any | wc -c"]].concat();
    assert_eq!(boxwright.ok(&used), "3\n");
    let step =
        Context::new(&format!("FROM busybox\nRUN --device=vendor.example/dev,required ({PROBE}) > /seen\n"));
    let allow = ["--cdi-spec-dir", &dir, "--allow", "device=vendor.example/dev=one", "-t", "x"];
    boxwright.build(&step, &allow).ok();
    let seen: Vec<_> = boxwright.output_of("x", &["cat", "/seen"]).lines().map(str::to_owned).collect();
    assert_eq!(seen, SEEN);
    // Nothing of it is in the image.
    let left = boxwright.output_of("x", &["sh", "-c", "env; ls -d /vendor /dev/vendor0 2>&1; true"]);
    assert!(!left.contains("VENDOR=") && left.matches("No such file").count() == 2, "{left}");
}

fn a_step_gets_what_was_allowed_and_goes_on_without_what_is_not_there(who: Who) {
    let (boxwright, files) = (Boxwright::with_busybox_of(who), files(who));
    let dir = dir(&files);
    let build = |device: &str, args: &[&str]| {
        let step = Context::new(&format!("FROM busybox\nRUN --device={device} echo it is $VENDOR\n"));
        boxwright.build(&step, &[&["--no-cache", "--cdi-spec-dir", &dir], args].concat())
    };
    let plain = "json.example/dev=plain";
    build(plain, &[])
        .fails_with(1)
        .says("device json.example/dev=plain is not allowed: --allow device=json.example/dev=plain");
    build(plain, &["--allow", "device=json.example/dev=gone"]).fails_with(1).says("is not allowed");
    build(plain, &["--allow", "device"]).says("it is plain").ok();
    build(plain, &["--allow", "device=json.example/dev=plain"]).says("it is plain").ok();
    build("a.example/b=c", &["--allow", "device=json.example/dev=plain,alias=a.example/b=c"])
        .says("it is plain")
        .ok();
    build(plain, &["--allow", "device=a.example/b=c,alias=json.example/dev=plain"])
        .says_nothing_of("it is plain")
        .ok();
    build(plain, &["--allow", "device="]).says("it is plain").ok();
    // The first of its kind is another one.
    build(plain, &["--allow", "device=json.example/dev"]).fails_with(1).says("dev=plain is not allowed");
    build(plain, &["--allow", "device=json.example/dev=*"]).says("it is plain").ok();
    for wrong in ["device=gpu", "device=*", "device=json.example/dev=", "device=a.example/b,alias=c"] {
        build(plain, &["--allow", wrong])
            .fails_with(1)
            .says(&format!("invalid entitlement {wrong}: "))
            .says(" names no device: ");
    }
    build("json.example/dev=none", &[]).says_nothing_of("it is plain").ok();
    // Where it was looked for, and what of that is of no use.
    let missing = build("json.example/dev=none,required", &["--allow", "device"]).fails_with(1);
    missing
        .says("required device \"json.example/dev=none\" is not registered: looked at ")
        .says(&format!("{dir}/json.json, {dir}/vendor.yaml"))
        .says(&format!("{dir}/broken.yaml (which can't be used: "));
    build("nothing", &["--allow", "device"])
        .fails_with(1)
        .says("invalid device \"nothing\": VENDOR/CLASS=NAME is needed");
}

fn what_cannot_be_given_is_an_error_and_no_hook_is_run(who: Who) {
    let (boxwright, files) = (Boxwright::with_busybox_of(who), files(who));
    let dir = dir(&files);
    let run = |name: &str| {
        let device = format!("json.example/dev={name}");
        boxwright.run(&[
            "run",
            "--rm",
            "--cdi-spec-dir",
            &dir,
            "--device",
            &device,
            "busybox",
            "echo",
            "started",
        ])
    };
    for (name, why) in [
        ("gone", "json.json: /dev/vendor-gone: No such file"),
        ("other", "/dev/zero is another device (c 1:5) than it says"),
        ("file", "driver is no device"),
        ("proc", "it is a mount of the container's own"),
        ("option", "the option \"rshared\" of the mount /m is not supported"),
        ("hook", "its hook /usr/bin/touch would have to run on the host, and no hook is run"),
        ("none", "unresolvable CDI devices json.example/dev=none: looked at "),
    ] {
        run(name).fails_with(125).says(why).says_nothing_of("started");
    }
    assert!(!files.join("hooked").exists());
    if who != Who::Root {
        run("read").fails_with(125).says("control group for devices");
    }
    // An image can not ask for one.
    let step =
        Context::new("FROM busybox\nLABEL cdi.k8s.io/x=vendor.example/dev=one\nRUN test ! -e /dev/vendor0\n");
    boxwright.build(&step, &["--cdi-spec-dir", &dir, "--allow", "device", "-t", "x"]).ok();
    boxwright.ok(&["run", "--rm", "--cdi-spec-dir", &dir, "x", "test", "!", "-e", "/dev/vendor0"]);
}

fn a_shell_in_a_step_has_its_devices_if_they_are_allowed_again(who: Who) {
    let (boxwright, files) = (Boxwright::with_busybox_of(who), files(who));
    let dir = dir(&files);
    let step = Context::new("FROM busybox\nRUN --device=json.example/dev=plain exit 3\n");
    let allow = ["--cdi-spec-dir", &dir, "--allow", "device"];
    boxwright.build(&step, &allow).fails_with(1);
    let shell = |options: &[&str]| {
        let command = ["^", "exit 3", "sh", "-c", "echo it is $VENDOR"];
        boxwright.run(&[&["debug", "shell"], options, &command].concat())
    };
    shell(&["--cdi-spec-dir", &dir]).fails_with(125).says("is not allowed");
    assert_eq!(shell(&allow).ok(), "it is plain\n");
}

#[test]
fn the_usual_directories_are_looked_at() {
    let (boxwright, files) = (Boxwright::with_busybox(), files(Who::Root));
    let command = boxwright.command(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--device",
        "json.example/dev=plain",
        "busybox",
        "sh",
        "-c",
        "echo $VENDOR",
    ]);
    // The machine's own stay as they are.
    let elsewhere = "mount -t tmpfs none /run; cp -r \"$0/cdi\" /run/; exec \"$@\"";
    let apart = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", elsewhere, files.path()];
    assert_eq!(run(&mut wrapped(&apart, &command)).ok(), "plain\n");
}

#[test]
fn a_device_can_be_for_reading_alone() {
    let (boxwright, files) = (Boxwright::with_busybox(), files(Who::Root));
    let dir = dir(&files);
    let script = ": < /dev/read && echo readable; (: > /dev/read) 2>&1";
    let device = [
        "run",
        "--rm",
        "--cdi-spec-dir",
        &dir,
        "--device",
        "json.example/dev=read",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let ran = boxwright.run(&device);
    assert!(ran.stdout.starts_with("readable\n") && ran.stdout.contains("Operation not permitted"), "{ran}");
    let step = Context::new(&format!("FROM busybox\nRUN --device=json.example/dev=read {script}\n"));
    boxwright
        .build(&step, &["--cdi-spec-dir", &dir, "--allow", "device"])
        .fails_with(1)
        .says("Operation not permitted");
}

crate::security::by_both!(
    a_device_comes_with_all_that_belongs_to_it,
    a_step_gets_what_was_allowed_and_goes_on_without_what_is_not_there,
    what_cannot_be_given_is_an_error_and_no_hook_is_run,
    a_shell_in_a_step_has_its_devices_if_they_are_allowed_again,
);
