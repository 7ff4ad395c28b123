//! A root file system as one flat tar (`-o type=tar`): what a container of the image would see, without whiteouts.

use std::collections::HashMap;
use std::io::{BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::layer::sink::{Metadata, Timestamp};
use crate::layer::tar::{EntryKind, Writer};
use crate::snapshot::Tree;
use crate::snapshot::tree::{Kind, Node};

const CHUNK: usize = 256 << 10;

/// The name under which a file that has several came first.
pub(super) type FirstNames = HashMap<(u64, u64), PathBuf>;

/// Writes everything in each tree but its root, below the directory given for it (none for the top), parents first and
/// names in the order of their bytes. Names of one file become hard links to the first of them; sockets are left out, as
/// a tar has none. With an `epoch` (seconds since 1970) that is the time of all of it.
///
/// # Errors
/// When a tree can't be read, `out` fails, or `cancel` is raised.
pub fn tar(trees: &[(&Path, &Tree)], epoch: Option<i64>, out: &mut dyn Write, cancel: &Cancel) -> Result<()> {
    let mut tar = Writer::new(BufWriter::with_capacity(CHUNK, out));
    for (below, tree) in trees {
        if !below.as_os_str().is_empty() {
            let mtime = at(epoch).unwrap_or_default();
            let meta = Metadata { mode: 0o755, mtime, ..Metadata::default() };
            tar.entry(below, &meta, &EntryKind::Dir).map_err(writing)?;
        }
        add(tree, below, epoch, &mut tar, cancel)?;
    }
    tar.finish().map_err(writing)?.flush().map_err(writing)
}

fn add<W: Write>(
    tree: &Tree,
    below: &Path,
    epoch: Option<i64>,
    tar: &mut Writer<W>,
    cancel: &Cancel,
) -> Result<()> {
    let mut first_names = FirstNames::new();
    for node in tree.walk("")? {
        let mut node = node?;
        cancel.check()?;
        if node.path.as_os_str().is_empty() {
            continue;
        }
        node.meta.mtime = at(epoch).unwrap_or(node.meta.mtime);
        let kind = match kind_of(&node, &mut first_names) {
            Some(EntryKind::HardLink(first)) => EntryKind::HardLink(below.join(first)),
            Some(kind) => kind,
            None => continue,
        };
        tar.entry(&below.join(&node.path), &node.meta, &kind).map_err(writing)?;
        if matches!(kind, EntryKind::File { .. }) {
            copy(tree, &node, tar, cancel)?;
        }
    }
    Ok(())
}

pub(super) fn at(epoch: Option<i64>) -> Option<Timestamp> {
    epoch.map(|secs| Timestamp { secs, nanos: 0 })
}

/// How the node stands in a tar, if it can.
pub(super) fn kind_of(node: &Node, first_names: &mut FirstNames) -> Option<EntryKind> {
    // Nor can a second name of one.
    if node.kind == Kind::Socket {
        return None;
    }
    if let Some(group) = node.group {
        if let Some(first) = first_names.get(&group) {
            return Some(EntryKind::HardLink(first.clone()));
        }
        first_names.insert(group, node.path.clone());
    }
    match &node.kind {
        Kind::Dir => Some(EntryKind::Dir),
        Kind::File => Some(EntryKind::File { size: node.size }),
        Kind::Symlink(target) => Some(EntryKind::Symlink(target.clone())),
        Kind::Node(kind) => Some(EntryKind::Node(*kind)),
        Kind::Socket => None,
    }
}

fn copy<W: Write>(tree: &Tree, node: &Node, tar: &mut Writer<W>, cancel: &Cancel) -> Result<()> {
    let extent = tree.open(node)?;
    let mut reader = extent.reader();
    let mut chunk = vec![0; usize::try_from(node.size).unwrap_or(CHUNK).clamp(1, CHUNK)];
    let mut left = node.size;
    while left > 0 {
        cancel.check()?;
        let n = reader.read(&mut chunk).map_err(Error::io("reading", &node.path))?;
        if n == 0 {
            return Err(Error::malformed(
                node.path.display().to_string(),
                "the file shrank while it was read",
            ));
        }
        tar.content(&chunk[..n]).map_err(writing)?;
        left -= n as u64;
    }
    Ok(())
}

fn writing(error: std::io::Error) -> Error {
    Error::io("writing", "the tar of the root file system")(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_second_name_of_a_socket_is_left_out_as_the_first_is() {
        let layer = tempfile::tempdir().unwrap();
        let at = |name: &str| layer.path().join(name);
        std::fs::write(at("file"), "content").unwrap();
        std::fs::hard_link(at("file"), at("link")).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        std::fs::hard_link(at("socket"), at("twin")).unwrap();
        let dir = std::fs::File::open(layer.path()).unwrap();
        let tree = Tree::merged(vec![dir.into()]);
        let mut first_names = FirstNames::new();
        let nodes = tree.walk("").unwrap().map(Result::unwrap);
        let kinds: Vec<_> = nodes.map(|node| kind_of(&node, &mut first_names)).collect();
        let link = EntryKind::HardLink("file".into());
        assert_eq!(kinds, [Some(EntryKind::Dir), Some(EntryKind::File { size: 7 }), Some(link), None, None]);
    }
}
