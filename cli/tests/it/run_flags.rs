//! Flags of `run` about what a container may do and what it finds: seen from inside.

use std::fs;

use crate::network::{end, start};
use crate::tool::{Boxwright, Context};

/// `run --rm FLAGS busybox sh -c SCRIPT`: what it printed.
#[track_caller]
fn sh(boxwright: &Boxwright, flags: &[&str], script: &str) -> String {
    boxwright.ok(&[&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat())
}

#[track_caller]
fn refused(boxwright: &Boxwright, flags: &[&str], words: &str) {
    boxwright.run(&[&["run", "--rm"], flags, &["busybox", "true"]].concat()).fails_with(125).says(words);
}

fn status(field: &str) -> String {
    format!("grep '^{field}:' /proc/self/status | cut -f2")
}

#[test]
fn variables_come_from_files_and_flags() {
    let boxwright = Boxwright::with_busybox();
    let file = boxwright.scratch("env");
    fs::write(&file, "# comment\nA=from file\nB='quoted'\nPATH_OF_HOST\n").unwrap();
    let file = file.to_str().unwrap();
    let out =
        sh(&boxwright, &["--env-file", file, "-e", "A=flag"], "echo $A; echo $B; echo ${PATH_OF_HOST-unset}");
    assert_eq!(out, "flag\n'quoted'\nunset\n");
    let mut command =
        boxwright.command(&["run", "--rm", "--env-file", file, "busybox", "sh", "-c", "echo $PATH_OF_HOST"]);
    assert_eq!(boxwright_testdata::run(command.env("PATH_OF_HOST", "x")).ok(), "x\n");
    let mut command = boxwright.command(&["run", "--rm", "-e", "PATH_OF_HOST", "busybox", "env"]);
    assert!(boxwright_testdata::run(command.env("PATH_OF_HOST", "x")).ok().contains("PATH_OF_HOST=x\n"));
    let context = Context::new("FROM busybox\nENV OF_IMAGE=here\n");
    boxwright.build(&context, &["-t", "sets"]).ok();
    let of_image = |flags: &[&str]| {
        let ran = [&["run", "--rm"], flags, &["sets", "sh", "-c", "echo ${OF_IMAGE-unset}"]].concat();
        boxwright.ok(&ran)
    };
    fs::write(file, "OF_IMAGE\n").unwrap();
    assert_eq!(of_image(&["--env-file", file]), "here\n");
    assert_eq!(of_image(&["-e", "OF_IMAGE"]), "unset\n", "a flag without a value takes it away");
    refused(&boxwright, &["--env-file", "/dev/zero"], "larger than 1 MiB");
    fs::write(file, "A B=1\n").unwrap();
    refused(&boxwright, &["--env-file", file], "variable 'A B' contains whitespaces");
    refused(&boxwright, &["-e", "=x"], "invalid environment variable: =x");
}

#[test]
fn the_environment_names_the_platform_where_no_flag_does() {
    let boxwright = Boxwright::with_busybox();
    let run = |flags: &[&str]| {
        let args = [&["run", "--rm", "--pull", "never"], flags, &["busybox", "echo", "ran"]].concat();
        let mut command = boxwright.command(&args);
        boxwright_testdata::run(command.env("DOCKER_DEFAULT_PLATFORM", "linux/s390x"))
    };
    run(&[]).fails_with(125).says("what is here is for");
    assert_eq!(run(&["--platform", "local"]).ok(), "ran\n");
}

#[test]
fn it_finds_what_docker_puts_into_containers_and_no_step_does() {
    let boxwright = Boxwright::with_busybox();
    let look = "readlink /etc/mtab; grep -c ' / ' /etc/mtab; stat -c '%F' /.dockerenv";
    assert_eq!(sh(&boxwright, &[], look), "/proc/mounts\n1\nregular empty file\n");
    let context = Context::new(
        "FROM busybox\nRUN for f in /etc/mtab /.dockerenv; do test ! -e $f -a ! -L $f; done\nRUN echo own > /etc/mtab\n",
    );
    boxwright.build(&context, &["-t", "own"]).ok();
    assert_eq!(boxwright.output_of("own", &["cat", "/etc/mtab"]), "own\n");
    let host = boxwright.scratch("mtab");
    fs::write(&host, "bound\n").unwrap();
    let bound = format!("{}:/etc/mtab:ro", host.display());
    assert_eq!(sh(&boxwright, &["-v", &bound], "cat /etc/mtab"), "bound\n");
}

#[test]
fn the_hosts_sysfs_may_be_shown() {
    let boxwright = Boxwright::with_busybox();
    let look =
        "cut -d' ' -f2-4 /proc/mounts | grep -c '^/sys sysfs ro'; ls -A /sys/firmware; ls -d /sys/class/net";
    assert_eq!(sh(&boxwright, &["-v", "/sys:/sys:ro"], look), "1\n/sys/class/net\n");
    let all = "test -n \"$(ls -A /sys/kernel)\" && echo shown";
    assert_eq!(sh(&boxwright, &["--privileged", "-v", "/sys:/sys"], all), "shown\n");
    refused(&boxwright, &["--tmpfs", "/sys"], "it is a mount of the container's own");
    refused(&boxwright, &["-v", "/sys/kernel:/sys"], "it is a mount of the container's own");
}

#[test]
fn settings_of_the_kernel_are_the_containers_own() {
    let boxwright = Boxwright::with_busybox();
    let flags = ["--net", "none", "--sysctl", "net.ipv4.ip_unprivileged_port_start=7"];
    let file = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    assert_eq!(sh(&boxwright, &flags, &format!("cat {file}; echo 8 > {file}; cat {file}")), "7\n7\n");
    refused(
        &boxwright,
        &["--sysctl", "kernel.core_pattern=x"],
        "sysctl 'kernel.core_pattern=x' is not allowed",
    );
    refused(&boxwright, &["--sysctl", "net.x"], "sysctl 'net.x' is not allowed");
    let hosts = ["--net", "host", "--sysctl", "net.ipv4.ip_forward=1"];
    refused(&boxwright, &hosts, "not allowed in host network namespace");
    refused(&boxwright, &["--net", "none", "--sysctl", "net.no=1"], "setting the sysctl net.no=1");
    // What another container is in may be the host's as well.
    let before = std::fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    let other = start(&boxwright, &["--net", "host", "--name", "other"], "");
    let joined = ["--net", "container:other", "--sysctl", "net.ipv4.ip_default_ttl=65"];
    refused(&boxwright, &joined, "not allowed in host network namespace");
    end(other);
    assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").unwrap(), before);
}

#[test]
fn names_and_files_that_are_empty_are_none() {
    let boxwright = Boxwright::with_busybox();
    sh(&boxwright, &["--name", "", "--cidfile", ""], "true");
    sh(
        &boxwright,
        &["--name", "/slash", "--tmpfs", "/m:size=4k", "--tmpfs", "/m:noatime"],
        "grep ' /m .*noatime' /proc/mounts",
    );
    refused(&boxwright, &["--expose", "80:80"], "invalid port format for --expose: 80:80");
}

#[test]
fn what_is_so_anyway_may_be_asked_for() {
    let boxwright = Boxwright::with_busybox();
    let flags = ["--restart=no", "-a", "stdout", "-a", "stderr", "--detach=false", "--net", "name=none"];
    assert_eq!(sh(&boxwright, &flags, "ls /sys/class/net"), "lo\n");
    refused(&boxwright, &["--restart", "always"], "not supported yet");
    refused(&boxwright, &["--network", "host", "--network", "none"], "network endpoints: host, none");
}

#[test]
fn groups_are_added_by_name_and_number() {
    let boxwright = Boxwright::with_busybox();
    assert_eq!(sh(&boxwright, &["--group-add", "wheel", "--group-add", "777"], "id -G"), "0 10 777\n");
    assert_eq!(
        sh(&boxwright, &["-u", "nobody:users", "--group-add=10"], "id -u; id -g; id -G"),
        "65534\n100\n100 10\n"
    );
    refused(&boxwright, &["--group-add", "nosuchgroup"], "nosuchgroup");
}

#[test]
fn capabilities_are_added_and_dropped() {
    let boxwright = Boxwright::with_busybox();
    let script = status("CapEff");
    let effective = |flags: &[&str]| u64::from_str_radix(sh(&boxwright, flags, &script).trim(), 16).unwrap();
    let (usual, net_admin, mknod) = (0xa804_25fb_u64, 1 << 12, 1 << 27);
    assert_eq!(effective(&["--cap-add", "NET_ADMIN"]), usual | net_admin);
    assert_eq!(effective(&["--cap-drop", "cap_mknod"]), usual & !mknod);
    assert_eq!(effective(&["--cap-drop", "ALL", "--cap-add", "net_admin"]), net_admin);
    assert_eq!(
        effective(&["--cap-add", "ALL", "--cap-drop", "mknod"]) & (usual | net_admin),
        (usual | net_admin) & !mknod
    );
    let bounding = sh(&boxwright, &["--cap-drop=all"], &status("CapBnd"));
    assert_eq!(bounding, "0000000000000000\n");
    boxwright
        .run(&["run", "--rm", "--cap-drop", "chown", "busybox", "chown", "1", "/etc/passwd"])
        .fails_with(1)
        .says("not permitted");
    refused(&boxwright, &["--cap-add", "FLY"], "unknown capability");
}

#[test]
fn a_privileged_container_is_restricted_by_its_namespaces_alone() {
    let boxwright = Boxwright::with_busybox();
    let script = format!(
        "{}; {}; test -b /dev/loop0 && (: < /dev/loop-control) && echo devices; \
         mkdir /m && mount -t tmpfs none /m && echo mounted; test -f /proc/keys && echo unmasked; \
         cat /proc/sys/kernel/hostname > /proc/sys/kernel/hostname && echo writable; ls /dev/pts",
        status("Seccomp"),
        status("CapEff"),
    );
    let out = sh(&boxwright, &["--privileged"], &script);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "0");
    assert!(lines[1].starts_with("000001ff"), "{out}");
    for line in ["devices", "mounted", "unmasked", "writable", "ptmx"] {
        assert!(lines.contains(&line), "{line}: {out}");
    }
    // Other users have nothing of that, as in docker.
    assert_eq!(sh(&boxwright, &["--privileged", "-u", "nobody"], &status("CapEff")), "0000000000000000\n");
}

#[test]
fn security_options() {
    let boxwright = Boxwright::with_busybox();
    assert_eq!(sh(&boxwright, &["--security-opt", "no-new-privileges"], &status("NoNewPrivs")), "1\n");
    assert_eq!(sh(&boxwright, &["--security-opt=no-new-privileges:false"], &status("NoNewPrivs")), "0\n");
    assert_eq!(sh(&boxwright, &["--security-opt", "seccomp=unconfined"], &status("Seccomp")), "0\n");
    // A system call that the filter refuses and the kernel does not.
    let unshare = ["busybox", "unshare", "-U", "true"];
    boxwright.run(&[&["run", "--rm"][..], &unshare].concat()).fails_with(1);
    boxwright.ok(&[&["run", "--rm", "--security-opt", "seccomp=unconfined"][..], &unshare].concat());
    // A masked file is /dev/null, an unmasked one is of procfs.
    let masked = "test -c /proc/keys && echo masked || echo shown";
    assert_eq!(sh(&boxwright, &[], masked), "masked\n");
    assert_eq!(sh(&boxwright, &["--security-opt", "systempaths=unconfined"], masked), "shown\n");
    refused(&boxwright, &["--security-opt", "apparmor=docker-default"], "not supported yet");
    refused(&boxwright, &["--security-opt", "nonsense"], "invalid --security-opt");
}

#[test]
fn a_seccomp_profile_of_ones_own() {
    let boxwright = Boxwright::with_busybox();
    let file = boxwright.scratch("profile.json");
    let option = format!("seccomp={}", file.display());
    let profile = |default: &str, rules: &str| {
        fs::write(&file, format!(r#"{{"defaultAction": "SCMP_ACT_{default}", "syscalls": [{rules}]}}"#))
            .unwrap();
    };
    let no_directories = r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}"#;
    profile("ALLOW", no_directories);
    let script = "mkdir /x 2>&1; touch /y && echo made; grep ^Seccomp: /proc/self/status | cut -f2; unshare -U true && echo unshared";
    let out = sh(&boxwright, &["--security-opt", &option], script);
    assert_eq!(out, "mkdir: can't create directory '/x': No space left on device\nmade\n2\nunshared\n");
    // Only what looks into a certain argument is refused: priorities of processes, not of groups.
    let argument = r#""args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]"#;
    profile(
        "ALLOW",
        &format!(r#"{{"names": ["getpriority", "setpriority"], "action": "SCMP_ACT_ERRNO", {argument}}}"#),
    );
    let renice = "renice -n 1 -p 1 && echo first && renice -n 1 -g 1 2>&1";
    let ran = boxwright.run(&["run", "--rm", "--security-opt", &option, "busybox", "sh", "-c", renice]);
    ran.fails_with(1).says("first\n").says("Operation not permitted");
    profile("NOTIFY", "");
    refused(&boxwright, &["--security-opt", &option], "SCMP_ACT_NOTIFY");
    refused(&boxwright, &["--security-opt", "seccomp=/no/such/profile"], "/no/such/profile");
    refused(&boxwright, &["--security-opt", "seccomp=/dev/zero"], "larger than 1 MiB");
}

#[test]
fn devices_are_given_by_name() {
    let boxwright = Boxwright::with_busybox();
    let open = "(: < /dev/loop-control) && stat -c '%F %t:%T' /dev/loop-control && chmod 777 /dev/loop-control && echo changed";
    let before = fs::metadata("/dev/loop-control").unwrap();
    let out = sh(&boxwright, &["--device", "/dev/loop-control"], open);
    assert_eq!(out, "character special file a:ed\nchanged\n");
    let after = fs::metadata("/dev/loop-control").unwrap();
    assert_eq!(after.permissions(), before.permissions(), "the node is the container's own");
    assert_eq!(sh(&boxwright, &["--device=/dev/zero:/x/y:rwm"], "head -c 3 /x/y | wc -c"), "3\n");
    assert_eq!(
        sh(&boxwright, &["--device", "/dev/net:/dev/nets"], "test -c /dev/nets/tun && echo there"),
        "there\n"
    );
    refused(&boxwright, &["--device", "/etc"], "not a device node");
    refused(&boxwright, &["--device", "/dev/nosuch"], "/dev/nosuch");
}

#[test]
fn a_tmpfs_has_its_options_and_nothing_of_the_image() {
    let boxwright = Boxwright::with_busybox();
    let script = "ls /etc | wc -l; stat -c '%a %u' /etc; grep ' /etc ' /proc/mounts | cut -d' ' -f3-4; touch /etc/x && echo wrote";
    let out = sh(&boxwright, &["--read-only", "--tmpfs", "/etc:size=64k,mode=0750,uid=7"], script);
    let lines: Vec<&str> = out.lines().collect();
    // What we mount there ourselves is in it.
    assert_eq!((lines[0], lines[1], lines[3]), ("3", "750 7", "wrote"), "{out}");
    for option in ["tmpfs rw", "nosuid", "nodev", "noexec", "size=64k"] {
        assert!(lines[2].contains(option), "{option}: {out}");
    }
    assert_eq!(sh(&boxwright, &["--tmpfs", "/x"], "stat -c %a /x"), "1777\n");
    let program = "cp /bin/busybox /x/echo && /x/echo ran";
    assert_eq!(sh(&boxwright, &["--tmpfs", "/x:exec"], program), "ran\n");
    boxwright.run(&["run", "--rm", "--tmpfs", "/x", "busybox", "sh", "-c", program]).fails_with(126);
    boxwright
        .run(&["run", "--rm", "--tmpfs", "/x:ro", "busybox", "touch", "/x/y"])
        .fails_with(1)
        .says("Read-only");
    refused(&boxwright, &["--tmpfs", "/x:nonsense"], "invalid tmpfs option");
    refused(&boxwright, &["--tmpfs", "/x:size=many"], "tmpfs");
}

#[test]
fn limits_and_the_size_of_shared_memory() {
    let boxwright = Boxwright::with_busybox();
    assert_eq!(sh(&boxwright, &["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn"), "100\n200\n");
    assert_eq!(
        sh(&boxwright, &["--shm-size", "3m"], "df -k /dev/shm | tail -n1 | awk '{print $2}'"),
        "3072\n"
    );
    refused(&boxwright, &["--ulimit", "nofile=2:1"], "soft limit");
    // More than the kernel has for anybody.
    refused(
        &boxwright,
        &["--ulimit", "nofile=99999999999"],
        "setting the limit nofile=99999999999:99999999999: operation not permitted",
    );
    refused(&boxwright, &["--shm-size", "much"], "invalid size");
}

#[test]
fn names_of_other_machines() {
    let boxwright = Boxwright::with_busybox();
    let hosts = sh(&boxwright, &["--add-host", "db:10.1.2.3", "--add-host=six=::1"], "cat /etc/hosts");
    assert!(hosts.contains("10.1.2.3\tdb\n") && hosts.contains("::1\tsix\n"), "{hosts}");
    let flags = ["--dns", "9.9.9.9", "--dns-search", "here.example", "--dns-opt", "ndots:9"];
    let conf = sh(&boxwright, &flags, "cat /etc/resolv.conf");
    assert_eq!(conf, "nameserver 9.9.9.9\nsearch here.example\noptions ndots:9\n");
    refused(&boxwright, &["--dns", "nine"], "nine is not an ip address");
    refused(&boxwright, &["--add-host", "db"], "invalid host db");
}

#[test]
fn the_id_is_written_to_a_file_that_was_not_there() {
    let boxwright = Boxwright::with_busybox();
    let file = boxwright.scratch("cid");
    let path = file.to_str().unwrap();
    boxwright.ok(&["run", "--rm", "--cidfile", path, "busybox", "true"]);
    let id = fs::read_to_string(&file).unwrap();
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    refused(&boxwright, &["--cidfile", path], "container ID file found");
    assert_eq!(fs::read_to_string(&file).unwrap(), id);
    refused(&boxwright, &["--cidfile", path, "-v", "data:/m"], "container ID file found");
    fs::remove_file(&file).unwrap();
    boxwright
        .run(&["run", "--rm", "--cidfile", path, "-it", "-v", "data:/m", "busybox", "true"])
        .fails_with(1)
        .says("the input device is not a TTY");
    assert_eq!(boxwright.ok(&["volume", "ls", "-q"]), "", "it failed before there was one");
    assert!(!file.exists());
    boxwright.run(&["run", "--rm", "--cidfile", path, "busybox", "nosuchcommand"]).fails_with(127);
    assert!(!file.exists(), "nothing has started");
    boxwright.run(&["run", "--rm", "--cidfile", path, "busybox", "false"]).fails_with(1);
    assert!(file.exists());
}

#[test]
fn what_is_no_label_signal_or_platform_is_refused() {
    let boxwright = Boxwright::with_busybox();
    let host = if cfg!(target_arch = "x86_64") { "linux/amd64" } else { "linux/arm64" };
    assert_eq!(sh(&boxwright, &["--platform", host, "--pull", "never"], "echo found"), "found\n");
    refused(&boxwright, &["--label", "=b"], "invalid label");
    refused(&boxwright, &["--stop-signal", "SIGNOPE"], "invalid signal: SIGNOPE");
    refused(&boxwright, &["--platform", "linux/s390x", "--pull", "never"], "No such image");
    refused(&boxwright, &["--platform", "a/b/c/d"], "platform");
    boxwright.run(&["run", "--rm=false", "busybox", "true"]).fails_with(125).says("not supported yet");
}

#[test]
fn the_first_process_waits_for_orphans() {
    let boxwright = Boxwright::with_busybox();
    // An orphan that has ended is a zombie until somebody waits for it, which awk does not.
    let count =
        "sleep 3; cat /proc/1/comm; grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l; exit 5";
    let script =
        format!("(sleep 0.1 &); exec awk 'BEGIN {{ exit system(\"{}\") }}'", count.replace('\'', "'\\''"));
    let ran = |flags: &[&str]| {
        let ran = boxwright.run(&[&["run", "--rm"], flags, &["busybox", "sh", "-c", &script]].concat());
        (ran.stdout, ran.status)
    };
    assert_eq!(ran(&[]), ("awk\n1\n".to_owned(), 5));
    assert_eq!(ran(&["--init"]), ("boxwright-init\n0\n".to_owned(), 5));
    let ran = boxwright.run(&["run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$"]);
    assert_eq!(ran.status, 137, "{ran}");
    assert_eq!(sh(&boxwright, &["--init", "-u", "nobody"], "id -u; ls /proc/self/fd | wc -l"), "65534\n4\n");
    boxwright.run(&["run", "--rm", "--init", "busybox", "nosuchcommand"]).fails_with(127);
    boxwright.run(&["run", "--rm", "--init", "busybox", "/etc"]).fails_with(126);
    // Nobody can write the program that it is, which is not the host's either.
    let write = "(: >> /proc/1/exe) 2>/dev/null && echo wrote || echo refused; readlink /proc/1/exe";
    let out = sh(&boxwright, &["--init", "--cap-add=ALL"], write);
    assert!(out.starts_with("refused\n/memfd:boxwright-init"), "{out}");
}

#[test]
fn signals_reach_the_program_behind_the_first_process() {
    let boxwright = Boxwright::with_busybox();
    let script = "trap 'exit 42' TERM; echo ready; while :; do usleep 10000; done";
    let mut running =
        crate::run::start(&boxwright, &["run", "--rm", "--init", "busybox", "sh", "-c", script]);
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.wait(), 42);
}

#[test]
fn what_an_image_wants_of_the_flags_is_not_taken() {
    // A label is a label.
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nLABEL privileged=true io.boxwright.device=/dev/kvm\n");
    boxwright.build(&context, &["-t", "labels"]).ok();
    let script = status("CapEff");
    assert_eq!(boxwright.output_of("labels", &["sh", "-c", &script]), "00000000a80425fb\n");
}

#[test]
fn what_networks_and_names_can_not_be_is_refused() {
    let boxwright = Boxwright::with_busybox();
    refused(&boxwright, &["--expose", "foo"], "invalid argument \"foo\" for \"--expose\" flag");
    refused(&boxwright, &["--network", "nosuch"], "network nosuch not found");
    refused(&boxwright, &["-h", &"x".repeat(65)], "too long: it may have 64 bytes");
}

#[test]
fn an_image_that_needs_features_is_taken_where_they_are_asked_for() {
    let boxwright = Boxwright::with_busybox();
    // Nobody is there.
    let name = "127.0.0.1:9/gpu:1";
    let gpu = ["--platform", "linux(+gpu)"];
    boxwright.build(&Context::new("FROM busybox\n"), &[&gpu[..], &["-t", name]].concat()).ok();
    let run =
        |flags: &[&str]| boxwright.run(&[&["run", "--rm", "--pull=never"], flags, &[name, "true"]].concat());
    run(&[]).says("WARNING: The requested image's platform (linux(+gpu)/").ok();
    run(&gpu).says_nothing_of("WARNING").ok();
    run(&["--platform", "linux"]).fails_with(125).says("what is here is for linux(+gpu)/");
    let from = Context::new(&format!("FROM {name}\n"));
    boxwright.build(&from, &gpu).ok();
    boxwright.build(&from, &[]).fails_with(1).says("here it is for linux(+gpu)/");
}
