//! The volumes that an image declares. Each container has its own: what the image has there at first, and gone with it.

use std::os::fd::{BorrowedFd, OwnedFd};

use boxwright_cache::record::ImageRecord;
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::snapshot::tree::{Kind, Tree};
use boxwright_cache::store::ActiveLayer;
use boxwright_executor::{Mount, MountSource, Upper};

use super::Engine;
use super::run::RunRequest;
use super::settings::clean;
use crate::error::{Error, Result};

/// The volumes of one container. What is written to them lasts as long as this.
#[derive(Default)]
pub(super) struct OwnVolumes {
    pub(super) mounts: Vec<Mount>,
    written: Vec<ActiveLayer>,
}

impl Engine {
    /// A volume for each that `image` declares, but where `request` mounts something else.
    pub(super) fn own_volumes(
        &self,
        image: &ImageRecord,
        request: &RunRequest,
        snapshot: &Snapshot,
    ) -> Result<OwnVolumes> {
        let mut volumes = OwnVolumes::default();
        let declared = &image.config.config.volumes;
        if declared.is_empty() {
            return Ok(volumes);
        }
        let tree = snapshot.tree(&self.cancel)?;
        for declared in declared.keys() {
            let target = clean(declared);
            let taken = request.volumes.iter().any(|v| v.target == target)
                || volumes.mounts.iter().any(|m| m.target == target);
            if !taken {
                let written = self.store.new_layer()?;
                let source = self.volume_source(&target, &tree, snapshot, &written)?;
                volumes.mounts.push(Mount { target, source, read_only: false });
                volumes.written.push(written);
            }
        }
        Ok(volumes)
    }

    fn volume_source(
        &self,
        target: &str,
        tree: &Tree,
        snapshot: &Snapshot,
        written: &ActiveLayer,
    ) -> Result<MountSource> {
        match tree.lookup(target, true)?.map(|node| node.kind) {
            None => Ok(MountSource::Bind(copy(written.fs())?)),
            Some(Kind::Dir) => {
                let upper = Upper { dir: copy(written.fs())?, work: copy(written.work())? };
                let lowers = snapshot.dirs(&self.cancel)?;
                Ok(MountSource::Layers { lowers, path: target.to_owned(), upper: Some(upper) })
            }
            Some(_) => {
                Err(Error::invalid(format!("cannot mount volume over existing file, file exists {target}")))
            }
        }
    }
}

pub(super) fn copy(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(Error::io("duplicating", "a directory"))
}
