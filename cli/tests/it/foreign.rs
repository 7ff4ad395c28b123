//! Programs of another machine in RUN and `run`: an arm64 busybox under QEMU, by an emulator that the kernel has opened,
//! by one that containers need to be given, and by one that nobody has registered.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use boxwright_testdata::{Ran, base, run};

use crate::rootless::{RANGES, as_user_with};
use crate::tool::{binary, cache};

const QEMU: &str = "/usr/bin/qemu-aarch64-static";
/// How an image for arm64 is made in the current directory.
const MAKE: &str = "mkdir -p c; cp $base c/; \
                    printf 'FROM scratch\\nADD busybox-arm64.tar /\\nCMD [\"uname\", \"-m\"]\\n' > c/Dockerfile; \
                    SOURCE_DATE_EPOCH=1 bw build -q --platform linux/arm64 -t arm c > /dev/null;";

/// The entry of an emulator for arm64, as `register` takes it.
pub(crate) fn entry(emulator: &str, flags: &str) -> String {
    let zeros = r"\x00".repeat(9);
    let mask = format!(r"{0}\x00{0}\xff\xfe\xff\xff\xff", r"\xff".repeat(7));
    format!(r":boxwright-test:M:0:\x7fELF\x02\x01\x01{zeros}\x02\x00\xb7\x00:{mask}:{emulator}:{flags}")
}

/// Runs a script by root where this entry, or none, is all that the kernel knows of arm64: in a user namespace, whose
/// list of emulators is its own. Before Linux 6.7 there is but one list: it is borrowed, and given back.
pub(crate) fn with_list(entry: Option<&str>, script: &str) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("entry"), entry.unwrap_or_default()).unwrap();
    fs::write(dir.path().join("script"), script).unwrap();
    let script = "list=/proc/sys/fs/binfmt_misc; mount -t binfmt_misc none $list; \
                  others=$(grep -l 'magic 7f454c460201.*b7' $list/* 2> /dev/null || true); \
                  give_back() { [ ! -s entry ] || echo -1 > $list/boxwright-test; \
                                for other in $others; do echo 1 > $other; done; }; \
                  for other in $others; do echo 0 > $other; done; trap give_back EXIT; \
                  [ ! -s entry ] || cat entry > $list/register; sh -eu script";
    let borrowed = machines_list();
    let mut command = Command::new("unshare");
    if borrowed.is_none() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "private", "sh", "-ec", script]).current_dir(dir.path());
    run(&mut command)
}

/// The machine's list of emulators for us alone, where everybody has the same one.
fn machines_list() -> Option<fs::File> {
    let path = std::env::temp_dir().join("boxwright-test-binfmt_misc");
    let list = (!has_own_lists()).then(|| fs::File::create(path).unwrap())?;
    rustix::fs::flock(&list, rustix::fs::FlockOperation::LockExclusive).unwrap();
    Some(list)
}

/// Whether a user namespace may have its own list of emulators.
fn has_own_lists() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "mount", "-t", "binfmt_misc", "none", "/mnt"]);
    run(&mut command).status == 0
}

fn as_root(emulator: Option<(&str, &str)>, script: &str) -> Ran {
    let (binary, base) = (binary().display().to_string(), base::busybox_arm64(cache()).display().to_string());
    let entry = emulator.map(|(program, flags)| entry(program, flags));
    let script = format!("base={base}; bw() {{ {binary} --root $PWD/store \"$@\"; }}; {MAKE} {script}");
    with_list(entry.as_deref(), &script)
}

/// By a user with ranges, whose home has the tar of arm64 beside the usual busybox image.
fn as_user(script: &str) -> Ran {
    let base = base::busybox_arm64(cache());
    with_files(&[(&base, "busybox-arm64.tar")], &format!("base=../busybox-arm64.tar; {MAKE} {script}"))
}

/// By a user with ranges, whose home is beside these files.
fn with_files(files: &[(&std::path::Path, &str)], script: &str) -> Ran {
    let _borrowed = machines_list();
    as_user_with(RANGES, files, script)
}

#[test]
fn an_emulator_that_containers_lack_is_brought_along_and_leaves_no_trace() {
    let script = format!(
        "bw run --rm --platform linux/arm64 arm; \
         bw run --rm arm sh -c 'mount | grep -c qemu || :; echo x > {QEMU} || :'; \
         printf 'FROM arm\\nRUN test -x /bin/sh\\n' > d; \
         SOURCE_DATE_EPOCH=1 bw build -q --platform linux/arm64 -t out - < d; \
         bw build --platform linux/arm64 -o type=tar,dest=out.tar - < d; tar -tf out.tar | grep -e qemu -e libexec || echo clean"
    );
    let lines = |flags: &str| {
        let ran = as_root(Some((QEMU, flags)), &script).says("does not match the detected host platform");
        let out = ran.says("CACHED").ok();
        let lines: Vec<String> = out.lines().map(str::to_owned).collect();
        <[String; 4]>::try_from(lines).unwrap()
    };
    let [machine, mounts, opened, tar] = lines("OPF");
    assert_eq!([machine.as_str(), &mounts, &tar], ["aarch64", "0", "clean"]);
    let [machine, mounts, brought, tar] = lines("OP");
    assert_eq!([machine.as_str(), &mounts, &tar], ["aarch64", "1", "clean"]);
    assert_eq!(brought, opened, "the image does not tell");
}

/// What root of a container could do to the host's file, and what a volume of the user's own is for.
#[test]
fn an_emulator_in_a_container_is_the_hosts_and_can_not_be_written() {
    let script = format!(
        "cp {QEMU} q; bw run --rm arm sh -c 'echo x > {QEMU}' || echo refused; \
         bw run --rm -v $PWD/q:{QEMU} arm sh -c 'mount | grep -c qemu'; \
         ! bw run --rm --cap-add ALL arm sh -c 'umount {QEMU} && echo umounted'"
    );
    let ran = as_root(Some((QEMU, "P")), &script).says("Read-only file system");
    assert_eq!(ran.ok(), "refused\n1\n");
}

#[test]
fn without_an_emulator_the_error_says_what_to_do() {
    let script = "printf 'FROM arm\\nRUN true\\n' > d; bw run --rm arm || echo $?; \
                  bw build --platform linux/arm64 - < d || echo $?; \
                  PATH=/none; bw run --rm arm || echo $?";
    let ran =
        as_root(None, script).says("exec /bin/uname: exec format error\nhelp: linux/arm64 needs an emulator");
    let ran = ran
        .says(&format!("{QEMU} is not registered with binfmt_misc; as root: printf %s ':qemu-aarch64:M::"));
    let ran = ran
        .says("exit code: 126: exec /bin/sh: exec format error\n")
        .says("  = help: linux/arm64 needs an emulator");
    let ran = ran.says("no emulator is registered with binfmt_misc, nor is there a qemu-aarch64-static");
    assert_eq!(ran.ok(), "126\n1\n126\n");

    let script = "bw run --rm arm || echo $?";
    let missing = as_root(Some(("/none/emulator", "")), script).says("without the flag F");
    assert_eq!(missing.says("as /none/emulator: No such file or directory").ok(), "127\n");
    let dynamic = as_root(Some(("/bin/dash", "")), script).says("as /bin/dash: it is not linked statically");
    assert_eq!(dynamic.ok(), "127\n");
}

#[test]
fn an_image_for_one_machine_is_not_one_for_another() {
    let script = "bw run --rm --pull never --platform linux/amd64 arm || echo $?; \
                  bw run --rm --pull never --platform linux/arm64/v8 arm";
    let ran = as_root(Some((QEMU, "F")), script)
        .says("No such image: arm:latest (what is here is for linux/arm64)");
    assert_eq!(ran.ok(), "125\naarch64\n");
}

/// The printed command, as root would run it.
#[test]
fn what_the_error_says_helps() {
    let script = "bw run --rm arm 2> error || :; sed -n 's/^help: .*; as root: //p' error > command; sh -eu command; \
                  bw run --rm arm; echo -1 > /proc/sys/fs/binfmt_misc/qemu-aarch64";
    assert_eq!(as_root(None, script).ok(), "aarch64\n");
}

/// The stage for the machine itself is run by it.
#[test]
fn a_user_needs_no_registration() {
    let script = "printf 'FROM --platform=$BUILDPLATFORM busybox AS own\\nRUN uname -m > /own; mount > /mounts\\n\
                  FROM arm\\nCOPY --from=own /own /mounts /\\nRUN uname -m > /other; chmod 4755 /bin/busybox\\n\
                  USER nobody\\nRUN id -u; su -s /bin/sh nobody -c true; cat /other; uname -m\\n' > d; \
                  bw build -q --platform linux/arm64 -t out - < d > /dev/null; \
                  bw run --rm out cat /own /other; bw run --rm out grep -c qemu /mounts || :; bw run --rm busybox uname -m";
    let ran = as_user(script);
    if has_own_lists() {
        let own = std::env::consts::ARCH;
        assert_eq!(ran.ok(), format!("{own}\naarch64\n0\n{own}\n"));
    } else {
        ran.says("is not registered with binfmt_misc; as root: ");
    }
}

/// What a step that may mount adds to a list of emulators is no part of ours, though that is in use: the command starts a program of
/// the host after it, the one that writes the store to the disk, and the step's own would be run for it, outside.
#[test]
#[cfg(target_arch = "x86_64")]
fn what_a_step_adds_to_a_list_is_not_in_ours() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let (canary, program) = (dir.path().join("canary"), dir.path().join("program"));
    fs::write(&program, creating(&canary)).unwrap();
    let script = "mkdir d; cp ../hostile d/; printf 'FROM arm\\nCOPY --chmod=755 hostile /\\n\
                  RUN --security=insecure mkdir /m && mount -t binfmt_misc none /m && \
                      printf \"%%s\" \":x:M:16:\\\\x03\\\\x00\\\\x3e::/hostile:F\" > /m/register && read how < /m/x && echo x is $how >&2\\n\
                  RUN uname -m >&2\\n' > d/Dockerfile; \
                  bw build --progress plain --allow security.insecure --platform linux/arm64 -t x d; bw images -q > /dev/null; echo built";
    let ran = with_files(
        &[(&program, "hostile"), (&base::busybox_arm64(cache()), "busybox-arm64.tar")],
        &format!("base=../busybox-arm64.tar; {MAKE} {script}"),
    );
    if has_own_lists() {
        assert_eq!(ran.says("x is enabled").says("aarch64").ok(), "built\n");
    } else {
        ran.says("exec format error");
    }
    assert!(!canary.exists());
}

/// A program that makes an empty file.
#[cfg(target_arch = "x86_64")]
fn creating(path: &std::path::Path) -> Vec<u8> {
    // lea rdi, [rip+18]; mov esi, 0644; mov eax, 85 (creat); syscall; mov eax, 60 (exit); syscall
    let mut code = vec![0x48, 0x8d, 0x3d, 19, 0, 0, 0, 0xbe, 0xa4, 1, 0, 0, 0xb8, 85, 0, 0, 0, 0x0f, 0x05];
    code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    code.extend(path.to_str().unwrap().bytes().chain([0]));
    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    let size = 120 + code.len() as u64;
    out.extend([2, 62, 1, 0].iter().flat_map(|short: &u16| short.to_le_bytes()));
    out.extend([0x40_0078, 64, 0].iter().flat_map(|long: &u64| long.to_le_bytes()));
    out.extend([0, 0, 64, 56, 1, 0, 0, 0].iter().flat_map(|short: &u16| short.to_le_bytes()));
    out.extend([1, 0, 5, 0].iter().flat_map(|short: &u16| short.to_le_bytes()));
    out.extend(
        [0, 0x40_0000, 0x40_0000, size, size, 0x1000].iter().flat_map(|long: &u64| long.to_le_bytes()),
    );
    out.extend(code);
    out
}

/// An ELF program of 32 bits that ends with 42.
fn small(machine: u16, code: &[u8]) -> Vec<u8> {
    const BASE: u32 = 0x1_0000;
    const HEADERS: u32 = 52 + 32;
    let mut out = b"\x7fELF\x01\x01\x01".to_vec();
    out.resize(16, 0);
    let size = HEADERS + u32::try_from(code.len()).unwrap();
    out.extend([2, machine].iter().flat_map(|short: &u16| short.to_le_bytes()));
    // Its version, where it starts, where the segments are listed; no sections, and the fifth version of arm's ABI.
    let flags = if machine == 40 { 0x0500_0000 } else { 0 };
    out.extend([1, BASE + HEADERS, 52, 0, flags].iter().flat_map(|long: &u32| long.to_le_bytes()));
    out.extend([52, 32, 1, 0, 0, 0].iter().flat_map(|short: &u16| short.to_le_bytes()));
    let segment = [1, 0, BASE, BASE, size, size, 5, 0x1000];
    out.extend(segment.iter().flat_map(|long: &u32| long.to_le_bytes()));
    out.extend(code);
    out
}

#[test]
fn variants_of_a_machine_have_one_emulator() {
    let dir = tempfile::tempdir().unwrap();
    // mov r0, #42; mov r7, #1 (exit); svc 0
    let code = [0xe3a0_002a_u32, 0xe3a0_7001, 0xef00_0000].map(u32::to_le_bytes).concat();
    let program = dir.path().join("program");
    fs::write(&program, small(40, &code)).unwrap();
    let script = "mkdir d; cp ../small d/program; printf 'FROM scratch\\nCOPY --chmod=755 program /\\nCMD [\"/program\"]\\n' > d/Dockerfile; \
                  for variant in v5 v6 v7; do \
                      bw build -q --platform linux/arm/$variant -t $variant d > /dev/null; \
                      bw run --rm $variant || echo $?; \
                      printf 'FROM %s\\nRUN [\"/program\"]\\n' $variant | bw build --platform linux/arm/$variant - || :; \
                  done";
    let ran = with_files(&[(&program, "small")], script);
    if has_own_lists() {
        let ran =
            ran.says("did not complete successfully: exit code: 42").says_nothing_of("exec format error");
        assert_eq!(ran.ok(), "42\n42\n42\n");
    } else {
        ran.says("linux/arm/v7 needs an emulator");
    }
}

/// The user's own emulator, which a container runs as root of its namespace, that is as the user.
#[test]
fn a_container_can_not_write_the_emulator_of_the_user() {
    let script = format!(
        "mkdir bin; cp {QEMU} bin/qemu-aarch64-static; PATH=$PWD/bin:$PATH; sum=$(sha256sum < bin/qemu-aarch64-static); \
         bw run --rm -v $(command -v busybox):/own/busybox:ro --entrypoint /own/busybox arm sh -c '\
             /bin/busybox sleep 60 & \
             while [ $(/own/busybox readlink /proc/$!/exe) = /own/busybox ]; do :; done; \
             exec 9< /proc/$!/exe; kill $!; wait; echo gone; : > /proc/self/fd/9' || echo refused; \
         [ \"$sum\" = \"$(sha256sum < bin/qemu-aarch64-static)\" ] && echo whole"
    );
    let ran = as_user(&script);
    if has_own_lists() {
        assert_eq!(ran.ok(), "gone\nrefused\nwhole\n");
    } else {
        ran.says("exec format error");
    }
}

#[test]
fn steps_of_several_platforms_run_side_by_side() {
    base::busybox(cache());
    let script = format!(
        "cp $base c/busybox-arm64.tar; cp {0}/busybox.tar c/busybox-amd64.tar; \
         printf 'FROM scratch\nARG TARGETARCH\nADD busybox-$TARGETARCH.tar /\nRUN uname -m > /machine\n' > c/Dockerfile; \
         bw build --platform linux/amd64,linux/arm64 -o out c; cat out/*/machine",
        cache().display()
    );
    let ran = as_root(Some((QEMU, "F")), &script).says("[linux/arm64 2/2] RUN uname -m > /machine");
    assert_eq!(ran.ok(), "x86_64\naarch64\n");
}
