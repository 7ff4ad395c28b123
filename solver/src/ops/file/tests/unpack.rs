//! ADD of archives: honest ones in every compression, and those that try to get out.

use super::*;
use boxwright_cache::layer::compress::{Packer, Packing};
use boxwright_cache::layer::tar::{EntryKind, Writer};
use std::io::Write;

/// An entry of an archive: path, what it is, content.
enum Member<'a> {
    Dir(&'a str, u32),
    File(&'a str, &'a str),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
}

fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    let meta = |mode| Metadata {
        mode,
        uid: 25,
        gid: 26,
        mtime: Timestamp { secs: 1_000_000_000, nanos: 0 },
        xattrs: vec![],
    };
    for member in members {
        match member {
            Member::Dir(path, mode) => writer.entry(Path::new(path), &meta(*mode), &EntryKind::Dir).unwrap(),
            Member::File(path, content) => {
                let kind = EntryKind::File { size: content.len() as u64 };
                writer.entry(Path::new(path), &meta(0o644), &kind).unwrap();
                writer.content(content.as_bytes()).unwrap();
            }
            Member::Link(path, target) => {
                writer.entry(Path::new(path), &meta(0o777), &EntryKind::Symlink((*target).into())).unwrap();
            }
            Member::Hard(path, target) => {
                writer.entry(Path::new(path), &meta(0o644), &EntryKind::HardLink((*target).into())).unwrap();
            }
        }
    }
    writer.finish().unwrap()
}

/// Runs ADD of `archive` to `dest`.
fn add(bench: &Bench, archive: &[u8], dest: &str, chown: Option<OwnerSpec>) -> Result<Run, FileError> {
    fs::write(bench.path("context/a.tar"), archive).unwrap();
    let action = CopyAction { unpack: true, owner: chown, ..bench.copy(&["a.tar"], dest) };
    bench.try_run(vec![FileAction::Copy(action)])
}

fn listed(entries: &[&str], members: &[Member<'_>], dest: &str) -> Result<Vec<String>, String> {
    let bench = Bench::new(entries);
    add(&bench, &tar(members), dest, None).map(|run| run.list()).map_err(|e| e.to_string())
}

#[test]
fn archives_are_told_by_their_content() {
    let plain = tar(&[Member::Dir("d", 0o2775), Member::File("d/f", "1"), Member::File("g", "22")]);
    let mut gzip = Packer::new(Vec::new(), Packing::Gzip(1));
    gzip.write_all(&plain).unwrap();
    let packed = [plain.clone(), gzip.finish().unwrap(), zstd::encode_all(&plain[..], 1).unwrap()];
    for archive in &packed {
        let bench = Bench::new(&[]);
        let run = add(&bench, archive, "/t/", None).unwrap();
        assert_eq!(run.list(), ["t/", "t/d/ 2775 25:26", "t/d/f=1 25:26", "t/g=22 25:26"]);
        assert_eq!(run.tree.lookup("t/d", false).unwrap().unwrap().meta.mtime.secs, 1_000_000_000);
        assert_eq!(run.summary, Some(scan(run.layer.as_fd(), None, &Cancel::new().unwrap()).unwrap()));
        assert_eq!(fs::read_dir(bench.path("spool")).unwrap().count(), 0);
    }
    let bench = Bench::new(&[]);
    let run = add(&bench, &packed[1], "/t/", owner("3:4")).unwrap();
    assert_eq!(run.list(), ["t/ 3:4", "t/d/ 2775 3:4", "t/d/f=1 3:4", "t/g=22 3:4"]);
}

#[test]
fn what_is_no_archive_is_copied() {
    for content in [&b""[..], b"text", &[0; 2048], b"\x1f\x8b broken", &tar(&[])] {
        let bench = Bench::new(&[]);
        let run = add(&bench, content, "/t/", None).unwrap();
        assert_eq!(run.changed(), ["t", "t/a.tar"]);
        assert_eq!(run.tree.read_file("t/a.tar", 4096).unwrap().unwrap(), content);
    }
}

#[test]
fn an_archive_that_breaks_off_is_an_error() {
    let whole = tar(&[Member::File("f", &"x".repeat(4000))]);
    let error = add(&Bench::new(&[]), &whole[..2000], "/", None).err().unwrap();
    assert!(error.to_string().starts_with("unpacking /a.tar: "), "{error}");
}

#[test]
fn entries_replace_what_is_there() {
    use Member::{Dir, File, Hard, Link};
    let base = &["base/d/old=0", "base/f=0", "base/l->d"][..];
    let over = |members: &[Member<'_>]| listed(base, members, "/").unwrap();
    assert_eq!(over(&[File("d", "1")]), ["d=1 25:26", "f=0", "l->d"]);
    assert_eq!(
        over(&[Dir("f", 0o755), File("f/x", "1")]),
        ["d/", "d/old=0", "f/ 25:26", "f/x=1 25:26", "l->d"]
    );
    assert_eq!(over(&[Dir("d", 0o700)]), ["d/ 700 25:26", "d/old=0", "f=0", "l->d"], "directories merge");
    assert_eq!(
        over(&[File("d", "1"), Dir("d", 0o755)]),
        ["d/ 25:26", "f=0", "l->d"],
        "what went does not come back"
    );
    assert_eq!(
        over(&[File("l/x", "1")]),
        ["d/", "d/old=0", "d/x=1 25:26", "f=0", "l->d"],
        "links are gone through"
    );
    assert_eq!(over(&[Dir("l", 0o755)]), ["d/ 25:26", "d/old=0", "f=0", "l->d"]);
    assert_eq!(
        over(&[File("l", "1")]),
        ["d/", "d/old=0", "f=0", "l=1 25:26"],
        "but not for a file of that name"
    );
    assert_eq!(over(&[Link("l", "f")]), ["d/", "d/old=0", "f=0", "l->f"]);
    assert_eq!(over(&[File("n/.wh.f", "")]), ["d/", "d/old=0", "f=0", "l->d", "n/", "n/.wh.f= 25:26"]);
    let linked = over(&[File("x", "1"), Hard("y", "x"), Hard("z", "f")]);
    assert_eq!(linked, ["d/", "d/old=0", "f=0 25:26", "l->d", "x=1 25:26", "y=1 25:26", "z=0 25:26"]);
}

#[test]
fn hard_links_share_their_file() {
    let bench = Bench::new(&["base/low=0"]);
    let members = [Member::File("b", "1"), Member::Hard("a", "b"), Member::Hard("c", "low")];
    let run = add(&bench, &tar(&members), "/", None).unwrap();
    let group = |path: &str| run.tree.lookup(path, false).unwrap().unwrap().group;
    assert!(group("a").is_some() && group("a") == group("b"));
    assert!(group("c").is_some() && group("c") == group("low"), "a name of a lower file is the same file");
    let low = run.tree.lookup("low", false).unwrap().unwrap();
    assert_eq!(
        (low.meta.uid, low.meta.mtime.secs),
        (25, 1_000_000_000),
        "the file is what the last name says"
    );
    let gone = listed(&[], &[Member::Hard("a", "gone")], "/").unwrap_err();
    assert_eq!(gone, "unpacking /a.tar: hard link to /gone, which is no file");
}

#[test]
fn nothing_gets_out_of_the_destination() {
    use Member::{File, Hard, Link};
    let all = listed(&["base/etc/x=0"], &[Link("up", ".."), File("up/etc/x", "1")], "/t").unwrap();
    assert_eq!(all, ["etc/", "etc/x=0", "t/", "t/etc/", "t/etc/x=1 25:26", "t/up->.."]);
    let all = listed(&[], &[Link("abs", "/../../tmp"), File("abs/x", "1")], "/t").unwrap();
    assert_eq!(all, ["t/", "t/abs->/../../tmp", "t/tmp/", "t/tmp/x=1 25:26"]);
    let loops = listed(&[], &[Link("a", "b"), Link("b", "a"), File("a/x", "1")], "/").unwrap_err();
    assert!(loops.contains("too many levels"), "{loops}");
    let members = [File("../x", "1"), File("a/../../../y", "2"), Hard("z", "../../x"), File("/abs", "3")];
    let all = listed(&["base/x=0"], &members, "/t").unwrap();
    assert_eq!(all, ["t/", "t/abs=3 25:26", "t/x=1 25:26", "t/y=2 25:26", "t/z=1 25:26", "x=0"]);
}

/// An archive that looks like chance and is the same for one `seed`: names come again, as something else, through links, and
/// below what was a file in between.
fn any(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut number = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let dirs = ["a", "a-b", "b/c", "l"];
    let rounds: Vec<_> = (0..80)
        .map(|_| {
            let (dir, name, what) = (dirs[number(4)], number(6), number(7));
            (
                what,
                dir,
                format!("{dir}/{name}"),
                format!("{dir}/{name}/x"),
                format!("{}/{}", dirs[number(4)], number(6)),
            )
        })
        .collect();
    let members = rounds.iter().flat_map(|(what, dir, path, below, other)| match what {
        0 => vec![Member::Dir(path, 0o700), Member::File(below, other)],
        1..3 => vec![Member::File(path, other)],
        3 => vec![Member::Link(path, other)],
        4 => vec![Member::File(other, path), Member::Hard(path, other)],
        5 => vec![Member::Dir(path, 0o711), Member::Hard(below, "low")],
        _ => vec![Member::File(dir, other), Member::Dir(dir, 0o755)],
    });
    tar(&members.collect::<Vec<_>>())
}

#[test]
fn what_waits_on_the_disk_gives_the_same_layer() {
    let mut good = 0;
    for seed in 0..8 {
        let run = |in_memory: bool| {
            let bench = Bench::new(&["base/a/1/y=0", "base/l->a", "base/b/c/2=1", "base/low=2"]);
            if in_memory {
                // Its place is taken.
                bench.make("spool/ordered/");
            }
            let run = add(&bench, &any(seed), "/", None).map_err(|e| e.to_string())?;
            let summary = scan(run.layer.as_fd(), None, &Cancel::new().unwrap()).unwrap();
            Ok::<_, String>((run.list(), summary.content))
        };
        let (disk, memory) = (run(false), run(true));
        assert_eq!(disk, memory, "{seed}");
        good += usize::from(disk.is_ok());
    }
    assert!(good > 4, "{good}");
}
