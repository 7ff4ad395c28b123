//! What is written of root file systems, whether it becomes files or a tar: all but the root itself, each below the
//! directory that its file system goes into.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::layer::sink::{Metadata, Timestamp};
use crate::layer::tar::EntryKind;
use crate::snapshot::Tree;
use crate::snapshot::tree::{Extent, Kind, Node};

/// A root file system that is to be written.
#[derive(Debug)]
pub struct Root {
    /// Whose it is, to tell it from others.
    pub name: String,
    /// The directory that it goes into; empty for the top. Several may share one.
    pub below: PathBuf,
    pub tree: Tree,
}

/// Something to write.
pub(super) struct Entry<'a> {
    pub(super) path: PathBuf,
    pub(super) meta: Metadata,
    pub(super) kind: EntryKind,
    /// Where it comes from; nowhere if it is the directory that a root goes into.
    from: Option<(&'a Tree, Node)>,
}

impl Entry<'_> {
    /// The bytes of a file.
    pub(super) fn open(&self) -> Result<Extent> {
        let (tree, node) = self.from.as_ref().expect("a file is in a tree");
        tree.open(node)
    }
}

/// The name under which a file that has several came first.
type FirstNames = HashMap<(u64, u64), PathBuf>;

/// Hands out everything that is to be written, one root after the other, parents first and names in the order of their
/// bytes. Names of one file become hard links to the first of them; sockets are left out, as a tar has none; of roots in
/// one place a directory that several have comes once. With an `epoch` (seconds since 1970) that is the time of all of it.
///
/// # Errors
/// When a tree can't be read, roots in one place have something else under one name (before anything is handed out),
/// `write` fails, or `cancel` is raised.
pub(super) fn each(
    roots: &[Root],
    epoch: Option<i64>,
    cancel: &Cancel,
    write: &mut dyn FnMut(&Entry<'_>) -> Result<()>,
) -> Result<()> {
    for i in 1..roots.len() {
        check(&roots[..i], &roots[i], cancel)?;
    }
    let at = epoch.map(|secs| Timestamp { secs, nanos: 0 });
    for (i, Root { below, tree, .. }) in roots.iter().enumerate() {
        if !below.as_os_str().is_empty() {
            let meta = Metadata { mode: 0o755, mtime: at.unwrap_or_default(), ..Metadata::default() };
            write(&Entry { path: below.clone(), meta, kind: EntryKind::Dir, from: None })?;
        }
        let mut first_names = FirstNames::new();
        for node in tree.walk("")? {
            let mut node = node?;
            cancel.check()?;
            if node.path.as_os_str().is_empty()
                || (node.kind == Kind::Dir && is_known(&roots[..i], below, &node)?)
            {
                continue;
            }
            let kind = match kind_of(&node, &mut first_names) {
                Some(EntryKind::HardLink(first)) => EntryKind::HardLink(below.join(first)),
                Some(kind) => kind,
                None => continue,
            };
            let mut meta = std::mem::take(&mut node.meta);
            meta.mtime = at.unwrap_or(meta.mtime);
            write(&Entry { path: below.join(&node.path), meta, kind, from: Some((tree, node)) })?;
        }
    }
    Ok(())
}

/// What goes into one place may share directories, and nothing else.
fn check(earlier: &[Root], root: &Root, cancel: &Cancel) -> Result<()> {
    let earlier: Vec<_> = earlier.iter().filter(|earlier| earlier.below == root.below).collect();
    if earlier.is_empty() {
        return Ok(());
    }
    for node in root.tree.walk("")? {
        let node = node?;
        cancel.check()?;
        for other in &earlier {
            // A link on the way there is found before what it leads to.
            let Some(there) = other.tree.lookup(&node.path, false)? else { continue };
            if node.kind != Kind::Dir || there.kind != Kind::Dir {
                let (path, one, two) = (node.path.display(), &other.name, &root.name);
                return Err(Error::malformed(
                    "output",
                    format!("cannot overwrite {path} from {one} with {two} when split option is disabled"),
                ));
            }
        }
    }
    Ok(())
}

fn is_known(earlier: &[Root], below: &std::path::Path, dir: &Node) -> Result<bool> {
    for other in earlier.iter().filter(|earlier| earlier.below == below) {
        if other.tree.lookup(&dir.path, false)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How the node stands in a tar, if it can.
fn kind_of(node: &Node, first_names: &mut FirstNames) -> Option<EntryKind> {
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn root(name: &str, layer: &std::path::Path) -> Root {
        let dir = std::fs::File::open(layer).unwrap();
        Root { name: name.to_owned(), below: PathBuf::new(), tree: Tree::merged(vec![dir.into()]) }
    }

    fn listed(roots: &[Root]) -> Result<Vec<(String, EntryKind)>> {
        let mut all = Vec::new();
        each(roots, None, &Cancel::new().unwrap(), &mut |entry| {
            all.push((entry.path.display().to_string(), entry.kind.clone()));
            Ok(())
        })
        .map(|()| all)
    }

    #[test]
    fn the_second_name_of_a_socket_is_left_out_as_the_first_is() {
        let layer = tempfile::tempdir().unwrap();
        let at = |name: &str| layer.path().join(name);
        std::fs::write(at("file"), "content").unwrap();
        std::fs::hard_link(at("file"), at("link")).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        std::fs::hard_link(at("socket"), at("twin")).unwrap();
        let (file, link) = (EntryKind::File { size: 7 }, EntryKind::HardLink("file".into()));
        let expected = [("file".to_owned(), file), ("link".to_owned(), link)];
        assert_eq!(listed(&[root("one", layer.path())]).unwrap(), expected);
        let split = Root { below: "sub".into(), ..root("one", layer.path()) };
        let link = EntryKind::HardLink("sub/file".into());
        assert_eq!(listed(&[split]).unwrap()[2], ("sub/link".to_owned(), link));
    }

    #[test]
    fn roots_in_one_place_share_directories_alone() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (dir, name) in [(&one, "a"), (&two, "b")] {
            std::fs::create_dir_all(dir.path().join("d/e")).unwrap();
            std::fs::write(dir.path().join("d/e").join(name), "").unwrap();
        }
        let both = || listed(&[root("one", one.path()), root("two", two.path())]);
        let names: Vec<String> = both().unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["d", "d/e", "d/e/a", "d/e/b"]);
        // Neither a file nor a link that leads out of the tree is followed or replaced.
        std::os::unix::fs::symlink("/", two.path().join("l")).unwrap();
        std::fs::create_dir_all(one.path().join("l/etc")).unwrap();
        let refused = both().unwrap_err().to_string();
        assert!(refused.contains("cannot overwrite l from one with two"), "{refused}");
        std::fs::remove_file(two.path().join("l")).unwrap();
        std::fs::write(two.path().join("d/e/a"), "").unwrap();
        let refused = both().unwrap_err().to_string();
        assert!(refused.contains("cannot overwrite d/e/a from one with two"), "{refused}");
    }
}
