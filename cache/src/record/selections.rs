//! What builds read of host directories: which files differ from those that the build before read in the same place.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use crate::digest::ContentDigest;
use crate::error::{Error, Result};
use crate::fs::walk::Mark;
use crate::store::Store;

/// How many places are remembered, and how many bytes of lists: the latest.
const KEPT: usize = 500;
const KEPT_BYTES: usize = 64 << 20;
/// How many names of each kind are given.
const NAMED: usize = 10;
/// The fastest that is worth it: names repeat each other.
const LEVEL: i32 = 1;
/// How many bytes of a list wait before they are compressed: that of a small selection is only if it is kept.
const WAITING: usize = 4 << 20;
/// How much of a mark is kept: enough to be relied on.
const MARK: usize = 16;
/// Of so many files at most it is known that they, and no others, differ.
const DIFFERING: usize = 10_000;

/// How what is read differs from what was read before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChanges {
    pub changed: Paths,
    pub added: Paths,
    pub removed: Paths,
}

/// What is read, compared with what was read before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    pub changes: FileChanges,
    /// The digest of what was read before.
    pub before: ContentDigest,
    /// All that is not as it was; none if that is too much to be listed.
    pub differing: Option<HashSet<PathBuf>>,
}

/// Some of the paths that changed in one way, in order, and how many there are in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    pub count: usize,
    pub first: Vec<String>,
}

impl Paths {
    fn add(&mut self, path: &[u8]) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(Path::new(OsStr::from_bytes(path)).display().to_string());
        }
    }
}

/// What is read in one place: paths in order, and for each what tells whether it has changed.
#[derive(Default)]
pub struct Selection {
    waiting: Vec<u8>,
    compressed: Option<zstd::Encoder<'static, Vec<u8>>>,
}

impl std::fmt::Debug for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selection").finish_non_exhaustive()
    }
}

impl Selection {
    pub fn add(&mut self, path: &Path, mark: &Mark) {
        if self.waiting.len() >= WAITING {
            self.compress();
        }
        self.waiting.extend_from_slice(&mark[..MARK]);
        self.waiting.extend_from_slice(path.as_os_str().as_bytes());
        self.waiting.push(0);
    }

    fn compress(&mut self) -> &mut zstd::Encoder<'static, Vec<u8>> {
        let encoder = self.compressed.get_or_insert_with(|| {
            zstd::Encoder::new(Vec::new(), LEVEL).expect("the level is one of zstd's")
        });
        encoder.write_all(&self.waiting).expect("memory takes everything");
        self.waiting.clear();
        encoder
    }

    fn finish(mut self) -> Vec<u8> {
        self.compress();
        let encoder = self.compressed.expect("it was made");
        encoder.finish().expect("memory takes everything")
    }
}

impl Store {
    /// Remembers what was read in `place`, which may be any text, and its digest. Gives what differs from the last
    /// time; none if there was no last time, or nothing differs.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub fn remember_selection(
        &self,
        place: &str,
        content: ContentDigest,
        selection: Selection,
    ) -> Result<Option<Compared>> {
        let doing = "remembering what a build reads";
        let place = blake3::hash(place.as_bytes());
        let known: Option<[u8; 32]> = self
            .db()
            .prepare_cached("SELECT content FROM selections WHERE place = ?1")
            .and_then(|mut select| select.query_row([place.as_bytes()], |row| row.get(0)).optional())
            .map_err(Error::db(doing))?;
        if known == Some(content.0) {
            return Ok(None);
        }
        let files = selection.finish();
        let before: Option<([u8; 32], Vec<u8>)> = self.write(doing, |tx| {
            let before = tx
                .prepare_cached("SELECT content, files FROM selections WHERE place = ?1")?
                .query_row([place.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            tx.prepare_cached(
                "INSERT OR REPLACE INTO selections (place, content, files) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![place.as_bytes(), content.0, files])?;
            let old = "DELETE FROM selections WHERE id IN (SELECT id FROM
                       (SELECT id, row_number() OVER latest AS place, sum(length(files)) OVER latest AS bytes
                        FROM selections WINDOW latest AS (ORDER BY id DESC)) WHERE place > ?1 OR bytes > ?2)";
            tx.prepare_cached(old)?.execute([KEPT, KEPT_BYTES])?;
            Ok(before)
        })?;
        // A list that can't be read any more is none.
        Ok(before.and_then(|(before, list)| {
            let (changes, differing) = compare(&list, &files).ok()?;
            let differing = (differing.len() < DIFFERING).then_some(differing);
            Some(Compared { changes, before: ContentDigest(before), differing })
        }))
    }
}

/// How two lists differ, both in order, and the first of what is not in the list before as it is in the other.
fn compare(before: &[u8], after: &[u8]) -> std::io::Result<(FileChanges, HashSet<PathBuf>)> {
    let (mut changes, mut differing) = (FileChanges::default(), HashSet::new());
    let mut differs = |path: Vec<u8>| {
        if differing.len() < DIFFERING {
            differing.insert(OsString::from_vec(path).into());
        }
    };
    let (mut old, mut new) = (Lines::of(before)?, Lines::of(after)?);
    loop {
        let order = match (&old.line, &new.line) {
            (None, None) => return Ok((changes, differing)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((_, old)), Some((_, new))) => {
                Path::new(OsStr::from_bytes(old)).cmp(Path::new(OsStr::from_bytes(new)))
            }
        };
        let was = if order.is_le() { old.next()? } else { None };
        let is = if order.is_ge() { new.next()? } else { None };
        match (was, is) {
            (Some((_, path)), None) => changes.removed.add(&path),
            (None, Some((_, path))) => {
                changes.added.add(&path);
                differs(path);
            }
            (Some((was, _)), Some((is, path))) if was != is => {
                changes.changed.add(&path);
                differs(path);
            }
            _ => {}
        }
    }
}

/// The mark and the path of an entry.
type Line = ([u8; MARK], Vec<u8>);

/// A list that is read again.
struct Lines<'a> {
    rest: BufReader<zstd::Decoder<'static, BufReader<&'a [u8]>>>,
    /// The one to come.
    line: Option<Line>,
}

impl Lines<'_> {
    fn of(list: &[u8]) -> std::io::Result<Lines<'_>> {
        let mut lines = Lines { rest: BufReader::new(zstd::Decoder::new(list)?), line: None };
        lines.next()?;
        Ok(lines)
    }

    fn next(&mut self) -> std::io::Result<Option<Line>> {
        let (mut mark, mut path) = ([0; MARK], Vec::new());
        let next = if self.rest.fill_buf()?.is_empty() {
            None
        } else {
            self.rest.read_exact(&mut mark)?;
            self.rest.read_until(0, &mut path)?;
            path.pop();
            Some((mark, path))
        };
        Ok(std::mem::replace(&mut self.line, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cancel;
    use crate::fs::pattern::Filter;
    use crate::fs::walk::{Context, Entry, NoCache};

    #[test]
    fn what_differs_is_told_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let top = dir.path().join("context");
        std::fs::create_dir_all(top.join("a")).unwrap();
        let write = |path: &str, text: &str| std::fs::write(top.join(path), text).unwrap();
        let look = |place: &str| {
            let (cancel, root) = (Cancel::new().unwrap(), std::fs::File::open(&top).unwrap().into());
            let context = Context::new(root, &[]).unwrap();
            let mut list = Selection::default();
            let mut seen = |entry: &Entry, mark: &Mark| list.add(&entry.path, mark);
            let all = Filter::default();
            let content = context.digest_selection(&[], &all, &NoCache, &cancel, &mut seen).unwrap();
            (content, store.remember_selection(place, content, list).unwrap())
        };
        write("a-b", "1");
        write("a/x", "1");
        write("gone", "1");
        let (first, before) = look("one");
        assert_eq!(before, None, "there was nothing before");
        assert_eq!(look("one"), (first, None), "it is what it was");
        write("a/x", "2");
        (0..12).for_each(|i| write(&format!("a/new{i:02}"), ""));
        std::fs::remove_file(top.join("gone")).unwrap();
        let Compared { changes, before, differing } = look("one").1.unwrap();
        assert_eq!(before, first);
        let paths =
            |count, first: &[&str]| Paths { count, first: first.iter().map(|p| (*p).to_owned()).collect() };
        assert_eq!((changes.changed, changes.removed), (paths(1, &["a/x"]), paths(1, &["gone"])));
        assert_eq!((changes.added.count, changes.added.first.len()), (12, NAMED));
        let expected = (0..12).map(|i| format!("a/new{i:02}").into()).chain([PathBuf::from("a/x")]);
        assert_eq!(differing, Some(expected.collect()));
        assert_eq!(look("other").1, None, "another place");
    }

    #[test]
    fn too_many_changes_are_counted_but_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let look = |content: u8, mark: u8, count: usize| {
            let mut list = Selection::default();
            (0..count).for_each(|n| list.add(Path::new(&format!("{n:06}")), &[mark; 32]));
            store.remember_selection("here", ContentDigest([content; 32]), list).unwrap()
        };
        look(1, 1, DIFFERING);
        let compared = look(2, 2, DIFFERING).unwrap();
        assert_eq!((compared.changes.changed.count, compared.differing), (DIFFERING, None));
        assert_eq!(look(3, 2, DIFFERING + 1).unwrap().differing.unwrap().len(), 1);
    }
}
