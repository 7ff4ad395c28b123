//! Which layer was written last in each place, where a place is any text: the next one may be much like it.

use rusqlite::OptionalExtension as _;

use crate::error::{Error, Result};
use crate::snapshot::{Layer, LayerId};
use crate::store::Store;

impl Store {
    /// The layer that was written last in `place`, if it is still here, and what it was made of.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn last_layer(&self, place: &str) -> Result<Option<(Layer, Option<String>)>> {
        let place = blake3::hash(place.as_bytes());
        let found: Option<(i64, Option<String>)> = self
            .db()
            .prepare_cached("SELECT layer, made_of FROM places WHERE place = ?1")
            .and_then(|mut select| {
                select.query_row([place.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .map_err(Error::db("looking up a place"))?;
        let Some((layer, made_of)) = found else { return Ok(None) };
        let layer = self.layers(&[LayerId(layer)])?.and_then(|mut layers| layers.pop());
        Ok(layer.map(|layer| (layer, made_of)))
    }

    /// Remembers that `layer` was written in `place`, and what it was made of, which may be any text.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn remember_layer(&self, place: &str, layer: &Layer, made_of: Option<&str>) -> Result<()> {
        let place = blake3::hash(place.as_bytes());
        self.write("remembering a place", |tx| {
            tx.prepare_cached("INSERT OR REPLACE INTO places (place, layer, made_of) VALUES (?1, ?2, ?3)")?
                .execute(rusqlite::params![place.as_bytes(), layer.id().number(), made_of])
                .map(drop)
        })
    }
}
