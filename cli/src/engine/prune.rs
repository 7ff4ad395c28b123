//! Removing what is not needed.

use std::time::Duration;

use boxwright_cache::Digest;
use boxwright_cache::gc::Forget;

use super::{Engine, ImageFilter, Listed, Removed, RunningContainer};
use crate::error::{Error, Result};

const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// What nobody used for this long goes.
const OLD: Duration = Duration::from_secs(60 * 24 * 3600);
/// The cache may take a fifth of the file system, and has to leave a tenth of it free; a fiftieth it may take even where
/// others have filled the rest, or every build there would be a first one.
const CACHE_PART: u64 = 5;
const FREE_PART: u64 = 10;
const SPARED_PART: u64 = 50;

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
        self.prune_builds(Forget::NONE)
    }

    /// Forgets results of build steps and what cache mounts hold, but for what is in use right now.
    ///
    /// # Errors
    /// When they can't be removed.
    pub fn prune_builds(&self, forget: Forget) -> Result<Pruned> {
        self.store.give_reserve()?;
        Ok(Pruned { removed: Vec::new(), freed: self.store.collect(forget)?.bytes })
    }

    /// Keeps the build cache within its limits: `keep` bytes if given, else a part of the file system, and less where
    /// that is almost full; what nobody used for long goes anyway. It looks at most once an hour.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub fn make_room(&self, keep: Option<u64>) -> Result<()> {
        if !self.store.collection_is_due(LOOK_EVERY)? {
            return Ok(());
        }
        self.store.collect(Forget { unused_for: Some(OLD), ..Forget::ALL })?;
        let disk =
            rustix::fs::fstatvfs(self.store.dir()).map_err(Error::io("looking at", self.store.path()))?;
        let (size, free) = (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize);
        let used = self.store.usage()?.cache_bytes();
        let keep = limit(keep.unwrap_or(size / CACHE_PART), used, size, free);
        if used > keep {
            self.store.collect(Forget { keep: Some(keep), ..Forget::ALL })?;
        }
        Ok(())
    }

    /// Of the images that the filters let pass, removes those without a name, or all, but for those of containers that run.
    ///
    /// # Errors
    /// When they can't be removed.
    pub fn prune_images(&self, all: bool, filters: &[ImageFilter]) -> Result<Pruned> {
        self.store.give_reserve()?;
        // Their layers are held only until the ids are known.
        let running = RunningContainer::all(self.store.path())?;
        let in_use = |row: &Listed| running.iter().any(|container| container.uses(&row.stored.images()));
        let rows = self.images(filters)?;
        let mut ids: Vec<Digest> =
            rows.iter().filter(|row| !in_use(row)).map(|row| *row.stored.id()).collect();
        drop(rows);
        ids.dedup();
        let mut removed = Vec::new();
        for id in ids {
            let names = self.store.names(Some(&id))?;
            if all || names.is_empty() {
                removed.extend(self.forget(&id, &names.iter().collect::<Vec<_>>(), false)?);
            }
        }
        Ok(Pruned { removed, ..self.collect_garbage()? })
    }
}

/// How many bytes the cache may keep of the `used` ones.
fn limit(keep: u64, used: u64, size: u64, free: u64) -> u64 {
    let missing = (size / FREE_PART).saturating_sub(free);
    keep.min(if missing > 0 { used.saturating_sub(missing).max(size / SPARED_PART) } else { u64::MAX })
}

#[cfg(test)]
mod tests {
    use boxwright_cache::record::{CacheKey, NewRecord};
    use boxwright_cache::snapshot::Snapshot;
    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn room_is_made_once_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let engine =
            Engine::open(&dir.path().join("store"), Default::default(), crate::config::git()).unwrap();
        let store = engine.store();
        let record = |key: u8| {
            let layer = store.new_layer().unwrap();
            rustix::fs::openat(layer.fs(), "file", OFlags::CREATE, Mode::RUSR).unwrap();
            let snapshot = Snapshot::default().with(layer.commit(&engine.cancel).unwrap());
            let (definition, took) = (CacheKey([key; 32]), Duration::ZERO);
            let new = NewRecord {
                definition,
                content_key: None,
                snapshot: &snapshot,
                fields: "",
                took,
                origin: None,
            };
            store.put_record(&new).unwrap();
        };
        let records = || store.usage().unwrap().records.len();
        record(1);
        engine.make_room(Some(0)).unwrap();
        assert_eq!(records(), 0);
        record(2);
        engine.make_room(Some(0)).unwrap();
        assert_eq!(records(), 1, "nobody looks again so soon");
    }

    #[test]
    fn a_full_disk_makes_the_cache_smaller() {
        assert_eq!(limit(200, 150, 1000, 500), 200);
        assert_eq!(limit(200, 150, 1000, 70), 120);
        assert_eq!(limit(900, 850, 10_000, 500), 350);
        assert_eq!(limit(900, 850, 10_000, 70), 200, "others filled the disk");
        assert_eq!(limit(90, 850, 10_000, 70), 90);
    }
}
