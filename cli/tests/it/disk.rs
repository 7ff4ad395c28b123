//! What takes how much of the disk (`system df`), what `builder prune` removes, and whether it is what it was (`system
//! check`).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use boxwright_testdata::run;

use crate::tool::{Boxwright, Context, Running, binary, eventually};

const MIB: u64 = 1 << 20;

/// Three layers of 2, 3 and 4 MB, each made by a step, and a cache mount of 5.
fn built() -> (Boxwright, Context) {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\nRUN dd if=/dev/urandom of=/two bs=1M count=2\nRUN dd if=/dev/urandom of=/three bs=1M count=3\n\
         RUN --mount=type=cache,id=five,target=/c dd if=/dev/urandom of=/c/five bs=1M count=5 && dd if=/dev/urandom of=/four bs=1M count=4\n",
    );
    boxwright.build(&context, &[]).ok();
    (boxwright, context)
}

/// A column of `system df` for the build cache.
fn cache(boxwright: &Boxwright, field: &str) -> String {
    let lines = boxwright.ok(&["system", "df", "--format", &format!("{{{{.Type}}}}={{{{.{field}}}}}")]);
    let line = lines.lines().find(|line| line.starts_with("Build Cache=")).unwrap();
    line.split_once('=').unwrap().1.to_owned()
}

fn megabytes(size: &str) -> f64 {
    size.strip_suffix("MB").unwrap_or_else(|| panic!("{size} is not in MB")).parse().unwrap()
}

#[test]
fn df_counts_what_is_allocated_and_whose_it_is() {
    let (boxwright, context) = built();
    let own = 14.0 * MIB as f64 / 1e6;
    // Nothing is named, but the build left an image with the three layers.
    assert!((5.2..5.5).contains(&megabytes(&cache(&boxwright, "Size"))), "{}", cache(&boxwright, "Size"));
    boxwright.ok(&["image", "prune", "-f"]);
    let alone = megabytes(&cache(&boxwright, "Size"));
    assert!((own..own + 0.3).contains(&alone), "{alone} MB for {own}");
    boxwright.build(&context, &["-t", "named"]).ok();
    assert!((5.2..5.5).contains(&megabytes(&cache(&boxwright, "Size"))));

    let table = boxwright.ok(&["system", "df"]);
    let kinds: Vec<&str> = table.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(kinds, ["TYPE", "Images", "Containers", "Local Volumes", "Build Cache"]);
    let details = boxwright.ok(&["system", "df", "-v"]);
    for known in ["named", "busybox", "exec.cachemount", "five", "RUN dd if=/dev/urandom of=/two"] {
        assert!(details.contains(known), "no {known} in {details}");
    }
}

#[test]
fn pruning_keeps_what_was_used_last() {
    let (boxwright, context) = built();
    boxwright.ok(&["image", "prune", "-f"]);
    boxwright.ok(&["builder", "prune", "-af", "--filter", "until=1h"]);
    assert!(megabytes(&cache(&boxwright, "Size")) > 14.0, "nothing is that old");
    // As if the cache mount had been used last.
    let caches = std::fs::read_dir(boxwright.store().join("caches")).unwrap();
    for cache in caches {
        let lock = std::fs::File::options().write(true).open(cache.unwrap().path().join("lock")).unwrap();
        lock.set_modified(SystemTime::now() + Duration::from_secs(60)).unwrap();
    }
    for [one, other] in [["8MB", "1kB"], ["1kB", "8MB"]] {
        let limits = ["--keep-storage", one, "--max-used-space", other];
        boxwright.run(&[&["builder", "prune", "-af"], &limits[..]].concat()).says("Total:").ok();
    }
    assert!((5.2..8.4).contains(&megabytes(&cache(&boxwright, "Size"))), "{}", cache(&boxwright, "Size"));
    assert!(boxwright.ok(&["system", "df", "-v"]).contains("five"));
    boxwright.build(&context, &[]).ok();
    boxwright
        .run(&["builder", "prune", "-af", "--filter", "name=x"])
        .says("only until=DURATION")
        .fails_with(1);
    boxwright.run(&["builder", "prune", "-af", "--filter", "until=x"]).says("invalid duration").fails_with(1);
    for flag in ["--keep-storage", "--reserved-space", "--max-used-space"] {
        boxwright.run(&["builder", "prune", "-af", flag, "x"]).says("invalid size").fails_with(1);
    }
}

#[test]
fn what_a_container_and_a_step_use_is_not_removed() {
    let (boxwright, _) = built();
    let context = Context::new(
        "FROM busybox\nRUN --mount=type=cache,id=used,target=/c touch /c/x; echo begun; while [ ! -e /c/go ]; do sleep 0.01; done\n",
    );
    let mut command = boxwright.command(&["build", "--progress", "plain", context.path()]);
    let mut build = Running::start(command.stderr(Stdio::null()));
    let caches = boxwright.store().join("caches");
    let used = || {
        let entries = std::fs::read_dir(&caches).unwrap().map(|entry| entry.unwrap().path().join("data"));
        entries.into_iter().find(|data| data.join("x").exists())
    };
    eventually("the step runs", || used().is_some());
    boxwright.ok(&["system", "prune", "-af"]);
    let data = used().expect("it is in use");
    std::fs::write(data.join("go"), "").unwrap();
    assert_eq!(build.wait(), 0);
}

#[test]
fn a_limit_that_is_no_size_is_refused() {
    let boxwright = Boxwright::with_busybox();
    let mut images = boxwright.command(&["images"]);
    boxwright_testdata::run(images.env("BOXWRIGHT_KEEP_STORAGE", "x")).says("invalid size").fails_with(1);
}

/// Every regular file of the store's layers that is called `name`.
fn files_called(boxwright: &Boxwright, name: &str) -> Vec<PathBuf> {
    let layers = std::fs::read_dir(boxwright.store().join("layers")).unwrap();
    layers.map(|layer| layer.unwrap().path().join(name)).filter(|path| path.is_file()).collect()
}

#[test]
fn a_check_finds_a_changed_byte_and_a_repair_makes_the_next_build_right() {
    let (boxwright, context) =
        (Boxwright::with_busybox(), Context::new("FROM busybox\nRUN echo right > /a\nRUN cp /a /b\n"));
    boxwright.build(&context, &["-t", "named"]).ok();
    assert!(boxwright.ok(&["system", "check"]).ends_with(": 0 wrong\n"));
    let [damaged] = &files_called(&boxwright, "b")[..] else { panic!("one layer has it") };
    std::fs::write(damaged, "wrong\n").unwrap();
    boxwright.run(&["system", "check"]).says("files are not what they were").says("1 wrong").fails_with(1);
    boxwright.run(&["system", "check", "--repair"]).says("gave up image docker.io/library/named:latest").ok();
    assert!(boxwright.ok(&["system", "check"]).ends_with(": 0 wrong\n"));
    boxwright.run(&["run", "--rm", "--pull", "never", "named"]).fails_with(125);
    boxwright.build(&context, &["-t", "named"]).says("CACHED").ok();
    assert_eq!(boxwright.output_of("named", &["cat", "/b"]), "right\n");
}

#[test]
fn a_repair_takes_a_layer_from_its_archive_again() {
    let boxwright = Boxwright::with_busybox();
    assert_eq!(boxwright.output_of("busybox", &["echo", "unpacked"]), "unpacked\n");
    let layers = boxwright.store().join("layers");
    for layer in std::fs::read_dir(&layers).unwrap() {
        std::fs::remove_dir_all(layer.unwrap().path()).unwrap();
    }
    let archives = walk(&boxwright.store().join("blobs"));
    boxwright.run(&["system", "check"]).says("its directory is missing").fails_with(1);
    boxwright.run(&["system", "check", "--repair"]).says_nothing_of("gave up").ok();
    assert_eq!(boxwright.output_of("busybox", &["echo", "again"]), "again\n");
    std::fs::write(&archives[0], "something else").unwrap();
    boxwright.run(&["system", "check"]).says("holds something else").fails_with(1);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn a_store_by_a_relative_path_is_written_to_the_disk_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let context = Context::new("FROM scratch\nCOPY file /\n").file("file", "content");
    let mut build = Command::new(binary());
    build.current_dir(&dir).args(["--root", "a-relative-store", "build", "-q", context.path()]);
    run(&mut build).ok();
    // The sync, which nobody waits for, keeps room for removals on a full disk when it is done.
    let reserve = dir.path().join("a-relative-store/reserve/0");
    eventually("the store is written to the disk", || reserve.exists());
    assert!(!Path::new("/a-relative-store").exists());
}

#[test]
fn what_is_deep_goes_with_few_descriptors() {
    let boxwright = Boxwright::with_busybox();
    // Twice as deep as a path can name.
    let deep = "mkdir /d && cd /d && for n in $(seq 3); do mkdir -p $(printf 'd/%.0s' $(seq 1300)) && \
         for m in $(seq 13); do cd -P $(printf 'd/%.0s' $(seq 100)) || exit 1; done; done; echo deep > file";
    boxwright.build(&Context::new(&format!("FROM busybox\nRUN {deep}\n")), &["-t", "deep"]).ok();
    boxwright.ok(&["rmi", "deep"]);
    let with_few = |args: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n 200; exec \"$@\"", "sh"]).arg(binary());
        run(shell.arg("--root").arg(boxwright.store()).args(args)).ok()
    };
    with_few(&["builder", "prune", "-a", "-f"]);
    with_few(&["system", "prune", "-a", "-f"]);
    assert_eq!(with_few(&["images", "-q"]), "");
    for place in ["layers", "tmp"] {
        assert_eq!(std::fs::read_dir(boxwright.store().join(place)).unwrap().count(), 0, "{place}");
    }
}
