//! Which layer was written last in each place, where a place is any text: the next one may be much like it.

use rusqlite::OptionalExtension as _;

use crate::error::{Error, Result};
use crate::snapshot::{Layer, LayerId};
use crate::store::Store;

impl Store {
    /// The layer that was written last in `place`, if it is still here.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn last_layer(&self, place: &str) -> Result<Option<Layer>> {
        let place = blake3::hash(place.as_bytes());
        let found: Option<i64> = self
            .db()
            .prepare_cached("SELECT layer FROM places WHERE place = ?1")
            .and_then(|mut select| select.query_row([place.as_bytes()], |row| row.get(0)).optional())
            .map_err(Error::db("looking up a place"))?;
        let Some(layer) = found else { return Ok(None) };
        Ok(self.layers(&[LayerId(layer)])?.and_then(|mut layers| layers.pop()))
    }

    /// Remembers that `layer` was written in `place`.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn remember_layer(&self, place: &str, layer: &Layer) -> Result<()> {
        let place = blake3::hash(place.as_bytes());
        self.write("remembering a place", |tx| {
            tx.prepare_cached("INSERT OR REPLACE INTO places (place, layer) VALUES (?1, ?2)")?
                .execute(rusqlite::params![place.as_bytes(), layer.id().number()])
                .map(drop)
        })
    }
}
