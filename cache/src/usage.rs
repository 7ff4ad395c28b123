//! What takes how much of the disk, in bytes that are really allocated there.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::params;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::fs::allocated;
use crate::lease::living;
use crate::mount::CacheMountUsage;
use crate::record::CacheKey;
use crate::store::Store;

/// Everything that is kept, with its size.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub layers: HashMap<i64, LayerUsage>,
    pub images: Vec<ImageUsage>,
    pub records: Vec<RecordUsage>,
    pub mounts: Vec<CacheMountUsage>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct LayerUsage {
    /// Unpacked files, archives, and what the stacks below it needed.
    pub bytes: u64,
    pub in_image: bool,
    pub in_record: bool,
    /// A living process holds it.
    pub leased: bool,
}

#[derive(Clone, Debug)]
pub struct ImageUsage {
    pub id: Digest,
    /// By id, as in [`Usage::layers`].
    pub layers: Vec<i64>,
}

/// The result of a step. Times are seconds since 1970.
#[derive(Clone, Debug)]
pub struct RecordUsage {
    pub(crate) id: i64,
    pub key: CacheKey,
    pub layers: Vec<i64>,
    pub created: i64,
    pub used: i64,
}

impl Usage {
    /// Of what images need.
    pub fn image_bytes(&self) -> u64 {
        self.sum(|layer| layer.in_image)
    }

    /// Of what only results of steps need, cache mounts included.
    pub fn cache_bytes(&self) -> u64 {
        self.sum(|layer| layer.in_record && !layer.in_image)
            + self.mounts.iter().map(|mount| mount.bytes).sum::<u64>()
    }

    /// Counts layers that have their directory in common, each with another epoch, as the first of them.
    fn join(&mut self, same: &HashMap<i64, i64>) {
        for (id, first) in same {
            let Some(layer) = self.layers.remove(id) else { continue };
            let Some(one) = self.layers.get_mut(first) else { continue };
            one.bytes += layer.bytes;
            one.in_image |= layer.in_image;
            one.in_record |= layer.in_record;
            one.leased |= layer.leased;
        }
        let of_images = self.images.iter_mut().map(|image| &mut image.layers);
        let of_records = self.records.iter_mut().map(|record| &mut record.layers);
        for id in of_images.chain(of_records).flatten() {
            *id = same.get(id).copied().unwrap_or(*id);
        }
    }

    /// Bytes of the layers that `counts` is true for.
    pub fn sum(&self, counts: impl Fn(&LayerUsage) -> bool) -> u64 {
        self.layers.values().filter(|layer| counts(layer)).map(|layer| layer.bytes).sum()
    }
}

impl Store {
    /// # Errors
    /// When the store can't be read.
    pub fn usage(&self) -> Result<Usage> {
        let measured = self.measure_layers()?;
        let mut usage = Usage { mounts: self.cache_mounts()?, ..Usage::default() };
        let living = living(self)?;
        let db = self.db();
        let mut read = || -> rusqlite::Result<()> {
            let mut same = HashMap::new();
            let mut select = db.prepare(
                "SELECT id, bytes, (SELECT min(id) FROM layers AS other WHERE other.dir = layers.dir)
                 FROM layers",
            )?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let (id, known): (i64, Option<u64>) = (row.get(0)?, row.get(1)?);
                let mut bytes = known.or_else(|| measured.get(&id).copied()).unwrap_or(0);
                if let Some(first) = row.get::<_, Option<i64>>(2)?.filter(|first| *first != id) {
                    same.insert(id, first);
                    bytes = 0;
                }
                usage.layers.insert(id, LayerUsage { bytes, ..LayerUsage::default() });
            }
            add_blobs(&db, &mut usage)?;
            for id in living.values().flatten() {
                if let Some(layer) = usage.layers.get_mut(id) {
                    layer.leased = true;
                }
            }
            add_images(&db, &mut usage)?;
            add_records(&db, &mut usage)?;
            usage.join(&same);
            Ok(())
        };
        read().map_err(Error::db("reading what is kept"))?;
        Ok(usage)
    }

    /// Measures the layers that nobody has measured yet: they do not change. Gives what was found.
    ///
    /// # Errors
    /// When the store can't be read, or the measuring is cancelled.
    pub(crate) fn measure_layers(&self) -> Result<HashMap<i64, u64>> {
        let doing = "measuring layers";
        let pending: Vec<(i64, String)> = {
            let db = self.db();
            let mut select = db
                .prepare_cached("SELECT id, dir FROM layers WHERE dir IS NOT NULL AND bytes IS NULL")
                .map_err(Error::db(doing))?;
            let rows =
                select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(Error::db(doing))?;
            rows.collect::<Result<_, _>>().map_err(Error::db(doing))?
        };
        if pending.is_empty() {
            return Ok(HashMap::new());
        }
        let allocated = |(id, dir): (i64, String)| {
            let bytes = allocated(self, &format!("layers/{dir}"))?;
            Ok((id, dir, bytes))
        };
        let measured = pending.into_iter().map(allocated).collect::<Result<Vec<(i64, String, u64)>>>()?;
        let written = self.write(doing, |tx| {
            let mut update = tx.prepare_cached("UPDATE layers SET bytes = ?3 WHERE id = ?1 AND dir = ?2")?;
            measured.iter().try_for_each(|(id, dir, bytes)| update.execute(params![id, dir, bytes]).map(drop))
        });
        match written {
            // Who looks at a store that can't be written measures each time.
            Err(error) if error.kind() == Some(ErrorKind::ReadOnlyFilesystem) => {}
            other => other?,
        }
        Ok(measured.into_iter().map(|(id, _, bytes)| (id, bytes)).collect())
    }
}

/// A blob that several layers have is counted once.
fn add_blobs(db: &rusqlite::Connection, usage: &mut Usage) -> rusqlite::Result<()> {
    let mut select = db.prepare("SELECT min(layer), size FROM layer_blobs WHERE present GROUP BY digest")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(layer) = usage.layers.get_mut(&row.get(0)?) {
            layer.bytes += row.get::<_, u64>(1)?;
        }
    }
    Ok(())
}

fn add_images(db: &rusqlite::Connection, usage: &mut Usage) -> rusqlite::Result<()> {
    // What is only part of an index counts as that.
    let mut select = db.prepare(
        "SELECT id, layer FROM images LEFT JOIN image_layers ON image = manifest
         WHERE manifest IN (SELECT image FROM names) OR manifest NOT IN (SELECT image FROM members)
         UNION SELECT parent, layer FROM members JOIN image_layers USING (image) ORDER BY 1",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        let Ok(id) = id.parse::<Digest>() else { continue };
        if usage.images.last().is_none_or(|image| image.id != id) {
            usage.images.push(ImageUsage { id, layers: Vec::new() });
        }
        let (Some(layer), Some(image)) = (row.get::<_, Option<i64>>(1)?, usage.images.last_mut()) else {
            continue;
        };
        image.layers.push(layer);
        if let Some(layer) = usage.layers.get_mut(&layer) {
            layer.in_image = true;
        }
    }
    Ok(())
}

fn add_records(db: &rusqlite::Connection, usage: &mut Usage) -> rusqlite::Result<()> {
    let sql = "SELECT id, definition, created, used, layer FROM records
               LEFT JOIN record_layers ON record = id ORDER BY used DESC, id DESC, position";
    let mut select = db.prepare(sql)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if usage.records.last().is_none_or(|record| record.id != id) {
            let (key, created, used) = (CacheKey(row.get(1)?), row.get(2)?, row.get(3)?);
            usage.records.push(RecordUsage { id, key, layers: Vec::new(), created, used });
        }
        let (Some(layer), Some(record)) = (row.get::<_, Option<i64>>(4)?, usage.records.last_mut()) else {
            continue;
        };
        record.layers.push(layer);
        if let Some(layer) = usage.layers.get_mut(&layer) {
            layer.in_record = true;
        }
    }
    Ok(())
}

/// Since 1970.
pub(crate) fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
