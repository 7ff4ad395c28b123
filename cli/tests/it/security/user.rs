//! Users: what an image says of names and ids chooses nobody else, and costs no more than it must.

use boxwright_testdata::tar::Tar;

use super::{Canary, load, patient, wrapped};
use crate::tool::{Boxwright, Context, Who};

fn a_number_is_an_id_even_if_a_user_has_it_for_a_name(who: Who) {
    // CVE-2026-46680
    let boxwright = Boxwright::of(who);
    let files = Tar::new()
        .file("etc/passwd", 0o644, "1000:x:0:0:sly:/:/bin/sh\nroot:x:0:0::/root:/bin/sh\n0:x:1:1::/:\n")
        .file("etc/group", 0o644, "1000:x:0:\n");
    load(&boxwright, "sly", files);
    let id = "echo $(id -u):$(id -g)";
    for (user, expected) in [("1000", "1000:0"), ("1000:1000", "1000:1000"), ("0", "0:0")] {
        let out = boxwright.ok(&["run", "--rm", "-u", user, "sly", "sh", "-c", id]);
        assert_eq!(out, format!("{expected}\n"), "run -u {user}");
        let context = Context::new(&format!("FROM sly\nUSER {user}\nRUN {id} > /tmp/id\nCMD {id}\n"));
        boxwright.build(&context, &["-t", "u"]).ok();
        assert_eq!(boxwright.output_of("u", &["cat", "/tmp/id"]), format!("{expected}\n"), "USER {user}");
        assert_eq!(boxwright.output_of("u", &[]), format!("{expected}\n"), "the image of USER {user}");
    }
    let context = Context::new("FROM sly\nCOPY --chown=1000:1000 Dockerfile /f\n");
    boxwright.build(&context, &["-t", "owned"]).ok();
    assert_eq!(boxwright.output_of("owned", &["stat", "-c", "%u:%g", "/f"]), "1000:1000\n");
}

fn ids_beyond_the_range_are_refused_everywhere(who: Who) {
    // CVE-2024-40635
    let boxwright = Boxwright::with_busybox_of(who);
    for id in ["4294967296", "4294967295", "2147483648", "-1", "18446744073709551616", "0:4294967296", "0:-1"]
    {
        let ran = boxwright.run(&["run", "--rm", &format!("--user={id}"), "busybox", "id"]);
        assert_eq!((ran.status, ran.stdout.as_str()), (125, ""), "{ran}");
        let context = Context::new(&format!("FROM busybox\nUSER {id}\nRUN id\n"));
        boxwright.build(&context, &["-t", "u"]).fails_with(1).says_nothing_of("uid=");
        let context = Context::new(&format!("FROM busybox\nCOPY --chown={id} Dockerfile /f\n"));
        boxwright.build(&context, &["-t", "u"]).fails_with(1);
        let config = Context::new(&format!("FROM busybox\nUSER {id}\nCMD id\n"));
        if boxwright.build(&config, &["-t", "c"]).status == 0 {
            let ran = boxwright.run(&["run", "--rm", "c"]);
            assert_eq!((ran.status, ran.stdout.as_str()), (125, ""), "{ran}");
        }
    }
}

fn a_passwd_file_that_is_none_ends_in_an_error_or_is_not_there(who: Who) {
    // CVE-2024-9676
    let (boxwright, canary) = (Boxwright::of(who), Canary::of(who));
    let file = format!("{}/file", canary.path());
    let cases = [
        ("pipe", Tar::new().fifo("etc/passwd", 0o666).fifo("etc/group", 0o666)),
        ("zero", Tar::new().device("etc/passwd", b'3', 1, 5).device("etc/group", b'3', 1, 5)),
        ("link-to-zero", Tar::new().symlink("etc/passwd", "/dev/zero").symlink("etc/group", "/dev/zero")),
        (
            "link-to-environ",
            Tar::new().symlink("etc/passwd", "/proc/1/environ").symlink("etc/group", "/proc/self/environ"),
        ),
        (
            "link-to-magic",
            Tar::new()
                .symlink("etc/passwd", "/proc/self/fd/0")
                .symlink("etc/group", "/proc/self/root/etc/group"),
        ),
        (
            "link-to-host",
            Tar::new().symlink("etc/passwd", &file).symlink("etc/group", &format!("../../../..{file}")),
        ),
        ("loop", Tar::new().symlink("etc/passwd", "passwd").symlink("etc/group", "group")),
        ("directory", Tar::new().dir("etc/passwd", 0o755).dir("etc/group", 0o755)),
    ];
    for (name, layer) in cases {
        load(&boxwright, name, layer);
        for user in ["daemon", "0:daemon"] {
            let ran = patient(&boxwright.command(&["run", "--rm", "-u", user, name, "id"]));
            assert_eq!((ran.status, ran.stdout.as_str()), (125, ""), "{name}: {ran}");
            canary.assert_unknown_to(&ran);
            let step = Context::new(&format!("FROM {name}\nUSER {user}\nRUN id\n"));
            let ran = patient(&boxwright.command(&["build", "--progress", "plain", step.path()]));
            canary.assert_unknown_to(&ran);
            ran.fails_with(1).says_nothing_of("uid=");
            let copy = Context::new(&format!("FROM {name}\nCOPY --chown={user} Dockerfile /f\n"));
            let ran = patient(&boxwright.command(&["build", "--progress", "plain", copy.path()]));
            assert!(ran.status <= 1, "{name}: {ran}");
            canary.assert_unknown_to(&ran);
        }
    }
}

fn a_giant_passwd_or_group_file_is_not_read_into_memory(who: Who) {
    // CVE-2026-47262, GHSA-mjcv
    let boxwright = Boxwright::with_busybox_of(who);
    let make = |file: &str| {
        let context = Context::new(&format!("FROM busybox\nRUN truncate -s 512M {file}\n"));
        boxwright.build(&context, &["-t", "giant"]).ok();
    };
    for (file, user) in [("/etc/group", "0:nosuch"), ("/etc/passwd", "nosuch")] {
        make(file);
        let step = Context::new(&format!("FROM giant\nUSER {user}\nRUN id\n"));
        let copy = Context::new(&format!("FROM giant\nCOPY --chown={user} Dockerfile /f\n"));
        let commands = [
            (125, boxwright.command(&["run", "--rm", "-u", user, "giant", "id"])),
            (1, boxwright.command(&["build", "--progress", "plain", step.path()])),
            (1, boxwright.command(&["build", "--progress", "plain", copy.path()])),
        ];
        for (status, command) in commands {
            // Whoever wants more memory than this gets none, and does not end with a message of ours.
            let bounded = wrapped(&["prlimit", "--data=268435456"], &command);
            patient(&bounded).says("too large").fails_with(status);
        }
        boxwright.ok(&["rmi", "giant"]);
        boxwright.ok(&["builder", "prune", "-a", "-f"]);
    }
}

super::by_both!(
    a_number_is_an_id_even_if_a_user_has_it_for_a_name,
    ids_beyond_the_range_are_refused_everywhere,
    a_passwd_file_that_is_none_ends_in_an_error_or_is_not_there,
    a_giant_passwd_or_group_file_is_not_read_into_memory,
);
