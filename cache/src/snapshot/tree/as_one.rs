//! Several layers as one that does the same to whatever lies below them: what the topmost says counts, deletions included.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, OFlags};

use super::{Child, Kind, Place, Tree};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::layer::sink::LayerSink;

/// A directory on the way down, with what is left of it.
struct Level {
    path: PathBuf,
    rest: std::vec::IntoIter<Child>,
}

impl Tree {
    /// Writes what the layers of this tree do to those below them. Of deletions those that `is_below` knows something of.
    ///
    /// # Errors
    /// When a layer can't be read, `sink` fails, or `cancel` is raised.
    pub(in crate::snapshot) fn write_as_one(
        &self,
        sink: &mut dyn LayerSink,
        is_below: &mut dyn FnMut(&Path) -> Result<bool>,
        cancel: &Cancel,
    ) -> Result<()> {
        let Some(root) = self.root()? else { return Ok(()) };
        if self.is_opaque(&root)? {
            sink.opaque(Path::new(""))?;
        }
        let mut first_names: HashMap<_, PathBuf> = HashMap::new();
        let mut levels = vec![self.level(root)?];
        while let Some(level) = levels.last_mut() {
            let Some(child) = level.rest.next() else {
                levels.pop();
                continue;
            };
            cancel.check()?;
            let path = level.path.join(&child.name);
            if child.hidden {
                if is_below(&path)? {
                    sink.whiteout(&path)?;
                }
                continue;
            }
            let node = self.node(path.clone(), child.layers[0])?;
            if child.kind == FileType::Directory {
                sink.dir(&path, &node.meta)?;
                let mut place = Place { path, layers: child.layers };
                self.cut_at_opaque(&place.path, &mut place.layers)
                    .map_err(Error::io("reading directory", &place.path))?;
                // What is hidden from these layers' own view is hidden below them as well.
                if child.closed || self.is_opaque(&place)? {
                    sink.opaque(&place.path)?;
                }
                levels.push(self.level(place)?);
                continue;
            }
            if let Some(group) = node.group {
                if let Some(first) = first_names.get(&group) {
                    sink.hard_link(&path, first)?;
                    continue;
                }
                first_names.insert(group, path.clone());
            }
            match &node.kind {
                Kind::File => sink.file(&path, &node.meta, node.size, &mut self.open(&node)?.reader())?,
                Kind::Symlink(target) => sink.symlink(&path, &node.meta, target)?,
                Kind::Node(kind) => sink.node(&path, &node.meta, *kind)?,
                Kind::Dir | Kind::Socket => {}
            }
        }
        Ok(())
    }

    /// Whether the lowest layer that counts in a directory hides what lies below it.
    fn is_opaque(&self, place: &Place) -> Result<bool> {
        let lowest = *place.layers.last().expect("a directory is in some layer");
        let dir = self.open_in(lowest, &place.path, OFlags::RDONLY | OFlags::DIRECTORY);
        dir.and_then(|dir| self.layers[lowest].marks?.is_opaque(self.view, dir))
            .map_err(Error::io("reading directory", &place.path))
    }

    fn level(&self, place: Place) -> Result<Level> {
        let rest = self.all_children(&place)?.into_iter();
        Ok(Level { path: place.path, rest })
    }
}
