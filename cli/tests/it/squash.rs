//! `build --squash`: one layer of all that a build adds.

use boxwright_testdata::listing::Listing;
use boxwright_testdata::peer::Dockerd;
use serde_json::Value;

use crate::rootless::{RANGES, as_user};
use crate::tool::{Boxwright, Context};

const DOCKERFILE: &str = "FROM busybox\n\
    ENV A=b\n\
    RUN mkdir -p /big/d /t && dd if=/dev/zero of=/big/x bs=64k count=32 && touch /t/gone\n\
    RUN rm -r /big/x /t && rm /bin/vi && echo 1 > /one && ln /one /two && chown 12:34 /one\n\
    RUN rm -r /home && mkdir -m 0711 /home && echo new > /home/file\n\
    CMD [\"cat\", \"/two\"]\n";

fn layers(boxwright: &Boxwright, name: &str) -> Vec<String> {
    serde_json::from_value(boxwright.inspect(name)["RootFS"]["Layers"].clone()).unwrap()
}

/// All files of an image.
fn files(boxwright: &Boxwright, name: &str) -> Listing {
    let tar = boxwright.scratch("files.tar");
    let context = Context::new(&format!("FROM {name}\n"));
    boxwright.build(&context, &["-o", &format!("type=tar,dest={}", tar.display())]).ok();
    Listing::of_tar(&tar)
}

#[test]
fn what_a_build_adds_is_one_layer_with_the_same_files() {
    let (boxwright, dockerd) = (Boxwright::with_busybox(), Dockerd::start());
    let context = Context::new(DOCKERFILE);
    boxwright.build(&context, &["-t", "whole"]).ok();
    boxwright.build(&context, &["-t", "squashed", "--squash"]).ok();
    let (base, whole) = (layers(&boxwright, "busybox"), layers(&boxwright, "whole"));
    let squashed = layers(&boxwright, "squashed");
    assert_eq!((whole.len(), squashed.len()), (base.len() + 3, base.len() + 1));
    assert_eq!(squashed[..base.len()], base);
    let (expected, found) = (files(&boxwright, "whole"), files(&boxwright, "squashed"));
    assert!(found.entries.contains_key("two") && !found.entries.contains_key("bin/vi"));
    assert_eq!((found.entries, found.mtimes), (expected.entries, expected.mtimes));
    let history = boxwright.ok(&[
        "history",
        "--no-trunc",
        "--format",
        "{{.CreatedBy}} {{.Comment}} {{.Size}}",
        "squashed",
    ]);
    assert_eq!(history.matches("merge of 3 layers").count(), 1, "{history}");
    assert!(history.contains("touch /t/gone"), "{history}");
    assert_eq!(boxwright.inspect("squashed")["Config"], boxwright.inspect("whole")["Config"]);

    // What came and went is in no layer; others find in the archive what we do.
    let archive = boxwright.scratch("squashed.tar").display().to_string();
    boxwright.ok(&["save", "-o", &archive, "squashed"]);
    assert!(std::fs::metadata(&archive).unwrap().len() < boxwright_size(&boxwright, "whole") - (1 << 20));
    dockerd.docker(&["load", "-i", &archive]).says("Loaded image: squashed:latest").ok();
    let script = "cat /two && ls / /home && ! ls /bin/vi 2>/dev/null && stat -c %a:%u:%g /home /one";
    let seen = dockerd.docker(&["run", "--rm", "--network=host", "squashed", "sh", "-c", script]).ok();
    assert!(seen.ends_with("711:0:0\n644:12:34\n") && seen.contains("\nbig\n"), "{seen}");

    // Built again it is the same image, and a single new layer stays what it is.
    let id = boxwright.inspect("squashed")["Id"].clone();
    boxwright.build(&context, &["-t", "again", "--squash"]).ok();
    assert_eq!(boxwright.inspect("again")["Id"], id);
    let single = Context::new("FROM busybox\nCOPY a /a\n").file("a", "x");
    boxwright.build(&single, &["-t", "one"]).ok();
    boxwright.build(&single, &["-t", "same", "--squash"]).ok();
    assert_eq!(boxwright.inspect("one")["Id"], boxwright.inspect("same")["Id"]);
    boxwright
        .build(&context, &["--squash", "--cache-to", "type=inline"])
        .fails_with(1)
        .says("a cache in the image needs its layers as they are");
}

fn boxwright_size(boxwright: &Boxwright, name: &str) -> u64 {
    let archive = boxwright.scratch("size.tar").display().to_string();
    boxwright.ok(&["save", "-o", &archive, name]);
    std::fs::metadata(&archive).unwrap().len()
}

#[test]
fn with_an_epoch_a_squashed_image_is_the_same_for_everybody() {
    let epoch = ["--squash", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-q"];
    let build = |boxwright: &Boxwright, args: &[&str]| {
        let context = Context::new(DOCKERFILE);
        boxwright.build(&context, &[args, &epoch].concat()).ok().trim_end().to_owned()
    };
    let boxwright = Boxwright::with_busybox();
    let id = build(&boxwright, &["-t", "x"]);
    let dated = |image: &Value| image["Created"].as_str().unwrap().starts_with("2023-11-14T22:13:20");
    assert!(dated(&boxwright.inspect("x")));
    let context = Context::new(DOCKERFILE);
    let verified = boxwright.run(&[&["verify"], &epoch[..3], &[context.path()]].concat());
    assert_eq!(verified.ok().trim_end(), id);
    let script =
        format!("printf '{}' > Dockerfile; bw build {} .", DOCKERFILE.replace('\n', "\\n"), epoch.join(" "));
    assert_eq!(as_user(RANGES, &script).ok().trim_end(), id);
}
