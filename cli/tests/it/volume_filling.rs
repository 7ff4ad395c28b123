//! What a named volume gets of the image while others use it, look at it, or have been cut off.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::tool::{Boxwright, Context, Running};

const FILES: usize = 300;

/// A store with the image `data`, which has files and a FIFO in `/data`.
fn with_data() -> Boxwright {
    let boxwright = Boxwright::with_busybox();
    let context = Context::new(&format!(
        "FROM busybox\nRUN mkdir -m 1770 /data && cd /data && for n in $(seq {FILES}); do echo $n > $n; done && \
         mkdir sub && echo image > sub/f && mkfifo -m 620 pipe && chown 7:8 pipe . sub\n",
    ));
    boxwright.build(&context, &["-t", "data"]).ok();
    boxwright
}

const LOOK: &str = "ls /data | wc -l; cat /data/sub/f; stat -c '%a %u:%g' /data";

fn whole() -> String {
    format!("{}\nimage\n1770 7:8\n", FILES + 2)
}

fn look(boxwright: &Boxwright, volume: &str) -> String {
    boxwright.ok(&["run", "--rm", "-v", &format!("{volume}:/data"), "data", "sh", "-c", LOOK])
}

#[test]
fn who_comes_first_at_the_same_time_sees_everything() {
    let boxwright = with_data();
    for n in 0..5 {
        let bind = format!("v{n}:/data");
        let start = || {
            let mut command = boxwright.command(&["run", "--rm", "-v", &bind, "data", "sh", "-c", LOOK]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        for child in [start(), start(), start()] {
            let output = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), whole(), "{n}: {output:?}");
        }
    }
}

#[test]
fn an_empty_volume_is_filled_for_those_who_use_it_already_as_well() {
    let boxwright = with_data();
    let script = "echo ready; until test -e /m/sub/f; do usleep 10000; done; echo mine > /m/mine; \
                  trap 'exit 0' TERM; while :; do usleep 10000; done";
    let mut running =
        crate::run::start(&boxwright, &["run", "--rm", "-v", "shared:/m", "busybox", "sh", "-c", script]);
    assert!(look(&boxwright, "shared").ends_with("image\n1770 7:8\n"));
    let mine = boxwright.store().join("volumes/shared/data/mine");
    crate::tool::eventually("the other container writes into the same volume", || mine.exists());
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
}

#[test]
fn looking_at_volumes_keeps_none_from_being_filled_or_removed() {
    let boxwright = with_data();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    boxwright.ok(&["volume", "ls", "-f", "dangling=true"]);
                }
            });
        }
        let results: Vec<String> = (0..10)
            .map(|n| {
                let name = format!("v{n}");
                boxwright.ok(&["volume", "create", &name]);
                let seen = look(&boxwright, &name);
                seen + &boxwright.run(&["volume", "rm", &name]).stdout
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        for (n, result) in results.iter().enumerate() {
            assert_eq!(*result, format!("{}v{n}\n", whole()));
        }
    });
}

#[test]
fn a_fill_that_was_cut_off_is_done_again() {
    let boxwright = with_data();
    look(&boxwright, "cut");
    // As a kill in the middle of the moves leaves it.
    let volume = boxwright.store().join("volumes/cut");
    fs::write(volume.join("data/1"), "mine\n").unwrap();
    fs::remove_dir_all(volume.join("data/sub")).unwrap();
    fs::write(volume.join("filling"), "").unwrap();
    assert_eq!(look(&boxwright, "cut"), whole());
    assert_eq!(fs::read_to_string(volume.join("data/1")).unwrap(), "mine\n", "what is there stays");
    assert!(!volume.join("filling").exists());
    fs::remove_dir_all(volume.join("data/sub")).unwrap();
    let list = ["run", "--rm", "-v", "cut:/data", "data", "ls", "/data/sub"];
    boxwright.run(&list).fails_with(1).says("No such file");
}

#[test]
fn a_kill_while_a_volume_is_filled_leaves_all_of_it_or_nothing_that_counts() {
    let boxwright = with_data();
    for n in 0..10 {
        let bind = format!("v{n}:/data");
        let running = Running::start(&mut boxwright.command(&["run", "--rm", "-v", &bind, "data", "true"]));
        std::thread::sleep(std::time::Duration::from_millis(n * 4));
        drop(running);
        assert_eq!(look(&boxwright, &format!("v{n}")), whole(), "{n}");
    }
}

#[test]
fn a_fifo_is_copied() {
    let boxwright = with_data();
    let script = "test -p /data/pipe && stat -c '%a %u:%g' /data/pipe";
    let args = ["run", "--rm", "-v", "v1:/data", "data", "sh", "-c", script];
    assert_eq!(boxwright.ok(&args), "620 7:8\n");
}

#[test]
fn volumes_without_a_label_are_pruned() {
    let boxwright = Boxwright::new();
    boxwright.ok(&["volume", "create", "--label", "keep", "kept"]);
    boxwright.ok(&["volume", "create", "other"]);
    let pruned = boxwright.ok(&["volume", "prune", "-af", "--filter", "label!=keep"]);
    assert!(pruned.starts_with("Deleted Volumes:\nother\n\n"), "{pruned}");
    assert_eq!(boxwright.ok(&["volume", "ls", "-q"]), "kept\n");
    boxwright.run(&["volume", "ls", "--filter", "label!=keep"]).fails_with(1).says("invalid filter 'label!'");
}
