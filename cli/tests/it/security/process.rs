//! What of ours a process inside can reach: descriptors, environment, binary, groups, capabilities, sockets.

use std::fs;
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};

use boxwright_testdata::tar::Tar;
use boxwright_testdata::{Ran, archive as image_archive, run};

use super::{Canary, load, patient, tries, wrapped};
use crate::tool::{Boxwright, Context, Running, Who, binary};

const LEAKED: std::ops::RangeInclusive<u32> = 3..=20;

/// The command, started by somebody who leaves it descriptors 3 to 20, all of them the canary's directory.
pub(super) fn leaking(canary: &Canary, command: &Command) -> Command {
    let opened: String = LEAKED.map(|n| format!(" {n}<{}", canary.path())).collect();
    wrapped(&["bash", "-c", &format!("exec{opened}; exec \"$@\""), "bash"], command)
}

fn a_descriptor_that_was_left_to_us_is_not_left_inside(who: Who) {
    // CVE-2024-21626
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let script = "cd /proc/self/fd && echo descriptors: *";
    let ran = run(&mut leaking(&canary, &boxwright.command(&["run", "--rm", "busybox", "sh", "-c", script])));
    // The fourth is the directory that the shell reads.
    assert_eq!(ran.ok(), "descriptors: 0 1 2 3\n");
    let context = Context::new(&format!("FROM busybox\nRUN {script}\nRUN [\"sh\", \"-c\", \"{script}\"]\n"));
    let command = boxwright.command(&["build", "--progress", "plain", context.path()]);
    let ran = run(&mut leaking(&canary, &command));
    let told: Vec<_> = ran.stderr.lines().filter(|l| l.contains(" descriptors: 0 ")).collect();
    assert!(told.len() == 2 && told.iter().all(|l| l.ends_with(" descriptors: 0 1 2 3")), "{ran}");
    ran.ok();
}

fn a_working_directory_behind_a_descriptor_is_no_way_out(who: Who) {
    // CVE-2024-21626
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let script = "cat file ./file ../file; touch new";
    for n in LEAKED.filter(|n| tries(who, *n as usize, 4)) {
        let place = format!("/proc/self/fd/{n}");
        let command = boxwright.command(&["run", "--rm", "-w", &place, "busybox", "sh", "-c", script]);
        let ran = run(&mut leaking(&canary, &command));
        assert!((125..128).contains(&ran.status), "{ran}");
        canary.assert_unknown_to(&ran);
        let context = Context::new(&format!("FROM busybox\nWORKDIR {place}\nRUN {script}\n"));
        let command = boxwright.command(&["build", "--progress", "plain", context.path()]);
        let ran = run(&mut leaking(&canary, &command)).fails_with(1);
        canary.assert_unknown_to(&ran);
    }
}

fn our_binary_is_neither_run_nor_written_from_inside(who: Who) {
    // CVE-2019-5736
    let boxwright = Boxwright::of(who);
    let layer =
        Tar::new().file("script", 0o755, "#!/proc/self/exe version\n").symlink("link", "/proc/self/exe");
    load(&boxwright, "sly", layer);
    let before = image_archive::sha256(&fs::read(binary()).unwrap());
    for program in ["/script", "/link", "/proc/self/exe", "/proc/1/exe"] {
        boxwright.run(&["run", "--rm", "--entrypoint", program, "sly"]).fails_with(126);
        boxwright.run(&["run", "--rm", "sly", program]).fails_with(126);
        let context = Context::new(&format!("FROM sly\nRUN [\"{program}\"]\n"));
        boxwright.build(&context, &[]).fails_with(1).says(program).says_nothing_of("Version");
    }
    let script = "readlink /proc/1/exe; for p in /proc/[0-9]*/exe; do (echo overwritten >> $p) 2>/dev/null; done; true";
    assert_eq!(boxwright.output_of("sly", &["sh", "-c", script]), "/bin/busybox\n");
    boxwright.build(&Context::new(&format!("FROM sly\nRUN {script}\n")), &[]).says("/bin/busybox").ok();
    assert_eq!(image_archive::sha256(&fs::read(binary()).unwrap()), before);
}

fn capabilities_are_dockers_in_steps_and_containers_for_root_and_others(who: Who) {
    // CVE-2022-29162, CVE-2022-27651, GHSA-2mm7, GHSA-c3g4: nothing is inheritable or ambient
    let boxwright = Boxwright::with_busybox_of(who);
    let context = Context::new(
        "FROM busybox\nRUN grep ^Cap /proc/self/status > /root-has\nUSER 1000\nRUN grep ^Cap /proc/self/status > /tmp/user-has\n",
    );
    boxwright.build(&context, &["-t", "c"]).ok();
    let golden = |held: &str| {
        let (none, bound) = ("0000000000000000", "00000000a80425fb");
        format!("CapInh:\t{none}\nCapPrm:\t{held}\nCapEff:\t{held}\nCapBnd:\t{bound}\nCapAmb:\t{none}\n")
    };
    let grep = ["grep", "^Cap", "/proc/self/status"];
    for (user, file, held) in
        [("0", "/root-has", "00000000a80425fb"), ("1000", "/tmp/user-has", "0000000000000000")]
    {
        assert_eq!(boxwright.output_of("c", &["cat", file]), golden(held), "a step of user {user}");
        let args = [&["run", "--rm", "-u", user, "busybox"][..], &grep].concat();
        // Not even what we were given as inheritable ourselves.
        let giving = wrapped(&["setpriv", "--inh-caps", "+chown,+sys_admin"], &boxwright.command(&args));
        assert_eq!(run(&mut { giving }).ok(), golden(held), "a container of user {user}");
    }
}

fn groups_are_those_of_the_image_and_never_ours(who: Who) {
    // CVE-2022-36109, CVE-2023-25173, CVE-2022-2989, CVE-2022-2990
    let boxwright = Boxwright::of(who);
    let files = Tar::new()
        .file("etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\nweb:x:1000:\naudio:x:29:web\n");
    load(&boxwright, "groups", files);
    for (user, expected) in
        [("0", "0"), ("web", "1000 29"), ("1000", "1000 29"), ("web:audio", "29"), ("1:2", "2"), ("77", "0")]
    {
        let foreign =
            |command: &Command| run(&mut wrapped(&["setpriv", "--groups", "4242,1000,27"], command));
        let ran = foreign(&boxwright.command(&["run", "--rm", "-u", user, "groups", "id", "-G"]));
        assert_eq!(ran.ok(), format!("{expected}\n"), "user {user}");
        let context = Context::new(&format!("FROM groups\nUSER {user}\nRUN echo \"groups: $(id -G)\"\n"));
        let ran = foreign(&boxwright.command(&["build", "--progress", "plain", context.path()]));
        let told = ran.stderr.lines().any(|l| l.ends_with(&format!(" groups: {expected}")));
        assert!(told, "user {user}: {ran}");
    }
}

fn our_environment_is_nowhere_inside(who: Who) {
    // CVE-2021-3602
    let (boxwright, secret) = (Boxwright::with_busybox_of(who), "a token that only we have");
    let script = "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'";
    let with_secret = |args: &[&str]| {
        let mut command = boxwright.command(args);
        run(command.env("CI_TOKEN", secret).env("DOCKER_AUTH_CONFIG", secret))
    };
    let ran = with_secret(&["run", "--rm", "-e", "SEEN=here", "busybox", "sh", "-c", script]);
    // Once from the shell and once from its process at least, or the search has not seen anything.
    assert!(ran.stdout.matches("SEEN=here").count() >= 2, "{ran}");
    ran.says_nothing_of(secret).says_nothing_of("CI_TOKEN").ok();
    let context = Context::new(&format!("FROM busybox\nENV SEEN=here\nRUN {script}\n"));
    let ran = with_secret(&["build", "--progress", "plain", context.path()]);
    assert!(ran.stderr.matches(" SEEN=here").count() >= 2, "{ran}");
    ran.says_nothing_of(secret).says_nothing_of("CI_TOKEN").ok();
}

#[test]
fn without_a_network_there_is_no_route_no_resolver_and_no_socket_of_the_host() {
    // CVE-2024-29018, CVE-2020-15257
    let name = format!("boxwright-canary-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let boxwright = Boxwright::with_busybox();
    let script = "cat /proc/net/unix; ls /sys/class/net; tail -n +2 /proc/net/route; \
        grep -v ' lo$' /proc/net/ipv6_route; tail -qn +2 /proc/net/tcp /proc/net/udp; echo end";
    boxwright.run(&["run", "--rm", "--network", "host", "busybox", "sh", "-c", script]).says(&name).ok();
    // A network of its own has other sockets.
    let own = boxwright.run(&["run", "--rm", "--network", "bridge", "busybox", "sh", "-c", script]);
    own.says_nothing_of(&name).says("eth0").ok();
    let out = boxwright.ok(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    let (header, rest) = out.split_once('\n').unwrap();
    assert!(header.starts_with("Num") && rest == "lo\nend\n", "{out}");
    let step = Context::new(&format!("FROM busybox\nRUN ({script}) > /seen\n"));
    boxwright.build(&step, &["--network", "none", "-t", "cut-off"]).ok();
    assert_eq!(boxwright.output_of("cut-off", &["cat", "/seen"]), out);
    let step = Context::new(&format!("FROM busybox\nRUN --network=none ({script}) > /seen\n"));
    boxwright.build(&step, &["-t", "cut-off"]).ok();
    assert_eq!(boxwright.output_of("cut-off", &["cat", "/seen"]), out);
}

fn no_process_of_ours_has_a_socket_that_a_container_could_name(who: Who) {
    // CVE-2020-15257: in the host's network
    let boxwright = Boxwright::with_busybox_of(who);
    let mut command = boxwright.command(&[
        "run",
        "--rm",
        "--network=host",
        "busybox",
        "sh",
        "-c",
        "echo ready; exec cat /dev/zero > /dev/null",
    ]);
    let mut running = Running::start(command.stdout(Stdio::piped()));
    running.0.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let mut pids = vec![running.0.id()];
    let mut descriptors = 0;
    while let Some(pid) = pids.pop() {
        for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let children = fs::read_to_string(task.unwrap().path().join("children")).unwrap();
            pids.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
        }
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let Ok(what) = fs::read_link(fd.unwrap().path()) else { continue };
            if let Some(inode) = what.to_str().unwrap().strip_prefix("socket:[") {
                let inode = inode.trim_end_matches(']');
                // A name would be the eighth word.
                let nameless = |line: &str| {
                    line.split_whitespace().nth(6) == Some(inode) && line.split_whitespace().count() == 7
                };
                let sockets = fs::read_to_string(format!("/proc/{pid}/net/unix")).unwrap();
                assert!(sockets.lines().any(nameless), "process {pid} has socket {inode}: {sockets}");
            }
            descriptors += 1;
        }
    }
    assert!(descriptors > 6, "ours and those of the container");
}

#[test]
fn what_others_put_on_our_path_is_not_started() {
    // GHSA-x86f: nor is it looked up in an image
    let (boxwright, canary) = (Boxwright::with_busybox(), Canary::of(Who::Root));
    let evil = Context::new("");
    for name in
        ["xz", "unxz", "gzip", "unpigz", "pigz", "zstd", "tar", "git", "mount", "runc", "iptables", "sh"]
    {
        evil.write(name, format!("#!/bin/sh\necho $0 >> {}/started\n", canary.path()));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(evil.join(name), mode).unwrap();
    }
    let tar = Tar::new().file("f", 0o644, "text").finish();
    let context = Context::new("FROM busybox\nADD a.tar.xz b.tar.gz /\nRUN cat /f /g\n");
    for (program, name, tar) in
        [("xz", "a.tar.xz", tar), ("gzip", "b.tar.gz", Tar::new().file("g", 0o644, "more").finish())]
    {
        context.write("plain", tar);
        let out = fs::File::create(context.join(name)).unwrap();
        assert!(
            Command::new(program)
                .arg("-c")
                .arg(context.join("plain"))
                .stdout(out)
                .status()
                .unwrap()
                .success()
        );
    }
    let mut command = boxwright.command(&["build", "--progress", "plain", "-t", "x", context.path()]);
    let ran: Ran = patient(command.env("PATH", format!("{}:/usr/bin:/bin", evil.path())));
    canary.assert_intact("a build");
    ran.says("textmore").ok();
    let mut command = boxwright.command(&["run", "--rm", "x", "cat", "/f"]);
    assert_eq!(patient(command.env("PATH", format!("{}:/usr/bin:/bin", evil.path()))).ok(), "text");
    canary.assert_intact("a container");
}

super::by_both!(
    a_descriptor_that_was_left_to_us_is_not_left_inside,
    a_working_directory_behind_a_descriptor_is_no_way_out,
    our_binary_is_neither_run_nor_written_from_inside,
    capabilities_are_dockers_in_steps_and_containers_for_root_and_others,
    groups_are_those_of_the_image_and_never_ours,
    our_environment_is_nowhere_inside,
    no_process_of_ours_has_a_socket_that_a_container_could_name,
);
