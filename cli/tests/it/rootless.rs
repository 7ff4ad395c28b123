//! `run` as a user other than root (`daemon`), with ranges of ids and with a single one. The user's files are removed by
//! root, which this process is.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use boxwright_testdata::peer::Registry;
use boxwright_testdata::{Ran, base};

use crate::tool::{Overlaid, Who, binary, cache};

pub(crate) const RANGES: &str = "daemon:300000:65536\n";
const USER: u32 = 1;

/// Runs a script as the user, in an empty home with the busybox image in a store; `bw` is the command under test.
pub(crate) fn as_user(ranges: &str, script: &str) -> Ran {
    as_user_with(ranges, &[], script)
}

/// What the home is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Directory,
    /// None can be mounted of what is in it.
    Overlay,
}

/// The same with these files beside the home.
pub(crate) fn as_user_with(ranges: &str, files: &[(&Path, &str)], script: &str) -> Ran {
    as_user_on(Place::Directory, ranges, files, script)
}

pub(crate) fn as_user_on(place: Place, ranges: &str, files: &[(&Path, &str)], script: &str) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy(binary(), path("program")).unwrap();
    let busybox = base::busybox(cache());
    for (file, name) in files.iter().chain(&[(busybox.as_path(), "busybox.tar")]) {
        fs::copy(file, path(name)).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::write(path("ranges"), ranges).unwrap();
    let _overlay = match place {
        Place::Directory => {
            fs::create_dir(path("home")).unwrap();
            chown(path("home"), Some(USER), Some(USER)).unwrap();
            None
        }
        Place::Overlay => Some(Overlaid::at(path("home"), Who::User)),
    };
    for file in ["/etc/subuid", "/etc/subgid"] {
        fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
    }
    let script = format!(
        "bw() {{ ../program --root $PWD/store \"$@\"; }}; bw load -q -i ../busybox.tar >/dev/null; {script}"
    );
    fs::write(path("script"), script).unwrap();
    // In a mount namespace, so that the machine's own files stay as they are; with a group that no container may have.
    let outer = "mount --bind ranges /etc/subuid && mount --bind ranges /etc/subgid && cd home && \
                 exec env HOME=$PWD setpriv --reuid 1 --regid 1 --groups 1,4 sh -eu ../script";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", outer]).current_dir(dir.path());
    command.env("HOME", path("home"));
    boxwright_testdata::run(&mut command)
}

#[test]
fn users_and_groups_are_those_of_the_ranges() {
    let script = "bw run --rm --init -u 1 --group-add 10 busybox sh -c 'id -u; id -G'; \
                  bw run --rm -v data:/x -u 1:1 --tmpfs /t:uid=1,mode=700 busybox sh -c 'touch /t/f && stat -c %u:%g /t/f'";
    assert_eq!(as_user(RANGES, script).ok(), "1\n1 10\n1:1\n");
}

/// Programs that say in the file `asked` that they were started, and are the machine's own from then on.
const TELLING_HELPERS: &str = "mkdir bin; for helper in newuidmap newgidmap; do \
    printf '#!/bin/sh\necho %s >> %s/asked; exec %s \"$@\"\n' $helper $PWD $(command -v $helper) > bin/$helper; \
    chmod +x bin/$helper; done; PATH=$PWD/bin:$PATH; asked() { sort -u asked | xargs; rm asked; }; ";

#[test]
fn ids_are_mapped_for_a_build_that_has_something_to_do_only() {
    let script = "mkdir c; echo a > c/f; printf 'FROM busybox\nRUN id -u > /id\nCOPY f /\n' > c/Dockerfile; \
                  bw build -q c > first; asked; bw build -q c > again; test ! -e asked; cmp first again; \
                  echo b > c/f; bw build -q c > changed; asked; cmp -s first changed || echo other; \
                  bw run --rm $(cat changed) cat /id /f; asked";
    let script = format!("{TELLING_HELPERS} bw images >/dev/null; rm -f asked; {script}");
    let helpers = "newgidmap newuidmap";
    assert_eq!(as_user(RANGES, &script).ok(), format!("{helpers}\n{helpers}\nother\n0\nb\n{helpers}\n"));
}

#[test]
fn what_only_a_mapped_user_may_read_is_read_for_a_build() {
    let script = "mkdir c; printf 'FROM busybox\nCOPY a d /d/\nRUN --mount=type=secret,id=s cp /run/secrets/s /s\n' > c/Dockerfile; \
                  bw run --rm -v $PWD/c:/c busybox sh -c \
                      'cd /c; mkdir a d; echo b > a/g; chmod 744 a; echo a > d/f; echo s > s; chmod 600 d/f s Dockerfile; \
                       chmod 700 d; chown -R 5:5 a d s Dockerfile'; \
                  cat c/d/f c/s c/Dockerfile 2>/dev/null || echo mine not; \
                  for built in first again; do bw build -q --secret id=s,src=c/s c > $built; done; cmp first again; \
                  bw run --rm $(cat first) cat /d/f /d/g /s; \
                  bw run --rm -v $PWD/c:/c busybox chown -R 0:0 /c; rm -r c";
    assert_eq!(as_user(RANGES, script).ok(), "mine not\na\nb\ns\n");
}

#[test]
fn helpers_are_not_looked_for_where_the_user_happens_to_be() {
    let script = "printf '#!/bin/sh\nexit 1\n' > newuidmap; chmod +x newuidmap; \
                  for path in .:$PATH :$PATH; do (PATH=$path; bw run --rm busybox sh -c 'wc -l < /proc/self/uid_map'); done";
    assert_eq!(as_user(RANGES, script).ok(), "2\n2\n");
}

#[test]
fn a_helper_that_maps_nothing_ends_a_build_with_what_it_said() {
    let script = "mkdir bin; printf '#!/bin/sh\necho no luck >&2; exit 1\n' > bin/newgidmap; chmod +x bin/newgidmap; \
                  PATH=$PWD/bin:$PATH; mkdir c; printf 'FROM busybox\nRUN true\n' > c/Dockerfile; \
                  bw build c || echo $?; bw volume ls || echo $?";
    let ran = as_user(RANGES, script);
    assert_eq!(ran.stdout, "1\n1\n", "{ran}");
    assert_eq!(ran.stderr.matches("\nError: mapping ids: newgidmap: no luck").count(), 2, "{ran}");
}

#[test]
fn a_limit_that_cannot_be_set_is_refused_and_none_is_no_obstacle() {
    let script = "bw run --rm busybox echo ran; bw run --rm -m 50m busybox echo limited || echo $?; \
                  bw run --rm --device /dev/zero:/x:r busybox echo given || echo $?";
    let ran = as_user(RANGES, script).says("the container's control group can't be made (for memory)");
    assert_eq!(
        ran.says("systemd-run --user --scope -p Delegate=yes").says("only real root can").ok(),
        "ran\n125\n125\n"
    );
}

#[test]
fn a_home_of_another_user_is_not_looked_into() {
    let homes = tempfile::tempdir().unwrap();
    fs::set_permissions(homes.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let home = |name: &str, directory: u32| {
        let config = homes.path().join(name).join(".config/boxwright/config.toml");
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        fs::write(&config, "nothing that can be read").unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(homes.path().join(name), fs::Permissions::from_mode(directory)).unwrap();
        homes.path().join(name).display().to_string()
    };
    let (hidden, seen) = (home("hidden", 0o700), home("seen", 0o755));
    let script = format!(
        "HOME={hidden} bw run --rm busybox echo ran; HOME={hidden} bw pull -q localhost:1/x || echo nobody; \
         HOME={seen} bw run busybox true || echo refused; \
         echo FROM scratch | HOME={hidden} bw build --check --progress rawjson - 2>&1 | grep -v '^{{'"
    );
    let ran = as_user(RANGES, &script).says("hidden/.config is not looked into: it is another user's");
    let ran = ran.says("Connection refused").says_nothing_of("certs.d");
    assert_eq!(
        ran.says("seen/.config/boxwright/config.toml: Permission denied").ok(),
        "ran\nnobody\nrefused\nCheck complete, no warnings found.\n"
    );
}

#[test]
fn volumes_stay_and_go() {
    let script = "bw run --rm -v data:/etc busybox sh -c 'stat -c %u:%g /etc /etc/passwd; echo mine > /etc/new'; \
                  bw run --rm -v data:/x:ro busybox cat /x/new; bw volume ls -q; bw volume rm data; \
                  bw run --rm -v /etc -v $PWD:/home/here busybox sh -c 'touch /etc/new /home/here/made'; \
                  stat -c %u made; bw volume ls -q";
    for ranges in [RANGES, ""] {
        assert_eq!(as_user(ranges, script).ok(), "0:0\n0:0\nmine\ndata\ndata\n1\n", "{ranges:?}");
    }
}

#[test]
fn rights_are_those_of_the_user_at_most() {
    let script = "bw run --rm --privileged busybox sh -c 'mkdir /m && mount -t tmpfs none /m && echo mounted'; \
                  bw run --rm --device /dev/zero:/z --device /dev/loop-control busybox sh -c \
                  'head -c 2 /z | wc -c; : < /dev/loop-control' || echo refused; \
                  bw run --rm --cap-drop ALL --security-opt no-new-privileges busybox grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status";
    for ranges in [RANGES, ""] {
        let out = as_user(ranges, script).says("/dev/loop-control: Permission denied").ok();
        assert_eq!(out, "mounted\n2\nrefused\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n", "{ranges:?}");
    }
    as_user(RANGES, "bw run --rm --privileged -v /tmp:/m:rslave busybox true")
        .fails_with(125)
        .says("need root");
    // Where the kernel keeps devices away by itself, nothing is said, and nothing taken.
    let script = "bw run --rm --cap-add SYS_ADMIN busybox grep CapBnd /proc/self/status";
    let ran = as_user(RANGES, script).says_nothing_of("With SYS_ADMIN");
    assert_eq!(ran.ok(), "CapBnd:\t00000000a82425fb\n");
}

#[test]
fn files_that_a_build_writes_out_belong_to_the_user() {
    let script = "mkdir c; echo A > c/a; printf 'FROM scratch\\nCOPY --chown=5:6 --chmod=750 a /d/b\\n' > c/Dockerfile; \
                  bw build -q -o out c; stat -c '%u %g %a' out/d/b";
    for ranges in [RANGES, ""] {
        assert_eq!(as_user(ranges, script).ok(), "1 1 750\n", "{ranges:?}");
    }
}

#[test]
fn certificates_are_trusted_in_a_users_steps_and_no_layer_has_them() {
    let script = "printf -- '-----BEGIN CERTIFICATE-----\\nCanary\\n-----END CERTIFICATE-----\\n' > ca; mkdir c; \
                  printf 'FROM busybox\\nRUN grep Canary /etc/ssl/certs/ca-certificates.crt; touch -d @1 /made\\n' > c/Dockerfile; \
                  bw build -q --ca-cert ca -t x c >/dev/null; bw build -q --no-cache -t y c >/dev/null; \
                  bw run --ca-cert ca x grep Canary /etc/ssl/certs/ca-certificates.crt; bw run x ls /etc/ssl || echo none; \
                  for i in x y; do bw image inspect $i | grep -A3 Layers; done | sort | uniq -c | awk '{ print $1 }' | uniq";
    for ranges in [RANGES, ""] {
        assert_eq!(as_user(ranges, script).ok(), "Canary\nnone\n2\n", "{ranges:?}");
    }
}

#[test]
fn a_failed_step_can_be_looked_into_by_a_user() {
    let build = |dockerfile: &str| format!("mkdir c; printf '{dockerfile}' > c/Dockerfile; bw build c || ");
    let script = build("FROM busybox\\nUSER 1\\nRUN echo half > /tmp/left; false\\n")
        + "bw debug shell ^ RUN sh -c 'cat /tmp/left; id -u'";
    assert_eq!(as_user(RANGES, &script).ok(), "half\n1\n");
    let script =
        build("FROM scratch\\nUSER 1\\nRUN [\"/x\"]\\n") + "printf 'id; echo $HOME' | bw debug shell ^ RUN";
    assert_eq!(as_user(RANGES, &script).ok(), "uid=1 gid=0 groups=0\n/\n");
}

/// Owners that are not the user's, in directories that nobody else may enter: images come, go and leave nothing.
#[test]
fn images_come_and_go() {
    let registry = Registry::start();
    let name = registry.name("x:1");
    let script = format!(
        "df() {{ bw system df --format '{{{{.Size}}}}' | tr '\\n' ' '; echo; }}; \
         printf 'FROM busybox\\nRUN mkdir /p && echo mine > /p/f && chown -R 5:6 /p && chmod 0 /p/f /p\\n' > d; \
         bw build -q -t {name} - < d > id; bw push -q {name} > /dev/null; bw save -o x.tar {name}; \
         bw rmi {name} > /dev/null; bw builder prune -af > /dev/null; \
         bw pull -q {name} > /dev/null; bw run --rm {name} cat /p/f; bw run --rm -u 5:5 {name} ls /p || echo no; \
         bw rmi {name} > /dev/null; bw load -q -i x.tar > /dev/null; bw run --rm {name} stat -c %u:%g:%a /p/f; \
         bw system check > /dev/null && echo whole; \
         bw system prune -af > /dev/null; df; mkdir -p store/caches; \
         ls -A store/layers store/caches store/blobs/sha256 store/tmp"
    );
    let out = as_user(RANGES, &script).ok();
    let (used, left) = out.split_once("whole\n").unwrap();
    assert_eq!(used, "mine\nno\n5:6:0\n");
    assert_eq!(left, "0B 0B 0B 0B \nstore/blobs/sha256:\n\nstore/caches:\n\nstore/layers:\n\nstore/tmp:\n");
}
