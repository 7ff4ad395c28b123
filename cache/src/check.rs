//! Whether everything in a store is what its rows say, down to the last byte; and what to do where it is not.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;

use rayon::prelude::*;
use rusqlite::OptionalExtension as _;

use crate::cancel::Cancel;
use crate::digest::{DiffId, Digest};
use crate::error::{Error, Result};
use crate::layer::diff;
use crate::lease::bury;
use crate::snapshot::{Layer, LayerId};
use crate::store::{Store, forget_lost};

/// What was looked at, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Checked {
    pub layers: usize,
    pub blobs: usize,
    pub images: usize,
    pub records: usize,
    pub problems: Vec<Problem>,
    /// Names of images that a repair gave up, as text: a layer or document of theirs can't be had again.
    pub lost: Vec<String>,
}

/// Something that is not what its row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// SQLite's own words. Nothing can be repaired.
    Database(String),
    /// A layer's directory is not there, or does not hold what it held.
    Layer {
        diff_id: DiffId,
        what: String,
    },
    Blob {
        digest: Digest,
        what: String,
    },
    /// Of an image: its config or manifest.
    Document {
        image: Digest,
        what: String,
    },
}

impl Checked {
    /// Whether what is wrong can be forgotten.
    pub fn repairable(&self) -> bool {
        !self.problems.iter().any(|problem| matches!(problem, Problem::Database(_)))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Database(what) => write!(f, "database: {what}"),
            Problem::Layer { diff_id, what } => write!(f, "layer {diff_id}: {what}"),
            Problem::Blob { digest, what } => write!(f, "blob {digest}: {what}"),
            Problem::Document { image, what } => write!(f, "image {image}: {what}"),
        }
    }
}

/// What a repair has to undo.
#[derive(Debug, Default)]
struct Broken {
    layers: Vec<LayerId>,
    blobs: Vec<Digest>,
    /// By their manifests.
    images: Vec<Digest>,
    documents: Vec<Digest>,
}

impl Store {
    /// Reads everything: layers that this store wrote are hashed again, archives of others as well (their unpacked
    /// files can only be missing or not). With `repair`, what is wrong is forgotten, and made or fetched again when it
    /// is next needed; images of which something can't be had again are given up.
    ///
    /// # Errors
    /// When the store can't be read at all, or `cancel` is raised.
    pub fn check(&self, repair: bool, cancel: &Cancel) -> Result<Checked> {
        if repair {
            bury(self)?;
        }
        let mut checked = Checked { problems: self.check_database()?, ..Checked::default() };
        if !checked.problems.is_empty() {
            return Ok(checked);
        }
        let mut broken = Broken::default();
        self.check_layers(&mut checked, &mut broken, cancel)?;
        self.check_blobs(&mut checked, &mut broken, cancel)?;
        self.check_images(&mut checked, &mut broken, cancel)?;
        if repair && !checked.problems.is_empty() {
            checked.lost = self.repair(&broken)?;
        }
        Ok(checked)
    }

    fn check_database(&self) -> Result<Vec<Problem>> {
        let doing = "checking the database";
        let db = self.db();
        let mut problems = Vec::new();
        let mut select = db.prepare("PRAGMA integrity_check").map_err(Error::db(doing))?;
        let rows = select.query_map([], |row| row.get::<_, String>(0)).map_err(Error::db(doing))?;
        for row in rows {
            let words = row.map_err(Error::db(doing))?;
            if words != "ok" {
                problems.push(Problem::Database(words));
            }
        }
        let mut select = db.prepare("PRAGMA foreign_key_check").map_err(Error::db(doing))?;
        let rows = select.query_map([], |row| row.get::<_, String>(0)).map_err(Error::db(doing))?;
        for row in rows {
            let table = row.map_err(Error::db(doing))?;
            problems.push(Problem::Database(format!("a row of {table} names a row that is not there")));
        }
        Ok(problems)
    }

    fn check_layers(&self, checked: &mut Checked, broken: &mut Broken, cancel: &Cancel) -> Result<()> {
        let ids = self.column("SELECT id FROM layers WHERE dir IS NOT NULL ORDER BY id", |row| {
            row.get(0).map(LayerId)
        })?;
        checked.layers = ids.len();
        let found: Vec<Option<(Problem, LayerId)>> = ids
            .par_iter()
            .map(|id| {
                // One that was collected meanwhile is none.
                let Some(layer) = self.layers(&[*id])?.and_then(|mut layers| layers.pop()) else {
                    return Ok(None);
                };
                let wrong = wrong_with(&layer, cancel)?;
                Ok(wrong.map(|what| (Problem::Layer { diff_id: layer.diff_id(), what }, *id)))
            })
            .collect::<Result<_>>()?;
        for (problem, id) in found.into_iter().flatten() {
            checked.problems.push(problem);
            broken.layers.push(id);
        }
        Ok(())
    }

    fn check_blobs(&self, checked: &mut Checked, broken: &mut Broken, cancel: &Cancel) -> Result<()> {
        let sql = "SELECT DISTINCT digest FROM layer_blobs WHERE present ORDER BY digest";
        let digests = self.column(sql, |row| row.get::<_, String>(0))?;
        checked.blobs = digests.len();
        for digest in digests {
            let digest: Digest = digest.parse()?;
            let what = match self.open_blob(&digest)? {
                None if self.has_blob(&digest)? => "its file is missing".to_owned(),
                None => continue,
                Some(ref file) if digest_of(file, &digest, cancel)? == digest => continue,
                Some(_) => "its file holds something else".to_owned(),
            };
            checked.problems.push(Problem::Blob { digest, what });
            broken.blobs.push(digest);
        }
        Ok(())
    }

    fn check_images(&self, checked: &mut Checked, broken: &mut Broken, cancel: &Cancel) -> Result<()> {
        let pair = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
        let documents = self.column("SELECT id, manifest FROM images ORDER BY id", pair)?;
        checked.images = documents.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len();
        checked.records = self.column("SELECT id FROM records", |row| row.get::<_, i64>(0))?.len();
        for (config, manifest) in documents {
            let image: Digest = config.parse()?;
            let manifest: Digest = manifest.parse()?;
            let kinds = if image == manifest {
                vec![("index", image)]
            } else {
                vec![("config", image), ("manifest", manifest)]
            };
            for (kind, digest) in kinds {
                let what = match self.document(&digest)? {
                    None => format!("its {kind} is missing"),
                    Some(bytes) if digest_of(&bytes[..], &digest, cancel)? != digest => {
                        format!("its {kind} is another one")
                    }
                    Some(_) => continue,
                };
                checked.problems.push(Problem::Document { image, what });
                broken.images.push(manifest);
                broken.documents.push(digest);
            }
        }
        Ok(())
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool> {
        self.db()
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM layer_blobs WHERE present AND digest = ?1)",
                [digest.to_string()],
                |row| row.get(0),
            )
            .map_err(Error::db("looking up a blob"))
    }

    fn repair(&self, broken: &Broken) -> Result<Vec<String>> {
        let before = self.named()?;
        let dirs = self.forget("repairing the store", false, |tx, held| {
            let mut dirs = Vec::new();
            for id in &broken.layers {
                // One that was collected meanwhile is gone already.
                let dir: Option<Option<String>> = tx
                    .query_row("SELECT dir FROM layers WHERE id = ?1", [id.0], |row| row.get(0))
                    .optional()?;
                let Some(dir) = dir.flatten() else { continue };
                // Layers that differ in their epoch alone have the directory in common.
                tx.execute(
                    "UPDATE layers SET dir = NULL, dir_boot = NULL, bytes = NULL WHERE dir = ?1",
                    [&dir],
                )?;
                dirs.push(dir);
            }
            for digest in &broken.blobs {
                tx.execute("UPDATE layer_blobs SET present = 0 WHERE digest = ?1", [digest.to_string()])?;
            }
            for manifest in &broken.images {
                tx.execute("DELETE FROM names WHERE image = ?1", [manifest.to_string()])?;
                tx.execute("DELETE FROM images WHERE manifest = ?1", [manifest.to_string()])?;
            }
            // Whoever records it again is to find none here with its name.
            for digest in &broken.documents {
                tx.execute("DELETE FROM documents WHERE digest = ?1", [digest.to_string()])?;
            }
            forget_lost(tx, held)?;
            Ok(dirs)
        })?;
        self.discard_layers(&dirs)?;
        self.remove_stray_blobs()?;
        let after = self.named()?;
        Ok(before.difference(&after).cloned().collect())
    }

    fn named(&self) -> Result<BTreeSet<String>> {
        let names = self.column("SELECT name FROM names", |row| row.get(0))?;
        let unnamed = self
            .column("SELECT id FROM images WHERE manifest NOT IN (SELECT image FROM names)", |row| {
                row.get(0)
            })?;
        Ok(names.into_iter().chain(unnamed).collect())
    }

    fn column<T>(
        &self,
        sql: &str,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let doing = "reading what is kept";
        let db = self.db();
        let mut select = db.prepare(sql).map_err(Error::db(doing))?;
        let rows = select.query_map([], read).map_err(Error::db(doing))?;
        rows.collect::<Result<_, _>>().map_err(Error::db(doing))
    }
}

/// None: it is what it should be.
fn wrong_with(layer: &Layer, cancel: &Cancel) -> Result<Option<String>> {
    let dir = match layer.unpacked() {
        Ok(Some(dir)) => dir,
        Ok(None) => return Ok(None),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Some("its directory is missing".to_owned()));
        }
        Err(error) => return Err(error),
    };
    if layer.is_foreign() || layer.is_unread()? {
        return Ok(None);
    }
    match diff::scan(std::os::fd::AsFd::as_fd(&dir), layer.epoch(), cancel) {
        Ok(summary) if summary.diff_id == layer.diff_id() => Ok(None),
        Ok(_) => Ok(Some("its files are not what they were".to_owned())),
        Err(Error::Cancelled) => Err(Error::Cancelled),
        Err(error) => Ok(Some(error.to_string())),
    }
}

fn digest_of(mut bytes: impl Read, digest: &Digest, cancel: &Cancel) -> Result<Digest> {
    let mut hasher = digest.algorithm().hasher();
    let mut buffer = vec![0; 128 << 10];
    loop {
        cancel.check()?;
        match bytes.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::io("reading", digest.to_string())(e)),
        }
    }
}
