//! What is built again after a change, and what is not. A step's own output tells whether it ran: it prints a
//! word that stands nowhere else.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use boxwright_testdata::{Ran, run};

use crate::tool::{Boxwright, Context};

/// Two independent stages over one context; each RUN prints its mark when it really runs.
const DOCKERFILE: &str = "FROM busybox AS a\n\
    ARG SALT=none\n\
    COPY a.txt /a.txt\n\
    RUN echo ran-\"$((1))\"-a && cat /a.txt > /out\n\
    FROM busybox AS b\n\
    COPY b.txt /b.txt\n\
    RUN echo ran-\"$((1))\"-b && cat /b.txt > /out\n\
    FROM busybox\n\
    COPY --from=a /out /a\n\
    COPY --from=b /out /b\n\
    RUN echo ran-\"$((1))\"-last\n\
    LABEL version=1\n";

struct Fixture {
    boxwright: Boxwright,
    context: Context,
}

impl Fixture {
    /// Everything built once.
    fn built() -> Fixture {
        let context = Context::new(DOCKERFILE).file("a.txt", "a1").file("b.txt", "b1");
        let fixture = Fixture { boxwright: Boxwright::with_busybox(), context };
        assert_eq!(fixture.rebuild(&[]), ["a", "b", "last"]);
        fixture
    }

    /// Builds again; which steps ran, in the order of the alphabet.
    #[track_caller]
    fn rebuild(&self, args: &[&str]) -> Vec<&'static str> {
        let mut all = vec!["-t", "x"];
        all.extend(args);
        let ran = self.boxwright.build(&self.context, &all);
        assert_eq!(ran.status, 0, "{ran}");
        ["a", "b", "last"].into_iter().filter(|m| ran.stderr.contains(&format!("ran-1-{m}"))).collect()
    }

    fn id(&self) -> serde_json::Value {
        self.boxwright.inspect("x")["Id"].clone()
    }
}

#[test]
fn a_second_build_runs_nothing_and_gives_the_same_image() {
    let fixture = Fixture::built();
    let before = fixture.id();
    assert_eq!(fixture.rebuild(&[]), [""; 0]);
    assert_eq!(fixture.id(), before);
}

#[test]
fn a_changed_source_rebuilds_what_depends_on_it() {
    let fixture = Fixture::built();
    fixture.context.write("a.txt", "a2");
    assert_eq!(fixture.rebuild(&[]), ["a", "last"]);
    fixture.context.write("a.txt", "a1");
    assert_eq!(fixture.rebuild(&[]), [""; 0], "the first state is still in the cache");
}

#[test]
fn a_touched_source_rebuilds_nothing() {
    let fixture = Fixture::built();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(100);
    fs::File::options().write(true).open(fixture.context.join("a.txt")).unwrap().set_modified(later).unwrap();
    assert_eq!(fixture.rebuild(&[]), [""; 0]);
}

#[test]
fn a_changed_mode_of_a_source_rebuilds() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::built();
    fs::set_permissions(fixture.context.join("a.txt"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(fixture.rebuild(&[]).contains(&"a"));
}

#[test]
fn a_file_that_no_step_names_rebuilds_nothing() {
    let fixture = Fixture::built();
    fixture.context.write("unrelated", "x");
    assert_eq!(fixture.rebuild(&[]), [""; 0]);
}

#[test]
fn a_changed_line_rebuilds_from_there() {
    let fixture = Fixture::built();
    let changed = DOCKERFILE.replace("cat /b.txt > /out", "cat /b.txt /b.txt > /out");
    fixture.context.write("Dockerfile", changed);
    assert_eq!(fixture.rebuild(&[]), ["b", "last"]);
}

#[test]
fn early_cutoff_spares_what_follows_a_step_with_the_same_result() {
    let fixture = Fixture::built();
    // Other words, the same file: what is built on it has nothing to do.
    let changed = DOCKERFILE.replace("cat /b.txt > /out", "cat < /b.txt > /out");
    fixture.context.write("Dockerfile", changed);
    assert_eq!(fixture.rebuild(&[]), ["b"]);
}

#[test]
fn an_argument_counts_for_the_steps_after_its_declaration() {
    let fixture = Fixture::built();
    let ran = fixture.rebuild(&["--build-arg", "SALT=other"]);
    assert!(ran.contains(&"a") && !ran.contains(&"b"), "{ran:?}");
}

#[test]
fn a_label_rebuilds_nothing() {
    let fixture = Fixture::built();
    fixture.context.write("Dockerfile", DOCKERFILE.replace("version=1", "version=2"));
    assert_eq!(fixture.rebuild(&[]), [""; 0]);
    assert_eq!(fixture.boxwright.inspect("x")["Config"]["Labels"]["version"], "2");
}

/// Two instructions before the same RUN: whether it ran again when the one was replaced by the other.
fn runs_again(boxwright: &Boxwright, before: &str, after: &str, args: &[&str]) -> bool {
    let context = |line: &str| Context::new(&format!("FROM busybox\n{line}\nRUN echo ran-\"$((1))\"-step\n"));
    boxwright.build(&context(before), &[]).ok();
    let ran = boxwright.build(&context(after), args);
    assert_eq!(ran.status, 0, "{ran}");
    ran.stderr.contains("ran-1-step")
}

#[test]
fn what_only_the_image_is_told_rebuilds_nothing() {
    let boxwright = Boxwright::with_busybox();
    for (before, after) in [
        ("", "LABEL version=2"),
        ("", "MAINTAINER somebody"),
        ("CMD one", "CMD two"),
        ("ENTRYPOINT one", "ENTRYPOINT two"),
        ("EXPOSE 1", "EXPOSE 2"),
        ("HEALTHCHECK NONE", "HEALTHCHECK CMD true"),
        ("STOPSIGNAL 1", "STOPSIGNAL 2"),
        ("VOLUME /one", "VOLUME /two"),
        ("ONBUILD RUN one", "ONBUILD RUN two"),
    ] {
        assert!(!runs_again(&boxwright, before, after, &[]), "{after}");
    }
}

#[test]
fn what_a_step_sees_of_the_lines_before_it_rebuilds_it() {
    let boxwright = Boxwright::with_busybox();
    for (before, after) in [
        ("ENV A=1", "ENV A=2"),
        ("ARG B=1", "ARG B=2"),
        ("USER 0", "USER 1"),
        ("WORKDIR /home", "WORKDIR /tmp"),
        (r#"SHELL ["/bin/sh", "-c"]"#, r#"SHELL ["/bin/busybox", "sh", "-c"]"#),
    ] {
        assert!(runs_again(&boxwright, before, after, &[]), "{after}");
    }
    let declared = "ARG HTTP_PROXY";
    assert!(
        runs_again(&boxwright, declared, declared, &["--build-arg", "HTTP_PROXY=http://p"]),
        "{declared}"
    );
}

#[test]
fn another_base_rebuilds_what_stands_on_it() {
    let fixture = Fixture::built();
    let base = Context::new("FROM busybox\nRUN echo new > /base\n");
    fixture.boxwright.build(&base, &["-t", "busybox"]).ok();
    assert_eq!(fixture.rebuild(&[]), ["a", "b", "last"]);
}

#[test]
fn what_a_step_can_not_see_rebuilds_nothing() {
    let fixture = Fixture::built();
    std::os::unix::fs::chown(fixture.context.join("a.txt"), Some(1000), Some(1000)).unwrap();
    assert_eq!(fixture.rebuild(&[]), [""; 0], "the owner of a source");
    assert_eq!(fixture.rebuild(&["--ulimit", "nofile=99"]), [""; 0], "a limit");
    for proxy in ["HTTP_PROXY", "https_proxy", "FTP_PROXY", "no_proxy", "ALL_PROXY"] {
        let given = format!("{proxy}=http://p");
        assert_eq!(fixture.rebuild(&["--build-arg", &given]), [""; 0], "{proxy}, which nobody declared");
    }
    assert_eq!(fixture.rebuild(&["--shm-size", "1m"]), [""; 0], "the size of /dev/shm");
}

#[test]
fn a_base_of_which_only_the_config_changed_rebuilds_nothing() {
    let (boxwright, base) = (Boxwright::with_busybox(), Context::new("FROM busybox\nLABEL version=1\n"));
    let context = Context::new("FROM base\nRUN echo ran-\"$((1))\"-step\n");
    boxwright.build(&base, &["-t", "base"]).ok();
    boxwright.build(&context, &[]).says("ran-1-step").ok();
    base.write("Dockerfile", "FROM busybox\nLABEL version=2\n");
    boxwright.build(&base, &["-t", "base"]).ok();
    boxwright.build(&context, &["-t", "x"]).says_nothing_of("ran-1-step").ok();
    assert_eq!(boxwright.inspect("x")["Config"]["Labels"]["version"], "2");
}

#[test]
fn without_cutoff_what_follows_a_step_that_ran_runs_too() {
    let fixture = Fixture::built();
    fixture.context.write("Dockerfile", DOCKERFILE.replace("cat /a.txt", "cat  /a.txt"));
    assert_eq!(fixture.rebuild(&["--no-cutoff"]), ["a", "last"]);
    fixture.context.write("Dockerfile", DOCKERFILE.replace("cat /a.txt", "cat   /a.txt"));
    assert_eq!(fixture.rebuild(&[]), ["a"]);
}

#[test]
fn no_cache_runs_everything() {
    let fixture = Fixture::built();
    assert_eq!(fixture.rebuild(&["--no-cache"]), ["a", "b", "last"]);
    assert_eq!(fixture.rebuild(&[]), [""; 0], "what was built without the cache is in it");
}

#[test]
fn pruning_the_cache_forgets_steps_and_keeps_images() {
    let fixture = Fixture::built();
    fixture.boxwright.ok(&["builder", "prune", "-a", "-f"]);
    assert_eq!(fixture.boxwright.output_of("x", &["cat", "/a", "/b"]), "a1b1");
    assert_eq!(fixture.rebuild(&[]), ["a", "b", "last"]);
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let boxwright = Boxwright::with_busybox();
    // Each waits for the other one: neither could end alone.
    let meet = "RUN --mount=type=cache,target=/c touch /c/OWN; for i in $(seq 600); do \
                [ -e /c/OTHER ] && exit 0; usleep 50000; done; exit 1\n";
    let context = Context::new(&format!(
        "FROM busybox AS a\n{}FROM busybox AS b\n{}FROM scratch\n\
         COPY --from=a /bin/true /a\n\
         COPY --from=b /bin/true /b\n",
        meet.replace("OWN", "a").replace("OTHER", "b"),
        meet.replace("OWN", "b").replace("OTHER", "a"),
    ));
    boxwright.build(&context, &[]).ok();
}

#[test]
fn two_builds_at_once_share_the_work() {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(
        "FROM busybox\nRUN sleep 2; cat /proc/sys/kernel/random/uuid > /id; echo ran-\"$((1))\"-step\n",
    );
    let started = Instant::now();
    let builds: Vec<_> = ["one", "two"]
        .into_iter()
        .map(|tag| {
            let mut command = boxwright.command(&["build", "--progress", "plain", "-t", tag, context.path()]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let ran: Vec<_> =
        builds.into_iter().map(|b| Ran::new("build".into(), &b.wait_with_output().unwrap())).collect();
    for build in &ran {
        assert_eq!(build.status, 0, "{build}");
    }
    let times = ran.iter().filter(|r| r.stderr.contains("ran-1-step")).count();
    assert_eq!(times, 1, "{} and {}, after {:?}", ran[0], ran[1], started.elapsed());
    let cat = ["cat", "/id"];
    assert_eq!(boxwright.output_of("one", &cat), boxwright.output_of("two", &cat));
}

#[test]
fn stores_do_not_know_of_each_other() {
    let (one, two) = (Boxwright::with_busybox(), Boxwright::new());
    assert!(one.ok(&["images"]).contains("busybox"));
    assert!(!two.ok(&["images"]).contains("busybox"));
}

#[test]
fn a_copy_of_which_little_changed_costs_little_and_is_what_a_first_build_makes() {
    let (boxwright, fresh) = (Boxwright::new(), Boxwright::new());
    let mut context = Context::new("FROM scratch\nCOPY . /\n");
    for i in 0..300 {
        context = context.file(&format!("d{}/f{i}", i % 3), vec![b'x'; 1500 + i]);
    }
    let layers = |boxwright: &Boxwright, name: &str| {
        boxwright.build(&context, &["-t", name]).ok();
        boxwright.inspect(name)["RootFS"]["Layers"].clone()
    };
    let first = layers(&boxwright, "first");
    context.write("d1/f1", "changed");
    fs::remove_file(context.join("d2/f2")).unwrap();
    let second = layers(&boxwright, "second");
    assert_ne!(first, second);
    assert_eq!(second, layers(&fresh, "second"), "no trace of the layer before");
    let shared = run(Command::new("find").arg(boxwright.store().join("layers")).args([
        "-mindepth",
        "2",
        "-type",
        "f",
        "-links",
        "2",
        "-printf",
        "%i\n",
    ]));
    let inodes: BTreeSet<&str> = shared.stdout.lines().collect();
    assert_eq!(inodes.len(), 299, "all files but two, and the Dockerfile");
    // What is shared stays with whoever is left.
    boxwright.ok(&["rmi", "first"]);
    boxwright.ok(&["builder", "prune", "-af"]);
    boxwright.ok(&["system", "check"]);
    let tar = boxwright.scratch("second.tar");
    boxwright.ok(&["save", "-o", tar.to_str().unwrap(), "second"]);
    fresh.ok(&["rmi", "second"]);
    fresh.ok(&["load", "-i", tar.to_str().unwrap()]);
    assert_eq!(fresh.inspect("second")["RootFS"]["Layers"], second);
}
