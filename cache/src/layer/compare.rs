//! How two layers differ: the first entry that is not the same in the tars that they stand for.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write as _, pipe};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::sink::{NodeKind, Timestamp};
use super::tar::{Entry, EntryKind, Limits, Reader};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::whiteout::{OPAQUE, PREFIX};
use crate::snapshot::Layer;

const BUFFER: usize = 256 << 10;
/// How many bytes are shown to each side of the first one that differs.
const EXCERPT: usize = 40;

/// Name and value.
type Xattr = (Vec<u8>, Vec<u8>);

/// Where two layers differ first, in the order of a tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub path: PathBuf,
    /// For people: what it is in the layer of the first build, then in that of the second.
    pub what: String,
}

/// None if the tars are the same in all that an entry says. Both are read once, at the same time, in little memory.
///
/// # Errors
/// When a layer can't be had or read, or `cancel` is raised.
pub fn first_difference(one: &Layer, two: &Layer, cancel: &Cancel) -> Result<Option<Difference>> {
    let failed = |e| Error::io("making", "a pipe")(e);
    let ((from_one, to_one), (from_two, to_two)) = (pipe().map_err(failed)?, pipe().map_err(failed)?);
    std::thread::scope(|scope| {
        let writers = [(one, to_one), (two, to_two)].map(|(layer, out)| {
            scope.spawn(move || {
                let mut out = BufWriter::with_capacity(BUFFER, out);
                layer.write_tar(&mut out, cancel)?;
                out.flush().map_err(Error::io("writing", "the layer archive"))
            })
        });
        let reader = |from| Reader::new(BufReader::with_capacity(BUFFER, from), Limits::default());
        let found = compare(reader(from_one), reader(from_two), cancel);
        let written: Vec<Result<()>> = writers
            .into_iter()
            .map(|writer| writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        // What a layer that can't be read seems to lack is no difference.
        for result in written {
            match result {
                // Nobody reads on behind the first difference.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => {}
                other => other?,
            }
        }
        found
    })
}

fn compare(
    mut one: Reader<impl Read>,
    mut two: Reader<impl Read>,
    cancel: &Cancel,
) -> Result<Option<Difference>> {
    loop {
        cancel.check()?;
        let (path, what) = match (one.next_entry()?, two.next_entry()?) {
            (None, None) => return Ok(None),
            (Some(only), None) => missing(&only, "second"),
            (None, Some(only)) => missing(&only, "first"),
            (Some(a), Some(b)) => match order(&a.path, &b.path) {
                Ordering::Less => missing(&a, "second"),
                Ordering::Greater => missing(&b, "first"),
                Ordering::Equal => {
                    let mut what = headers(&a, &b);
                    if what.is_none() && matches!(a.kind, EntryKind::File { .. }) {
                        what = contents(&mut one, &mut two, cancel)?;
                    }
                    let Some(what) = what else { continue };
                    (a.path, what)
                }
            },
        };
        return Ok(Some(Difference { path, what }));
    }
}

fn missing(entry: &Entry, from: &str) -> (PathBuf, String) {
    (entry.path.clone(), format!("{}: missing in the {from} build", kind(&entry.kind)))
}

/// The order in which a layer is written: the mark of a deletion stands where the deleted name would, that of an
/// opaque directory before all that is in it.
fn order(a: &Path, b: &Path) -> Ordering {
    let names = |path: &Path| -> Vec<Vec<u8>> {
        let deleted = |name: &[u8]| match name {
            OPAQUE => Vec::new(),
            name => name.strip_prefix(PREFIX).unwrap_or(name).to_vec(),
        };
        path.iter().map(|name| deleted(name.as_bytes())).collect()
    };
    names(a).cmp(&names(b)).then_with(|| a.cmp(b))
}

/// The first thing in the headers of an entry that is not the same. The size follows from the content.
fn headers(a: &Entry, b: &Entry) -> Option<String> {
    let (x, y) = (&a.meta, &b.meta);
    let differs = |what: &str, one: String, two: String| Some(both(what, &one, &two));
    if kind(&a.kind) != kind(&b.kind) {
        return differs("type", kind(&a.kind), kind(&b.kind));
    }
    if x.mode != y.mode {
        return differs("mode", format!("{:04o}", x.mode), format!("{:04o}", y.mode));
    }
    if (x.uid, x.gid) != (y.uid, y.gid) {
        return differs("owner", format!("{}:{}", x.uid, x.gid), format!("{}:{}", y.uid, y.gid));
    }
    if x.mtime != y.mtime {
        return differs("modification time", time(x.mtime), time(y.mtime));
    }
    if x.xattrs != y.xattrs {
        let other = |of: &[Xattr], than: &[Xattr]| {
            let all: Vec<_> = of.iter().filter(|one| !than.contains(one)).cloned().collect();
            attributes(&all)
        };
        return differs("extended attributes", other(&x.xattrs, &y.xattrs), other(&y.xattrs, &x.xattrs));
    }
    None
}

fn both(what: &str, one: &str, two: &str) -> String {
    format!("{what}: {one} in the first build, {two} in the second")
}

fn kind(kind: &EntryKind) -> String {
    match kind {
        EntryKind::Dir => "directory".to_owned(),
        EntryKind::File { .. } => "file".to_owned(),
        EntryKind::Symlink(target) => format!("symbolic link to {:?}", target.display().to_string()),
        EntryKind::HardLink(target) => format!("hard link to {:?}", target.display().to_string()),
        EntryKind::Node(NodeKind::Fifo) => "fifo".to_owned(),
        EntryKind::Node(NodeKind::Char { major, minor }) => format!("character device {major}:{minor}"),
        EntryKind::Node(NodeKind::Block { major, minor }) => format!("block device {major}:{minor}"),
    }
}

fn time(time: Timestamp) -> String {
    format!("{}.{:09}", time.secs, time.nanos)
}

fn attributes(all: &[Xattr]) -> String {
    let Some((name, value)) = all.first() else { return "none".to_owned() };
    let mut text = format!("{}=0x", String::from_utf8_lossy(name).escape_debug());
    for byte in value.iter().take(EXCERPT) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The first byte of the current files that is not the same, with its line.
fn contents(
    one: &mut Reader<impl Read>,
    two: &mut Reader<impl Read>,
    cancel: &Cancel,
) -> Result<Option<String>> {
    let (mut a, mut b, mut at, mut line) = (vec![0; BUFFER], vec![0; BUFFER], 0u64, 1usize);
    loop {
        cancel.check()?;
        let (n, m) = (fill(&mut one.data(), &mut a)?, fill(&mut two.data(), &mut b)?);
        let same = a[..n].iter().zip(&b[..m]).position(|(x, y)| x != y).unwrap_or(n.min(m));
        line += a[..same].iter().filter(|byte| **byte == b'\n').count();
        if same < n.max(m) {
            let what = format!("content, from byte {} on (line {line})", at + same as u64);
            return Ok(Some(both(&what, &excerpt(&a[..n], same), &excerpt(&b[..m], same))));
        }
        if n < BUFFER {
            return Ok(None);
        }
        at += BUFFER as u64;
    }
}

/// What is around `at`, of its line alone.
fn excerpt(bytes: &[u8], at: usize) -> String {
    if at == bytes.len() {
        return "its end".to_owned();
    }
    let (before, after) = bytes.split_at(at);
    let before = &before[before.len().saturating_sub(EXCERPT)..];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let end =
        after.iter().take(EXCERPT).position(|byte| *byte == b'\n').map_or(EXCERPT, |newline| newline + 1);
    let shown = [&before[start..], &after[..end.min(after.len())]].concat();
    format!("\"{}\"", shown.escape_ascii())
}

fn fill(data: &mut dyn Read, buffer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match data.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("reading", "the layer archive")(e)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use boxwright_testdata::tar::Tar;

    use super::*;

    fn difference(one: &[u8], two: &[u8]) -> Option<(String, String)> {
        let reader = |tar| Reader::new(tar, Limits::default());
        let found = compare(reader(one), reader(two), &Cancel::new().unwrap()).unwrap()?;
        Some((found.path.display().to_string(), found.what))
    }

    #[test]
    fn the_first_entry_that_differs_is_named_with_what_differs() {
        let base = || Tar::new().mtime(7).dir("d", 0o755);
        let one = base().file("d/f", 0o644, "one\ntwo\n").symlink("l", "d/f").finish();
        assert_eq!(difference(&one, &one), None);
        for (two, path, what) in [
            (
                base().file("d/f", 0o600, "").finish(),
                "d/f",
                "mode: 0644 in the first build, 0600 in the second",
            ),
            (base().symlink("l", "d/f").finish(), "d/f", "file: missing in the second build"),
            (base().fifo("d/a", 0o644).finish(), "d/a", "fifo: missing in the first build"),
            (
                base().symlink("d/f", "x").finish(),
                "d/f",
                "type: file in the first build, symbolic link to \"x\" in the second",
            ),
            (
                base().mtime(8).file("d/f", 0o644, "one\ntwo\n").finish(),
                "d/f",
                "modification time: 7.000000000 in the first build, 8.000000000 in the second",
            ),
            (
                base().file("d/f", 0o644, "one\ntwenty\n").finish(),
                "d/f",
                "content, from byte 6 on (line 2): \"two\\n\" in the first build, \"twenty\\n\" in the second",
            ),
            (
                base().file("d/f", 0o644, "one\n").finish(),
                "d/f",
                "content, from byte 4 on (line 2): \"two\\n\" in the first build, its end in the second",
            ),
            (
                base().file("d/f", 0o644, "one\ntwo\n").finish(),
                "l",
                "symbolic link to \"d/f\": missing in the second build",
            ),
        ] {
            assert_eq!(difference(&one, &two), Some((path.to_owned(), what.to_owned())));
        }
    }

    #[test]
    fn a_deleted_name_stands_where_the_name_would() {
        let one = Tar::new().file("a", 0o644, "").file("b", 0o644, "").finish();
        let two = Tar::new().file("a", 0o644, "").file(".wh.aa", 0, "").file("b", 0o644, "").finish();
        let expected = (".wh.aa".to_owned(), "file: missing in the first build".to_owned());
        assert_eq!(difference(&one, &two), Some(expected));
    }

    #[test]
    fn what_is_behind_the_first_buffer_is_found_and_shown_in_part() {
        let mut content = vec![b'x'; 3 * BUFFER];
        let one = Tar::new().file("f", 0o644, &content).finish();
        content[BUFFER + 5] = b'\x1b';
        let two = Tar::new().file("f", 0o644, &content).finish();
        let (_, what) = difference(&one, &two).unwrap();
        assert!(
            what.starts_with(&format!("content, from byte {} on (line 1): \"xxxxx", BUFFER + 5)),
            "{what}"
        );
        assert!(what.contains("xxxxx\\x1bxxx") && what.len() < 300, "{what}");
    }
}
