//! Layers for a build with an epoch. Their tar has no later time, so that it is the same whenever and wherever the
//! files were made. The directory stays what it is: one layer can have several epochs, and each is a row that names it.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use rayon::prelude::*;
use rusqlite::OptionalExtension as _;

use super::{Layer, LayerId, Snapshot, Unpacked};
use crate::cancel::Cancel;
use crate::digest::DiffId;
use crate::error::{Error, Result};
use crate::layer::diff::scan;

impl Snapshot {
    /// The same stack, but for the layers above the lowest `base` as [`Layer::until`] has them.
    ///
    /// # Errors
    /// As [`Layer::until`].
    pub fn until(&self, epoch: i64, base: usize, cancel: &Cancel) -> Result<Snapshot> {
        let (below, new) = self.layers.split_at(base.min(self.layers.len()));
        let new: Vec<Layer> =
            new.par_iter().map(|layer| layer.until(epoch, cancel)).collect::<Result<_>>()?;
        Ok(Snapshot { layers: Arc::new([below, &new].concat()), content: self.content })
    }
}

impl Layer {
    /// The layer with these files whose tar has no time later than `epoch`, in seconds since 1970. It is named once and
    /// remembered. A layer of another machine that leaves something to the layers below it (which no writer of caches
    /// makes) stays what it is: its tar says less than its directory.
    ///
    /// # Errors
    /// When the layer can't be had or read, the store can't be written, or `cancel` is raised.
    pub fn until(&self, epoch: i64, cancel: &Cancel) -> Result<Layer> {
        let fs = self.dir(cancel)?;
        let on_disk = self.on_disk()?.expect("it is unpacked now");
        if on_disk.unsettled.is_some() || self.epoch().is_some_and(|own| own <= epoch) {
            return Ok(self.clone());
        }
        let store = self.store();
        let _lock = store.lock("epoch", &format!("{} {epoch}", on_disk.dir), cancel)?;
        let lease = store.lease()?;
        let known = store.take("looking up a layer", &lease, |tx| {
            let id: Option<i64> = tx
                .prepare_cached("SELECT id FROM layers WHERE dir = ?1 AND epoch = ?2")?
                .query_row(rusqlite::params![on_disk.dir, epoch], |row| row.get(0))
                .optional()?;
            id.map_or(Ok(None), |id| store.leased(tx, &lease, &[LayerId(id)]))
        })?;
        if let Some(layer) = known.and_then(|mut layers| layers.pop()) {
            return Ok(layer);
        }
        let summary = scan(fs.as_fd(), Some(epoch), cancel)?;
        // What came from elsewhere as it should be has blobs there.
        if summary.diff_id == self.diff_id() && self.is_foreign() {
            return Ok(self.clone());
        }
        let (tar_size, content) = (summary.tar_size, Some(summary.content));
        Unpacked { dir: &on_disk.dir, tar_size, content, epoch: Some(epoch) }.insert(store, summary.diff_id)
    }

    /// Writes the tar that the layer stands for from its directory, and makes sure that it is that one.
    ///
    /// # Errors
    /// When the layer can't be had or is not what it was, `out` fails, or `cancel` is raised.
    pub(crate) fn write_tar(&self, out: &mut dyn std::io::Write, cancel: &Cancel) -> Result<()> {
        let dir = self.dir(cancel)?;
        self.expect_diff_id(crate::layer::diff::write_tar(dir.as_fd(), self.epoch(), out, cancel)?.diff_id)
    }

    /// The tar must be what the image's config promises.
    pub(crate) fn expect_diff_id(&self, actual: DiffId) -> Result<()> {
        if actual == self.diff_id() {
            return Ok(());
        }
        Err(Error::Mismatch {
            what: "layer (diff id)".to_owned(),
            expected: self.diff_id().to_string(),
            actual: actual.to_string(),
        })
    }
}
