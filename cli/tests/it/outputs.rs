//! `build -o`: where the result goes, and what other tools make of it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use boxwright_testdata::listing::Listing;
use boxwright_testdata::peer::{Dockerd, Registry, skopeo};
use boxwright_testdata::run;

use crate::tool::{Boxwright, Context};

/// Files with what a directory can get wrong: modes, owners, links of both kinds, times.
fn context() -> Context {
    Context::new(
        "FROM busybox AS made\n\
         RUN mkdir -p /o/d/e && echo A > /o/d/a && ln /o/d/a /o/d/e/hard && ln -s /etc /o/link && \\\n\
         mkfifo /o/pipe && chown 12:34 /o/d/a && chmod 4750 /o/d/a && chmod 0500 /o/d/e && touch -d '2001-02-03 04:05:06' /o/d /o/d/a\n\
         FROM scratch\n\
         COPY --from=made /o /\n",
    )
}

#[test]
fn a_directory_gets_the_files_and_they_are_ours() {
    let (boxwright, context) = (Boxwright::with_busybox(), context());
    let dest = boxwright.scratch("new/out");
    boxwright.build(&context, &["-o", dest.to_str().unwrap()]).ok();
    let names: Vec<String> = Listing::of_dir(&dest).entries.into_keys().collect();
    assert_eq!(names, ["d", "d/a", "d/e", "d/e/hard", "link", "pipe"]);
    let a = fs::metadata(dest.join("d/a")).unwrap();
    assert_eq!((a.uid(), a.gid(), a.mode() & 0o7777), (0, 0, 0o750));
    assert_eq!(a.ino(), fs::metadata(dest.join("d/e/hard")).unwrap().ino());
    assert_eq!(fs::metadata(dest.join("d")).unwrap().mtime(), a.mtime());
    assert_eq!(a.mtime(), 981_173_106);
    assert_eq!(fs::metadata(dest.join("d/e")).unwrap().permissions().mode() & 0o777, 0o500);
    assert_eq!(fs::read_link(dest.join("link")).unwrap().to_str(), Some("/etc"));
    assert_eq!(boxwright.ok(&["images", "-q"]).lines().count(), 1, "busybox, and no image of the build");
}

#[test]
fn what_an_image_may_do_its_files_in_a_directory_may_not() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch\nCOPY . /\n").file("able", "x").file("shared/x", "x");
    let set =
        |name: &str, mode| fs::set_permissions(context.join(name), fs::Permissions::from_mode(mode)).unwrap();
    set("able", 0o6755);
    set("shared", 0o3777);
    // CAP_NET_RAW, as setcap writes it.
    let capability = [&[1, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat();
    let (name, flags) = ("security.capability", rustix::fs::XattrFlags::empty());
    rustix::fs::setxattr(context.join("able"), name, &capability, flags).unwrap();
    let node = context.join("zero").display().to_string();
    run(Command::new("mknod").args([&node, "c", "1", "5"])).ok();
    let dest = boxwright.scratch("out");
    boxwright.build(&context, &["-o", dest.to_str().unwrap()]).ok();
    let mode = |name: &str| fs::metadata(dest.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("able"), mode("shared")), (0o755, 0o1777));
    let kept = rustix::fs::getxattr(dest.join("able"), name, &mut [0; 64][..]);
    assert_eq!(kept, Err(rustix::io::Errno::NODATA));
    assert!(!dest.join("zero").exists());
    // The image itself has all of it.
    boxwright.build(&context, &["-t", "able"]).ok();
    boxwright.build(&context, &["-o", &format!("type=tar,dest={}", boxwright.scratch("tar").display())]).ok();
    let listed = run(Command::new("tar").arg("-tvf").arg(boxwright.scratch("tar"))).ok();
    assert!(listed.contains("-rwsr-sr-x") && listed.lines().any(|line| line.starts_with('c')), "{listed}");
}

#[test]
fn what_the_directory_has_besides_stays() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch\nCOPY a /d/a\nCOPY a /was-dir\n").file("a", "new");
    let dest = boxwright.scratch("out");
    for (name, text) in [("d/a", "old"), ("d/other", "mine"), ("was-dir/x/y", "gone")] {
        fs::create_dir_all(dest.join(name).parent().unwrap()).unwrap();
        fs::write(dest.join(name), text).unwrap();
    }
    boxwright.build(&context, &["-o", &format!("type=local,dest={}", dest.display())]).ok();
    let text = |name: &str| fs::read_to_string(dest.join(name)).unwrap();
    assert_eq!((text("d/a"), text("d/other"), text("was-dir")), ("new".into(), "mine".into(), "new".into()));
}

#[test]
fn links_in_the_directory_lead_nowhere() {
    let boxwright = Boxwright::new();
    let context =
        Context::new("FROM scratch\nCOPY a /d/e/a\nCOPY a /b\nCOPY a /c\nCOPY a /up/a\n").file("a", "new");
    let (dest, outside) = (boxwright.scratch("out"), boxwright.scratch("outside"));
    fs::create_dir_all(outside.join("e")).unwrap();
    fs::create_dir(&dest).unwrap();
    fs::write(outside.join("file"), "secret").unwrap();
    let before = Listing::of_dir(&outside);
    symlink(&outside, dest.join("d")).unwrap();
    symlink(outside.join("file"), dest.join("b")).unwrap();
    symlink("../outside", dest.join("up")).unwrap();
    fs::hard_link(outside.join("file"), dest.join("c")).unwrap();
    boxwright.build(&context, &["-o", dest.to_str().unwrap()]).ok();
    let now = Listing::of_dir(&outside);
    assert_eq!((now.entries, now.mtimes), (before.entries, before.mtimes));
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "secret");
    for name in ["d/e/a", "b", "c", "up/a"] {
        let path = dest.join(name);
        assert!(fs::symlink_metadata(&path).unwrap().is_file(), "{name}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new", "{name}");
    }
    assert!(fs::symlink_metadata(dest.join("d")).unwrap().is_dir());
}

#[test]
fn several_outputs_come_of_one_build() {
    let (boxwright, context) = (Boxwright::with_busybox(), context());
    let (dir, tar) = (boxwright.scratch("out"), boxwright.scratch("out.tar"));
    let to_tar = format!("type=tar,dest={}", tar.display());
    boxwright.build(&context, &["-o", dir.to_str().unwrap(), "-o", &to_tar, "-o", "type=cacheonly"]).ok();
    let (in_dir, in_tar) = (Listing::of_dir(&dir), Listing::of_tar(&tar));
    assert!(in_dir.entries.keys().eq(in_tar.entries.keys()), "{:?}", in_tar.entries);
    assert_eq!(boxwright.ok(&["images", "-q"]).lines().count(), 1);
    let again = boxwright.build(&context, &["-o", "type=cacheonly"]);
    assert_eq!(again.stderr.matches("CACHED").count(), 3, "{again}");
}

#[test]
fn platforms_have_directories_of_their_own_or_one_together() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n")
        .file("amd64/d/amd64", "x")
        .file("arm64/d/arm64", "y");
    let (dest, tar) = (boxwright.scratch("out"), boxwright.scratch("out.tar"));
    let build = |platforms: &str, options: &str| {
        let local = format!("type=local,dest={}{options}", dest.display());
        let to_tar = format!("type=tar,dest={}{options}", tar.display());
        boxwright.build(&context, &["--platform", platforms, "-o", &to_tar, "-o", &local])
    };
    let both = "linux/amd64,linux/arm64";
    let one = ["linux_amd64", "linux_amd64/d", "linux_amd64/d/amd64"];
    let other = ["linux_arm64", "linux_arm64/d", "linux_arm64/d/arm64"];
    for (platforms, options, expected) in [
        (both, "", [one, other].concat()),
        (both, ",platform-split=true", [one, other].concat()),
        (both, ",platform-split=false", vec!["d", "d/amd64", "d/arm64"]),
        ("linux/amd64", "", vec!["d", "d/amd64"]),
        ("linux/amd64", ",platform-split=true", one.to_vec()),
    ] {
        build(platforms, options).ok();
        for listing in [Listing::of_dir(&dest), Listing::of_tar(&tar)] {
            assert_eq!(listing.entries.into_keys().collect::<Vec<_>>(), expected, "{platforms}{options}");
        }
        let members = run(Command::new("tar").arg("-tf").arg(&tar)).ok();
        assert_eq!(members.lines().count(), expected.len(), "each once: {members}");
        fs::remove_dir_all(&dest).unwrap();
    }
    // What only one of them can have is refused, and nothing is written.
    context.write("arm64/d/amd64", "z");
    let before = fs::read(&tar).unwrap();
    build(both, ",platform-split=false")
        .fails_with(1)
        .says("cannot overwrite d/amd64 from linux/amd64 with linux/arm64 when split option is disabled");
    assert!(fs::read(&tar).unwrap() == before && !dest.exists());
    // A link in the place of such a directory leads nowhere.
    let outside = boxwright.scratch("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir(&dest).unwrap();
    symlink(&outside, dest.join("linux_amd64")).unwrap();
    build(both, "").ok();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(dest.join("linux_amd64/d/amd64")).unwrap(), "x");
}

#[test]
fn a_push_brings_the_image_under_each_of_its_names() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let (one, two) = (registry.name("team/app:1"), registry.name("other:2"));
    let context = Context::new("FROM busybox\nCOPY a /a\n").file("a", "pushed");
    let dest = boxwright.scratch("out");
    boxwright.build(&context, &["--push", "-t", &one, "-t", &two, "-o", dest.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(dest.join("a")).unwrap(), "pushed");
    let id = boxwright.inspect(&one)["Id"].clone();
    for name in [&one, &two] {
        let other = Boxwright::new();
        assert_eq!(other.output_of(name, &["cat", "/a"]), "pushed");
        assert_eq!(other.inspect(name)["Id"], id);
    }
}

#[test]
fn an_output_names_its_image_unless_the_build_does() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let (name, tag) = (registry.name("named:1"), registry.name("tagged:1"));
    let context = Context::new("FROM busybox\nCOPY a /a\n").file("a", "x");
    let output = format!("type=image,name={name},push=true");
    boxwright.build(&context, &["-o", &output]).ok();
    boxwright.build(&context, &["-o", &output, "-t", &tag]).ok();
    boxwright.build(&context, &["-o", &format!("type=registry,name={}", registry.name("third"))]).ok();
    let asked = registry.requests();
    let puts: Vec<&str> = asked
        .iter()
        .filter_map(|asked| asked.strip_prefix("PUT /v2/")?.split_once("/manifests/"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(puts, ["named", "tagged", "third"]);
    boxwright.build(&context, &["--push"]).fails_with(1).says("tag is needed when pushing to registry");
}

#[test]
fn load_keeps_the_image_beside_other_outputs() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nCOPY a /a\n").file("a", "x");
    let dest = boxwright.scratch("out");
    let ran =
        boxwright.run(&["build", "-q", "--load", "-t", "kept", "-o", dest.to_str().unwrap(), context.path()]);
    assert_eq!(ran.ok().trim_end(), boxwright.inspect("kept")["Id"]);
    assert!(dest.join("bin/busybox").exists());
    // Standard output is the tar's alone.
    let tar = boxwright.scratch("out.tar");
    let mut command = boxwright.command(&["build", "-q", "--load", "-o", "-", context.path()]);
    command.stdout(fs::File::create(&tar).unwrap());
    assert!(command.status().unwrap().success());
    assert!(Listing::of_tar(&tar).entries.contains_key("bin/busybox"));
}

#[test]
fn archives_are_what_skopeo_and_docker_read() {
    let (boxwright, dockerd) = (Boxwright::with_busybox(), Dockerd::start());
    let context = Context::new("FROM busybox\nCOPY a /a\nCMD [\"cat\", \"/a\"]\n").file("a", "archived");
    let file = |name: &str| boxwright.scratch(name).display().to_string();
    let (oci, docker, plain) = (file("oci.tar"), file("docker.tar"), file("plain.tar"));
    let (to_oci, to_docker) = (format!("type=oci,dest={oci}"), format!("type=docker,dest={docker}"));
    let to_plain = format!("type=docker,compression=uncompressed,dest={plain}");
    boxwright.build(&context, &["-t", "app:1", "-o", &to_oci, "-o", &to_docker, "-o", &to_plain]).ok();
    for (name, source) in [("o", format!("oci-archive:{oci}:1")), ("d", format!("docker-archive:{docker}"))] {
        let copy = format!("dir:{}", boxwright.scratch(name).display());
        skopeo(&["copy", "-q", &source, &copy]).ok();
        let manifest = fs::read_to_string(boxwright.scratch(name).join("manifest.json")).unwrap();
        assert!(manifest.contains("tar+gzip") || name == "d", "{manifest}");
    }
    let docker_only = |tar: &str| Listing::of_tar(tar.as_ref()).entries.contains_key("manifest.json");
    assert_eq!((docker_only(&oci), docker_only(&docker)), (false, true));
    assert!(fs::metadata(&plain).unwrap().len() > fs::metadata(&docker).unwrap().len());
    assert_eq!(boxwright.ok(&["images", "-q"]).lines().count(), 1, "busybox, and no image of the build");
    for tar in [&docker, &plain] {
        dockerd.docker(&["load", "-i", tar]).says("Loaded image: app:1").ok();
        assert_eq!(dockerd.docker(&["run", "--rm", "--network=host", "app:1"]).ok(), "archived");
    }
    let other = Boxwright::new();
    other.ok(&["load", "-i", &oci]);
    assert_eq!(other.output_of("app:1", &[]), "archived");
}

#[test]
fn the_metadata_file_has_what_scripts_ask_for() {
    let (registry, boxwright) = (Registry::start(), Boxwright::with_busybox());
    let name = registry.name("app:1");
    let context = Context::new("FROM busybox\nCOPY a /a\n").file("a", "x");
    let file = boxwright.scratch("metadata.json");
    let told = |args: &[&str]| {
        boxwright.build(&context, &[&["--metadata-file", file.to_str().unwrap()], args].concat()).ok();
        serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&file).unwrap()).unwrap()
    };
    let pushed = told(&["--push", "-t", &name]);
    let digest = pushed["containerimage.digest"].as_str().unwrap();
    assert_eq!(pushed["containerimage.config.digest"], boxwright.inspect(&name)["Id"]);
    assert_eq!(pushed["containerimage.descriptor"]["digest"], digest);
    assert_eq!(pushed["image.name"], name.as_str());
    // It is what the registry has under the name.
    let source = format!("docker://{name}");
    let theirs = skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &source]).ok();
    assert_eq!(theirs.trim_end(), digest);
    let unnamed = told(&[]);
    assert_eq!(unnamed["containerimage.config.digest"], pushed["containerimage.config.digest"]);
    assert_eq!(unnamed.get("image.name"), None);
    let nothing = told(&["-o", "type=cacheonly"]);
    assert_eq!(nothing.as_object().unwrap().keys().collect::<Vec<_>>(), ["buildx.build.ref"]);
}

#[test]
fn a_layout_directory_is_what_skopeo_and_builds_read() {
    let boxwright = Boxwright::with_busybox();
    let dir = boxwright.scratch("layout");
    let dest = dir.display().to_string();
    let build = |content: &str, options: &str, args: &[&str]| {
        let context = Context::new("FROM scratch\nCOPY a /a\n").file("a", content);
        let output = format!("type=oci,tar=false,dest={dest}{options}");
        boxwright.build(&context, &[args, &["-o", &output]].concat()).ok();
    };
    build("one", ",compression=uncompressed", &["-t", "app:1"]);
    build("two", "", &["-t", "app:2", "--platform", "linux/amd64,linux/arm64"]);
    build("old", "", &[]);
    build("new", "", &[]);
    let index: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.join("index.json")).unwrap()).unwrap();
    let tag = |entry: &serde_json::Value| entry["annotations"]["org.opencontainers.image.ref.name"].clone();
    let tags: Vec<_> = index["manifests"].as_array().unwrap().iter().map(tag).collect();
    assert_eq!(tags, ["1", "2", "latest"]);
    for (tag, content) in [("1", "one"), ("latest", "new")] {
        skopeo(&[
            "copy",
            "-q",
            &format!("oci:{dest}:{tag}"),
            &format!("dir:{}", boxwright.scratch(tag).display()),
        ])
        .ok();
        let context = Context::new("FROM busybox\nCOPY --from=base /a /a\nCMD [\"cat\", \"/a\"]\n");
        let base = format!("base=oci-layout://{dest}:{tag}");
        boxwright.build(&context, &["--build-context", &base, "-t", "copy"]).ok();
        assert_eq!(boxwright.output_of("copy", &[]), content);
    }
    skopeo(&["inspect", "--raw", &format!("oci:{dest}:2")]).says("arm64").ok();
    // Nothing is written through a link that somebody left there.
    let (linked, elsewhere) = (boxwright.scratch("linked"), boxwright.scratch("elsewhere"));
    fs::create_dir_all(&linked).unwrap();
    fs::create_dir_all(&elsewhere).unwrap();
    symlink(&elsewhere, linked.join("blobs")).unwrap();
    let context = Context::new("FROM busybox\n");
    let output = format!("type=oci,tar=false,dest={}", linked.display());
    boxwright.build(&context, &["-o", &output]).fails_with(1);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

/// The media types and sizes of the layers in an archive.
fn layers_of(archive: &str, dir: &std::path::Path) -> Vec<(String, u64)> {
    let _ = fs::remove_dir_all(dir);
    skopeo(&["copy", "-q", &format!("oci-archive:{archive}"), &format!("dir:{}", dir.display())]).ok();
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    let of = |layer: &serde_json::Value| {
        let kind = layer["mediaType"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
        (kind, layer["size"].as_u64().unwrap())
    };
    manifest["layers"].as_array().unwrap().iter().map(of).collect()
}

#[test]
fn layers_are_compressed_as_asked_and_those_of_the_base_if_forced() {
    let boxwright = Boxwright::with_busybox();
    let text = (0..30_000).fold(String::new(), |text, n| text + &format!("line {n} "));
    let context = Context::new("FROM busybox\nCOPY a /a\nCMD [\"md5sum\", \"/a\"]\n").file("a", &text);
    let archive = boxwright.scratch("x.tar").display().to_string();
    let layers = |options: &str| {
        boxwright.build(&context, &["-t", "x:1", "-o", &format!("type=oci,dest={archive}{options}")]).ok();
        layers_of(&archive, &boxwright.scratch("copy"))
    };
    let kinds = |layers: &[(String, u64)]| layers.iter().map(|(kind, _)| kind.clone()).collect::<Vec<_>>();
    let gzip = layers("");
    let (base, own) = (gzip[0].clone(), gzip[1].1);
    for (options, kind, smaller) in [
        (",compression-level=9", "tar+gzip", true),
        (",compression-level=0", "tar+gzip", false),
        (",compression=zstd", "tar+zstd", true),
        (",compression=uncompressed", "tar", false),
    ] {
        let found = layers(options);
        assert_eq!((&found[0], found[1].0.as_str()), (&base, kind), "{options}");
        assert_eq!(found[1].1 < own, smaller, "{options}: {} and {own}", found[1].1);
    }
    assert!(layers(",compression=zstd,compression-level=19")[1].1 < layers(",compression=zstd")[1].1);
    for (options, kind) in
        [(",compression=zstd", "tar+zstd"), (",compression=uncompressed", "tar"), ("", "tar+gzip")]
    {
        let found = layers(&format!("{options},force-compression=true"));
        assert_eq!(kinds(&found), [kind, kind], "{options}");
    }
    assert_eq!(layers(""), gzip, "what was compressed otherwise meanwhile does not matter");
    layers(",compression=zstd,force-compression=true");
    let other = Boxwright::new();
    other.ok(&["load", "-i", &archive]);
    let sum = run(Command::new("md5sum").arg(context.join("a"))).ok();
    assert_eq!(other.output_of("x:1", &[]).split_whitespace().next(), sum.split_whitespace().next());
}
