//! Root and an ordinary user with ranges of ids make the same images, to the byte: every Dockerfile of
//! `testdata/equality`, built by each of them at a fixed time. They run real programs: GNU tar, setcap, useradd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use boxwright_testdata::tar::Tar;
use boxwright_testdata::{Ran, base, run};

use crate::rootless::{Place, RANGES, as_user_on, as_user_with};
use crate::tool::{Boxwright, Who, binary, cache};

const CASES: &str = "../testdata/equality";

/// Each becomes `/tools/bin/NAME`, with the libraries that it is linked with.
const PROGRAMS: &str = "tar setcap useradd groupadd";

const BUNDLE: &str = r#"
    mkdir -p tools/bin tools/lib
    for program in $PROGRAMS; do
        file=$(readlink -f "$(command -v $program)")
        cp "$file" tools/lib/$program
        for library in $(ldd "$file" | grep -o '/[^ ]*'); do cp -L "$library" tools/lib/; done
        interpreter=$(basename "$(ldd "$file" | grep -o '/[^ ]*/ld-[^ ]*')")
        printf '#!/bin/sh\nexec /tools/lib/%s --library-path /tools/lib /tools/lib/%s "$@"\n' $interpreter $program > tools/bin/$program
        chmod 755 tools/bin/$program
    done
    mkdir -p tree/deep/er && echo a > tree/a && echo b > tree/deep/b && echo c > tree/deep/er/c.skip && ln -s deep/b tree/link
    printf '#!/bin/sh\necho here\n' > tree/script
    chmod 755 tree tree/deep tree/deep/er tree/script; chmod 640 tree/a; chmod 604 tree/deep/b tree/deep/er/c.skip
    printf 'FROM busybox\nCOPY tools /tools\nENV PATH=/tools/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' > tools.Dockerfile
    cp $EQUALITY/*.Dockerfile .
    tar -cf context.tar --owner 0 --group 0 --mtime @1000000000 --sort name tools tree owners.tar devices.tar *.Dockerfile"#;

/// Builds all, the bases of others first, and prints the name and the digest of each image.
const BUILD: &str = r#"
    mkdir c; tar -xpf $CONTEXT -C c; echo secret > s
    export SOURCE_DATE_EPOCH=1700000000
    for file in c/tools.Dockerfile c/triggers.Dockerfile c/*.Dockerfile; do
        name=$(basename $file .Dockerfile)
        echo "$name $(bw build -q --secret id=s,src=s -t $name -f $file c)"
    done"#;

/// All files of one image, as a digest.
const ALL: &str = "bw build -q -o type=tar,dest=all.tar -f c/users.Dockerfile c; sha256sum < all.tar";

/// Files with owners, bits, links and attributes, as an archive has them.
fn owners() -> Vec<u8> {
    let capability = "\u{1}\0\0\u{2}\0\u{4}\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut tar = Tar::new().mtime(1_000_000_000).owner(1000, 2000).dir("d", 0o3750).owner(0, 0);
    tar = tar.file("root", 0o644, "r").owner(65535, 65534).file("d/high", 0o4755, "h");
    tar = tar.hard_link("d/hard", "d/high").symlink("d/soft", "high").fifo("d/pipe", 0o604);
    tar = tar.pax(b'x', &[("SCHILY.xattr.user.note", "kept"), ("SCHILY.xattr.user.other", "")]);
    tar = tar.owner(7, 8).file("d/noted", 0o600, "n");
    tar = tar.pax(b'x', &[("SCHILY.xattr.security.capability", capability)]).file("d/capable", 0o755, "c");
    tar = tar.pax(b'x', &[("SCHILY.xattr.user.note", "of a directory")]).dir("d/sub", 0o2700);
    tar.owner(40000, 50000).file("d/sub/deep", 0o640, "d").symlink("d/sub/away", "/nowhere").finish()
}

fn devices() -> Vec<u8> {
    let tar = Tar::new().mtime(1_000_000_000).device("null", b'3', 1, 3).device("disk", b'4', 259, 70000);
    let tar =
        tar.hard_link("link", "disk").owner(9, 10).device("loop", b'4', 7, 0).device("gone", b'3', 5, 1);
    tar.dir("sub", 0o755).device("sub/zero", b'3', 1, 5).file("sub/empty", 0o644, "").finish()
}

fn context(dir: &Path) -> PathBuf {
    let equality = Path::new(env!("CARGO_MANIFEST_DIR")).join(CASES);
    fs::write(dir.join("owners.tar"), owners()).unwrap();
    fs::write(dir.join("devices.tar"), devices()).unwrap();
    let mut command = Command::new("sh");
    command.args(["-euc", BUNDLE]).current_dir(dir).env("EQUALITY", equality).env("PROGRAMS", PROGRAMS);
    run(&mut command).ok();
    dir.join("context.tar")
}

fn as_root(context: &Path, and_then: &str) -> Ran {
    built_by_root(&Boxwright::with_busybox(), context, and_then)
}

fn built_by_root(boxwright: &Boxwright, context: &Path, and_then: &str) -> Ran {
    let home = boxwright.scratch("home");
    fs::create_dir(&home).unwrap();
    let (program, store) = (binary(), boxwright.store());
    let script = format!("bw() {{ {program:?} --root {store:?} \"$@\"; }}; {BUILD}; {and_then}");
    run(Command::new("sh").args(["-euc", &script]).current_dir(home).env("CONTEXT", context))
}

#[test]
fn root_and_a_user_make_the_same_images() {
    let dir = tempfile::tempdir().unwrap();
    let context = context(dir.path());
    // What is equal could be missing in both.
    let look = "for name in capabilities tar devices owners; do \
                    bw build -q -o type=tar,dest=$name.tar --secret id=s,src=s -f c/$name.Dockerfile c; \
                    tar --xattrs --xattrs-include='*' --numeric-owner -tvvf $name.tar > $name.txt; \
                done; cat capabilities.txt tar.txt devices.txt owners.txt | grep -v -e busybox -e tools/";
    let root = as_root(&context, &format!("echo; {ALL}; {look}")).ok();
    let (root, listing) = root.split_once("\n\n").unwrap();
    let cases = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(CASES)).unwrap().count();
    // Those that others begin with are built twice, and there is one more for the tools.
    assert_eq!(root.lines().filter(|line| line.contains(" sha256:")).count(), cases + 3, "{root}");
    for words in [
        &["-rwx------*", "0/0", "caps/again"][..],
        &["-rwxr-xr-x*", "9/9", "chowned/net"],
        &["x: 20 security.capability"],
        &["x: 4 user.note"],
        &["brw-", "259,70000", "copied/disk"],
        &["crw-r-----", "7/8", "1,3", "chowned"],
        &["-rwsr-sr-x", "7/8", "o/b"],
        &["40000/50000", "etc/passwd"],
        &["prw--w----", "12/13", "o/pipe"],
    ] {
        let found = listing.lines().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no line with {words:?} in {listing}");
    }
    let script = format!("CONTEXT=../context.tar; {BUILD}");
    let user = as_user_with(RANGES, &[(&context, "context.tar")], &script).ok();
    assert_eq!(user.trim_end(), root);
    let files = listing.lines().find(|line| line.ends_with("  -")).unwrap();
    assert_same_in_copies(&context, root, files);
}

/// Where no overlay can be mounted, the files are the same, and so are the images, but for one: its steps open
/// `/etc/.pwd.lock` and leave it as it is, which only an overlay takes for a change.
fn assert_same_in_copies(context: &Path, elsewhere: &str, files: &str) {
    let without = |images: &str| {
        let lines = images.lines().filter(|line| !line.starts_with("users "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let root = built_by_root(&Boxwright::on_overlay(Who::Root), context, ALL).ok();
    let script = format!("CONTEXT=../context.tar; {BUILD}; {ALL}");
    let user = as_user_on(Place::Overlay, RANGES, &[(context, "context.tar")], &script).ok();
    for copied in [root, user] {
        let (images, all) = copied.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(without(images), without(elsewhere));
        assert_eq!(all, files);
    }
}

/// Packages with capabilities, set-group-id bits and users of their own; what tells of the day is removed.
#[test]
fn packages_of_debian_are_installed_alike() {
    let debian = base::debian(cache());
    let script = "bw load -q -i $DEBIAN > /dev/null; export SOURCE_DATE_EPOCH=1700000000; \
                  bw build -q -t x -f - . < $DOCKERFILE; \
                  bw run --rm x sh -c 'getcap /bin/ping; stat -c %A:%U:%G /usr/bin/crontab; id app'";
    let dir = tempfile::tempdir().unwrap();
    let dockerfile = dir.path().join("Dockerfile");
    let text = "FROM debian:bookworm-slim\nARG SOURCE_DATE_EPOCH\n\
                RUN apt-get update && apt-get install -y --no-install-recommends iputils-ping cron \\\n\
                    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*\n\
                RUN useradd --create-home app && install -o app -m 4750 /bin/true /usr/local/bin/own\n";
    fs::write(&dockerfile, text).unwrap();
    let boxwright = Boxwright::new();
    let (home, store) = (boxwright.scratch("home"), boxwright.store());
    fs::create_dir(&home).unwrap();
    let by_root = format!("bw() {{ {:?} --root {store:?} \"$@\"; }}; {script}", binary());
    let mut command = Command::new("sh");
    command.args(["-euc", &by_root]).current_dir(home).env("DEBIAN", &debian).env("DOCKERFILE", &dockerfile);
    let root = run(&mut command).ok();
    let (_, says) = root.split_once('\n').unwrap();
    assert_eq!(
        says,
        "/bin/ping cap_net_raw=ep\n-rwxr-sr-x:root:crontab\nuid=1000(app) gid=1000(app) groups=1000(app)\n"
    );
    let by_user = format!("DEBIAN=../debian.tar; DOCKERFILE=../Dockerfile; {script}");
    let user = as_user_with(RANGES, &[(&debian, "debian.tar"), (&dockerfile, "Dockerfile")], &by_user);
    assert_eq!(user.ok(), root);
}

#[test]
fn ids_that_a_user_does_not_have_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("big.tar");
    fs::write(&tar, Tar::new().owner(7, 65537).file("f", 0o644, "f").finish()).unwrap();
    let script = "cp ../big.tar .; printf 'FROM busybox\\nCOPY --chown=70000 big.tar /x\\n' > Dockerfile; \
                  bw build -t x . || echo no; printf 'FROM scratch\\nADD big.tar /\\n' | bw build -t x -f - . || echo no; \
                  bw images -q | wc -l; bw system check > /dev/null && echo whole";
    let ran = as_user_with(RANGES, &[(&tar, "big.tar")], script);
    let ran = ran.says(
        "x: the ranges of this user in /etc/subuid and /etc/subgid have no ids for user 70000 and group 70000",
    );
    let ran = ran.says("have no ids for user 7 and group 65537");
    assert_eq!(ran.ok(), "no\nno\n1\nwhole\n");
}
