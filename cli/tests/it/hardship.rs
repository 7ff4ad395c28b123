//! Builds that are killed, and commands that run at the same time on one store. `BOXWRIGHT_ROUNDS` says how often, for
//! `scripts/slow`; a few times otherwise.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use boxwright_cache::Store;
use boxwright_testdata::{Ran, base, run};
use rustix::fs::FlockOperation;
use rustix::process::Signal;

use crate::tool::{Boxwright, Context, Running, cache, eventually, wrapped};

/// Two stages at the same time, a copy, many files: a bit of everything that can be cut short.
const DOCKERFILE: &str = "FROM busybox AS one
ARG ROUND
RUN mkdir /out && for n in $(seq 50); do echo $ROUND-$n > /out/$n; done
COPY data /out/data
FROM busybox AS two
ARG ROUND
RUN echo two-$ROUND > /two && ln /two /linked
FROM busybox
COPY --from=one /out /out
COPY --from=two /two /linked /
RUN cat /out/* /two /linked | sha256sum > /sum
";

pub(crate) fn rounds(few: u32) -> u32 {
    std::env::var("BOXWRIGHT_ROUNDS")
        .map_or(few, |rounds| rounds.parse().expect("BOXWRIGHT_ROUNDS is a number"))
}

fn context() -> Context {
    Context::new(DOCKERFILE).file("data", (0..200_000u32).map(|n| n.to_le_bytes()[0]).collect::<Vec<u8>>())
}

fn build(boxwright: &Boxwright, context: &Context, round: &str) -> Command {
    boxwright.command(&["build", "--progress", "plain", "--build-arg", round, "-t", "built", context.path()])
}

/// What /sum has to be: the same shell on the same bytes, in one container of another store.
fn sum_of(other: &Boxwright, context: &Context, round: &str) -> String {
    run(&mut build(other, context, round)).ok();
    other.output_of("built", &["cat", "/sum"])
}

#[track_caller]
fn assert_sound(boxwright: &Boxwright) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(boxwright.store().to_str().unwrap()), "{mounts}");
    boxwright.ok(&["system", "check"]);
}

/// What is left when no image and no step is to be kept: neither layers nor what a killed process was making.
#[track_caller]
fn assert_prunes_to_nothing(boxwright: &Boxwright) {
    boxwright.ok(&["builder", "prune", "-a", "-f"]);
    boxwright.ok(&["system", "prune", "-a", "-f"]);
    for dir in ["layers", "tmp", "blobs/sha256"] {
        let Ok(entries) = fs::read_dir(boxwright.store().join(dir)) else { continue };
        let left: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Collections of all that may go, of what does not fit, of images without a name, and the one that nobody asks for.
const COLLECTIONS: [&[&str]; 4] = [
    &["builder", "prune", "-af"],
    &["builder", "prune", "-af", "--keep-storage", "100kB"],
    &["system", "prune", "-f"],
    &["sync-store"],
];

fn collection(boxwright: &Boxwright, args: &[&str]) -> Command {
    let mut command = boxwright.command(args);
    command.env("BOXWRIGHT_KEEP_STORAGE", "100kB").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start_collections(boxwright: &Boxwright) -> Vec<Child> {
    COLLECTIONS.iter().map(|args| collection(boxwright, args).spawn().unwrap()).collect()
}

#[track_caller]
fn assert_all_end_well(collections: Vec<Child>) {
    for (args, child) in COLLECTIONS.iter().zip(collections) {
        Ran::new(args.join(" "), &child.wait_with_output().unwrap()).ok();
    }
}

/// As if the last collection that nobody asked for had been long ago.
fn make_collection_due(boxwright: &Boxwright) {
    let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1] + '/db', timeout=30); \
                  db.execute(\"UPDATE meta SET value = '0' WHERE key = 'collected'\"); db.commit()";
    run(Command::new("python3").args(["-c", script]).arg(boxwright.store())).ok();
}

#[test]
fn wherever_a_build_is_killed_the_next_one_is_right() {
    let (boxwright, other, context) = (Boxwright::with_busybox(), Boxwright::with_busybox(), context());
    let started = Instant::now();
    sum_of(&other, &context, "ROUND=first");
    let whole = started.elapsed();
    let mut numbers = Numbers::new();
    for round in 0..rounds(10) {
        let argument = format!("ROUND={round}");
        let (before, after) =
            (whole.mul_f64(numbers.below_one() / 2.0), whole.mul_f64(numbers.below_one() / 2.0));
        make_collection_due(&boxwright);
        let mut command = build(&boxwright, &context, &argument);
        let mut killed = [
            Running::start(command.stdout(Stdio::null()).stderr(Stdio::null())),
            Running::start(&mut collection(&boxwright, COLLECTIONS[round as usize % COLLECTIONS.len()])),
        ];
        std::thread::sleep(before);
        let beside = start_collections(&boxwright);
        std::thread::sleep(after);
        killed.iter().for_each(|killed| killed.signal(Signal::KILL));
        for killed in &mut killed {
            killed.wait();
        }
        assert_all_end_well(beside);
        assert_sound(&boxwright);
        let beside = start_collections(&boxwright);
        run(&mut build(&boxwright, &context, &argument)).ok();
        assert_all_end_well(beside);
        assert_eq!(
            boxwright.output_of("built", &["cat", "/sum"]),
            sum_of(&other, &context, &argument),
            "round {round}, collected after {before:?} and killed {after:?} later"
        );
    }
    let saved = boxwright.scratch("saved.tar");
    boxwright.ok(&["save", "-o", saved.to_str().unwrap(), "built"]);
    let third = Boxwright::new();
    third.ok(&["load", "-q", "-i", saved.to_str().unwrap()]);
    assert_eq!(third.output_of("built", &["cat", "/sum"]), other.output_of("built", &["cat", "/sum"]));
    assert_prunes_to_nothing(&boxwright);
}

/// As if the machine had lost power: rows that no sync has made durable are of another boot, and the files that they
/// name are torn. `all`: nothing has reached the disk. Files that a durable layer shares with others are whole.
const CUT_POWER: &str = "
import os, sqlite3, sys
store, everything = sys.argv[1], sys.argv[2] == 'all'
db = sqlite3.connect(store + '/db', timeout=30)

def files(top):
    for dir, _, names in os.walk(top):
        for path in (os.path.join(dir, name) for name in names):
            if os.path.isfile(path) and not os.path.islink(path):
                yield path

# Nobody makes anything durable meanwhile.
db.execute('BEGIN IMMEDIATE')
durable = []
if not everything:
    dirs = db.execute('SELECT dir FROM layers WHERE boot IS NULL AND dir_boot IS NULL AND dir IS NOT NULL UNION '
                      'SELECT dir FROM settlements WHERE boot IS NULL AND dir IS NOT NULL')
    durable += [path for dir, in dirs for path in files(store + '/layers/' + dir)]
    blobs = db.execute('SELECT digest FROM layer_blobs WHERE boot IS NULL AND present')
    durable += [store + '/blobs/' + digest.replace(':', '/') for digest, in blobs]
whole = {os.stat(path).st_ino for path in durable}
for table, column in [('names', 'boot'), ('images', 'boot'), ('records', 'boot'), ('settlements', 'boot'),
                      ('layer_blobs', 'boot'), ('layers', 'boot'), ('layers', 'dir_boot')]:
    which = '' if everything else f'WHERE {column} IS NOT NULL'
    db.execute(f\"UPDATE {table} SET {column} = 'another boot' {which}\")
db.execute(\"UPDATE meta SET value = 'another boot' WHERE key = 'boot'\")
db.commit()
for top in ['layers', 'blobs', 'tmp']:
    for path in files(store + '/' + top):
        if os.stat(path).st_ino not in whole:
            os.truncate(path, os.path.getsize(path) // 2)
";

fn cut_power(boxwright: &Boxwright, what: &str) {
    run(Command::new("python3").args(["-c", CUT_POWER]).arg(boxwright.store()).arg(what)).ok();
}

/// Waits until a power cut would take nothing any more.
fn make_durable(boxwright: &Boxwright) {
    boxwright.ok(&["sync-store"]);
    // Another sync, which a command left behind, may have begun with some of the rows.
    let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1] + '/db', timeout=30); \
                  print(sum(db.execute(f'SELECT count(boot) FROM {table}').fetchone()[0] \
                            for table in ['names', 'images', 'records', 'settlements', 'layer_blobs', 'layers']))";
    let count = || run(Command::new("python3").args(["-c", script]).arg(boxwright.store())).ok();
    eventually("everything is on the disk", || count() == "0\n");
}

/// A store with busybox, whose syncs so far met with this in the place of `syncfs`.
fn synced_with(what: &str) -> Boxwright {
    let (boxwright, busybox) = (Boxwright::new(), base::busybox(cache()));
    let load = boxwright.command(&["load", "-q", "-i", busybox.to_str().unwrap()]);
    let inject = format!("-einject=syncfs:{what}");
    // What a command leaves behind to sync is traced as well, and waited for.
    let strace = ["strace", "-f", "-qq", "-etrace=syncfs", &inject, "-o/dev/null"];
    run(&mut wrapped(&strace, &load)).ok();
    boxwright
}

#[test]
fn what_a_killed_sync_had_begun_with_is_the_next_ones() {
    let boxwright = synced_with("signal=KILL");
    boxwright.built(&Context::new("FROM busybox\nRUN echo later > /later\n"), &[]);
    make_durable(&boxwright);
    cut_power(&boxwright, "recent");
    assert_sound(&boxwright);
    assert_eq!(boxwright.output_of("busybox", &["echo", "here"]), "here\n");
    assert_eq!(boxwright.output_of("x", &["cat", "/later"]), "later\n");
}

#[test]
fn a_sync_keeps_others_from_starting_one_until_it_has_died() {
    let boxwright = synced_with("signal=KILL");
    let store = Store::open(&boxwright.store()).unwrap();
    assert!(store.needs_sync().unwrap());
    let syncs = fs::File::open(boxwright.store().join("blobs")).unwrap();
    rustix::fs::flock(&syncs, FlockOperation::LockShared).unwrap();
    assert!(!store.needs_sync().unwrap(), "somebody syncs");
    drop(syncs);
    boxwright.ok(&["sync-store"]);
    assert!(!store.needs_sync().unwrap());
}

/// The kernel tells of it once: a flush that follows ends well, whatever is on the disk.
#[test]
fn what_could_not_be_written_is_not_believed_after_a_later_sync() {
    let boxwright = synced_with("error=EIO");
    boxwright.built(&Context::new("FROM busybox\nRUN echo later > /later\n"), &[]);
    boxwright.ok(&["sync-store"]);
    cut_power(&boxwright, "recent");
    assert_sound(&boxwright);
    assert_eq!(boxwright.ok(&["images", "-q"]), "");
}

#[test]
fn after_a_power_cut_what_was_torn_is_made_again() {
    let (boxwright, context) = (Boxwright::with_busybox(), context());
    let sum = sum_of(&boxwright, &context, "ROUND=1");
    cut_power(&boxwright, "all");
    assert_sound(&boxwright);
    boxwright.run(&["run", "--rm", "--pull", "never", "built"]).fails_with(125);
    boxwright.ok(&["load", "-q", "-i", base::busybox(cache()).to_str().unwrap()]);
    assert_eq!(sum_of(&boxwright, &context, "ROUND=1"), sum);
    assert_prunes_to_nothing(&boxwright);
}

#[test]
fn whenever_the_power_fails_what_was_durable_stays_and_the_next_build_is_right() {
    let (boxwright, other, context) = (Boxwright::with_busybox(), Boxwright::with_busybox(), context());
    let started = Instant::now();
    let first = sum_of(&boxwright, &context, "ROUND=first");
    let whole = started.elapsed();
    boxwright.ok(&["tag", "built", "kept"]);
    make_durable(&boxwright);
    let mut numbers = Numbers::new();
    for round in 0..rounds(5) {
        let argument = format!("ROUND={round}");
        let after = whole.mul_f64(numbers.below_one());
        let mut command = build(&boxwright, &context, &argument);
        let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        std::thread::sleep(after);
        running.signal(Signal::KILL);
        running.wait();
        cut_power(&boxwright, "recent");
        assert_sound(&boxwright);
        assert_eq!(boxwright.output_of("kept", &["cat", "/sum"]), first, "round {round}, after {after:?}");
        let sum = sum_of(&boxwright, &context, &argument);
        assert_eq!(sum, sum_of(&other, &context, &argument), "round {round}, after {after:?}");
        if round % 2 == 0 {
            make_durable(&boxwright);
        }
    }
    assert_prunes_to_nothing(&boxwright);
}

#[test]
fn builds_loads_and_prunes_at_once_do_not_disturb_each_other() {
    let boxwright = Boxwright::with_busybox();
    let archive = base::busybox(cache());
    for round in 0..rounds(4) {
        let contexts: Vec<_> = (0..3)
            .map(|n| {
                let shared = format!("RUN echo {round} > /shared; head -c 100000 /dev/zero > /big");
                Context::new(&format!(
                    "FROM busybox\n{shared}\nCOPY own /own\nRUN cat /own /shared > /both\n"
                ))
                .file("own", format!("{n}\n"))
            })
            .collect();
        let start = |args: &[&str]| {
            boxwright.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let mut running: Vec<Child> = Vec::new();
        for (n, context) in contexts.iter().enumerate() {
            running.push(start(&["build", "--progress", "plain", "-t", &format!("own{n}"), context.path()]));
        }
        running.push(start(&["builder", "prune", "-a", "-f"]));
        running.push(start(&["builder", "prune", "-a", "-f", "--keep-storage", "100kB"]));
        running.push(start(&["load", "-i", archive.to_str().unwrap()]));
        running.push(start(&["system", "prune", "-f"]));
        running.push(start(&["run", "--rm", "busybox", "true"]));
        for child in running {
            Ran::new(format!("round {round}"), &child.wait_with_output().unwrap()).ok();
        }
        for n in 0..3 {
            let both = boxwright.output_of(&format!("own{n}"), &["cat", "/both"]);
            assert_eq!(both, format!("{n}\n{round}\n"));
        }
        assert_sound(&boxwright);
    }
    assert_prunes_to_nothing(&boxwright);
}

/// Another series in each process; what it gave is in the message of a failure.
struct Numbers(u64);

impl Numbers {
    fn new() -> Numbers {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Numbers(now.as_nanos() as u64 | 1)
    }

    /// xorshift64: from 0 to 1.
    fn below_one(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}
