//! A root file system as files in a directory (`-o type=local`). They belong to whoever builds, so they keep no right
//! that an image gave them: no set-id bits, no capabilities, and no devices. Nothing outside of the directory is
//! written, whatever links are in it (R1).

use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{getegid, geteuid};

use super::tar::{FirstNames, at, kind_of};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::layer::sink::{DirSink, LayerSink as _, Metadata, NodeKind};
use crate::layer::tar::EntryKind;
use crate::snapshot::Tree;
use crate::snapshot::owner::OwnerView;
use crate::snapshot::tree::Node;

const SET_ID: u32 = 0o6000;
const CAPABILITIES: &[u8] = b"security.capability";

/// Writes everything in `tree` but its root into `dest`, which is made if it is absent. What is there already stays,
/// except where the tree has something of the same name; directories of one name become one. With an `epoch` (seconds
/// since 1970) that is the time of all of it.
///
/// # Errors
/// When the tree can't be read, `dest` can't be written, or `cancel` is raised. What was written by then stays.
pub fn local(tree: &Tree, epoch: Option<i64>, dest: &Path, cancel: &Cancel) -> Result<()> {
    std::fs::create_dir_all(dest).map_err(Error::io("making directory", dest))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dest, flags, Mode::empty()).map_err(Error::io("opening directory", dest))?;
    // Ids are what they are: those of this process.
    let mut sink = DirSink::new(dir, OwnerView::Real);
    let mut first_names = FirstNames::new();
    for node in tree.walk("")? {
        let mut node = node?;
        cancel.check()?;
        if node.path.as_os_str().is_empty() {
            continue;
        }
        node.meta.mtime = at(epoch).unwrap_or(node.meta.mtime);
        if let Some(kind) = kind_of(&node, &mut first_names) {
            write(tree, &node, kind, &mut sink)?;
        }
    }
    sink.finish().map(drop)
}

fn write(tree: &Tree, node: &Node, kind: EntryKind, sink: &mut DirSink) -> Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    // A program of an image that is root's must not run as root for everybody who reaches the directory.
    let mode = node.meta.mode & !SET_ID;
    let xattrs = node.meta.xattrs.iter().filter(|(name, _)| name != CAPABILITIES).cloned().collect();
    let meta = Metadata { mode, uid, gid, mtime: node.meta.mtime, xattrs };
    match kind {
        EntryKind::Dir => sink.dir(&node.path, &meta),
        EntryKind::File { size } => sink.file(&node.path, &meta, size, &mut tree.open(node)?.reader()),
        EntryKind::HardLink(first) => sink.hard_link(&node.path, &first),
        EntryKind::Symlink(target) => sink.symlink(&node.path, &meta, &target),
        EntryKind::Node(NodeKind::Char { .. } | NodeKind::Block { .. }) => Ok(()),
        EntryKind::Node(kind) => sink.node(&node.path, &meta, kind),
    }
}
