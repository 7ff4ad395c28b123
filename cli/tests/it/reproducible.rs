//! With `SOURCE_DATE_EPOCH` the same input gives the same bytes: whoever builds, where, when, and on how many processors.

use std::fs;
use std::process::Command;

use boxwright_testdata::listing::Listing;
use boxwright_testdata::tar::Tar;
use boxwright_testdata::{base, run};

use crate::rootless::{RANGES, as_user};
use crate::tool::{Boxwright, Context, cache};

/// Later than what the base image holds, earlier than everything that the build makes.
const EPOCH: i64 = 1_700_000_000;

/// With `bw` for the command and the base image in its store: prints the hashes of an archive of each kind.
const SCRIPT: &str = r#"
    mkdir -p $CONTEXT/d && cd $CONTEXT
    printf 1 > d/a; printf 22 > d/b; ln d/b d/hard; ln -s a d/link; touch -d @1000000000.5 d/a
    chmod 755 d; chmod 644 d/a d/b
    tar -cf t.tar --owner 3 --group 4 d
    cat > Dockerfile <<'END'
FROM busybox AS tool
RUN mkdir /out && echo made > /out/x && ln /out/x /out/y && chmod 4755 /out/x
FROM busybox
WORKDIR /w/deep
COPY d /copied
COPY --from=tool /out /out
COPY --link --chown=7:8 d/b /linked
ADD t.tar /unpacked
RUN rm /copied/b && mkfifo /etc/pipe && head -c 3000000 /dev/zero > /w/zeros && echo new > /etc/motd
LABEL a=b
END
    for output in type=oci type=docker type=oci,compression=uncompressed type=oci,compression=zstd; do
        bw build -q --build-arg SOURCE_DATE_EPOCH=1700000000 -t app:1 -o $output,dest=image.tar . >&2
        sha256sum < image.tar
    done"#;

fn as_root(before: &str, wrapper: &str) -> String {
    let boxwright = Boxwright::new();
    fs::create_dir(boxwright.scratch("home")).unwrap();
    let script = format!(
        "bw() {{ {wrapper} {:?} --root $STORE \"$@\"; }}; STORE=$PWD/../store; {before}; bw load -q -i {:?} >&2; {SCRIPT}",
        crate::tool::binary(),
        base::busybox(cache())
    );
    run(Command::new("sh").args(["-euc", &script]).current_dir(boxwright.scratch("home"))).ok()
}

#[test]
fn the_same_input_gives_the_same_bytes_anywhere() {
    let first = as_root("CONTEXT=.", "");
    assert_eq!(first.lines().count(), 4);
    let elsewhere = as_root("umask 077; CONTEXT=some/where/else", "taskset -c 0");
    assert_eq!(elsewhere, first, "another umask, directory and number of processors");
    let user = as_user(
        RANGES,
        &format!("CONTEXT=c; bw() {{ $HOME/../program --root $HOME/store \"$@\"; }}; {SCRIPT}"),
    );
    assert_eq!(user.ok(), first, "an ordinary user");
}

const KNOWN: [(&str, &str); 4] = [
    ("type=oci,compression=zstd", "bbd2f012cd029b83324cdd1e422a0b39aee4ab700622b7e038bbc4c0bc5a3c62"),
    ("type=oci", "b39422c997fdfe9c0fe3dd2951b3452a8e499d31ff4b49c36529248549c431ee"),
    ("type=oci,compression=uncompressed", "f1b8735fc9688a1c67152edb7c2ca90f3175aae68512d5835836d632a5311e16"),
    ("type=docker", "1a6ca73541bf48f71c2fdb0fb38a2b143081ad8c646ce2b0705a2f911a411c4a"),
];

/// What a build gives must not change with an upgrade. Where it has to, raise `COMPATIBILITY` of the crate `cache`, say
/// so in the changelog, and put the new digests here.
#[test]
fn the_bytes_of_known_builds_are_those_of_this_compatibility_version() {
    let boxwright = Boxwright::new();
    let context = Context::new(
        "FROM scratch\nWORKDIR /w\nCOPY --chmod=640 --chown=70000:3000000 . /d/\nADD --chown=1:2 t.tar /a/\n\
         LABEL b=2 a=1\nENV X=\"y z\"\nCMD [\"/d/text\"]\n",
    );
    context.write("text", "some text\n".repeat(300_000));
    context.write(&format!("{}/é", "long".repeat(30)), "");
    let tar =
        Tar::new().mtime(7).dir("p", 0o1777).file("p/f", 0o4755, "f").symlink("l", "p/f").fifo("pipe", 0o600);
    context.write("t.tar", tar.finish());
    assert!(boxwright.ok(&["version"]).contains("Compatibility:  2\n"));
    let sums = KNOWN.map(|(output, _)| {
        let dest = boxwright.scratch("x.tar");
        let to = format!("{output},dest={}", dest.display());
        let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
        let args = ["--platform=linux/amd64", "-t", "x:1", "--build-arg", &epoch, "-o", &to];
        boxwright.build(&context, &args).ok();
        let sum = run(Command::new("sha256sum").arg(&dest)).ok();
        (output, sum[..64].to_owned())
    });
    assert_eq!(sums, KNOWN.map(|(output, sum)| (output, sum.to_owned())));
}

/// The times in the layers of an image, the lowest first.
fn times(boxwright: &Boxwright, image: &str) -> Vec<std::collections::BTreeMap<String, i64>> {
    let (tar, dir) = (boxwright.scratch("saved.tar"), boxwright.scratch("saved"));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir(&dir).unwrap();
    boxwright.ok(&["save", "-o", tar.to_str().unwrap(), image]);
    run(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&dir)).ok();
    let manifest: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.join("manifest.json")).unwrap()).unwrap();
    let layers = manifest[0]["Layers"].as_array().unwrap().iter();
    layers
        .map(|layer| Listing::of_tar(&dir.join(layer.as_str().unwrap())).mtimes.into_iter().collect())
        .collect()
}

#[test]
fn later_times_become_the_epoch_and_bases_stay() {
    let boxwright = Boxwright::with_busybox();
    let context =
        Context::new("FROM busybox\nCOPY old new /\nRUN touch /made\n").file("old", "1").file("new", "2");
    run(Command::new("touch").args(["-d", "@1000000000"]).arg(context.join("old"))).ok();
    let layers = |at: i64| {
        boxwright.built(&context, &["--build-arg", &format!("SOURCE_DATE_EPOCH={at}")]);
        times(&boxwright, "x")
    };
    let base = times(&boxwright, "busybox").remove(0);
    let of = |layers: &[std::collections::BTreeMap<String, i64>]| {
        (layers[1]["old"], layers[1]["new"], layers[2]["made"])
    };
    let later = layers(EPOCH);
    assert_eq!(of(&later), (1_000_000_000, EPOCH, EPOCH));
    // The steps are not run again for another epoch, nor without one.
    let earlier = layers(900_000_000);
    assert_eq!(of(&earlier), (900_000_000, 900_000_000, 900_000_000));
    assert_eq!((&earlier[0], &later[0]), (&base, &base));
    let without = boxwright.built(&context, &[]);
    assert_eq!(without.matches("CACHED").count(), 3, "{without}");
    assert!(of(&times(&boxwright, "x")).2 > EPOCH);
    assert_eq!(of(&layers(EPOCH)), of(&later), "it is found again");
}

#[test]
fn what_an_image_with_an_epoch_holds_is_as_old_as_it_says() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch\nCOPY --from=base /f /g\n").file("f", "1");
    let base = Context::new("FROM scratch\nCOPY f /f\n").file("f", "1");
    let epoch = format!("SOURCE_DATE_EPOCH={EPOCH}");
    boxwright.build(&base, &["-t", "base", "--build-arg", &epoch]).ok();
    boxwright.built(&context, &[]);
    assert_eq!(times(&boxwright, "x")[0]["g"], EPOCH);
    // Both images name the directory of one layer: it stays until neither does.
    boxwright.build(&base, &["-t", "undated"]).ok();
    for gone in ["base", "undated"] {
        assert_eq!(boxwright.ok(&["system", "check"]).lines().count(), 1);
        boxwright.ok(&["rmi", gone]);
        boxwright.ok(&["builder", "prune", "-a", "-f"]);
    }
    assert_eq!(times(&boxwright, "x")[0]["g"], EPOCH);
    boxwright.ok(&["rmi", "x"]);
    boxwright.ok(&["builder", "prune", "-a", "-f"]);
    assert_eq!(fs::read_dir(boxwright.store().join("layers")).unwrap().count(), 0);
}
