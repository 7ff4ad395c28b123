//! Profiles, run as the kernel would run them.

use super::super::compile::tests::run_with;
use super::super::compile::{I386, X86_64};
use super::*;

const AUDIT: u32 = 0xc000_003e;

/// What the profile says to a call of x86-64 with these arguments.
fn asked(profile: &str, number: u32, arguments: &[u64]) -> u32 {
    let program =
        Profile::parse(profile.as_bytes()).unwrap().program(&[X86_64], CapabilitySet::CHOWN).unwrap();
    run_with(&program, AUDIT, number, arguments)
}

fn errno(code: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | code.unsigned_abs()
}

#[test]
fn what_is_named_is_allowed_and_the_rest_refused() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "archMap": [], "syscalls": [
        {"names": ["read", "io_uring_setup", "nosuchcall"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": null},
        {"names": ["mkdir"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["chown"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_CHOWN"], "arches": ["amd64", "arm64"]}},
        {"names": ["lchown"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
        {"names": ["fchown"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["rmdir"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "999.0"}}]}"#;
    let (read, write, mkdir, rmdir, chown, fchown, lchown, io_uring_setup) = (0, 1, 83, 84, 92, 93, 94, 425);
    for (number, expected) in [
        (read, libc::SECCOMP_RET_ALLOW),
        (io_uring_setup, libc::SECCOMP_RET_ALLOW),
        (write, errno(13)),
        (mkdir, errno(38)),
        (chown, libc::SECCOMP_RET_ALLOW),
        (lchown, errno(38)),
        (fchown, libc::SECCOMP_RET_ALLOW),
        (rmdir, errno(38)),
        (9999, errno(libc::ENOSYS)),
        (0x4000_0000, errno(libc::ENOSYS)),
    ] {
        assert_eq!(asked(profile, number, &[0; 6]), expected, "{number}");
    }
}

#[test]
fn arguments_are_compared_as_64_bits() {
    const BIG: u64 = 5 << 32 | 7;
    for (op, two, yes, no) in [
        ("EQ", 0, &[BIG][..], &[BIG + 1, BIG + (1 << 32), 7][..]),
        ("NE", 0, &[BIG + 1, BIG + (1 << 32), 7], &[BIG]),
        ("GT", 0, &[BIG + 1, BIG + (1 << 32), 6 << 32], &[BIG, 5 << 32, 7, u64::from(u32::MAX)]),
        ("GE", 0, &[BIG, BIG + 1, 6 << 32], &[BIG - 1, 5 << 32, u64::from(u32::MAX)]),
        ("LT", 0, &[BIG - 1, 5 << 32, u64::from(u32::MAX)], &[BIG, BIG + 1, 6 << 32]),
        ("LE", 0, &[BIG, BIG - 1, 4 << 32 | 99], &[BIG + 1, 6 << 32]),
        (
            "MASKED_EQ",
            4u64 << 32 | 2,
            &[4 << 32 | 2, 4 << 32 | 0xf0 | 2, 0xfc << 32 | 2],
            &[0, BIG, 5 << 32 | 2],
        ),
    ] {
        let profile = format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{"names": ["read"], "action": "SCMP_ACT_ALLOW",
            "args": [{{"index": 2, "value": {BIG}, "valueTwo": {two}, "op": "SCMP_CMP_{op}"}}]}}]}}"#
        );
        for (values, expected) in [(yes, libc::SECCOMP_RET_ALLOW), (no, errno(libc::EPERM))] {
            for value in values {
                assert_eq!(asked(&profile, 0, &[BIG, BIG, *value, 0, 0, 0]), expected, "{op} {value:#x}");
            }
        }
    }
}

#[test]
fn every_argument_has_to_agree_and_any_rule_will_do() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_KILL_PROCESS", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]},
        {"name": "read", "action": "SCMP_ACT_TRAP", "args": [{"index": 5, "value": 9, "op": "SCMP_CMP_GE"}]}]}"#;
    assert_eq!(asked(profile, 0, &[1, 2, 0, 0, 0, 0]), libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!(asked(profile, 0, &[1, 3, 0, 0, 0, 0]), libc::SECCOMP_RET_ALLOW);
    assert_eq!(asked(profile, 0, &[2, 2, 0, 0, 0, 9]), libc::SECCOMP_RET_TRAP);
    assert_eq!(asked(profile, 9999, &[0; 6]), libc::SECCOMP_RET_ALLOW, "newer calls as well");
}

#[test]
fn of_conditions_about_one_argument_any_will_do() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [
        {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"},
        {"index": 1, "value": 3, "op": "SCMP_CMP_EQ"}]}]}"#;
    for allowed in [[1, 0], [2, 0], [0, 3]] {
        assert_eq!(asked(profile, 0, &[allowed[0], allowed[1], 0, 0, 0, 0]), libc::SECCOMP_RET_ALLOW);
    }
    assert_eq!(asked(profile, 0, &[3, 1, 0, 0, 0, 0]), errno(libc::EPERM));
}

#[test]
fn a_rule_that_says_what_is_so_anyway_is_none() {
    let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2},
        {"names": ["write"], "action": "SCMP_ACT_ALLOW"}]}"#;
    assert_eq!(asked(profile, 0, &[0; 6]), libc::SECCOMP_RET_ALLOW);
    assert_eq!(asked(profile, 1, &[0; 6]), errno(2), "another errno is another action");
}

#[test]
fn other_architectures_are_refused_unless_they_are_listed() {
    const I386_AUDIT: u32 = 0x4000_0003;
    for (lists, expected) in [
        (r#""architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]"#, libc::SECCOMP_RET_ALLOW),
        (r#""architectures": ["SCMP_ARCH_X86"]"#, libc::SECCOMP_RET_ALLOW),
        (r#""architectures": ["SCMP_ARCH_X86_64"]"#, libc::SECCOMP_RET_KILL_PROCESS),
        (r#""architectures": null"#, libc::SECCOMP_RET_KILL_PROCESS),
        (
            r#""archMap": [{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}]"#,
            libc::SECCOMP_RET_ALLOW,
        ),
        (
            r#""archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": null},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_X86"]}]"#,
            libc::SECCOMP_RET_KILL_PROCESS,
        ),
    ] {
        let profile = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": null, {lists}}}"#);
        let profile = Profile::parse(profile.as_bytes()).unwrap();
        let program = profile.program(&[X86_64, I386], CapabilitySet::empty()).unwrap();
        assert_eq!(run_with(&program, I386_AUDIT, 4, &[0; 6]), expected, "{lists}");
        assert_eq!(run_with(&program, AUDIT, 1, &[0; 6]), libc::SECCOMP_RET_ALLOW, "{lists}");
    }
}

#[test]
fn what_can_not_be_done_is_refused() {
    let rule = |rule: &str| format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#);
    for (text, words) in [
        ("nonsense".to_owned(), "expected ident"),
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#.to_owned(), "SCMP_ACT_NOTIFY"),
        (rule(r#"{"names": ["nosuchcall"], "action": "SCMP_ACT_ERRNO"}"#), "nosuchcall"),
        (rule(r#"{"names": ["read"], "action": "SCMP_ACT_TRACE"}"#), "SCMP_ACT_TRACE"),
        (rule(r#"{"names": ["read"], "name": "write", "action": "SCMP_ACT_ERRNO"}"#), "both 'name' and 'names'"),
        (rule(r#"{"names": null, "action": "SCMP_ACT_ERRNO"}"#), "no name of a system call"),
        (rule(r#"{"names": ["read", ""], "action": "SCMP_ACT_ERRNO"}"#), "no name of a system call"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#.to_owned(), "listener"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"]}"#
                .to_owned(),
            "SECCOMP_FILTER_FLAG_LOG",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}"#
                .to_owned(),
            "both 'architectures' and 'archMap'",
        ),
        (
            rule(
                r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}"#,
            ),
            "no argument 6",
        ),
        (
            rule(
                r#"{"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 0, "op": "ODD"}]}"#,
            ),
            "ODD",
        ),
    ] {
        let error = Profile::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("reading the seccomp profile") && error.contains(words), "{text}: {error}");
    }
}
