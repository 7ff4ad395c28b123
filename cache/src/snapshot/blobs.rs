//! The forms of a layer that somebody can use: files in `blobs/`, and what a registry has.

use super::{Layer, LayerId};
use crate::blob::local::SealedBlob;
use crate::error::{Error, Result};
use crate::layer::compress::Packing;
use crate::oci::Descriptor;

impl Layer {
    /// The compressed or plain blobs known for this layer: those here, and those that a repository has.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn blobs(&self) -> Result<Vec<LayerBlob>> {
        self.blobs_where("?2 IS NULL", None)
    }

    /// Those that were not made here; all of them if there is no other.
    pub(crate) fn came_as(&self) -> Result<Vec<LayerBlob>> {
        let made = "SELECT digest FROM compressed WHERE layer = ?1";
        let came = self.blobs_where(&format!("?2 IS NULL AND digest NOT IN ({made})"), None)?;
        if came.is_empty() { self.blobs() } else { Ok(came) }
    }

    /// The one that was made here in this way.
    pub(crate) fn packed(&self, packing: Packing) -> Result<Option<LayerBlob>> {
        let made = "digest = (SELECT digest FROM compressed WHERE layer = ?1 AND way = ?2)";
        Ok(self.blobs_where(made, Some(packing.key()))?.pop())
    }

    fn blobs_where(&self, condition: &str, way: Option<String>) -> Result<Vec<LayerBlob>> {
        let doing = "looking up a layer's blobs";
        let db = self.0.store.db();
        let mut select = db
            .prepare_cached(&format!(
                "SELECT digest, media_type, size, present, repository FROM layer_blobs WHERE layer = ?1
                 AND {condition} ORDER BY present DESC, digest"
            ))
            .map_err(Error::db(doing))?;
        let rows = select
            .query_map(rusqlite::params![self.0.id.0, way], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                ))
            })
            .map_err(Error::db(doing))?;
        rows.map(|row| {
            let (digest, media_type, size, present, repository): (_, _, u64, _, _) =
                row.map_err(Error::db(doing))?;
            Ok(LayerBlob {
                descriptor: Descriptor::new(media_type, digest.parse()?, size),
                present,
                repository,
            })
        })
        .collect()
    }

    /// Remembers a blob of this layer that is elsewhere, or where else one is.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn add_blob(&self, blob: &LayerBlob) -> Result<()> {
        let store = &self.0.store;
        store.write("recording a layer's blob", |tx| insert_blob(tx, self.0.id, blob, store.boot()))
    }

    /// Makes `file` a blob of this layer in the store.
    ///
    /// # Errors
    /// When it can't be named, or the store can't be written.
    pub fn keep_blob(&self, file: &SealedBlob, media_type: &str) -> Result<LayerBlob> {
        self.keep(file, media_type, None)
    }

    /// The same for one that was made of this layer in the way that is remembered.
    pub(crate) fn keep_packed(&self, file: &SealedBlob, packing: Packing) -> Result<LayerBlob> {
        self.keep(file, packing.media_type(), Some(packing.key()))
    }

    /// The file gets its name in the transaction that writes its row: so one without a row is nobody's at any time, and a
    /// collection that finds one can't be wrong.
    fn keep(&self, file: &SealedBlob, media_type: &str, way: Option<String>) -> Result<LayerBlob> {
        let (store, id) = (&self.0.store, self.0.id);
        let descriptor = Descriptor::new(media_type, file.digest(), file.size());
        let blob = LayerBlob { descriptor, present: true, repository: None };
        store.write("recording a layer's blob", |tx| {
            if let Err(error) = file.place() {
                return Ok(Err(error));
            }
            insert_blob(tx, id, &blob, store.boot())?;
            if let Some(way) = way {
                tx.prepare_cached(
                    "INSERT OR REPLACE INTO compressed (layer, way, digest) VALUES (?1, ?2, ?3)",
                )?
                .execute(rusqlite::params![
                    id.0,
                    way,
                    blob.descriptor.digest.to_string()
                ])?;
            }
            Ok(Ok(()))
        })??;
        Ok(blob)
    }
}

/// One form of a layer.
#[derive(Clone, Debug)]
pub struct LayerBlob {
    pub descriptor: Descriptor,
    /// Whether the file is in this store.
    pub present: bool,
    /// `registry/repository` that has it.
    pub repository: Option<String>,
}

impl LayerBlob {
    /// Whether its bytes can be had.
    pub(crate) fn is_available(&self) -> bool {
        self.present || self.repository.is_some()
    }
}

/// What only tells of a repository leaves a file that is here as durable as it was.
pub(super) fn insert_blob(
    db: &rusqlite::Connection,
    layer: LayerId,
    blob: &LayerBlob,
    boot: &str,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO layer_blobs (layer, digest, media_type, size, present, repository, boot)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET present = present OR excluded.present,
         repository = coalesce(excluded.repository, repository),
         boot = CASE WHEN excluded.present THEN excluded.boot ELSE boot END",
    )?
    .execute(rusqlite::params![
        layer.0,
        blob.descriptor.digest.to_string(),
        blob.descriptor.media_type,
        blob.descriptor.size,
        blob.present,
        blob.repository,
        boot
    ])
    .map(drop)
}
