//! [`Walk`]: everything below a path, one directory's names at a time.

use std::path::PathBuf;

use rustix::fs::FileType;

use super::resolve::Resolved;
use super::{Child, Node, Place, Tree};
use crate::error::{Error, Result};

/// Gives nodes parents first. See [`Tree::walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    tree: &'a Tree,
    start: Option<(PathBuf, usize, Option<Place>)>,
    levels: Vec<Level>,
    /// The directory given last, which is entered next.
    entered: Option<Place>,
}

#[derive(Debug)]
struct Level {
    path: PathBuf,
    rest: std::vec::IntoIter<Child>,
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.name.fmt(f)
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(tree: &'a Tree, start: Option<Resolved>) -> Walk<'a> {
        Walk { tree, start: start.map(|s| (s.path, s.layer, s.dir)), levels: Vec::new(), entered: None }
    }

    /// Leaves out what is below the directory that was given last.
    pub fn skip_dir(&mut self) {
        self.entered = None;
    }

    fn step(&mut self) -> Result<Option<Node>> {
        if let Some((path, layer, dir)) = self.start.take() {
            self.entered = dir;
            return self.tree.node(path, layer).map(Some);
        }
        if let Some(place) = self.entered.take() {
            let rest = self.tree.children(&place)?.into_iter();
            self.levels.push(Level { path: place.path, rest });
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(child) = level.rest.next() else {
                self.levels.pop();
                continue;
            };
            let path = level.path.join(&child.name);
            let top = child.layers[0];
            if child.kind == FileType::Directory {
                let mut layers = child.layers;
                self.tree.cut_at_opaque(&path, &mut layers).map_err(Error::io("reading directory", &path))?;
                self.entered = Some(Place { path: path.clone(), layers });
            }
            return self.tree.node(path, top).map(Some);
        }
        Ok(None)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Node>;

    fn next(&mut self) -> Option<Result<Node>> {
        self.step().transpose()
    }
}
