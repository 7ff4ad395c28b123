//! COPY and ADD with the flags that choose: what is copied, what is built again, and what a layer of its own knows.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use boxwright_testdata::base;
use boxwright_testdata::peer::Registry;

use crate::tool::{Boxwright, Context, cache};

/// Whether the step whose name ends with `step` was taken from the cache.
#[track_caller]
fn was_cached(output: &str, step: &str) -> bool {
    let named = |line: &&str| line.starts_with('#') && line.ends_with(step);
    let line = output.lines().find(named).unwrap_or_else(|| panic!("no {step} in {output}"));
    let number = line.split(' ').next().unwrap();
    output.lines().any(|line| line == format!("{number} CACHED"))
}

#[test]
fn a_change_of_what_is_excluded_builds_nothing_again() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\n\
         COPY --exclude=**/*.log --exclude=cache . /a\n\
         COPY --parents sub/*.c /b/\n\
         RUN find /a /b -type f | sort && echo ran-\"$((1))\"\n",
    )
    .file("one.txt", "1")
    .file("one.log", "1")
    .file("cache/x", "1")
    .file("sub/two.c", "2")
    .file("sub/two.log", "2");
    let output = boxwright.built(&context, &[]);
    let found: Vec<&str> = output.lines().filter_map(|line| line.split_once(" /")).map(|(_, p)| p).collect();
    assert!(found.contains(&"b/sub/two.c") && found.contains(&"a/one.txt"), "{output}");
    assert!(found.iter().all(|path| !path.ends_with(".log") && !path.starts_with("a/cache/")), "{output}");
    for path in ["one.log", "cache/x", "cache/new", "sub/two.log"] {
        context.write(path, "changed");
        let output = boxwright.built(&context, &[]);
        assert!(was_cached(&output, "COPY --exclude=**/*.log --exclude=cache . /a"), "{path}: {output}");
        assert!(!output.contains("ran-1"), "{path}: {output}");
    }
    context.write("three.txt", "3");
    let output = boxwright.built(&context, &[]);
    assert!(output.contains("ran-1"), "{output}");
}

#[test]
fn a_linked_copy_is_not_made_again_over_another_base() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\n\
         ARG SALT\n\
         RUN echo $SALT > /salt\n\
         COPY --link a /deep/er/a\n\
         ADD --link --chown=7:8 b /b\n",
    )
    .file("a", "1")
    .file("b", "2");
    let show = "cat /salt /deep/er/a && stat -c %u:%g /b";
    let steps = ["COPY --link a /deep/er/a", "ADD --link --chown=7:8 b /b"];
    for (salt, cached) in [("one", false), ("two", true)] {
        let output = boxwright.built(&context, &["--build-arg", &format!("SALT={salt}")]);
        for step in steps {
            assert_eq!(was_cached(&output, &format!("] {step}")), cached, "{output}");
        }
        assert_eq!(boxwright.output_of("x", &["sh", "-c", show]), format!("{salt}\n17:8\n"));
    }
    let layers = |name: &str| boxwright.inspect(name)["RootFS"]["Layers"].as_array().unwrap().clone();
    let (all, base) = (layers("x"), layers("busybox"));
    assert_eq!(all.len(), base.len() + 3, "each is one layer");
    let output = boxwright.built(&context, &["--build-arg", "SALT=two"]);
    assert!(was_cached(&output, "LINK ADD --link --chown=7:8 b /b"), "{output}");
    assert_eq!(layers("x"), all);
    context.write("a", "changed");
    let output = boxwright.built(&context, &["--build-arg", "SALT=two"]);
    assert!(
        !was_cached(&output, "4] COPY --link a /deep/er/a")
            && was_cached(&output, "4] ADD --link --chown=7:8 b /b"),
        "{output}"
    );
}

#[test]
fn a_linked_copy_moves_no_byte_of_its_base() {
    let (registry, boxwright) = (Registry::start(), Boxwright::new());
    let name = registry.push(&base::busybox(cache()), "busybox:1");
    let context = Context::new(&format!("FROM {name}\nCOPY --link a /a\nLABEL b=c\n")).file("a", "1");
    let target = registry.name("linked:1");
    boxwright.build(&context, &["-t", &target]).ok();
    boxwright.ok(&["push", "-q", &target]);
    let unpacked = fs::read_dir(boxwright.store().join("layers")).unwrap().count();
    assert_eq!(unpacked, 1, "the layer of the copy, and not that of the base");
    let other = Boxwright::new();
    assert_eq!(other.output_of(&target, &["cat", "/a"]), "1");
}

#[test]
fn a_linked_copy_lies_over_what_is_there() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\n\
         RUN mkdir -m 1777 /open && mkdir -m 0700 /real /kept && echo 1 > /open/before && \
             ln -s /real /link && ln -s nowhere /kept/link && mkdir -p /dir/sub && chown 5:6 /real /open\n\
         COPY --link f /link/\n\
         COPY --link f /open/f\n\
         COPY --link f /dir\n\
         COPY --link d /kept/\n\
         COPY --link --chmod=0600 f /real/mode\n",
    )
    .file("f", "f")
    .file("d/link", "file");
    boxwright.built(&context, &[]);
    let show = "stat -c '%n %F %a %u' /link /open /open/before /open/f /dir /kept /kept/link /real /real/mode; ls /real";
    let expected = "/link directory 755 0\n\
                    /open directory 755 0\n\
                    /open/before regular file 644 0\n\
                    /open/f regular file 644 0\n\
                    /dir regular file 644 0\n\
                    /kept directory 755 0\n\
                    /kept/link regular file 644 0\n\
                    /real directory 700 5\n\
                    /real/mode regular file 600 0\n\
                    mode\n";
    assert_eq!(boxwright.output_of("x", &["sh", "-c", show]), expected);
}

#[test]
fn parents_come_with_their_own_modes_from_contexts_and_stages() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox AS made\n\
         COPY --parents ./src/./*/*.h src/a/../a/one.c /in/\n\
         RUN mkdir -p /in/more && echo 1 > /in/more/x.o && chown -R 3:4 /in/more\n\
         FROM busybox\n\
         COPY --from=made --parents --exclude=**/*.o --chmod=go=u /in/./a /in/mor* /out/\n\
         RUN find /out | sort | xargs stat -c '%n %a %u:%g' && [ ! -e /out/src ]\n",
    )
    .file("src/a/one.c", "c")
    .file("src/a/one.h", "h")
    .file("src/b/two.h", "h");
    fs::set_permissions(context.join("src/a"), fs::Permissions::from_mode(0o750)).unwrap();
    let output = boxwright.built(&context, &[]);
    let shown: Vec<&str> = output
        .lines()
        .filter_map(|line| Some(&line[line.find(" /out")? + 1..]))
        .filter(|line| line.ends_with(char::is_numeric))
        .collect();
    let expected =
        ["/out 755 0:0", "/out/a 777 0:0", "/out/a/one.h 666 0:0", "/out/in 777 0:0", "/out/in/more 777 3:4"];
    assert_eq!(shown, expected, "{output}");
}

#[test]
fn a_missing_source_is_explained() {
    let boxwright = Boxwright::with_busybox();
    let context =
        Context::new("").file("src/main.c", "1").file("secret/key", "2").file(".dockerignore", "secret\n");
    for (dockerfile, says) in [
        (
            "FROM busybox\nCOPY src/mian.c /\n",
            &["\"/src/mian.c\": not found", "did you mean /src/main.c", context.path()][..],
        ),
        (
            "FROM busybox\nCOPY secret/key /\n",
            &["\"/secret/key\": not found", "the ignore file excludes it by \"secret\""],
        ),
        ("FROM busybox\nCOPY --parents src/x.c /\n", &["\"/src/x.c\": not found"]),
        (
            "FROM busybox AS made\nFROM busybox\nCOPY --from=made /bim/sh /\n",
            &["stage \"made\"", "did you mean /bin/sh"],
        ),
        ("FROM scratch\nCOPY --from=busybox /bin/shh /\n", &["image \"busybox\"", "did you mean /bin/sh"]),
        (
            "FROM busybox\nCOPY --link --chown=app src /\n",
            &["--chown=app", "with --link", "--chown=1000:1000"],
        ),
        ("FROM busybox\nCOPY --exclude=[ src /\n", &["syntax error in pattern", "Dockerfile:2"]),
    ] {
        context.write("Dockerfile", dockerfile);
        let ran = boxwright.build(&context, &[]);
        assert_eq!(ran.status, 1, "{ran}");
        for word in says {
            assert!(ran.stderr.contains(word), "{word:?} in {ran}");
        }
    }
}

#[test]
fn all_that_is_missing_is_told_before_anything_runs() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\n\
         RUN echo ran-$((1)) && sleep 60\n\
         COPY one two /\n\
         COPY there /\n\
         RUN --mount=source=three,target=/m true\n",
    )
    .file("there", "1");
    let ran = boxwright.build(&context, &[]);
    assert_eq!(ran.status, 1, "{ran}");
    for (path, place) in [("/one", "Dockerfile:3:6"), ("/three", "Dockerfile:5")] {
        assert!(
            ran.stderr.contains(&format!("\"{path}\": not found")) && ran.stderr.contains(place),
            "{ran}"
        );
    }
    assert!(!ran.stderr.contains("ran-1") && !ran.stderr.contains("\"/there\""), "{ran}");
}
