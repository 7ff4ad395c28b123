//! Removing what is not needed.

use boxwright_cache::gc::Forget;
use boxwright_cache::record::NameRecord;

use super::{Engine, Removed};
use crate::error::Result;

/// What a pruning removed.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    pub removed: Vec<Removed>,
    /// Bytes.
    pub freed: u64,
}

impl Engine {
    /// Removes layers that nothing needs any more.
    ///
    /// # Errors
    /// When they can't be removed.
    pub fn collect_garbage(&self) -> Result<Pruned> {
        Ok(Pruned { removed: Vec::new(), freed: self.store.collect(Forget::None)?.bytes })
    }

    /// Forgets results of build steps: all of them, or those that are part of no image; and removes the cache mounts
    /// that no step uses right now.
    ///
    /// # Errors
    /// When they can't be removed.
    pub fn prune_builds(&self, all: bool) -> Result<Pruned> {
        let forget = if all { Forget::All } else { Forget::Unused };
        let caches = self.store.remove_unused_caches()?;
        Ok(Pruned { removed: Vec::new(), freed: self.store.collect(forget)?.bytes + caches })
    }

    /// Removes images without a name, or all of them. A running container keeps its layers.
    ///
    /// # Errors
    /// When they can't be removed.
    pub fn prune_images(&self, all: bool) -> Result<Pruned> {
        let names = self.store.names(None)?;
        let mut removed = Vec::new();
        for id in self.store.image_ids()? {
            let own: Vec<&NameRecord> = names.iter().filter(|n| n.image == id).collect();
            if all || own.is_empty() {
                removed.extend(self.forget(&id, &own)?);
            }
        }
        Ok(Pruned { removed, ..self.collect_garbage()? })
    }
}
