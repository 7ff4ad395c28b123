//! `build`: stages, flags and what comes out.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt as _;
use std::process::{Command, Stdio};

use boxwright_testdata::listing::Listing;
use boxwright_testdata::{Ran, run};

use crate::tool::{Boxwright, Context};

#[test]
fn stages_copy_from_each_other_and_the_image_runs() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "ARG TAG=latest\n\
         FROM busybox:$TAG AS made\n\
         WORKDIR /out\n\
         COPY in.txt .\n\
         RUN tr a-z A-Z < in.txt > upper.txt\n\
         FROM busybox AS checked\n\
         COPY --from=made /out /out\n\
         RUN grep -q HELLO /out/upper.txt && echo ok > /ok\n\
         FROM busybox\n\
         COPY --from=made /out/upper.txt /\n\
         COPY --from=checked /ok /\n\
         ENV WHO=world\n\
         CMD [\"sh\", \"-c\", \"cat /upper.txt /ok; echo $WHO\"]\n",
    )
    .file("in.txt", "hello\n");
    boxwright.build(&context, &["-t", "app:1"]).ok();
    assert_eq!(boxwright.output_of("app:1", &[]), "HELLO\nok\nworld\n");
}

#[test]
fn run_takes_shell_exec_and_heredoc_forms() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\n\
         RUN echo shell > /1\n\
         RUN [\"sh\", \"-c\", \"echo exec > /2\"]\n\
         RUN <<EOF\necho here > /3\necho doc >> /3\nEOF\n\
         COPY <<EOF /4\ninline\nEOF\n",
    );
    boxwright.build(&context, &["-t", "forms"]).ok();
    assert_eq!(
        boxwright.output_of("forms", &["cat", "/1", "/2", "/3", "/4"]),
        "shell\nexec\nhere\ndoc\ninline\n"
    );
}

#[test]
fn quiet_prints_the_id_alone_and_iidfile_has_it() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nLABEL a=b\n");
    let file = boxwright.scratch("iid");
    let ran = boxwright.run(&["build", "-q", "--iidfile", file.to_str().unwrap(), context.path()]);
    assert_eq!(ran.stderr, "");
    let id = ran.ok();
    assert!(id.starts_with("sha256:") && id.len() == 7 + 64 + 1, "{id:?}");
    assert_eq!(fs::read_to_string(file).unwrap(), id.trim_end());
    // What is no file of an earlier build stays what it is.
    let null = boxwright.scratch("null");
    run(Command::new("mknod").arg(&null).args(["c", "1", "3"])).ok();
    boxwright.build(&context, &["--iidfile", null.to_str().unwrap()]).ok();
    assert!(fs::metadata(&null).unwrap().file_type().is_char_device());
    assert_eq!(boxwright.inspect(id.trim_end())["Config"]["Labels"]["a"], "b");
}

#[test]
fn the_dockerfile_comes_from_a_file_elsewhere_or_from_stdin() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM nosuch\n").file("a", "1");
    let elsewhere = Context::new("FROM busybox\nCOPY a /a\n");
    let file = elsewhere.join("Dockerfile");
    boxwright.build(&context, &["-t", "f", "-f", file.to_str().unwrap()]).ok();
    assert_eq!(boxwright.output_of("f", &["cat", "/a"]), "1");

    let mut command = boxwright.command(&["build", "-t", "stdin", "-f", "-", context.path()]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"FROM busybox\nCOPY a /b\n").unwrap();
    Ran::new("build -f -".into(), &child.wait_with_output().unwrap()).ok();
    assert_eq!(boxwright.output_of("stdin", &["cat", "/b"]), "1");
}

#[test]
fn build_args_labels_and_several_tags() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nARG A=1\nARG B=2\nENV E=$A-$B\n");
    boxwright.build(&context, &["-t", "x:1", "-t", "x:2", "--build-arg", "A=9", "--label", "k=v"]).ok();
    let (one, two) = (boxwright.inspect("x:1"), boxwright.inspect("x:2"));
    assert_eq!(one["Id"], two["Id"]);
    assert_eq!(one["Config"]["Labels"]["k"], "v");
    let env = one["Config"]["Env"].as_array().unwrap();
    assert!(env.iter().any(|e| e == "E=9-2"), "{env:?}");
}

#[test]
fn a_target_stage_is_built_and_nothing_beyond_it() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox AS wanted\nRUN echo yes > /w\nFROM busybox AS unneeded\nRUN echo MARK; exit 1\nFROM wanted\nRUN exit 2\n",
    );
    boxwright.build(&context, &["-t", "t", "--target", "wanted"]).says_nothing_of("MARK").ok();
    assert_eq!(boxwright.output_of("t", &["cat", "/w"]), "yes\n");
}

#[test]
fn the_tar_output_is_the_file_system_of_the_image() {
    let boxwright = Boxwright::with_busybox();
    let context =
        Context::new("FROM scratch\nCOPY --chown=3:4 --chmod=640 a /d/a\nCOPY a /b\n").file("a", "content");
    let tar = boxwright.scratch("out.tar");
    boxwright.build(&context, &["-o", &format!("type=tar,dest={}", tar.display())]).ok();
    let listing = Listing::of_tar(&tar);
    let paths: Vec<_> = listing.entries.keys().map(String::as_str).collect();
    assert_eq!(paths, ["b", "d", "d/a"]);
    assert!(listing.entries["d/a"].ends_with("0640 3:4"), "{:?}", listing.entries);
}

#[test]
fn dockerignore_leaves_files_out_and_lets_some_in() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nCOPY . /c\n")
        .file(".dockerignore", "*.log\nsub\n!sub/keep\n")
        .file("a.log", "")
        .file("a.txt", "")
        .file("sub/drop", "")
        .file("sub/keep", "");
    boxwright.build(&context, &["-t", "i"]).ok();
    let found = boxwright.output_of("i", &["find", "/c", "-type", "f"]);
    let mut found: Vec<_> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["/c/.dockerignore", "/c/Dockerfile", "/c/a.txt", "/c/sub/keep"]);
}

#[test]
fn add_unpacks_tars_and_copy_does_not() {
    let boxwright = Boxwright::with_busybox();
    let tar =
        boxwright_testdata::tar::Tar::new().owner(7, 8).dir("d", 0o750).file("d/f", 0o604, "x").finish();
    let context = Context::new("FROM busybox\nADD a.tar /added/\nCOPY a.tar /copied/\n").file("a.tar", tar);
    boxwright.build(&context, &["-t", "a"]).ok();
    let seen =
        boxwright.output_of("a", &["stat", "-c", "%a %u:%g %n", "/added/d", "/added/d/f", "/copied/a.tar"]);
    assert_eq!(seen, "750 7:8 /added/d\n604 7:8 /added/d/f\n644 0:0 /copied/a.tar\n");
}

#[test]
fn onbuild_runs_in_the_child_alone() {
    let boxwright = Boxwright::with_busybox();
    let parent = Context::new("FROM busybox\nONBUILD COPY f /f\nONBUILD RUN cat /f > /g\n");
    boxwright.build(&parent, &["-t", "parent"]).ok();
    let child = Context::new("FROM parent\nRUN cat /g > /h\n").file("f", "from the child");
    boxwright.build(&child, &["-t", "child"]).ok();
    assert_eq!(boxwright.output_of("child", &["cat", "/h"]), "from the child");
    assert!(boxwright.inspect("child")["Config"]["OnBuild"].as_array().is_none_or(Vec::is_empty));
}

#[test]
fn what_is_not_there_yet_is_refused_by_name() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nRUN --security=insecure true\n");
    boxwright.build(&context, &[]).fails_with(1).says("security");
}

#[test]
fn plain_progress_numbers_steps_and_keeps_the_whole_log() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox AS first\nRUN seq 1 500\nFROM busybox\nCOPY --from=first /etc/passwd /p\nRUN echo to-stderr >&2\n",
    );
    let ran = boxwright
        .build(&context, &["-t", "p"])
        .says("first")
        .says("[first 2/2] RUN seq 1 500")
        .says("to-stderr");
    for number in 1..=500 {
        assert!(
            ran.stderr.lines().any(|l| l.ends_with(&format!(" {number}"))),
            "line {number} is missing in {ran}"
        );
    }
}

#[test]
fn an_image_for_another_machine_runs_steps_of_this_one_alone() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM --platform=$BUILDPLATFORM busybox AS made\n\
         ARG TARGETPLATFORM\n\
         RUN echo $TARGETPLATFORM > /target\n\
         FROM scratch\n\
         COPY --from=made /target /\n",
    );
    for (flag, platform) in [
        ("arm64", ["linux", "arm64", ""]),
        ("linux/arm/v7", ["linux", "arm", "v7"]),
        ("linux/riscv64", ["linux", "riscv64", ""]),
        ("darwin/ppc64le", ["darwin", "ppc64le", ""]),
    ] {
        let tar = boxwright.scratch("out.tar");
        let output = format!("type=tar,dest={}", tar.display());
        boxwright.build(&context, &["--platform", flag, "-t", "x", "-o", &output]).ok();
        let target = run(std::process::Command::new("tar").arg("-xOf").arg(&tar).arg("target")).ok();
        assert_eq!(target.trim(), platform.join("/").trim_end_matches('/'));
        boxwright.build(&context, &["--platform", flag, "-t", "x"]).ok();
        let image = boxwright.inspect("x");
        let written =
            ["Os", "Architecture", "Variant"].map(|field| image[field].as_str().unwrap_or_default());
        assert_eq!(written, platform, "{flag}");
    }
}

#[test]
fn a_program_of_another_machine_is_told_from_a_broken_one() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new("FROM busybox\nCOPY x /x\nRUN [\"/x\"]\n").file("x", foreign_program());
    fs::set_permissions(context.join("x"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ran = boxwright.build(&context, &[]);
    assert!(ran.stderr.contains("exec format error") && ran.stderr.contains("binfmt_misc"), "{ran}");
}

/// An ELF header for a machine that nobody has.
fn foreign_program() -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(64, 0);
    (header[16], header[18], header[19]) = (2, 0xad, 0xde);
    header
}

#[test]
fn a_context_that_is_large_for_nothing_is_told() {
    let boxwright = Boxwright::new();
    let context = Context::new("FROM scratch\nCOPY . /\n").file("src", "1");
    let heavy = |path: &str| {
        let path = context.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap().set_len(15_000_000).unwrap();
    };
    heavy("node_modules/a");
    heavy("web/node_modules/b");
    let told = |context: &Context| {
        let ran = boxwright.build(context, &["--progress=plain"]);
        let told = ran.stderr.clone();
        ran.ok();
        told
    };
    let first = told(&context);
    let line = " 30MB of the 30MB that are read lie in node_modules (2 files): \
                **/node_modules in .dockerignore leaves them out\n";
    assert_eq!(first.matches(line).count(), 1, "{first}");
    let context = context.file(".dockerignore", "**/node_modules\n");
    let second = told(&context);
    assert!(!second.contains("leaves them out"), "{second}");
}
