//! Images and their names. An image's id is its config's digest, as docker has it.

use rusqlite::{OptionalExtension as _, params};

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::oci::{ImageConfig, Reference};
use crate::snapshot::{Layer, LayerId};
use crate::store::{Store, now};

/// An image in the store; its layers are leased, and may be absent.
#[derive(Clone, Debug)]
pub struct ImageRecord {
    pub id: Digest,
    pub manifest: Digest,
    pub config: ImageConfig,
    pub layers: Vec<Layer>,
    /// When it came here, in seconds since 1970.
    pub created: i64,
}

/// A name in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRecord {
    pub name: Reference,
    pub image: Digest,
    /// The manifest or index digest under which the registry has it.
    pub digest: Option<Digest>,
}

impl Store {
    /// Keeps a manifest, index or config.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn put_document(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.put_document_as(&digest, bytes)?;
        Ok(digest)
    }

    /// Keeps a document under a digest that the caller has verified (a registry's may be SHA-512).
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn put_document_as(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        self.write("keeping a document", |tx| {
            tx.prepare_cached("INSERT OR IGNORE INTO documents (digest, bytes) VALUES (?1, ?2)")?
                .execute(params![digest.to_string(), bytes])
                .map(drop)
        })
    }

    /// # Errors
    /// When the store can't be read.
    pub fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        self.db()
            .prepare_cached("SELECT bytes FROM documents WHERE digest = ?1")
            .and_then(|mut s| s.query_row([digest.to_string()], |r| r.get(0)).optional())
            .map_err(Error::db("reading a document"))
    }

    /// Records an image: its config and manifest (bytes with their verified digests) and its layers, bottom first.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn put_image(
        &self,
        config: (&Digest, &[u8]),
        manifest: (&Digest, &[u8]),
        layers: &[Layer],
    ) -> Result<()> {
        let (id, manifest_digest) = (config.0.to_string(), manifest.0.to_string());
        self.write("recording an image", |tx| {
            let mut keep =
                tx.prepare_cached("INSERT OR IGNORE INTO documents (digest, bytes) VALUES (?1, ?2)")?;
            keep.execute(params![id, config.1])?;
            keep.execute(params![manifest_digest, manifest.1])?;
            // The same config may come with another manifest (other compression): the newest one is used.
            tx.execute(
                "INSERT INTO images (id, manifest, created, boot) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET manifest = excluded.manifest, boot = excluded.boot",
                params![id, manifest_digest, now(), self.boot()],
            )?;
            tx.execute("DELETE FROM image_layers WHERE image = ?1", [&id])?;
            let mut insert =
                tx.prepare_cached("INSERT INTO image_layers (image, position, layer) VALUES (?1, ?2, ?3)")?;
            for (position, layer) in layers.iter().enumerate() {
                insert.execute(params![id, position, layer.id().0])?;
            }
            Ok(())
        })
    }

    /// Gives an image a name, which another image may lose by it.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn set_name(&self, name: &Reference, image: &Digest, digest: Option<&Digest>) -> Result<()> {
        self.write("naming an image", |tx| {
            tx.execute(
                "INSERT OR REPLACE INTO names (name, image, digest, boot) VALUES (?1, ?2, ?3, ?4)",
                params![name.to_string(), image.to_string(), digest.map(Digest::to_string), self.boot()],
            )
            .map(drop)
        })
    }

    /// Takes a name away; the image stays. False if there was no such name.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn remove_name(&self, name: &Reference) -> Result<bool> {
        self.write("removing a name", |tx| {
            Ok(tx.execute("DELETE FROM names WHERE name = ?1", [name.to_string()])? > 0)
        })
    }

    /// Forgets an image and all its names. Its layers stay until they are collected.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn remove_image(&self, id: &Digest) -> Result<()> {
        self.write("removing an image", |tx| {
            tx.execute("DELETE FROM names WHERE image = ?1", [id.to_string()])?;
            tx.execute("DELETE FROM images WHERE id = ?1", [id.to_string()])?;
            // A document may be shared with an image of another name.
            tx.execute(
                "DELETE FROM documents WHERE digest NOT IN (SELECT id FROM images)
                 AND digest NOT IN (SELECT manifest FROM images)",
                [],
            )
            .map(drop)
        })
    }

    /// The image that a name stands for.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn image_named(&self, name: &Reference) -> Result<Option<ImageRecord>> {
        let id: Option<String> = self
            .db()
            .prepare_cached("SELECT image FROM names WHERE name = ?1")
            .and_then(|mut s| s.query_row([name.to_string()], |r| r.get(0)).optional())
            .map_err(Error::db("looking up a name"))?;
        id.map_or(Ok(None), |id| self.image(&id.parse()?))
    }

    /// The image with this id.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn image(&self, id: &Digest) -> Result<Option<ImageRecord>> {
        let doing = "looking up an image";
        let lease = self.lease()?;
        let text = id.to_string();
        let found = self.write(doing, |tx| {
            let image: Option<(String, i64)> = tx
                .prepare_cached("SELECT manifest, created FROM images WHERE id = ?1")?
                .query_row([&text], |r| Ok((r.get(0)?, r.get(1)?)))
                .optional()?;
            let mut select =
                tx.prepare_cached("SELECT layer FROM image_layers WHERE image = ?1 ORDER BY position")?;
            let ids: Vec<LayerId> =
                select.query_map([&text], |r| r.get(0).map(LayerId))?.collect::<Result<_, _>>()?;
            Ok(image.zip(self.leased(tx, &lease, &ids)?))
        })?;
        let Some(((manifest, created), layers)) = found else { return Ok(None) };
        let missing = || Error::NotFound { what: "image config", name: text.clone() };
        let config = ImageConfig::parse(&self.document(id)?.ok_or_else(missing)?)?;
        Ok(Some(ImageRecord { id: *id, manifest: manifest.parse()?, config, layers, created }))
    }

    /// The ids of all images, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn image_ids(&self) -> Result<Vec<Digest>> {
        self.texts("SELECT id FROM images ORDER BY created DESC, rowid DESC", [])?
            .iter()
            .map(|id| id.parse())
            .collect()
    }

    /// The ids that begin with `prefix` (hexadecimal, without the algorithm).
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn image_ids_with_prefix(&self, prefix: &str) -> Result<Vec<Digest>> {
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        self.texts("SELECT id FROM images WHERE id GLOB 'sha256:' || ?1 || '*'", [prefix])?
            .iter()
            .map(|id| id.parse())
            .collect()
    }

    fn texts<P: rusqlite::Params>(&self, sql: &str, values: P) -> Result<Vec<String>> {
        let db = self.db();
        let mut select = db.prepare_cached(sql).map_err(Error::db("listing images"))?;
        let rows = select.query_map(values, |r| r.get(0)).map_err(Error::db("listing images"))?;
        rows.collect::<Result<_, _>>().map_err(Error::db("listing images"))
    }

    /// All names, or those of one image, in order.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn names(&self, image: Option<&Digest>) -> Result<Vec<NameRecord>> {
        let doing = "listing names";
        let db = self.db();
        let mut select = db
            .prepare_cached(
                "SELECT name, image, digest FROM names WHERE ?1 IS NULL OR image = ?1 ORDER BY name",
            )
            .map_err(Error::db(doing))?;
        let rows = select
            .query_map([image.map(Digest::to_string)], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .map_err(Error::db(doing))?;
        rows.map(|row| {
            let (name, image, digest): (String, String, Option<String>) = row.map_err(Error::db(doing))?;
            let digest = digest.map(|d| d.parse()).transpose()?;
            Ok(NameRecord { name: name.parse()?, image: image.parse()?, digest })
        })
        .collect()
    }
}
