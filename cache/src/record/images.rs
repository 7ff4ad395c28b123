//! Images and their names. An image's id is its config's digest, as docker has it.

use rusqlite::{OptionalExtension as _, params};

use super::IndexRecord;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::oci::{ImageConfig, Reference};
use crate::snapshot::Layer;
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
    /// The image's id.
    pub image: Digest,
    /// What it stands for among the manifests and indexes that have that id.
    pub manifest: Digest,
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
        self.write("keeping a document", |tx| keep_document(tx, &digest.to_string(), bytes))
    }

    /// # Errors
    /// When the store can't be read.
    pub fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        self.db()
            .prepare_cached("SELECT bytes FROM documents WHERE digest = ?1")
            .and_then(|mut s| s.query_row([digest.to_string()], |r| r.get(0)).optional())
            .map_err(Error::db("reading a document"))
    }

    /// Records an image with its names: its config and manifest (bytes with their verified digests) and its layers,
    /// bottom first. Nobody ever sees it without its names, and nobody can take it for one that has none.
    ///
    /// # Errors
    /// When the config is none, or the store can't be written.
    pub fn put_image(
        &self,
        config: (&Digest, &[u8]),
        manifest: (&Digest, &[u8]),
        layers: &[Layer],
        names: &[(Reference, Option<Digest>)],
    ) -> Result<ImageRecord> {
        let parsed = ImageConfig::parse(config.1)?;
        let created = self.write("recording an image", |tx| {
            let created = self.keep_image(tx, config, manifest, layers)?;
            for (name, digest) in names {
                self.name(tx, name, &manifest.0.to_string(), digest.as_ref())?;
            }
            remove_older_of(tx, &config.0.to_string())?;
            Ok(created)
        })?;
        Ok(ImageRecord {
            id: *config.0,
            manifest: *manifest.0,
            config: parsed,
            layers: layers.to_vec(),
            created,
        })
    }

    /// Gives the time at which the image was first recorded.
    pub(super) fn keep_image(
        &self,
        tx: &rusqlite::Transaction<'_>,
        config: (&Digest, &[u8]),
        manifest: (&Digest, &[u8]),
        layers: &[Layer],
    ) -> rusqlite::Result<i64> {
        let (id, manifest_digest) = (config.0.to_string(), manifest.0.to_string());
        if let Some(created) = recorded(tx, &id, &manifest_digest, layers)? {
            make_newest(tx, &id, &manifest_digest)?;
            return Ok(created);
        }
        keep_document(tx, &id, config.1)?;
        keep_document(tx, &manifest_digest, manifest.1)?;
        self.record_image(tx, &id, &manifest_digest, layers)
    }

    fn record_image(
        &self,
        tx: &rusqlite::Transaction<'_>,
        id: &str,
        manifest: &str,
        layers: &[Layer],
    ) -> rusqlite::Result<i64> {
        // The same config may come with another manifest (other compression, annotations), which is another image then.
        let created = tx.query_row(
            "INSERT INTO images (manifest, id, turn, created, boot)
             VALUES (?1, ?2, (SELECT coalesce(max(turn), 0) + 1 FROM images),
                     coalesce((SELECT min(created) FROM images WHERE id = ?2), ?3), ?4)
             ON CONFLICT DO UPDATE SET id = excluded.id, turn = excluded.turn, boot = excluded.boot
             RETURNING created",
            params![manifest, id, now(), self.boot()],
            |row| row.get(0),
        )?;
        tx.execute("DELETE FROM image_layers WHERE image = ?1", [manifest])?;
        let mut insert =
            tx.prepare_cached("INSERT INTO image_layers (image, position, layer) VALUES (?1, ?2, ?3)")?;
        for (position, layer) in layers.iter().enumerate() {
            insert.execute(params![manifest, position, layer.id().0])?;
        }
        Ok(created)
    }

    /// Gives an image one more name, which another image may lose by it: the one of this manifest, or the newest that has this
    /// id. False if there is no such image.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn set_name(&self, name: &Reference, image: &Digest) -> Result<bool> {
        self.write("naming an image", |tx| self.name(tx, name, &image.to_string(), None))
    }

    pub(super) fn name(
        &self,
        tx: &rusqlite::Transaction<'_>,
        name: &Reference,
        image: &str,
        digest: Option<&Digest>,
    ) -> rusqlite::Result<bool> {
        let (name, digest) = (name.to_string(), digest.map(Digest::to_string));
        let manifest: Option<String> = tx
            .prepare_cached(
                "SELECT manifest FROM images WHERE manifest = ?1 OR id = ?1 ORDER BY turn DESC LIMIT 1",
            )?
            .query_row([image], |row| row.get(0))
            .optional()?;
        let Some(manifest) = manifest else { return Ok(false) };
        // A build that gave what it gave before writes nothing that would have to be made durable again, and a registry that
        // has it has it still.
        let is_so = "SELECT EXISTS (SELECT 1 FROM names
                     WHERE name = ?1 AND image = ?2 AND (?3 IS NULL OR digest IS ?3))";
        if tx.prepare_cached(is_so)?.query_row(params![name, manifest, digest], |row| row.get(0))? {
            return Ok(true);
        }
        let before = "SELECT id FROM images WHERE manifest = (SELECT image FROM names WHERE name = ?1)";
        let before: Option<String> =
            tx.prepare_cached(before)?.query_row([&name], |row| row.get(0)).optional()?;
        tx.prepare_cached(
            "INSERT OR REPLACE INTO moved SELECT name, image, digest FROM names WHERE name = ?1 AND boot IS NULL",
        )?
        .execute([&name])?;
        tx.prepare_cached(
            "INSERT OR REPLACE INTO names (name, image, digest, boot) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![name, manifest, digest, self.boot()])?;
        before.map_or(Ok(()), |id| remove_older_of(tx, &id))?;
        Ok(true)
    }

    /// Keeps that a registry has what a name stands for under this digest, if the name still stands for this manifest.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn set_digest(&self, name: &Reference, manifest: &Digest, digest: &Digest) -> Result<()> {
        self.write("keeping a digest", |tx| {
            let values = params![name.to_string(), manifest.to_string(), digest.to_string()];
            tx.execute("UPDATE names SET digest = ?3 WHERE name = ?1 AND image = ?2", values).map(drop)
        })
    }

    /// Forgets that a registry has what a name stands for under this digest. The name stays.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn forget_digest(&self, name: &Reference, digest: &Digest) -> Result<()> {
        self.write("forgetting a digest", |tx| {
            let values = params![name.to_string(), digest.to_string()];
            tx.execute("UPDATE names SET digest = NULL WHERE name = ?1 AND digest = ?2", values).map(drop)
        })
    }

    /// Takes names of an image away and, with the last that it has, the image: true if that is what happened. Its
    /// layers stay until they are collected.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn remove_names(&self, image: &Digest, names: &[&Reference]) -> Result<bool> {
        let id = image.to_string();
        self.write("removing an image", |tx| {
            take_away(tx, &id, names)?;
            let members: Vec<String> = tx
                .prepare_cached("SELECT id FROM members JOIN images ON manifest = image WHERE parent = ?1")?
                .query_map([&id], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let removed = remove_unneeded(tx, &id)?;
            let is_left = "SELECT EXISTS (SELECT 1 FROM images WHERE id = ?1)";
            let gone = removed && !tx.query_row(is_left, [&id], |row| row.get::<_, bool>(0))?;
            if gone {
                members.iter().try_for_each(|member| remove_unneeded(tx, member).map(drop))?;
            }
            if removed {
                forget_documents(tx)?;
            }
            Ok(gone)
        })
    }

    /// Takes names of an image away. It stays, also without any.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn untag(&self, image: &Digest, names: &[&Reference]) -> Result<()> {
        self.write("removing names", |tx| take_away(tx, &image.to_string(), names))
    }

    /// Takes an image out of an index, which still names it; it goes if nothing else needs it. The last one stays, and
    /// false is given.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn remove_member(&self, index: &IndexRecord, manifest: &Digest) -> Result<bool> {
        // What the index does not name is shown as none of its images, whatever the rows say.
        let named: Vec<String> = index.index.manifests.iter().map(|d| d.digest.to_string()).collect();
        let (index, manifest) = (index.id.to_string(), manifest.to_string());
        self.write("removing an image of an index", |tx| {
            let mut members = tx.prepare_cached("SELECT image FROM members WHERE parent = ?1")?;
            let members: Vec<String> =
                members.query_map([&index], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            if !members.iter().any(|member| *member != manifest && named.contains(member)) {
                return Ok(false);
            }
            tx.execute("DELETE FROM members WHERE parent = ?1 AND image = ?2", [&index, &manifest])?;
            let id = "SELECT id FROM images WHERE manifest = ?1";
            let id: Option<String> = tx.query_row(id, [&manifest], |row| row.get(0)).optional()?;
            if let Some(id) = id {
                remove_unneeded(tx, &id)?;
                forget_documents(tx)?;
            }
            Ok(true)
        })
    }

    /// The ids of all images and indexes, newest first, but for images that only an index needs.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn image_ids(&self) -> Result<Vec<Digest>> {
        let sql = "SELECT id FROM images WHERE manifest IN (SELECT image FROM names)
                   OR manifest NOT IN (SELECT image FROM members)
                   GROUP BY id ORDER BY min(created) DESC, min(rowid) DESC";
        self.texts(sql, [])?.iter().map(|id| id.parse()).collect()
    }

    /// The ids that begin with `prefix`: hexadecimal, with or without the algorithm in front.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn image_ids_with_prefix(&self, prefix: &str) -> Result<Vec<Digest>> {
        let (algorithm, hex) = prefix.split_once(':').unwrap_or(("*", prefix));
        let known = ["*", Algorithm::Sha256.name(), Algorithm::Sha512.name()].contains(&algorithm);
        if !known || hex.is_empty() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Vec::new());
        }
        self.texts("SELECT DISTINCT id FROM images WHERE id GLOB ?1 || ':' || ?2 || '*'", [algorithm, hex])?
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
                "SELECT name, id, manifest, digest FROM names JOIN images ON manifest = image
                 WHERE ?1 IS NULL OR id = ?1 ORDER BY name",
            )
            .map_err(Error::db(doing))?;
        let rows = select
            .query_map([image.map(Digest::to_string)], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))
            .map_err(Error::db(doing))?;
        rows.map(|row| {
            let row: (String, String, String, Option<String>) = row.map_err(Error::db(doing))?;
            let (name, image, manifest, digest) = row;
            let digest = digest.map(|d| d.parse()).transpose()?;
            Ok(NameRecord { name: name.parse()?, image: image.parse()?, manifest: manifest.parse()?, digest })
        })
        .collect()
    }
}

pub(super) fn keep_document(
    tx: &rusqlite::Transaction<'_>,
    digest: &str,
    bytes: &[u8],
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO documents (digest, bytes) VALUES (?1, ?2)")?
        .execute(params![digest, bytes])
        .map(drop)
}

fn take_away(tx: &rusqlite::Transaction<'_>, id: &str, names: &[&Reference]) -> rusqlite::Result<()> {
    for name in names.iter().map(|name| name.to_string()) {
        let own = "DELETE FROM names
                   WHERE name = ?1 AND image IN (SELECT manifest FROM images WHERE id = ?2)";
        if tx.execute(own, [name.as_str(), id])? > 0 {
            tx.execute("DELETE FROM moved WHERE name = ?1", [name])?;
        }
    }
    Ok(())
}

/// Removes what has no name and is in no index of the manifests with this id: true if there was such a one.
fn remove_unneeded(tx: &rusqlite::Transaction<'_>, id: &str) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM images WHERE id = ?1 AND manifest NOT IN (SELECT image FROM names)
               AND manifest NOT IN (SELECT image FROM members)";
    Ok(tx.execute(sql, [id])? > 0)
}

/// Manifests that nothing names any more, while a newer one has their id. Where a power cut would give a name back to one, it
/// stays for as long.
const OLDER: &str = "turn < (SELECT max(turn) FROM images AS same WHERE same.id = images.id)
    AND manifest NOT IN (SELECT image FROM names) AND manifest NOT IN (SELECT image FROM members)
    AND manifest NOT IN (SELECT image FROM moved)";

pub(crate) fn remove_older(tx: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    let removed = tx.execute(&format!("DELETE FROM images WHERE {OLDER}"), [])?;
    if removed > 0 { forget_documents(tx) } else { Ok(()) }
}

fn remove_older_of(tx: &rusqlite::Transaction<'_>, id: &str) -> rusqlite::Result<()> {
    let sql = format!("DELETE FROM images WHERE id = ?1 AND {OLDER}");
    let removed = tx.prepare_cached(&sql)?.execute([id])?;
    if removed > 0 { forget_documents(tx) } else { Ok(()) }
}

/// A document may be shared with another image.
fn forget_documents(tx: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    let sql = "DELETE FROM documents WHERE digest NOT IN (SELECT id FROM images)
               AND digest NOT IN (SELECT manifest FROM images)";
    tx.execute(sql, []).map(drop)
}

/// Makes it the one that its id stands for. Nothing is written where it is.
fn make_newest(tx: &rusqlite::Transaction<'_>, id: &str, manifest: &str) -> rusqlite::Result<()> {
    let newest = "SELECT manifest = ?2 FROM images WHERE id = ?1 ORDER BY turn DESC LIMIT 1";
    if tx.prepare_cached(newest)?.query_row([id, manifest], |row| row.get(0))? {
        return Ok(());
    }
    let sql = "UPDATE images SET turn = (SELECT max(turn) + 1 FROM images) WHERE manifest = ?1";
    tx.execute(sql, [manifest]).map(drop)
}

/// When the image was recorded with just this manifest and these layers, if it was.
fn recorded(
    tx: &rusqlite::Transaction<'_>,
    id: &str,
    manifest: &str,
    layers: &[Layer],
) -> rusqlite::Result<Option<i64>> {
    let created = tx
        .prepare_cached("SELECT created FROM images WHERE id = ?1 AND manifest = ?2")?
        .query_row([id, manifest], |row| row.get(0))
        .optional()?;
    let mut select =
        tx.prepare_cached("SELECT layer FROM image_layers WHERE image = ?1 ORDER BY position")?;
    let known: Vec<i64> = select.query_map([manifest], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(created.filter(|_| layers.iter().map(|layer| layer.id().0).eq(known)))
}
