//! Directories that turn into links and back, thousands of times a second, while they are mounted, copied and made
//! mount points of. Each link leads to a canary, for who takes its path for one of the host; inside there is a directory
//! at that path, so whoever looks inside finds one of two files, and nothing ever fails.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{Canary, patient};
use crate::hardship::rounds;
use crate::tool::{Boxwright, Context, Who};

/// Does `work` while the two exchange their names.
pub(super) fn while_exchanged<T>(one: &Path, other: &Path, work: impl FnOnce() -> T) -> T {
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
            }
        });
        // Also when `work` panics, or the other thread would run for ever.
        let _done = Done(&done);
        work()
    })
}

/// In the directory `top`: `dir`, and `link`, which leads to the canary's path, of which there is one inside as well.
fn fill(top: &Path, canary: &Canary, way: &str) -> [PathBuf; 2] {
    let inside = top.join(canary.path().trim_start_matches('/'));
    for (dir, text) in [(top.join("dir"), "directory\n"), (inside, "inside\n")] {
        fs::create_dir_all(dir.join("sub")).unwrap();
        for dir in [&dir, &dir.join("sub")] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        }
        for file in ["file", "sub/file"] {
            fs::write(dir.join(file), text).unwrap();
        }
    }
    symlink(way, top.join("link")).unwrap();
    [top.join("dir"), top.join("link")]
}

fn how_often(who: Who) -> u32 {
    rounds(if who == Who::Root { 4 } else { 2 })
}

/// Rounds until chance has to have shown something once.
pub(super) const PATIENCE: u32 = 100;

/// What was seen so often that the race was one.
#[derive(Default)]
struct Seen {
    directory: usize,
    inside: usize,
}

impl Seen {
    fn count(&mut self, text: &str) {
        self.directory += text.matches("directory\n").count();
        self.inside += text.matches("inside\n").count();
    }

    #[track_caller]
    fn assert_both(&self) {
        assert!(self.directory > 0 && self.inside > 0, "{} {}", self.directory, self.inside);
    }
}

fn a_cache_whose_directory_turns_into_a_link_while_steps_mount_it_leads_nowhere_outside(who: Who) {
    // CVE-2024-23651, CVE-2024-11218
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let mut seen = Seen::default();
    for way in canary.ways() {
        // Steps of four stages run at the same time, and mount both names and what is below them.
        let id = way.len();
        let mount = format!("--mount=type=cache,id={id}");
        let stages: String = ["dir", "link/sub", "dir/sub", "dir/../link"]
            .iter()
            .enumerate()
            .map(|(n, source)| {
                format!(
                    "FROM busybox AS s{n}\nRUN {mount},source={source},target=/m {mount},source={source}/file,target=/f \
                     cat /m/file /f && echo n > /m/new && touch /done\n"
                )
            })
            .collect();
        let context = Context::new(&format!("FROM busybox\nRUN {mount},target=/c mkdir /c/made\n"));
        boxwright.build(&context, &[]).ok();
        let caches: Vec<_> = fs::read_dir(boxwright.store().join("caches"))
            .unwrap()
            .map(|entry| entry.unwrap().path().join("data"))
            .filter(|data| data.join("made").exists() && !data.join("dir").exists())
            .collect();
        let [one, other] = fill(&caches[0], &canary, &way);
        let copies: String = (0..4).map(|n| format!("COPY --from=s{n} /done /{n}\n")).collect();
        context.write("Dockerfile", format!("{stages}FROM busybox\n{copies}"));
        while_exchanged(&one, &other, || {
            for _ in 0..how_often(who) {
                let ran = patient(&boxwright.command(&[
                    "build",
                    "--no-cache",
                    "--progress",
                    "plain",
                    context.path(),
                ]));
                canary.assert_unknown_to(&ran);
                assert_eq!(ran.status, 0, "{ran}");
                seen.count(&ran.stderr);
            }
        });
    }
    seen.assert_both();
}

fn a_volume_whose_directory_turns_into_a_link_while_a_container_starts_leads_nowhere_outside(who: Who) {
    // CVE-2024-11218: of a volume a part can be mounted as well
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    boxwright.ok(&["volume", "create", "vol"]);
    let mount = |options: &str| format!("type=volume,src=vol,{options}");
    boxwright.ok(&["run", "--rm", "--mount", &mount("dst=/v"), "busybox", "touch", "/v/made"]);
    let volumes = fs::read_dir(boxwright.store().join("volumes")).unwrap();
    let data =
        volumes.map(|entry| entry.unwrap().path().join("data")).find(|data| data.join("made").exists());
    let [one, other] = fill(&data.unwrap(), &canary, canary.path());
    let mut seen = Seen::default();
    while_exchanged(&one, &other, || {
        let mut round = 0;
        while round < 2 * how_often(who) || (seen.directory == 0 && round < PATIENCE) {
            let part = ["volume-subpath=dir,dst=/m", "volume-subpath=dir/sub,dst=/m", "dst=/m/volume"];
            let part = mount(part[round as usize % part.len()]);
            let inner = ["/m/volume/dir/new", "/other"][round as usize % 2];
            let command = ["run", "--rm", "--mount", &part, "--tmpfs", inner, "busybox", "sh", "-c"];
            let script = "echo n > /m/new; cat /m/file /m/volume/dir/file";
            let ran = patient(&boxwright.command(&[&command[..], &[script]].concat()));
            canary.assert_unknown_to(&ran);
            assert!(ran.status <= 1 || ran.status == 125, "{ran}");
            seen.count(&ran.stdout);
            round += 1;
        }
    });
    assert!(seen.directory > 0);
}

fn a_context_whose_directory_turns_into_a_link_while_it_is_read_shows_nothing_outside(who: Who) {
    // CVE-2024-11218: the source of a bind
    let (boxwright, canary) = (Boxwright::with_busybox_of(who), Canary::of(who));
    let context = Context::new(
        "FROM busybox AS one\nCOPY dir /d\nRUN cat /d/file /d/sub/file\n\
         FROM busybox\nRUN --mount=source=dir,target=/m --mount=source=dir/sub,target=/n,rw cat /m/file /n/file; echo n > /n/file\n\
         RUN --mount=from=one,source=/,target=/m cat /m/d/file\n",
    );
    let [one, other] = fill(context.path().as_ref(), &canary, canary.path());
    let mut seen = Seen::default();
    while_exchanged(&one, &other, || {
        let mut round = 0;
        while round < 2 * how_often(who) || (seen.directory + seen.inside == 0 && round < PATIENCE) {
            let ran =
                patient(&boxwright.command(&["build", "--no-cache", "--progress", "plain", context.path()]));
            canary.assert_unknown_to(&ran);
            assert!(ran.status <= 1, "{ran}");
            seen.count(&ran.stderr);
            round += 1;
        }
    });
    assert!(seen.directory + seen.inside > 0);
}

super::by_both!(
    a_cache_whose_directory_turns_into_a_link_while_steps_mount_it_leads_nowhere_outside,
    a_volume_whose_directory_turns_into_a_link_while_a_container_starts_leads_nowhere_outside,
    a_context_whose_directory_turns_into_a_link_while_it_is_read_shows_nothing_outside,
);
