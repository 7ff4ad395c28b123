//! Collection of what nothing needs: neither an image, nor a build record, nor a living process' lease; and which
//! build records and cache mounts are forgotten to make room.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rusqlite::OptionalExtension as _;

use crate::error::{Error, Result};
use crate::fs::remove_tree;
use crate::lease::{bury, living, without_readers};
use crate::mount::CacheMountUsage;
use crate::store::{Store, list, now};
use crate::usage::{RecordUsage, Usage};

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    pub layers: u64,
    pub records: u64,
    pub mounts: u64,
    /// What that took on the disk.
    pub bytes: u64,
}

/// Which build records and cache mounts to forget. What a living process holds stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forget {
    pub which: Which,
    /// Only those that nobody used for this long.
    pub unused_for: Option<Duration>,
    /// Only until all of them take no more bytes than this; those that were used last stay.
    pub keep: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    #[default]
    None,
    /// Those whose own layer is part of no image.
    Unused,
    All,
}

impl Forget {
    pub const NONE: Forget = Forget { which: Which::None, unused_for: None, keep: None };
    pub const UNUSED: Forget = Forget { which: Which::Unused, ..Forget::NONE };
    pub const ALL: Forget = Forget { which: Which::All, ..Forget::NONE };
}

/// What went away, and the directories to remove after it. They have names that no other layer will get.
#[derive(Debug, Default)]
struct Dead {
    dirs: Vec<String>,
    bytes: u64,
    layers: u64,
}

/// What can be forgotten.
enum Item<'a> {
    Record(&'a RecordUsage),
    Mount(&'a CacheMountUsage),
}

impl Store {
    /// Forgets build records and cache mounts, then removes every layer and blob that nothing needs any more.
    ///
    /// # Errors
    /// When rows or files can't be removed; what was removed stays removed.
    pub fn collect(&self, forget: Forget) -> Result<Freed> {
        bury(self)?;
        self.measure_layers()?;
        let mut freed = Freed::default();
        if forget.which != Which::None {
            let usage = self.usage()?;
            let (records, mounts) = chosen(&usage, forget, now());
            for mount in mounts {
                if self.remove_cache_mount(mount)? {
                    freed.mounts += 1;
                    freed.bytes += mount.bytes;
                }
            }
            freed.records = self.forget_records(&records)?;
        }
        let dead = self.forget("collecting layers", true, collect_rows)?;
        self.discard_layers(&dead.dirs)?;
        let blobs = self.remove_stray_blobs()?;
        self.remove_litter()?;
        self.remove_stray_logs()?;
        Ok(Freed { layers: dead.layers, bytes: freed.bytes + dead.bytes + blobs, ..freed })
    }

    /// Whether the last time that this said so is longer ago than `every`: for collections that nobody asks for.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn collection_is_due(&self, every: Duration) -> Result<bool> {
        let every = i64::try_from(every.as_secs()).unwrap_or(i64::MAX);
        self.write("looking when results were collected last", |tx| {
            let last: Option<i64> = tx
                .query_row("SELECT value FROM meta WHERE key = 'collected'", [], |row| {
                    row.get::<_, String>(0)
                })
                .optional()?
                .and_then(|at| at.parse().ok());
            let due = last.is_none_or(|last| now().saturating_sub(last) >= every || last > now());
            if due {
                tx.execute(
                    "INSERT OR REPLACE INTO meta (key, value) VALUES ('collected', ?1)",
                    [now().to_string()],
                )?;
            }
            Ok(due)
        })
    }

    /// One that was used since it was chosen stays.
    fn forget_records(&self, records: &[&RecordUsage]) -> Result<u64> {
        self.write("forgetting build records", |tx| {
            let mut delete = tx.prepare_cached("DELETE FROM records WHERE id = ?1 AND used <= ?2")?;
            let deleted = records.iter().map(|record| delete.execute([record.id, record.used]));
            Ok(deleted.sum::<rusqlite::Result<usize>>()? as u64)
        })
    }

    /// The directories of layers that rows have just forgotten.
    pub(crate) fn discard_layers(&self, dirs: &[String]) -> Result<()> {
        if !dirs.is_empty() {
            self.flush_rows()?;
        }
        dirs.iter().try_for_each(|dir| self.discard("layers", dir))
    }

    /// Moves the directory out of sight first, so that a kill leaves litter but never half a layer.
    pub(crate) fn discard(&self, parent: &str, name: &str) -> Result<()> {
        self.move_away(parent, name)?.map_or(Ok(()), |away| remove_tree(self, &away))
    }

    /// To where everybody removes it who comes by; none if it is gone.
    pub(crate) fn move_away(&self, parent: &str, name: &str) -> Result<Option<String>> {
        let (path, away) = (format!("{parent}/{name}"), format!("tmp/dead-{name}"));
        match rustix::fs::renameat(self.dir(), &path, self.dir(), &away) {
            Ok(()) => Ok(Some(away)),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::io("removing", self.path().join(path))(e)),
        }
    }

    /// Directories that no row names: their makers died between renaming and recording. A living process may be
    /// between the two right now, so nothing is litter while another one holds a lease; and the directories are
    /// listed before that is asked, so that one made afterwards is never among them.
    fn remove_litter(&self) -> Result<()> {
        let own = self.lease()?;
        let Some(without_readers) = without_readers(self)? else { return Ok(()) };
        let names = self.names_in("layers")?;
        if living(self)?.keys().any(|name| name != own.name()) {
            return Ok(());
        }
        let doing = "looking for litter";
        let known: BTreeSet<String> = {
            let db = self.db();
            let sql = "SELECT dir FROM layers WHERE dir IS NOT NULL UNION SELECT dir FROM settlements WHERE dir IS NOT NULL";
            let mut select = db.prepare(sql).map_err(Error::db(doing))?;
            let rows = select.query_map([], |r| r.get(0)).map_err(Error::db(doing))?;
            rows.collect::<Result<_, _>>().map_err(Error::db(doing))?
        };
        let litter = names.iter().filter(|name| !known.contains(*name));
        let away = litter.map(|name| self.move_away("layers", name)).collect::<Result<Vec<_>>>()?;
        // To remove them takes time in which a reader may come.
        drop(without_readers);
        away.iter().flatten().try_for_each(|away| remove_tree(self, away))
    }
}

/// What `forget` means of what is there: the longest unused first.
fn chosen(usage: &Usage, forget: Forget, now: i64) -> (Vec<&RecordUsage>, Vec<&CacheMountUsage>) {
    let of_image = |id: &i64| usage.layers.get(id).is_some_and(|layer| layer.in_image);
    let leased = |id: &i64| usage.layers.get(id).is_some_and(|layer| layer.leased);
    // Where room is to be made, a record of what an image keeps anyway would be lost for nothing.
    let with_images = forget.which == Which::All && forget.keep.is_none();
    let records =
        usage.records.iter().filter(|record| with_images || !record.layers.last().is_some_and(of_image));
    // What somebody works with stays.
    let records = records.filter(|record| !record.layers.last().is_some_and(leased));
    let mut items: Vec<(i64, Item<'_>)> = records.map(|record| (record.used, Item::Record(record))).collect();
    items.extend(
        usage.mounts.iter().filter(|mount| !mount.in_use).map(|mount| (mount.used, Item::Mount(mount))),
    );
    if let Some(age) = forget.unused_for {
        let before = now.saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        items.retain(|(used, _)| *used < before);
    }
    items.sort_by_key(|(used, _)| *used);
    let mut total = usage.cache_bytes();
    let mut users: HashMap<i64, usize> = HashMap::new();
    usage
        .records
        .iter()
        .flat_map(|record| &record.layers)
        .for_each(|layer| *users.entry(*layer).or_default() += 1);
    let (mut records, mut mounts) = (Vec::new(), Vec::new());
    for (_, item) in items {
        if forget.keep.is_some_and(|keep| total <= keep) {
            break;
        }
        match item {
            Item::Mount(mount) => {
                total = total.saturating_sub(mount.bytes);
                mounts.push(mount);
            }
            Item::Record(record) => {
                for layer in &record.layers {
                    let left = users.entry(*layer).or_default();
                    *left = left.saturating_sub(1);
                    if *left == 0 && !of_image(layer) {
                        total = total.saturating_sub(usage.layers.get(layer).map_or(0, |layer| layer.bytes));
                    }
                }
                records.push(record);
            }
        }
    }
    (records, mounts)
}

fn collect_rows(tx: &rusqlite::Transaction<'_>, held: &BTreeSet<i64>) -> rusqlite::Result<Dead> {
    let unneeded = format!(
        "SELECT id FROM layers WHERE id NOT IN (SELECT layer FROM image_layers)
         AND id NOT IN (SELECT layer FROM record_layers) AND id NOT IN ({})",
        list(held)
    );
    let mut dead = Dead::default();
    // Layers that differ in their epoch alone have their directory in common.
    let mut select = tx.prepare(&format!(
        "SELECT dir, max(coalesce(bytes, 0)) FROM layers WHERE id IN ({unneeded}) AND (dir IS NULL OR dir NOT IN
         (SELECT dir FROM layers WHERE dir IS NOT NULL AND id NOT IN ({unneeded}))) GROUP BY coalesce(dir, id)"
    ))?;
    for row in select.query_map([], |r| Ok((r.get::<_, Option<String>>(0)?, r.get::<_, u64>(1)?)))? {
        let (dir, bytes) = row?;
        dead.dirs.extend(dir);
        dead.bytes += bytes;
        dead.layers += 1;
    }
    let settled = format!("SELECT dir FROM settlements WHERE dir IS NOT NULL AND top IN ({unneeded})");
    for row in tx.prepare(&settled)?.query_map([], |r| r.get::<_, String>(0))? {
        dead.dirs.push(row?);
    }
    tx.execute(&format!("DELETE FROM layers WHERE id IN ({unneeded})"), [])?;
    crate::record::builds::forget_keys(tx)?;
    Ok(dead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::CacheKey;
    use crate::usage::LayerUsage;

    fn usage() -> Usage {
        let layer = |bytes, in_image| LayerUsage { bytes, in_image, in_record: true, leased: false };
        let record = |id: i64, layers: &[i64], used| RecordUsage {
            id,
            key: CacheKey([id as u8; 32]),
            layers: layers.to_vec(),
            created: 0,
            used,
        };
        Usage {
            layers: [
                (1, layer(100, true)),
                (2, layer(10, false)),
                (3, layer(20, false)),
                (4, layer(40, false)),
            ]
            .into(),
            // 2 and 3 stand on one another; 4 alone; 1 is an image's.
            records: vec![
                record(13, &[1, 2, 3], 500),
                record(14, &[4], 400),
                record(12, &[2], 300),
                record(11, &[1], 200),
            ],
            ..Usage::default()
        }
    }

    fn ids(usage: &Usage, forget: Forget) -> Vec<i64> {
        chosen(usage, forget, 1000).0.iter().map(|record| record.id).collect()
    }

    #[test]
    fn the_longest_unused_go_until_there_is_room() {
        let usage = usage();
        assert_eq!(usage.cache_bytes(), 70);
        let keep = |keep| ids(&usage, Forget { keep: Some(keep), ..Forget::ALL });
        assert!(keep(70).is_empty());
        // 12 gives nothing yet, for 13 has its layer too; 14 gives 40. 11's layer is an image's.
        assert_eq!(keep(69), [12, 14]);
        assert_eq!(keep(29), [12, 14, 13]);
        assert_eq!(keep(0), [12, 14, 13]);
    }

    #[test]
    fn age_and_images_limit_what_goes() {
        let usage = usage();
        assert_eq!(ids(&usage, Forget::ALL), [11, 12, 14, 13]);
        assert_eq!(ids(&usage, Forget::UNUSED), [12, 14, 13]);
        let old = Forget { unused_for: Some(Duration::from_secs(600)), ..Forget::ALL };
        assert_eq!(ids(&usage, old), [11, 12]);
    }

    #[test]
    fn what_is_held_stays() {
        let mut usage = usage();
        usage.layers.get_mut(&4).unwrap().leased = true;
        assert_eq!(ids(&usage, Forget::ALL), [11, 12, 13]);
    }
}
