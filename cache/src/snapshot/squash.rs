//! The layers of a build as one (`--squash`).

use std::path::Path;

use super::owner::OwnerView;
use super::{Layer, Snapshot, Tree, stack};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::layer::DirSink;

impl Snapshot {
    /// The same stack with all layers above the lowest `base` as one. What some of them made and others removed is in it
    /// no more.
    ///
    /// # Errors
    /// When a layer can't be had or read, the store can't be written, or `cancel` is raised.
    pub fn squashed(&self, base: usize, cancel: &Cancel) -> Result<Snapshot> {
        let (below, new) = self.layers.split_at(base.min(self.layers.len()));
        let [first, _, ..] = new else { return Ok(self.clone()) };
        let active = first.store().new_layer()?;
        let fs = active.fs().try_clone_to_owned().map_err(Error::io("duplicating", "a layer's directory"))?;
        let mut sink = DirSink::new(fs, OwnerView::current());
        let above = Tree::of_layers(stack::dirs_above(self, below.len(), cancel)?);
        // The base is only looked at, and fetched, if something was removed.
        let mut base_tree = None;
        let mut is_below = |path: &Path| {
            let tree = match &base_tree {
                Some(tree) => tree,
                None => base_tree.insert(Snapshot::of_image(below.to_vec()).tree(cancel)?),
            };
            Ok(tree.lookup(path, false)?.is_some())
        };
        above.write_as_one(&mut sink, &mut is_below, cancel)?;
        sink.finish()?;
        let layers: Vec<Layer> = below.iter().cloned().chain([active.commit(cancel)?]).collect();
        Ok(Snapshot::of_image(layers))
    }
}
