//! What makes a context large that nobody means to copy: directories that tools fill and can fill again.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use boxwright_cache::fs::walk::{Entry, Kind};

/// Directories of history, installed packages and caches.
const USUAL: [&str; 10] = [
    "node_modules",
    ".git",
    ".venv",
    "venv",
    "__pycache__",
    ".gradle",
    ".terraform",
    ".tox",
    ".cache",
    "bower_components",
];
/// What is read is large from here on, in bytes.
const LARGE: u64 = 10 << 20;

/// Most of what a build reads of a directory of the host, and could do without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ballast {
    /// Of the directories it lies in.
    pub name: &'static str,
    pub files: usize,
    /// Of these files, and of all that is read.
    pub bytes: u64,
    pub total: u64,
}

/// Adds up what is read.
pub(super) struct Weighing {
    found: Vec<Ballast>,
    total: u64,
    /// The outermost directory of such a name, and which of those found it is.
    inside: Option<(PathBuf, usize)>,
}

impl Weighing {
    /// What is selected by name is meant.
    pub(super) fn new(select: &[String]) -> Weighing {
        let is_meant = |name: &str| select.iter().any(|pattern| pattern.split('/').any(|part| part == name));
        let found = USUAL.into_iter().filter(|name| !is_meant(name));
        let found = found.map(|name| Ballast { name, files: 0, bytes: 0, total: 0 }).collect();
        Weighing { found, total: 0, inside: None }
    }

    /// Entries come in order, directories before what is in them.
    pub(super) fn add(&mut self, entry: &Entry) {
        self.inside.take_if(|(dir, _)| !entry.path.starts_with(&*dir));
        match (&entry.kind, &self.inside) {
            (Kind::Dir, None) => self.inside = self.named(&entry.path).map(|at| (entry.path.clone(), at)),
            (Kind::File, inside) => {
                self.total += entry.key.size;
                if let Some((_, at)) = inside {
                    self.found[*at].files += 1;
                    self.found[*at].bytes += entry.key.size;
                }
            }
            _ => {}
        }
    }

    fn named(&self, dir: &Path) -> Option<usize> {
        let name = dir.file_name().and_then(OsStr::to_str)?;
        self.found.iter().position(|found| found.name == name)
    }

    /// The heaviest, if it makes most of what is read, and that is large.
    pub(super) fn end(self) -> Option<Ballast> {
        let heaviest = self.found.into_iter().max_by_key(|found| found.bytes)?;
        let is_large = self.total >= LARGE && heaviest.bytes > self.total / 2;
        is_large.then_some(Ballast { total: self.total, ..heaviest })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use boxwright_cache::Cancel;
    use boxwright_cache::fs::pattern::Filter;
    use boxwright_cache::fs::walk::Context;

    use super::*;

    /// Weighs a directory with these files of so many MiB, none of which takes space.
    fn weigh(files: &[(&str, u64)], select: &[&str]) -> Option<(&'static str, usize, u64, u64)> {
        let dir = tempfile::tempdir().unwrap();
        for (path, size) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().set_len(size << 20).unwrap();
        }
        let select: Vec<String> = select.iter().map(|path| (*path).to_owned()).collect();
        let context = Context::new(File::open(dir.path()).unwrap().into(), &[]).unwrap();
        let mut weighing = Weighing::new(&select);
        let (filter, cancel) = (Filter::default(), Cancel::new().unwrap());
        let add = &mut |entry| {
            weighing.add(&entry);
            Ok(())
        };
        context.select(&select, &filter, &cancel, add).unwrap();
        let Ballast { name, files, bytes, total } = weighing.end()?;
        Some((name, files, bytes >> 20, total >> 20))
    }

    #[test]
    fn most_of_a_large_context_is_ballast_or_there_is_none() {
        let web = [("a/node_modules/x/1", 8), ("b/node_modules/2", 3), ("b/node_modules-2/3", 1), ("src", 2)];
        assert_eq!(weigh(&web, &[]), Some(("node_modules", 2, 11, 14)));
        assert_eq!(weigh(&web, &["a", "src"]), Some(("node_modules", 1, 8, 10)));
        assert_eq!(weigh(&web, &["b"]), None, "it is not much");
        assert_eq!(weigh(&web, &["a/node_modules"]), None, "it was asked for");
        assert_eq!(weigh(&[(".git/pack", 10), ("data", 11)], &[]), None, "other things are more");
        assert_eq!(weigh(&[(".git/node_modules/x", 10), ("venv/y", 9)], &[]), Some((".git", 1, 10, 19)));
    }
}
