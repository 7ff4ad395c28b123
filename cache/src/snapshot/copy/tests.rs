//! Copies that were changed, reduced to what was changed: as overlayfs would have left it in an upper directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::Seek as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;

use super::*;

/// A layer, and a copy of it that can be changed.
struct Bench {
    dir: tempfile::TempDir,
    copied: Copied,
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

fn shell(script: &str, dir: &Path) {
    let ran = Command::new("sh").args(["-euc", script]).current_dir(dir).output().unwrap();
    assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
}

impl Bench {
    fn of(marks: Marks, layer: &str) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        for name in ["layer", "copy", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        shell(layer, &dir.path().join("layer"));
        let (copy, work) = (open(&dir.path().join("copy")), open(&dir.path().join("work")));
        marks.declare(&copy).unwrap();
        let layers = vec![open(&dir.path().join("layer"))];
        let copied = Copied::new(layers, copy.as_fd(), work.as_fd(), &Cancel::new().unwrap()).unwrap();
        Bench { dir, copied }
    }

    fn copy(&self) -> PathBuf {
        self.dir.path().join("copy")
    }

    /// What is left, after the script has run in the copy.
    fn after(self, script: &str) -> BTreeMap<String, String> {
        shell(script, &self.copy());
        self.reduced()
    }

    fn reduced(self) -> BTreeMap<String, String> {
        self.copied.reduce(&Cancel::new().unwrap()).unwrap();
        let marks = Marks::of(open(&self.dir.path().join("copy"))).unwrap();
        let mut found = BTreeMap::new();
        let mut pending = vec![self.dir.path().join("copy")];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.dir.path().join("copy")).unwrap().to_str().unwrap();
                found.insert(name.to_owned(), describe(marks, &path));
                if path.symlink_metadata().unwrap().is_dir() {
                    pending.push(path);
                }
            }
        }
        found
    }
}

fn describe(marks: Marks, path: &Path) -> String {
    let meta = path.symlink_metadata().unwrap();
    let stat = rustix::fs::lstat(path).unwrap();
    if marks.is_whiteout(&stat, |_| Ok(open(path))).unwrap() {
        "gone".to_owned()
    } else if meta.is_dir() {
        let opaque = marks.is_opaque(OwnerView::current(), open(path)).unwrap();
        if opaque { "opaque".to_owned() } else { "dir".to_owned() }
    } else if meta.is_symlink() {
        format!("to {}", fs::read_link(path).unwrap().display())
    } else if meta.file_type().is_fifo() {
        "pipe".to_owned()
    } else {
        fs::read_to_string(path).unwrap()
    }
}

#[track_caller]
fn assert_left(layer: &str, script: &str, expected: &[(&str, &str)]) {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(path, what)| ((*path).to_owned(), (*what).to_owned())).collect();
    for marks in [Marks::Overlay, Marks::Own] {
        assert_eq!(Bench::of(marks, layer).after(script), expected, "{marks:?}: {script}");
    }
}

const TREE: &str =
    "mkdir -p d/e f; echo a > a; echo b > d/b; echo c > d/e/c; ln -s a link; mkfifo pipe; echo x > f/x";

#[test]
fn what_was_only_read_leaves_nothing() {
    assert_left(TREE, "cat a d/b d/e/c > /dev/null; ls -lR > /dev/null", &[]);
}

#[test]
fn what_was_changed_stays_in_its_directories() {
    assert_left(TREE, "echo more >> d/e/c", &[("d", "dir"), ("d/e", "dir"), ("d/e/c", "c\nmore\n")]);
    assert_left(TREE, "chmod 700 d/b", &[("d", "dir"), ("d/b", "b\n")]);
    assert_left(TREE, "chmod 700 d/e", &[("d", "dir"), ("d/e", "dir")]);
    assert_left(TREE, "chown 0:0 a; touch -h link", &[("a", "a\n"), ("link", "to a")]);
    assert_left(TREE, "printf A | dd of=a conv=notrunc 2> /dev/null; touch -d @1 a", &[("a", "A\n")]);
    // Written to the memory that shows it, and dated back.
    let map = "f = open('a', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[0] = 66; m.close()";
    let mapped = format!("touch -r a t; python3 -c \"import mmap; {map}\"; touch -r t a; rm t");
    assert_left(TREE, &mapped, &[("a", "B\n")]);
}

#[test]
fn what_is_gone_is_marked_once() {
    assert_left(TREE, "rm a link pipe", &[("a", "gone"), ("link", "gone"), ("pipe", "gone")]);
    assert_left(TREE, "rm -r d", &[("d", "gone")]);
    assert_left(TREE, "rm -r d/e", &[("d", "dir"), ("d/e", "gone")]);
    assert_left(TREE, "rm d/e/c d/b", &[("d", "dir"), ("d/b", "gone"), ("d/e", "dir"), ("d/e/c", "gone")]);
}

#[test]
fn what_is_new_stays_whole() {
    assert_left(TREE, "mkdir -p n/m; echo n > n/m/n", &[("n", "dir"), ("n/m", "dir"), ("n/m/n", "n\n")]);
    assert_left(TREE, "echo 0 > 0; rm 0", &[]);
    assert_left(TREE, "echo 0 > d/0; rm d/0", &[("d", "dir")]);
}

/// The kernel gives the number of what was removed to what is made next.
#[test]
fn a_directory_that_was_made_anew_hides_the_old_one() {
    let left = [("d", "opaque"), ("d/b", "b\n")];
    assert_left(TREE, "rm -r d; mkdir d; echo b > d/b", &left);
    assert_left(TREE, "rm a; mkdir a; echo b > a/b", &[("a", "opaque"), ("a/b", "b\n")]);
    assert_left(TREE, "rm -r d; echo file > d", &[("d", "file\n")]);
    assert_left(TREE, "rm -r f; mkdir f", &[("f", "opaque")]);
}

#[test]
fn what_was_moved_is_gone_and_new_with_all_that_is_in_it() {
    let moved = [("d", "gone"), ("n", "dir"), ("n/b", "b\n"), ("n/e", "dir"), ("n/e/c", "c\n")];
    assert_left(TREE, "mv d n", &moved);
    assert_left(TREE, "mv a b", &[("a", "gone"), ("b", "a\n")]);
    // Another directory of the copy in the place of one.
    let replaced = [("d", "dir"), ("d/e", "gone"), ("f", "opaque"), ("f/c", "c\n")];
    assert_left(TREE, "rm f/x; mv -T d/e f", &replaced);
    assert_left(TREE, "mv d/b a", &[("a", "b\n"), ("d", "dir"), ("d/b", "gone")]);
}

const NAMES: &str = "mkdir d; echo one > a; ln a b; ln a d/c; echo other > z; ln z y";

#[test]
fn names_of_one_file_count_as_they_are_used() {
    assert_left(NAMES, "cat a b > /dev/null", &[]);
    assert_left(NAMES, "rm a", &[("a", "gone")]);
    assert_left(NAMES, "rm b; echo new > b", &[("b", "new\n")]);
    assert_left(NAMES, "mv a n; mv n a", &[]);
    // With one name alone, it counts as changed, as overlayfs has it.
    assert_left(TREE, "mv a n; mv n a", &[("a", "a\n")]);
    let all = [("a", "one\nmore\n"), ("b", "one\nmore\n"), ("d", "dir"), ("d/c", "one\nmore\n")];
    assert_left(NAMES, "echo more >> b", &all);
    // Of the same length and at the same time.
    let all = [("a", "two\n"), ("b", "two\n"), ("d", "dir"), ("d/c", "two\n")];
    let sneaky =
        "stat -c %y a > t; printf two | dd of=a conv=notrunc 2> /dev/null; touch -d \"$(cat t)\" a; rm t";
    assert_left(NAMES, sneaky, &all);
}

/// A layer with the new name alone would have made another file of it.
#[test]
fn a_new_name_of_a_file_with_several_keeps_all_of_them() {
    let one = "one\n";
    let all = [("a", one), ("b", one), ("d", "dir"), ("d/c", one)];
    assert_left(NAMES, "ln a n", &[&all[..], &[("n", one)]].concat());
    assert_left(NAMES, "ln d/c 0", &[&[("0", one)], &all[..]].concat());
    // As many names as before, and fewer.
    assert_left(NAMES, "mv a n", &[&[("a", "gone")], &all[1..], &[("n", one)]].concat());
    assert_left(
        NAMES,
        "rm a b; ln d/c n",
        &[("a", "gone"), ("b", "gone"), ("d", "dir"), ("d/c", one), ("n", one)],
    );
    // One that was taken away and came back is none.
    assert_left(NAMES, "rm b; mv d/c b", &[("d", "dir"), ("d/c", "gone")]);
    // Nothing tells that of a directory that was moved: its files are copies, as overlayfs has them.
    assert_left(NAMES, "mv d e", &[("d", "gone"), ("e", "dir"), ("e/c", one)]);
    // Names that others took.
    let swapped = [("a", "other\n"), ("b", one), ("d", "dir"), ("d/c", one), ("y", "other\n"), ("z", one)];
    assert_left(NAMES, "mv z t; mv a z; mv t a", &swapped);
    let bench = Bench::of(Marks::Own, NAMES);
    let copy = bench.copy();
    let inode = |name: &str| copy.join(name).metadata().unwrap().ino();
    shell("ln b n", &copy);
    let linked = inode("n");
    let Bench { dir: _dir, copied } = bench;
    copied.reduce(&Cancel::new().unwrap()).unwrap();
    assert_eq!(["a", "b", "d/c", "n"].map(inode), [linked; 4]);
}

/// As where the clock was set back while the files were copied, and comes by the same time again.
#[test]
fn what_changed_at_a_time_that_comes_twice_is_compared() {
    let change = "printf A | dd of=a conv=notrunc 2> /dev/null; chmod 711 d/e; rm link; ln -s b link; \
                  printf X | dd of=y conv=notrunc 2> /dev/null";
    let layer = format!("{TREE}; touch -d @7 . a d d/e; echo y > y; ln y z");
    for is_noticed in [false, true] {
        let mut bench = Bench::of(Marks::Own, &layer);
        shell(&format!("{change}; touch -d @7 . a d/e"), &bench.copy());
        // What is here now looks as what was copied did.
        bench.copied.list.set_len(0).unwrap();
        bench.copied.list.rewind().unwrap();
        list::write(&bench.copied.dir, &[], &bench.copied.list, &Cancel::new().unwrap()).unwrap();
        if is_noticed {
            bench.copied.finished = (0, 0);
        } else {
            bench.copied.finished = (i64::MAX, 0);
        }
        let left = bench.reduced();
        let changed = ["a", "d", "d/e", "link", "y", "z"].map(str::to_owned).to_vec();
        assert_eq!(left.into_keys().collect::<Vec<_>>(), if is_noticed { changed } else { Vec::new() });
    }
}

#[test]
fn a_clock_that_was_set_back_is_not_waited_for() {
    let file = tempfile::tempfile().unwrap();
    let before = wait_until_after((0, 0), &file).unwrap();
    let ahead = (before.0 + 1000, 0);
    let now = wait_until_after(ahead, &file).unwrap();
    assert!(before <= now && now < ahead, "{before:?} {now:?}");
    assert!(wait_until_after(now, &file).unwrap() > now);
}

#[test]
fn names_of_one_file_stay_that() {
    let bench = Bench::of(Marks::Overlay, NAMES);
    let inode = |name: &str| bench.copy().join(name).metadata().unwrap().ino();
    assert_eq!((inode("a"), inode("z")), (inode("d/c"), inode("y")));
    assert_ne!(inode("a"), inode("z"));
    assert_ne!(inode("a"), bench.dir.path().join("layer/a").metadata().unwrap().ino());
}

#[test]
fn times_are_those_that_were_left() {
    let bench = Bench::of(Marks::Own, TREE);
    shell("rm d/b; touch -d @1000 d; chmod 711 d/e; touch -d @2000 d/e; touch -d @3000 .", &bench.copy());
    let copy = bench.copy();
    let dir = bench.dir.path().join("kept");
    fs::create_dir(&dir).unwrap();
    let Bench { dir: _keep, copied } = bench;
    copied.reduce(&Cancel::new().unwrap()).unwrap();
    let seen = |name: &str| copy.join(name).metadata().unwrap();
    assert_eq!((seen("d").mtime(), seen("d/e").mtime(), seen("").mtime()), (1000, 2000, 3000));
    assert_eq!(seen("d/e").permissions().mode() & 0o7777, 0o711);
    assert!(!copy.join("d/e/c").exists());
}

/// What is in the directory before is the difference's own, with what the copy brings below it left out.
#[test]
fn directories_of_the_difference_stay() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["layer/etc", "copy/etc", "copy/proc", "work"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("layer/etc/hosts"), "").unwrap();
    shell("touch -d @5000 copy/etc; touch -d @1 layer/etc", dir.path());
    let (copy, work) = (open(&dir.path().join("copy")), open(&dir.path().join("work")));
    let layers = vec![open(&dir.path().join("layer"))];
    let copied = Copied::new(layers, copy.as_fd(), work.as_fd(), &Cancel::new().unwrap()).unwrap();
    assert!(dir.path().join("copy/etc/hosts").exists());
    let left = Bench { dir, copied };
    assert_eq!(left.copy().join("etc").metadata().unwrap().mtime(), 5000);
    let expected = [("etc", "dir"), ("proc", "dir")].map(|(path, what)| (path.to_owned(), what.to_owned()));
    assert_eq!(left.reduced(), expected.into());
}

#[test]
fn what_others_put_back_is_compared() {
    let mut bench = Bench::of(Marks::Overlay, TREE);
    bench.copied.put_back("d/e/c");
    bench.copied.put_back("d/b");
    let again = "for f in d/e/c d/b; do stat -c %y $f > ../t; cat $f > ../f; cat ../f > $f; touch -d \"$(cat ../t)\" $f; done; \
                 stat -c %y d > ../t; touch d/new; rm d/new; touch -d \"$(cat ../t)\" d; echo B > d/b";
    let left = bench.after(again);
    let expected = [("d", "dir"), ("d/b", "B\n")].map(|(path, what)| (path.to_owned(), what.to_owned()));
    assert_eq!(left, expected.into());
}

#[test]
fn a_part_is_found_inside_the_stack_and_copied_alone() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["low", "high", "into"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let path = |name: &str| dir.path().join(name);
    shell("mkdir -p d/e; echo low > d/e/f; echo gone > d/gone", &path("low"));
    shell("mkdir d; mknod d/gone c 0 0; echo high > d/g", &path("high"));
    symlink("/d", path("high/link")).unwrap();
    let stack = || vec![open(&path("low")), open(&path("high"))];
    let cancel = Cancel::new().unwrap();
    assert!(copy_part(stack(), "link", open(&path("into")).as_fd(), &cancel).unwrap());
    assert_eq!(fs::read_to_string(path("into/data/e/f")).unwrap(), "low\n");
    assert_eq!(fs::read_to_string(path("into/data/g")).unwrap(), "high\n");
    assert!(!path("into/data/gone").exists());
    assert!(!copy_part(stack(), "../none", open(&path("into")).as_fd(), &cancel).unwrap());
    assert!(shows_itself(open(&path("low")).as_fd(), &cancel).unwrap());
    assert!(!shows_itself(open(&path("high")).as_fd(), &cancel).unwrap());
}

#[test]
fn holes_stay_holes() {
    let layer =
        "truncate -s 1G big; printf found | dd of=big bs=1 seek=500000000 conv=notrunc; truncate -s 1M empty";
    let bench = Bench::of(Marks::Own, layer);
    let (big, empty) = (bench.copy().join("big"), bench.copy().join("empty"));
    let (has, hollow) = (fs::metadata(&big).unwrap(), fs::metadata(empty).unwrap());
    assert_eq!((has.len(), hollow.len(), hollow.blocks()), (1 << 30, 1 << 20, 0));
    assert!(has.blocks() * 512 < 1 << 20, "{} blocks", has.blocks());
    shell("test $(dd if=big bs=1 skip=500000000 count=5) = found", &bench.copy());
}
