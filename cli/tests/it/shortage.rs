//! A store on a file system where nothing can be written any more: for want of space or of inodes, or because it is
//! read-only. It is said which, nothing is damaged, and everything goes on once it can be written again.

use std::ffi::CStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use boxwright_testdata::{Ran, base, run};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use crate::tool::{Boxwright, Context, binary, cache, eventually};

/// A store that has busybox, alone on a tmpfs that goes with this value.
struct Small(Boxwright);

impl Small {
    fn with(options: &CStr) -> Small {
        let small = Small(Boxwright::new());
        fs::create_dir(small.mount_point()).unwrap();
        mount("none", small.mount_point(), "tmpfs", MountFlags::empty(), Some(options)).unwrap();
        small.0.ok(&["load", "-q", "-i", base::busybox(cache()).to_str().unwrap()]);
        small
    }

    fn mount_point(&self) -> PathBuf {
        self.0.store()
    }

    fn build(&self, dockerfile: &str, name: &str) -> Ran {
        self.0.build(&Context::new(dockerfile), &["-t", name])
    }

    /// Once nobody who works in the background writes to it.
    fn make_read_only(&self) {
        let seal = || mount_remount(self.mount_point(), MountFlags::RDONLY, c"");
        eventually("it can be mounted read-only", || seal().is_ok());
    }

    fn make_writable(&self) {
        mount_remount(self.mount_point(), MountFlags::empty(), c"").unwrap();
    }

    /// Takes all that is left, by files in a directory that the store does not know; how many.
    fn use_up(&self, size: usize) -> usize {
        let filler = self.mount_point().join("filler");
        fs::create_dir_all(&filler).unwrap();
        let written = |n: &usize| fs::write(filler.join(n.to_string()), vec![1; size]).is_ok();
        (0..).take_while(written).count()
    }

    fn give_back(&self) {
        fs::remove_dir_all(self.mount_point().join("filler")).unwrap();
    }

    /// Each command that writes says what is lacking, with the exit code that its other failures have.
    #[track_caller]
    fn assert_nothing_works(&self, says: &str) {
        let again = self.build("FROM busybox\nRUN echo new > /new\n", "new").fails_with(1).says(says);
        assert!(again.stderr.contains(self.mount_point().to_str().unwrap()), "no place: {again}");
        self.0.run(&["run", "--rm", "busybox", "true"]).fails_with(125).says(says);
        self.0.run(&["tag", "busybox", "other"]).fails_with(1).says(says);
        let archive = base::busybox(cache());
        self.0.run(&["load", "-q", "-i", archive.to_str().unwrap()]).fails_with(1).says(says);
    }

    /// Nothing half done is left, and what is built now is what a build is anywhere.
    #[track_caller]
    fn assert_all_works(&self) {
        assert!(self.0.ok(&["system", "check"]).ends_with(": 0 wrong\n"));
        self.0.run(&["image", "inspect", "half"]).fails_with(1);
        self.build("FROM busybox\nRUN echo small > /small\nRUN cat /small /small > /twice\n", "whole").ok();
        assert_eq!(self.0.output_of("whole", &["cat", "/twice"]), "small\nsmall\n");
        assert!(self.0.ok(&["system", "check"]).ends_with(": 0 wrong\n"));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(self.mount_point(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_is_said_and_the_next_build_works() {
    let small = Small::with(c"size=24m");
    let context = Context::new("FROM busybox\nCOPY big /big\n").file("big", vec![7; 30 << 20]);
    for ran in [
        small.0.build(&context, &["-t", "half"]),
        small.build("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=30\n", "half"),
    ] {
        ran.fails_with(1).says("No space left on device").says(" is short of space: ").says("system prune");
    }
    small.assert_all_works();
}

/// A file system with no room for an image.
struct Full(PathBuf);

impl Full {
    fn below(boxwright: &Boxwright) -> Full {
        let full = boxwright.scratch("full");
        fs::create_dir(&full).unwrap();
        mount("none", &full, "tmpfs", MountFlags::empty(), Some(c"size=200k")).unwrap();
        fs::write(full.join("other"), vec![1; 100 << 10]).unwrap();
        Full(full)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_that_only_the_result_goes_to_is_told_from_the_store_s() {
    let boxwright = Boxwright::with_busybox();
    let full = Full::below(&boxwright);
    let full = &full.0;
    let context = Context::new("FROM busybox\n");
    let here = |args: &[&str]| {
        let mut command = boxwright.command(args);
        command.current_dir(full);
        command
    };
    let build = |output: &str| here(&["build", "-o", output, context.path()]);
    let mut to_stdout = here(&["save", "busybox"]);
    to_stdout.stdout(fs::File::create(full.join("stdout.tar")).unwrap());
    let place = format!("the file system of {}", full.display());
    let commands = [
        (here(&["save", "-o", "a.tar", "busybox"]), &*place),
        (build("type=oci,dest=b.tar"), &place),
        (build("type=tar,dest=c.tar"), &place),
        (build("type=oci,tar=false,dest=layout"), &place),
        (build("dir"), &place),
        (to_stdout, "the file system of /dev/stdout"),
    ];
    for (mut command, place) in commands {
        let ran = run(&mut command).fails_with(1).says("No space left on device");
        ran.says(" is short of space: ").says(place).says_nothing_of("system prune");
        let left = fs::read_dir(full).unwrap().map(|entry| entry.unwrap().path());
        for left in left.filter(|left| !left.ends_with("other")) {
            let _ = fs::remove_dir_all(&left).or_else(|_| fs::remove_file(&left));
        }
    }
    for mut command in [here(&["save", "-o", "/dev/full", "busybox"]), build("type=oci,dest=/dev/full")] {
        run(&mut command).fails_with(1).says("writing /dev/full: No space left").says_nothing_of("help: ");
    }
}

#[test]
fn used_up_inodes_are_told_from_used_up_space() {
    let small = Small::with(c"size=64m,nr_inodes=1000");
    let mut context = Context::new("FROM busybox\nCOPY . /many\n");
    for n in 0..1000 {
        context = context.file(&n.to_string(), "");
    }
    for ran in [
        small.0.build(&context, &["-t", "half"]),
        small.build("FROM busybox\nRUN for n in $(seq 1000); do echo > /$n || exit 1; done\n", "half"),
    ] {
        ran.fails_with(1).says("No space left on device").says(" is short of inodes, ").says("system prune");
    }
    small.assert_all_works();
}

#[test]
fn without_an_inode_or_a_byte_left_every_command_says_so() {
    for (options, size, says) in [
        (c"size=64m,nr_inodes=1000", 0, " is short of inodes, "),
        (c"size=24m", 4096, " is short of space: "),
    ] {
        let small = Small::with(options);
        assert!(small.use_up(size) > 100);
        small.assert_nothing_works(says);
        small.give_back();
        small.assert_all_works();
    }
}

#[test]
fn removing_works_without_an_inode_or_a_byte_left() {
    for (options, size) in [(c"size=64m,nr_inodes=1000", 0), (c"size=24m", 4096)] {
        let small = Small::with(options);
        small.build("FROM busybox\nRUN dd if=/dev/zero of=/big bs=1M count=3\n", "half").ok();
        small.0.ok(&["rmi", "half"]);
        let kept = small.mount_point().join("reserve/3");
        eventually("something is kept back", || kept.exists());
        // Once nobody works in the background.
        eventually("all is used up", || {
            small.use_up(size);
            !small.0.run(&["tag", "busybox", "other"]).stderr.is_empty()
        });
        // Without what is kept back nothing can go.
        let hidden = small.mount_point().join("filler/reserve");
        fs::rename(kept.parent().unwrap(), &hidden).unwrap();
        small.0.run(&["image", "prune", "-f"]).fails_with(1).says("is short of");
        fs::rename(&hidden, kept.parent().unwrap()).unwrap();
        small.0.ok(&["image", "prune", "-f"]);
        let pruned = small.0.ok(&["builder", "prune", "-a", "-f"]);
        assert!(pruned.contains("3.1") && pruned.contains("MB"), "{pruned}");
        assert!(!kept.exists());
        small.give_back();
        small.assert_all_works();
        eventually("something is kept back again", || kept.exists());
    }
}

#[test]
fn the_first_command_of_a_boot_works_without_a_byte_left() {
    let small = Small::with(c"size=24m");
    let kept = small.mount_point().join("reserve/3");
    small.build("FROM busybox\nRUN echo x > /x\n", "x").ok();
    eventually("something is kept back", || kept.exists());
    eventually("all is used up", || {
        small.use_up(4096);
        !small.0.run(&["tag", "busybox", "other"]).stderr.is_empty()
    });
    // The kernel says which boot it is in a file.
    let dir = tempfile::tempdir().unwrap();
    let boot = dir.path().join("boot");
    fs::write(&boot, "00000000-0000-4000-8000-000000000001\n").unwrap();
    let images = || {
        let script =
            format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"", boot.display());
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(binary());
        run(command.arg("--root").arg(small.mount_point()).args(["images", "-q"]))
    };
    let hidden = small.mount_point().join("filler/reserve");
    fs::rename(kept.parent().unwrap(), &hidden).unwrap();
    images().says(" is short of space: ");
    fs::rename(&hidden, kept.parent().unwrap()).unwrap();
    images().ok();
}

/// What needs nothing written.
const READS: [&[&str]; 11] = [
    &["images", "--no-trunc", "-q"],
    &["image", "inspect", "old"],
    &["history", "-q", "old"],
    &["images", "--tree"],
    &["dockerfile", "old"],
    &["system", "df"],
    &["buildx", "du"],
    &["volume", "ls"],
    &["volume", "inspect", "data"],
    &["why", "^", "1"],
    &["system", "check"],
];

#[test]
fn a_store_that_is_only_here_mounted_read_only_is_read_while_others_write_it() {
    let boxwright = Boxwright::with_busybox();
    boxwright
        .build(&Context::new("FROM busybox\nRUN --mount=type=cache,target=/c date > /old\n"), &["-t", "old"])
        .ok();
    boxwright.ok(&["volume", "create", "data"]);
    let sealed = Sealed(boxwright.scratch("sealed"));
    fs::create_dir(&sealed.0).unwrap();
    mount_bind(boxwright.store(), &sealed.0).unwrap();
    mount_remount(&sealed.0, MountFlags::BIND | MountFlags::RDONLY, c"").unwrap();
    let there = |args: &[&str]| run(Command::new(binary()).arg("--root").arg(&sealed.0).args(args));
    for args in READS {
        let here = boxwright.ok(args).replace(boxwright.store().to_str().unwrap(), "STORE");
        let read = there(args).ok().replace(sealed.0.to_str().unwrap(), "STORE");
        assert_eq!(read, here, "{args:?}");
    }
    there(&["system", "df", "-v"]).ok();
    let saved = boxwright.scratch("old.tar");
    there(&["save", "-o", saved.to_str().unwrap(), "old"]).ok();
    let says = " is mounted read-only; mount it read-write, or name another store with --root";
    there(&["run", "--rm", "busybox", "true"]).fails_with(125).says(says);
    there(&["tag", "busybox", "other"]).fails_with(1).says(says);
    boxwright.ok(&["rmi", "old"]);
    boxwright.ok(&["load", "-q", "-i", saved.to_str().unwrap()]);
    assert_eq!(there(&["images", "-q"]).ok(), boxwright.ok(&["images", "-q"]));
}

struct Sealed(PathBuf);

impl Drop for Sealed {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn a_read_only_store_is_said_and_works_when_it_can_be_written() {
    let small = Small::with(c"size=64m");
    small.build("FROM busybox\nRUN echo old > /old\n", "old").ok();
    small.0.ok(&["volume", "create", "data"]);
    let before = READS.map(|args| small.0.ok(args));
    small.make_read_only();
    assert_eq!(READS.map(|args| small.0.ok(args)), before);
    let (saved, other) = (small.0.scratch("old.tar"), Boxwright::new());
    small.0.ok(&["save", "-o", saved.to_str().unwrap(), "old"]);
    other.ok(&["load", "-q", "-i", saved.to_str().unwrap()]);
    assert_eq!(other.output_of("old", &["cat", "/old"]), "old\n");
    small.assert_nothing_works(
        " is mounted read-only; mount it read-write, or name another store with --root",
    );
    small.make_writable();
    assert_eq!(small.0.output_of("old", &["cat", "/old"]), "old\n");
    small.build("FROM busybox\nRUN echo old > /old\n", "old").says("CACHED").ok();
    small.assert_all_works();
}
