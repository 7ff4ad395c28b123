//! Builds that are killed, and commands that run at the same time on one store. `BOXWRIGHT_ROUNDS` says how often, for
//! `scripts/slow`; a few times otherwise.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use boxwright_testdata::{Ran, base, run};
use rustix::process::Signal;

use crate::tool::{Boxwright, Context, Running, cache};

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

fn rounds(few: u32) -> u32 {
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

#[test]
fn wherever_a_build_is_killed_the_next_one_is_right() {
    let (boxwright, other, context) = (Boxwright::with_busybox(), Boxwright::with_busybox(), context());
    let started = Instant::now();
    sum_of(&other, &context, "ROUND=first");
    let whole = started.elapsed();
    let mut numbers = Numbers::new();
    for round in 0..rounds(10) {
        let argument = format!("ROUND={round}");
        let after = whole.mul_f64(numbers.below_one());
        let mut command = build(&boxwright, &context, &argument);
        let mut killed = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
        std::thread::sleep(after);
        killed.signal(Signal::KILL);
        killed.wait();
        assert_sound(&boxwright);
        run(&mut build(&boxwright, &context, &argument)).ok();
        assert_eq!(
            boxwright.output_of("built", &["cat", "/sum"]),
            sum_of(&other, &context, &argument),
            "round {round}, killed after {after:?}"
        );
    }
    let saved = boxwright.scratch("saved.tar");
    boxwright.ok(&["save", "-o", saved.to_str().unwrap(), "built"]);
    let third = Boxwright::new();
    third.ok(&["load", "-q", "-i", saved.to_str().unwrap()]);
    assert_eq!(third.output_of("built", &["cat", "/sum"]), other.output_of("built", &["cat", "/sum"]));
    assert_prunes_to_nothing(&boxwright);
}

/// As if the machine had lost power before anything reached the disk: the rows are of another boot, and what the files
/// held is torn.
fn cut_power(boxwright: &Boxwright) {
    let script = "
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1] + '/db')
for table, column in [('names', 'boot'), ('images', 'boot'), ('records', 'boot'), ('settlements', 'boot'),
                      ('layer_blobs', 'boot'), ('layers', 'boot'), ('layers', 'dir_boot')]:
    db.execute(f\"UPDATE {table} SET {column} = 'another boot'\")
db.execute(\"UPDATE meta SET value = 'another boot' WHERE key = 'boot'\")
db.commit()
for top in ['layers', 'blobs']:
    for dir, _, names in os.walk(sys.argv[1] + '/' + top):
        for path in (os.path.join(dir, name) for name in names):
            if os.path.isfile(path) and not os.path.islink(path):
                os.truncate(path, os.path.getsize(path) // 2)
";
    run(Command::new("python3").args(["-c", script]).arg(boxwright.store())).ok();
}

#[test]
fn after_a_power_cut_what_was_torn_is_made_again() {
    let (boxwright, context) = (Boxwright::with_busybox(), context());
    let sum = sum_of(&boxwright, &context, "ROUND=1");
    cut_power(&boxwright);
    assert_sound(&boxwright);
    boxwright.run(&["run", "--rm", "--pull", "never", "built"]).fails_with(125);
    boxwright.ok(&["load", "-q", "-i", base::busybox(cache()).to_str().unwrap()]);
    assert_eq!(sum_of(&boxwright, &context, "ROUND=1"), sum);
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
