//! Devices: nodes that an image brings, or that root makes, are the host's devices, and open nothing.

use std::fs;
use std::os::unix::fs::FileTypeExt;

use boxwright_testdata::run;
use boxwright_testdata::tar::Tar;

use super::load;
use crate::tool::{Boxwright, Context, cache};

/// `loop-control`, `fuse`, `net/tun` and `loop0`: what the machine has and no container does, and what opens for whoever
/// reaches a node of it.
const FOREIGN: [(u8, u32, u32); 4] = [(b'c', 10, 237), (b'c', 10, 229), (b'c', 10, 200), (b'b', 7, 0)];

/// Tries to open every node that is there, for reading and for writing.
const OPEN: &str = "for d in *; do (: < $d) 2>/dev/null && echo read $d; (: >> $d) 2>/dev/null && echo wrote $d; done; echo tried *";

fn names() -> String {
    let name = |(kind, major, minor): &(u8, u32, u32)| format!("{}{major}-{minor}", char::from(*kind));
    let mut names: Vec<_> = FOREIGN.iter().map(name).collect();
    names.sort();
    names.join(" ")
}

/// A script that makes the nodes in `dir`, and opens them.
fn make_and_open(dir: &str) -> String {
    let made: Vec<_> = FOREIGN
        .iter()
        .map(|(kind, major, minor)| {
            let kind = char::from(*kind);
            format!("mknod {kind}{major}-{minor} {kind} {major} {minor}")
        })
        .collect();
    format!("mkdir -p {dir} && cd {dir} && {} && {OPEN}", made.join(" && "))
}

#[test]
fn nodes_in_an_image_open_nothing() {
    let boxwright = Boxwright::new();
    let layer = FOREIGN.iter().fold(Tar::new().dir("nodes", 0o755), |tar, &(kind, major, minor)| {
        let number = if kind == b'c' { b'3' } else { b'4' };
        tar.device(&format!("nodes/{}{major}-{minor}", char::from(kind)), number, major, minor)
    });
    load(&boxwright, "nodes", layer);
    let script = format!("cd /nodes && test -c c10-237 -a -b b7-0 && {OPEN}");
    let tried = format!("tried {}\n", names());
    assert_eq!(boxwright.output_of("nodes", &["sh", "-c", &script]), tried);
    boxwright.build(&Context::new(&format!("FROM nodes\nRUN ({script}) > /seen\n")), &["-t", "seen"]).ok();
    assert_eq!(boxwright.output_of("seen", &["cat", "/seen"]), tried);
}

#[test]
fn nodes_that_root_makes_open_nothing() {
    let boxwright = Boxwright::with_busybox();
    let tried = format!("tried {}\n", names());
    for dir in ["/made", "/dev/made", "/dev/shm/made", "/tmp/made"] {
        assert_eq!(boxwright.output_of("busybox", &["sh", "-c", &make_and_open(dir)]), tried, "{dir}");
        let context = Context::new(&format!("FROM busybox\nRUN ({}) > /seen\n", make_and_open(dir)));
        boxwright.build(&context, &["-t", "seen"]).ok();
        assert_eq!(boxwright.output_of("seen", &["cat", "/seen"]), tried, "a step in {dir}");
    }
    // They are part of the image all the same.
    boxwright.build(&Context::new("FROM busybox\nRUN mknod /n c 1 3\n"), &["-t", "n"]).ok();
    assert_eq!(boxwright.output_of("n", &["stat", "-c", "%F %t:%T", "/n"]), "character special file 1:3\n");
}

#[test]
fn nodes_in_a_directory_of_the_host_open_nothing() {
    let boxwright = Boxwright::with_busybox();
    let shared = Context::new("");
    let bind = format!("{}:/shared", shared.path());
    let script = make_and_open("/shared/made");
    let out = boxwright.ok(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", &script]);
    assert_eq!(out, format!("tried {}\n", names()));
    let kind = fs::metadata(shared.join("made/c10-237")).unwrap().file_type();
    assert!(kind.is_char_device(), "it is there, on the host as well");
    // What every container has may be shown at another place too, and nothing else.
    let out = |device: &str| {
        let bind = format!("{device}:/shown");
        boxwright.run(&["run", "--rm", "-v", &bind, "busybox", "sh", "-c", "echo x > /shown && echo wrote"])
    };
    assert_eq!(out("/dev/null").ok(), "wrote\n");
    let node = shared.join("made/c10-237");
    out(node.to_str().unwrap()).fails_with(1);
}

#[test]
fn the_machine_has_the_devices_that_are_tried() {
    // Without containers they open, or the other tests would see nothing.
    let dir = tempfile::tempdir_in(cache()).unwrap();
    let script = make_and_open(dir.path().join("made").to_str().unwrap());
    let out = run(std::process::Command::new("sh").args(["-c", &script])).ok();
    assert!(out.contains("read "), "{out}");
}
