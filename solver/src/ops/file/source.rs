//! What COPY and ADD read: a snapshot, or a directory of the host as the build is shown it. The latter is read through
//! [`Context`], which also gives the digest that stands for it in keys: what is copied is what was digested.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxwright_cache::Cancel;
use boxwright_cache::fs::pattern::{Filter, Glob, Judged, Verdict};
use boxwright_cache::fs::walk::{Context, Entry};
use boxwright_cache::layer::{Metadata, NodeKind, Xattrs};
use boxwright_cache::snapshot::tree::{Kind, Node, Tree};
use rustix::fs::FileType;

use super::FileError;
use super::resolve::clean;
use super::since::Since;

#[derive(Clone, Debug)]
pub(super) enum Source {
    Snapshot(Arc<Tree>),
    Host(Arc<Context>, Arc<HostDir>),
}

/// What is known of a directory of the host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostDir {
    pub(super) path: PathBuf,
    /// The lines of the ignore file.
    pub(super) ignore: Vec<String>,
    pub(super) since: Option<Since>,
}

/// One thing that a source argument means.
#[derive(Debug)]
pub(super) struct Match {
    /// The name it gets in a directory: its own, even if it is a link to something else.
    pub(super) name: OsString,
    /// What is copied: links have been followed.
    pub(super) item: Item,
}

/// An entry of a source, as it will be copied if nothing is overridden.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// In the source, without links.
    pub(super) path: PathBuf,
    pub(super) what: What,
    pub(super) meta: Metadata,
    /// The same for all names of one file that has several.
    pub(super) group: Option<(u64, u64)>,
    /// A directory that a filter does not want itself.
    pub(super) implied: bool,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Dir,
    File(Content),
    Symlink(OsString),
    Node(NodeKind),
}

/// The bytes of a file of a source, opened when they are needed.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Snapshot { tree: Arc<Tree>, node: Arc<Node> },
    Host { context: Arc<Context>, path: Arc<Path>, size: u64 },
}

impl Source {
    /// What a source argument means: one thing if it is a path, any number, in order, if it is a pattern; or the path
    /// that is not there.
    ///
    /// # Errors
    /// When the source can't be read.
    pub(super) fn find(
        &self,
        pattern: &str,
        cancel: &Cancel,
    ) -> Result<Result<Vec<Match>, PathBuf>, FileError> {
        let path = clean(pattern);
        let text = path.to_str().unwrap_or_default();
        let found = match self {
            Source::Snapshot(tree) => in_tree(tree, text, cancel)?,
            Source::Host(context, _) => {
                let found = context.resolve(text, cancel)?;
                found.into_iter().map(|m| (m.path, m.real)).collect()
            }
        };
        let mut matches = Vec::with_capacity(found.len());
        for (named, real) in found {
            let Some(real) = real else { return Ok(Err(named)) };
            if let Some(item) = self.item(&real)? {
                matches.push(Match { name: named.file_name().unwrap_or_default().to_owned(), item });
            }
        }
        if matches.is_empty() {
            // A pattern may match nothing, but the directory it is to match in must be there.
            let plain: PathBuf = path.iter().take_while(|name| !is_wild(name)).collect();
            if plain == path || !plain.as_os_str().is_empty() && !self.has(&plain, cancel)? {
                return Ok(Err(plain));
            }
        }
        Ok(Ok(matches))
    }

    /// Whether the build sees something at `plain`, which is no pattern.
    pub(super) fn has(&self, plain: &Path, cancel: &Cancel) -> Result<bool, FileError> {
        Ok(match (self, plain.to_str()) {
            (Source::Snapshot(tree), _) => tree.lookup(plain, true)?.is_some(),
            (Source::Host(context, _), Some(text)) => !context.resolve(text, cancel)?.is_empty(),
            (Source::Host(..), None) => false,
        })
    }

    /// Whether `pattern` matches anything below `top`.
    pub(super) fn has_below(
        &self,
        top: &Item,
        pattern: Option<&str>,
        cancel: &Cancel,
    ) -> Result<bool, FileError> {
        let filter = Filter::new(pattern, &[])?;
        let mut count = 0;
        self.visit(top.clone(), &filter, cancel, &mut |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count > 1)
    }

    /// `top` and, of a directory, what `filter` leaves of everything below it: parents first, names in the order of
    /// their bytes.
    pub(super) fn visit(
        &self,
        top: Item,
        filter: &Filter,
        cancel: &Cancel,
        each: &mut dyn FnMut(Item) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let path = top.path.clone();
        let is_dir = matches!(top.what, What::Dir);
        each(top)?;
        match self {
            _ if !is_dir => {}
            Source::Snapshot(tree) => visit_tree(tree, &path, filter, cancel, each)?,
            Source::Host(context, _) => context.walk(&path, filter, cancel, &mut |entry| {
                of_entry(context, entry)?.map_or(Ok(()), &mut *each)
            })?,
        }
        Ok(())
    }

    /// What is known of it since it was copied before.
    pub(super) fn since(&self) -> Option<&Since> {
        match self {
            Source::Host(_, dir) => dir.since.as_ref(),
            Source::Snapshot(_) => None,
        }
    }

    fn item(&self, real: &Path) -> Result<Option<Item>, FileError> {
        match self {
            Source::Snapshot(tree) => Ok(tree.lookup(real, false)?.and_then(|node| of_node(tree, node))),
            Source::Host(context, _) => {
                context.stat(real)?.map_or(Ok(None), |entry| of_entry(context, entry))
            }
        }
    }
}

impl Content {
    /// The file, positioned at its beginning, and how many bytes of it count.
    pub(super) fn open(&self) -> Result<(File, u64), FileError> {
        Ok(match self {
            Content::Snapshot { tree, node } => {
                let extent = tree.open(node)?;
                debug_assert_eq!(extent.offset, 0, "files of directories are whole");
                (extent.file, extent.len)
            }
            Content::Host { context, path, size } => (context.open(path)?, *size),
        })
    }

    /// The attributes of the file that [`Content::open`] gave, where they were not known before.
    pub(super) fn xattrs(&self, open: &File) -> Result<Option<Xattrs>, FileError> {
        Ok(match self {
            Content::Snapshot { .. } => None,
            Content::Host { context, path, .. } => Some(context.xattrs_of(open, path)?),
        })
    }
}

/// Sockets are part of no image.
pub(super) fn of_node(tree: &Arc<Tree>, mut node: Node) -> Option<Item> {
    let (path, group, meta) = (node.path.clone(), node.group, std::mem::take(&mut node.meta));
    let what = match node.kind.clone() {
        Kind::Dir => What::Dir,
        Kind::Symlink(target) => What::Symlink(target),
        Kind::Node(kind) => What::Node(kind),
        Kind::Socket => return None,
        Kind::File => What::File(Content::Snapshot { tree: tree.clone(), node: Arc::new(node) }),
    };
    Some(Item { path, what, meta, group, implied: false })
}

/// A directory that is being walked through.
struct Passed {
    path: PathBuf,
    judged: Judged,
    /// It is given before the first thing in it that is wanted.
    implied: Option<Item>,
}

fn visit_tree(
    tree: &Arc<Tree>,
    top: &Path,
    filter: &Filter,
    cancel: &Cancel,
    each: &mut dyn FnMut(Item) -> Result<(), FileError>,
) -> Result<(), FileError> {
    let mut walk = tree.walk(top)?;
    let _ = walk.next().transpose()?;
    let mut passed: Vec<Passed> = Vec::new();
    while let Some(node) = walk.next() {
        cancel.check()?;
        let Some(mut item) = of_node(tree, node?) else { continue };
        if filter.is_empty() {
            each(item)?;
            continue;
        }
        while passed.pop_if(|dir| !item.path.starts_with(&dir.path)).is_some() {}
        let below = item.path.strip_prefix(top).unwrap_or(&item.path);
        let (verdict, judged) = filter.judge(below, passed.last().map(|dir| &dir.judged));
        let is_dir = matches!(item.what, What::Dir);
        match verdict {
            Verdict::Unwanted if is_dir => walk.skip_dir(),
            Verdict::Passing if is_dir => {
                item.implied = true;
                passed.push(Passed { path: item.path.clone(), judged, implied: Some(item) });
            }
            Verdict::Wanted => {
                passed.iter_mut().filter_map(|dir| dir.implied.take()).try_for_each(&mut *each)?;
                if is_dir {
                    passed.push(Passed { path: item.path.clone(), judged, implied: None });
                }
                each(item)?;
            }
            Verdict::Unwanted | Verdict::Passing => {}
        }
    }
    Ok(())
}

/// Whoever owns it on the host, in the image it is root's.
fn of_entry(context: &Arc<Context>, entry: Entry) -> Result<Option<Item>, FileError> {
    let Entry { path, kind, mode, links, key, implied, .. } = entry;
    let what = match kind {
        Kind::Dir => What::Dir,
        Kind::Symlink(target) => What::Symlink(target),
        Kind::Node(kind) => What::Node(kind),
        Kind::Socket => return Ok(None),
        Kind::File => What::File(Content::Host {
            context: context.clone(),
            path: path.as_path().into(),
            size: key.size,
        }),
    };
    let group = (links > 1 && !matches!(what, What::Dir)).then_some((key.dev, key.ino));
    let xattrs = match what {
        What::Dir => context.xattrs(&path)?,
        // Those of a file are read when it is opened.
        What::File(_) | What::Symlink(_) | What::Node(_) => Vec::new(),
    };
    let meta = Metadata { mode, uid: 0, gid: 0, mtime: key.mtime, xattrs };
    Ok(Some(Item { path, what, meta, group, implied }))
}

fn is_wild(name: &OsStr) -> bool {
    name.to_str().is_some_and(Glob::is_wild)
}

/// What a path or pattern names in a snapshot, as it is named and where that leads; none where a link that a pattern
/// found leads nowhere. A pattern goes through links only before its first wildcard, and at the end.
fn in_tree(
    tree: &Tree,
    pattern: &str,
    cancel: &Cancel,
) -> Result<Vec<(PathBuf, Option<PathBuf>)>, FileError> {
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    let plain = parts.iter().take_while(|part| !Glob::is_wild(part)).count();
    let prefix: PathBuf = parts[..plain].iter().collect();
    let Some(start) = tree.lookup(&prefix, true)? else { return Ok(Vec::new()) };
    if plain == parts.len() {
        return Ok(vec![(prefix, Some(start.path))]);
    }
    let mut found = if start.kind == Kind::Dir { vec![(prefix, start.path)] } else { Vec::new() };
    for (n, part) in parts.iter().enumerate().skip(plain) {
        let glob = Glob::new(part)?;
        let is_last = n + 1 == parts.len();
        let mut next = Vec::new();
        for (named, real) in found {
            cancel.check()?;
            let mut entries = tree.readdir(&real)?;
            entries
                .retain(|entry| (is_last || entry.kind == FileType::Directory) && glob.matches(&entry.name));
            next.extend(entries.iter().map(|entry| (named.join(&entry.name), real.join(&entry.name))));
        }
        found = next;
    }
    let led = |(named, real): (PathBuf, PathBuf)| Ok((named, tree.lookup(real, true)?.map(|node| node.path)));
    found.into_iter().map(led).collect()
}
