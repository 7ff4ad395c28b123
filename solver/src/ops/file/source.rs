//! What COPY and ADD read: a snapshot, or a directory of the host as the build is shown it. The latter is read through
//! [`Context`], which also gives the digest that stands for it in keys: what is copied is what was digested.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use boxwright_cache::Cancel;
use boxwright_cache::fs::pattern::Glob;
use boxwright_cache::fs::walk::{Context, Entry};
use boxwright_cache::layer::{Metadata, NodeKind};
use boxwright_cache::snapshot::tree::{Kind, Node, Tree};

use super::FileError;
use super::hint::hints;
use super::resolve::{clean, shown};

#[derive(Clone, Debug)]
pub(super) enum Source {
    Snapshot(Arc<Tree>),
    /// With the lines of the ignore file, for messages.
    Host(Arc<Context>, Arc<Vec<String>>),
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
    /// What a source argument means: one thing if it is a path, any number, in order, if it is a pattern.
    ///
    /// # Errors
    /// When a path is not there.
    pub(super) fn find(&self, pattern: &str, cancel: &Cancel) -> Result<Vec<Match>, FileError> {
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
            if let Some(item) = self.item(&real)? {
                matches.push(Match { name: named.file_name().unwrap_or_default().to_owned(), item });
            }
        }
        if matches.is_empty() {
            // A pattern may match nothing, but the directory it is to match in must be there.
            let plain: PathBuf = path.iter().take_while(|name| !is_special(name)).collect();
            if plain == path || !plain.as_os_str().is_empty() && !self.has(&plain, cancel)? {
                return Err(FileError::NotFound { path: shown(&plain), hints: hints(self, &plain, cancel) });
            }
        }
        Ok(matches)
    }

    fn has(&self, plain: &Path, cancel: &Cancel) -> Result<bool, FileError> {
        Ok(match (self, plain.to_str()) {
            (Source::Snapshot(tree), _) => tree.lookup(plain, true)?.is_some(),
            (Source::Host(context, _), Some(text)) => !context.resolve(text, cancel)?.is_empty(),
            (Source::Host(..), None) => false,
        })
    }

    /// `top` and, of a directory, everything below it: parents first, names in the order of their bytes.
    pub(super) fn visit(
        &self,
        top: Item,
        cancel: &Cancel,
        each: &mut dyn FnMut(Item) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let path = top.path.clone();
        let is_dir = matches!(top.what, What::Dir);
        each(top)?;
        match self {
            _ if !is_dir => {}
            Source::Snapshot(tree) => {
                for node in tree.walk(&path)?.skip(1) {
                    cancel.check()?;
                    if let Some(item) = of_node(tree, node?) {
                        each(item)?;
                    }
                }
            }
            Source::Host(context, _) => {
                for entry in context.below(&path, cancel)? {
                    if let Some(item) = of_entry(context, entry)? {
                        each(item)?;
                    }
                }
            }
        }
        Ok(())
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
    Some(Item { path, what, meta, group })
}

/// Whoever owns it on the host, in the image it is root's.
fn of_entry(context: &Arc<Context>, entry: Entry) -> Result<Option<Item>, FileError> {
    let Entry { path, kind, mode, links, key, .. } = entry;
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
        What::Dir | What::File(_) => context.xattrs(&path)?,
        What::Symlink(_) | What::Node(_) => Vec::new(),
    };
    let meta = Metadata { mode, uid: 0, gid: 0, mtime: key.mtime, xattrs };
    Ok(Some(Item { path, what, meta, group }))
}

fn is_special(name: &OsStr) -> bool {
    name.to_str().is_some_and(Glob::is_special)
}

/// What a path or pattern names in a snapshot, as it is named and where that leads.
fn in_tree(tree: &Tree, pattern: &str, cancel: &Cancel) -> Result<Vec<(PathBuf, PathBuf)>, FileError> {
    let mut named = vec![PathBuf::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if !Glob::is_special(part) {
            named.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        // What is no pattern matches nothing, as in BuildKit.
        let Ok(glob) = Glob::new(part) else { return Ok(Vec::new()) };
        let mut next = Vec::new();
        for dir in named {
            cancel.check()?;
            let Some(node) = tree.lookup(&dir, true)?.filter(|node| node.kind == Kind::Dir) else { continue };
            let names = tree.readdir(&node.path)?.into_iter().map(|entry| entry.name);
            next.extend(names.filter(|name| glob.matches(name)).map(|name| dir.join(name)));
        }
        named = next;
    }
    let mut found = Vec::with_capacity(named.len());
    for path in named {
        if let Some(node) = tree.lookup(&path, true)? {
            found.push((path, node.path));
        }
    }
    Ok(found)
}
