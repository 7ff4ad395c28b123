//! Mounts of RUN that want out: sources and targets behind links, caches that a step has filled with them, and what is
//! lent put where an image leads it.

use boxwright_testdata::tar::Tar;

use super::{Canary, SECRET, load, patient, tries};
use crate::tool::{Boxwright, Context, Who};

/// A build that may work or not, but reads and changes nothing of the host.
#[track_caller]
fn harmless(boxwright: &Boxwright, canary: &Canary, context: &Context, dockerfile: &str) -> String {
    context.write("Dockerfile", dockerfile);
    let command = boxwright.command(&[
        "build",
        "--no-cache",
        "--progress",
        "plain",
        "--secret",
        "id=s,env=HOME",
        context.path(),
    ]);
    let ran = patient(&command);
    assert!(ran.status <= 1, "{dockerfile}: {ran}");
    canary.assert_unknown_to(&ran);
    canary.assert_intact(dockerfile);
    ran.stderr
}

fn sources_of_mounts_are_found_inside(who: Who) {
    // CVE-2024-1753, CVE-2024-9407, CVE-2024-9675
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    for target in canary.ways() {
        load(&boxwright, "links", Tar::new().symlink("link", &target).symlink("top", "/"));
        let context = Context::new("").file("sub/f", "x");
        std::os::unix::fs::symlink(&target, context.join("link")).unwrap();
        let up = format!("../../../../../../..{}", canary.path());
        for mount in [
            "from=links,source=/link,target=/m".to_owned(),
            "from=links,source=/link/file,target=/m".to_owned(),
            format!("from=links,source=top{},target=/m", canary.path()),
            format!("from=links,source={up},target=/m"),
            "source=link,target=/m".to_owned(),
            "source=link/file,target=/m,rw".to_owned(),
            format!("source={up},target=/m"),
            "type=cache,from=links,source=/link,target=/m".to_owned(),
            format!("type=cache,id={up},source={up},target=/m"),
            format!("type=cache,id=..,source=..{up},target=/m"),
        ] {
            let run =
                format!("FROM busybox\nRUN --mount={mount} cat /m /m/file; echo x > /m; echo x > /m/file\n");
            harmless(&boxwright, &canary, &context, &run);
        }
    }
}

fn links_that_steps_leave_in_a_cache_lead_nowhere_outside(who: Who) {
    // CVE-2024-9675: a link in a cache is followed by the next step's mount.
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let context = Context::new("");
    for target in canary.ways() {
        let fill = format!(
            "FROM busybox\nRUN --mount=type=cache,id=c,target=/c rm -rf /c/* && ln -s {target} /c/link && \
             ln -s /proc/1/root /c/proc && mkdir /c/dir && ln -s ../.. /c/dir/up\n"
        );
        harmless(&boxwright, &canary, &context, &fill);
        for source in ["link", "link/file", "dir/up/link", &format!("proc{}", canary.path())] {
            let run = format!(
                "FROM busybox\nRUN --mount=type=cache,id=c,source={source},target=/m \
                 cat /m /m/file; echo x > /m/file; echo x > /m\n"
            );
            let said = harmless(&boxwright, &canary, &context, &run);
            assert!(!said.contains(SECRET), "{said}");
        }
    }
}

fn targets_behind_links_are_made_inside(who: Who) {
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    for target in canary.ways() {
        let tar = Tar::new().symlink("link", &target).symlink("proc-link", "/proc/self/root");
        load(&boxwright, "links", tar);
        let context = Context::new("").file("sub/f", "x");
        let file = format!("{}/file", canary.path());
        let mut case = 0;
        for mount in ["type=cache", "type=tmpfs", "type=secret,id=s", "source=sub", "from=busybox"] {
            for place in ["/link", "/link/new/x", "/../../link/x", "link/x", &format!("/proc-link{file}")] {
                case += 1;
                if !tries(who, case, 3) {
                    continue;
                }
                let run = format!("FROM links\nRUN --mount={mount},target={place} [\"/none\"]\n");
                harmless(&boxwright, &canary, &context, &run);
            }
        }
    }
}

super::by_both!(
    sources_of_mounts_are_found_inside,
    links_that_steps_leave_in_a_cache_lead_nowhere_outside,
    targets_behind_links_are_made_inside,
);
