//! The same Dockerfiles built by Debian's dockerd and by us: the file systems and the configs must be equal, apart
//! from the lines of `testdata/docker-differences.tsv`, each with its reason. A line that no longer differs fails too.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use boxwright_testdata::base;
use boxwright_testdata::listing::Listing;
use boxwright_testdata::peer::Dockerd;
use boxwright_testdata::tar::Tar;
use serde_json::Value;

use crate::tool::{Boxwright, Context, cache};

/// What differs, as `SUITE<tab>CASE<tab>PATH` lines, and the table of what may.
pub(crate) struct Differences {
    suite: &'static str,
    found: BTreeSet<String>,
    details: Vec<String>,
}

impl Differences {
    pub(crate) fn new(suite: &'static str) -> Differences {
        Differences { suite, found: BTreeSet::new(), details: Vec::new() }
    }

    pub(crate) fn compare(&mut self, case: &str, ours: &Listing, theirs: &Listing) {
        for (path, difference) in ours.differences(theirs) {
            self.add(case, &path, &difference);
        }
    }

    fn add(&mut self, case: &str, subject: &str, difference: &str) {
        self.found.insert(format!("{}\t{case}\t{subject}", self.suite));
        self.details.push(format!("{case}: {subject}: {difference}"));
    }

    #[track_caller]
    pub(crate) fn assert_as_listed(&self) {
        let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/docker-differences.tsv");
        let text = fs::read_to_string(&table).unwrap();
        let listed: BTreeSet<_> = text
            .lines()
            .filter(|l| l.starts_with(&format!("{}\t", self.suite)))
            .map(|l| {
                let (subject, reason) = l.rsplit_once('\t').unwrap();
                assert!(reason.len() > 10, "no reason: {l}");
                subject.to_owned()
            })
            .collect();
        let new: Vec<_> = self.found.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&self.found).collect();
        assert!(
            new.is_empty() && gone.is_empty(),
            "differs and is not listed: {new:#?}\nlisted and does not differ: {gone:#?}\n{}",
            self.details.join("\n")
        );
    }
}

pub(crate) fn docker_tar(dockerd: &Dockerd, context: &Context) -> PathBuf {
    let tar = context.join("docker-result.tar");
    let output = format!("type=tar,dest={}", tar.display());
    dockerd.docker(&["build", "--network=host", "-o", &output, context.path()]).ok();
    tar
}

pub(crate) fn our_tar(boxwright: &Boxwright, context: &Context) -> PathBuf {
    let tar = context.join("our-result.tar");
    let output = format!("type=tar,dest={}", tar.display());
    boxwright.run(&["build", "--network=host", "-o", &output, context.path()]).ok();
    tar
}

/// A context with what a source tree may hold: modes, links, times, an ignored file, a tar.
fn context(dockerfile: &str) -> Context {
    let tar = Tar::new()
        .mtime(1_234_567_890)
        .owner(11, 12)
        .dir("in-tar", 0o2750)
        .file("in-tar/setuid", 0o4711, "s")
        .hard_link("in-tar/again", "in-tar/setuid")
        .symlink("in-tar/link", "setuid")
        .finish();
    let context = Context::new(dockerfile)
        .file("plain.txt", "plain")
        .file("program", "#!/bin/sh\n")
        .file("tree/one.txt", "1")
        .file("tree/two.txt", "2")
        .file("tree/deep/three.md", "3")
        .file("other/one.txt", "another one")
        .file("archive.tar", tar)
        .file("ignored.log", "")
        .file(".dockerignore", "*.log\n*-result.tar\n");
    fs::set_permissions(context.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(context.join("tree/deep"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("one.txt", context.join("tree/link")).unwrap();
    symlink("/nowhere", context.join("tree/dangling")).unwrap();
    fs::hard_link(context.join("tree/two.txt"), context.join("tree/two-again.txt")).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for path in ["plain.txt", "tree/one.txt", "tree/two.txt", "tree/deep"] {
        fs::File::open(context.join(path)).unwrap().set_modified(old).unwrap();
    }
    context
}

/// The Dockerfiles of `testdata/builds`.
fn dockerfiles() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/builds");
    let mut found: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    found.sort();
    assert!(found.len() >= 5, "no Dockerfiles in {}", dir.display());
    found
}

#[test]
fn images_equal_those_of_docker_build() {
    let (dockerd, boxwright) = (Dockerd::start(), Boxwright::with_busybox());
    dockerd.docker(&["load", "-q", "-i", base::busybox(cache()).to_str().unwrap()]).ok();
    let mut differences = Differences::new("build");
    for (name, dockerfile) in dockerfiles() {
        let context = context(&dockerfile);
        let theirs = Listing::of_tar(&docker_tar(&dockerd, &context));
        let ours = Listing::of_tar(&our_tar(&boxwright, &context));
        differences.compare(&name, &ours, &theirs);
        // What COPY and ADD bring keeps its time; the Dockerfiles put it below /copied.
        for (path, time) in theirs.mtimes.iter().filter(|(p, _)| p.starts_with("copied/")) {
            if ours.mtimes.get(path).is_some_and(|t| t != time) && !newer_than_a_day(*time) {
                differences.add(
                    &name,
                    &format!("mtime {path}"),
                    &format!("{:?} instead of {time}", ours.mtimes[path]),
                );
            }
        }
        dockerd.docker(&["build", "-q", "--network=host", "-t", &name, context.path()]).ok();
        boxwright.build(&context, &["--network=host", "-t", &name]).ok();
        let their_image: Value =
            serde_json::from_str(&dockerd.docker(&["image", "inspect", &name]).ok()).unwrap();
        compare_configs(&mut differences, &name, &boxwright.inspect(&name), &their_image[0]);
    }
    differences.assert_as_listed();
}

/// The directory that a COPY makes, and what RUN writes, have the time of the build.
fn newer_than_a_day(time: i64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    now.abs_diff(u64::try_from(time).unwrap_or(0)) < 86_400
}

const CONFIG_KEYS: [&str; 12] = [
    "User",
    "ExposedPorts",
    "Env",
    "Entrypoint",
    "Cmd",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "OnBuild",
    "Shell",
];

fn compare_configs(differences: &mut Differences, case: &str, ours: &Value, theirs: &Value) {
    for key in CONFIG_KEYS {
        let (our, their) = (&ours["Config"][key], &theirs["Config"][key]);
        if our != their && !(is_empty(our) && is_empty(their)) {
            differences.add(case, &format!("config {key}"), &format!("{our} instead of {their}"));
        }
    }
    for key in ["Os", "Architecture", "Author"] {
        if ours[key] != theirs[key] && !(is_empty(&ours[key]) && is_empty(&theirs[key])) {
            differences.add(case, key, &format!("{} instead of {}", ours[key], theirs[key]));
        }
    }
}

/// An absent key, null, "" and an empty list mean the same.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}
