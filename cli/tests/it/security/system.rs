//! What of the machine and of whoever started us is to be had inside: files of procfs, cgroups, the terminal,
//! descriptors, logins.

use std::fs;
use std::process::Command;

use boxwright_testdata::run;
use boxwright_testdata::tar::Tar;

use super::{Canary, load, patient};
use crate::tool::{Boxwright, Context, Who};

fn masked_files_are_ours_whatever_an_image_has_as_null(who: Who) {
    // CVE-2025-31133, CVE-2021-21284, GHSA-jq35, GHSA-6fw5
    const PATTERN: &str = "/proc/sys/kernel/core_pattern";
    let before = fs::read_to_string(PATTERN).unwrap();
    let boxwright = Boxwright::of(who);
    load(&boxwright, "sly", Tar::new().symlink("dev/null", PATTERN));
    let script = "for f in /dev/null /proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats \
        /proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats; do [ -d $f ] && ls -A $f; \
        [ -f $f ] && echo $f is a file; [ -c $f ] && cat $f; (echo '|/x' > $f) 2>/tmp/e; done; \
        for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/drop_caches /proc/irq/default_smp_affinity \
        /proc/fs/x /proc/bus/x /sys/kernel/uevent_helper /sys/power/state; do (echo 1 > $f) 2>/tmp/e && echo wrote $f; done; \
        ls -A /sys/firmware /sys/devices/virtual/powercap 2>/tmp/e | grep -v :; cat /sys/devices/system/cpu/cpu0/thermal_throttle/* 2>/tmp/e; echo end";
    assert_eq!(boxwright.output_of("sly", &["sh", "-c", script]), "end\n");
    boxwright.build(&Context::new(&format!("FROM sly\nRUN ({script}) > /seen\n")), &["-t", "seen"]).ok();
    assert_eq!(boxwright.output_of("seen", &["cat", "/seen"]), "end\n");
    assert_eq!(fs::read_to_string(PATTERN).unwrap(), before);
}

fn cgroups_can_not_be_written(who: Who) {
    // CVE-2023-25809
    let boxwright = Boxwright::with_busybox_of(who);
    let script = "mkdir /sys/fs/cgroup/x 2>/tmp/e && echo made; cd /sys/fs/cgroup; \
        for f in * */*; do [ -f $f ] && (echo 1 > $f) 2>/tmp/e && echo wrote $f; done; echo end";
    assert_eq!(boxwright.output_of("busybox", &["sh", "-c", script]), "end\n");
    let step = Context::new(&format!("FROM busybox\nRUN ({script}) > /seen\n"));
    boxwright.build(&step, &["-t", "seen"]).ok();
    assert_eq!(boxwright.output_of("seen", &["cat", "/seen"]), "end\n");
}

fn the_terminal_of_the_caller_is_out_of_reach(who: Who) {
    // What was typed there by TIOCSTI would be run by the caller's shell.
    let boxwright = Boxwright::with_busybox_of(who);
    let script = "(: > /dev/tty) 2>/tmp/e && echo a terminal; ls /dev/pts; tty; cat /tmp/e; echo end";
    let on_a_terminal = |args: &[&str]| {
        let command = boxwright.command(args);
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let quoted: Vec<_> =
            words.map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''"))).collect();
        let mut script = Command::new("script");
        run(script.args(["-qec", &quoted.join(" "), "/dev/null"])).ok()
    };
    let out = on_a_terminal(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert!(
        !out.contains("a terminal") && out.contains("/dev/tty: No such device") && out.contains("end"),
        "{out}"
    );
    assert!(out.contains("not a tty"), "{out}");
    // With -t there is one, which is the container's own.
    let out = on_a_terminal(&["run", "--rm", "-t", "busybox", "sh", "-c", script]);
    assert!(out.contains("a terminal") && out.contains("/dev/pts/0") && !out.contains("not a tty"), "{out}");
}

/// What a builder in a container of its own would leave lying about.
fn logins_and_variables_of_the_caller_are_not_found(who: Who) {
    // CVE-2021-3602, and the design of builders that run steps in their own root
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let login = "bG9naW46c2VjcmV0LW9mLWEtbG9naW4=";
    fs::create_dir(boxwright.scratch("docker")).unwrap();
    fs::write(
        boxwright.scratch("docker/config.json"),
        format!("{{\"auths\":{{\"r.example\":{{\"auth\":\"{login}\"}}}}}}"),
    )
    .unwrap();
    let place = boxwright.scratch("docker").display().to_string();
    let script = format!(
        "(cat {place}/config.json {}/file /proc/*/root{place}/config.json /proc/*/cwd/file; env; \
         cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mounts | tr '\\0' '\\n'; \
         grep -rs -e variable -e secret /etc /root /run /tmp /home /var /dev/shm) 2>&1; echo SEEN; true",
        canary.path()
    );
    let mut command = boxwright.command(&["run", "--rm", "-e", "SEEN=here", "busybox", "sh", "-c", &script]);
    let step = Context::new(&format!("FROM busybox\nRUN {script}\n"));
    let mut build = boxwright.command(&["build", "--progress", "plain", step.path()]);
    for command in [&mut command, &mut build] {
        let ran = patient(command.env("CI_TOKEN", "variable of the caller").current_dir(canary.path()));
        assert!(ran.stdout.contains("SEEN\n") || ran.stderr.contains(" SEEN\n"), "{ran}");
        canary.assert_unknown_to(&ran);
        ran.says_nothing_of(login).says_nothing_of("variable of the caller").ok();
    }
}

super::by_both!(
    masked_files_are_ours_whatever_an_image_has_as_null,
    cgroups_can_not_be_written,
    the_terminal_of_the_caller_is_out_of_reach,
    logins_and_variables_of_the_caller_are_not_found,
);

#[test]
fn a_user_with_a_single_id_hides_as_much() {
    logins_and_variables_of_the_caller_are_not_found(Who::Single);
    masked_files_are_ours_whatever_an_image_has_as_null(Who::Single);
    cgroups_can_not_be_written(Who::Single);
}
