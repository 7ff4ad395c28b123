//! Which entries patterns select: components are matched one by one, and links are followed inside the context, so
//! that a selection holds what a copy of it needs.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, OFlags};
use rustix::io::Errno;

use super::{Context, Entry, Kind};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::pattern::{Filter, Glob};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// What a pattern found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    /// As the pattern names it, links and all.
    pub path: PathBuf,
    /// Where that leads, without links; none where a link that a glob found leads nowhere.
    pub real: Option<PathBuf>,
}

/// A pattern on its way.
struct Partial {
    named: PathBuf,
    /// A directory, or with `rest` empty anything.
    real: PathBuf,
    rest: VecDeque<Part>,
    links: usize,
    /// A glob was among what came before. What it finds is a directory that is gone into, or what the pattern means.
    globbed: bool,
    /// What a glob found was a link.
    led: bool,
}

#[derive(Clone)]
enum Part {
    /// From the pattern: it is part of the name.
    Named(String),
    /// From a link's target.
    Target(Vec<u8>),
}

impl Context {
    /// What the path or glob `pattern` names, sorted: nothing, if all of it is missing or ignored. Links are followed
    /// inside the context, the last one too, but a glob goes through none: only before the first one, and at the end.
    /// The empty path and `.` are the root.
    ///
    /// # Errors
    /// When the pattern is malformed, a directory can't be read, or links form a loop.
    pub fn resolve(&self, pattern: &str, cancel: &Cancel) -> Result<Vec<Match>> {
        self.expand(pattern, cancel, &mut |_| ())
    }

    /// Gives `each` what `patterns` name, with what `filter` leaves of everything below, and with the links that lead
    /// there; all of the context if there are no patterns. Sorted, parents first, names in the order of their bytes;
    /// without the root.
    ///
    /// # Errors
    /// As [`Context::resolve`]; and those of `each`.
    pub fn select(
        &self,
        patterns: &[String],
        filter: &Filter,
        cancel: &Cancel,
        each: &mut dyn FnMut(Entry) -> Result<()>,
    ) -> Result<()> {
        let mut links: BTreeMap<PathBuf, Entry> = BTreeMap::new();
        let mut tops = Vec::new();
        for pattern in patterns {
            let mut keep = |link: Entry| {
                links.insert(link.path.clone(), link);
            };
            tops.extend(self.expand(pattern, cancel, &mut keep)?.into_iter().filter_map(|m| m.real));
        }
        tops.sort_unstable();
        tops.dedup();
        if filter.is_empty() {
            // A directory brings all that is below it.
            tops.dedup_by(|below, above| below.starts_with(above));
        }
        if patterns.is_empty() || tops.len() == 1 && tops[0].as_os_str().is_empty() {
            return self.walk(Path::new(""), filter, cancel, each);
        }
        let mut links = links.into_values().peekable();
        let mut give = |entry: Entry| {
            while let Some(link) = links.next_if(|link| link.path <= entry.path) {
                if link.path != entry.path {
                    each(link)?;
                }
            }
            each(entry)
        };
        if tops.is_sorted_by(|one, next| !next.starts_with(one)) {
            tops.iter().try_for_each(|top| self.whole(top, filter, cancel, &mut give))?;
        } else {
            // What a filter leaves of one is not what it leaves of another that lies in it.
            let mut found: BTreeMap<PathBuf, Entry> = BTreeMap::new();
            let mut keep = |entry: Entry| {
                found.insert(entry.path.clone(), entry);
                Ok(())
            };
            tops.iter().try_for_each(|top| self.whole(top, filter, cancel, &mut keep))?;
            found.into_values().try_for_each(&mut give)?;
        }
        links.try_for_each(each)
    }

    /// `top`, if it is not the root, and what is below it.
    fn whole(
        &self,
        top: &Path,
        filter: &Filter,
        cancel: &Cancel,
        each: &mut dyn FnMut(Entry) -> Result<()>,
    ) -> Result<()> {
        let Some(entry) = self.stat(top)? else { return Ok(()) };
        let is_dir = entry.kind == Kind::Dir;
        if !top.as_os_str().is_empty() {
            each(entry)?;
        }
        if is_dir { self.walk(top, filter, cancel, each) } else { Ok(()) }
    }

    fn expand(&self, pattern: &str, cancel: &Cancel, link: &mut dyn FnMut(Entry)) -> Result<Vec<Match>> {
        // The whole pattern is checked before anything is looked at. Without a wildcard it is a path as it is written.
        if Glob::is_wild(pattern) {
            Glob::new(pattern)?;
        }
        let rest = pattern
            .split('/')
            .filter(|p| !matches!(*p, "" | "."))
            .map(|p| Part::Named(p.to_owned()))
            .collect();
        let (named, real) = (PathBuf::new(), PathBuf::new());
        let mut pending = vec![Partial { named, real, rest, links: 0, globbed: false, led: false }];
        let mut found = Vec::new();
        while let Some(mut partial) = pending.pop() {
            cancel.check()?;
            let (name, named) = match partial.rest.pop_front() {
                None => {
                    if self.is_visible(&partial.real, cancel)? {
                        found.push(Match { path: partial.named, real: Some(partial.real) });
                    } else if partial.led {
                        found.push(Match { path: partial.named, real: None });
                    }
                    continue;
                }
                Some(Part::Named(text))
                    if Glob::is_wild(&text) || partial.globbed && Glob::is_special(&text) =>
                {
                    self.glob(&partial, &text, &mut pending)?;
                    continue;
                }
                Some(Part::Named(text)) => (text.clone().into_bytes(), Some(text)),
                Some(Part::Target(name)) => (name, None),
            };
            if let Some(named) = named {
                partial.named.push(named);
            }
            let led = partial.led.then(|| partial.named.clone());
            match self.enter(partial, &name, link)? {
                Some(partial) => pending.push(partial),
                None => found.extend(led.map(|path| Match { path, real: None })),
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// One plain component further.
    fn enter(
        &self,
        mut partial: Partial,
        name: &[u8],
        link: &mut dyn FnMut(Entry),
    ) -> Result<Option<Partial>> {
        if name == b".." {
            partial.real.pop();
            return Ok(Some(partial));
        }
        let path = partial.real.join(OsStr::from_bytes(name));
        let Some(entry) = self.stat(&path)? else { return Ok(None) };
        match &entry.kind {
            Kind::Symlink(target) => {
                let goes_on = partial.rest.iter().any(|part| matches!(part, Part::Named(_)));
                if self.ignored(&path).0 || partial.globbed && goes_on {
                    return Ok(None);
                }
                partial.led = partial.globbed;
                partial.links += 1;
                if partial.links > MAX_LINKS {
                    return Err(Error::malformed(path.display().to_string(), "too many symbolic links"));
                }
                let target = target.as_bytes();
                if target.starts_with(b"/") {
                    partial.real = PathBuf::new();
                }
                for part in target.split(|b| *b == b'/').rev().filter(|p| !matches!(*p, b"" | b".")) {
                    partial.rest.push_front(Part::Target(part.to_vec()));
                }
                link(entry);
            }
            Kind::Dir => partial.real = path,
            Kind::Socket => return Ok(None),
            // Below a file there is nothing.
            _ if !partial.rest.is_empty() => return Ok(None),
            _ => partial.real = path,
        }
        Ok(Some(partial))
    }

    /// One component that is a glob: a partial for each name that matches.
    fn glob(&self, partial: &Partial, text: &str, pending: &mut Vec<Partial>) -> Result<()> {
        let glob = Glob::new(text)?;
        for name in self.names(&partial.real)? {
            if !glob.matches(Path::new(&name)) {
                continue;
            }
            // From here on the name is plain, whatever characters it has.
            let mut rest = partial.rest.clone();
            rest.push_front(Part::Target(name.as_bytes().to_vec()));
            let (named, real) = (partial.named.join(&name), partial.real.clone());
            pending.push(Partial { named, real, rest, links: partial.links, globbed: true, led: false });
        }
        Ok(())
    }

    /// The names in a directory; none if it is no directory.
    fn names(&self, real: &Path) -> Result<Vec<OsString>> {
        let read = || -> Result<Vec<OsString>, Errno> {
            let fd = self.open_at(real, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let names = Dir::read_from(&fd)?
                .map(|e| e.map(|e| OsString::from_vec(e.file_name().to_bytes().to_vec())));
            names.collect()
        };
        match read() {
            Ok(mut names) => {
                names.retain(|name| name != "." && name != "..");
                Ok(names)
            }
            Err(Errno::NOTDIR) => Ok(Vec::new()),
            Err(e) => Err(Error::io("reading directory", real)(e)),
        }
    }

    /// Whether a copy would see it: it is not ignored, or it is a directory with something in it that is not.
    fn is_visible(&self, real: &Path, cancel: &Cancel) -> Result<bool> {
        if real.as_os_str().is_empty() || !self.ignored(real).0 {
            return Ok(true);
        }
        let is_dir = self.stat(real)?.is_some_and(|entry| entry.kind == Kind::Dir);
        if !is_dir || !self.ignore.may_except_below(real) {
            return Ok(false);
        }
        match self.walk(real, &Filter::default(), cancel, &mut |_| Err(Looking::Found)) {
            Ok(()) => Ok(false),
            Err(Looking::Found) => Ok(true),
            Err(Looking::Failed(error)) => Err(error),
        }
    }
}

/// Why a search has ended.
enum Looking {
    Found,
    Failed(Error),
}

impl From<Error> for Looking {
    fn from(error: Error) -> Looking {
        Looking::Failed(error)
    }
}
