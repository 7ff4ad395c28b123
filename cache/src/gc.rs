//! Collection of what nothing needs: neither an image, nor a build record, nor a living process' lease.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::lease::{bury, living, remove_tree};
use crate::store::Store;

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    pub layers: u64,
    pub records: u64,
    /// Bytes of files, as their sizes say.
    pub bytes: u64,
}

/// Which build records to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget {
    None,
    /// Those of which no layer is part of an image.
    Unused,
    All,
}

/// A row that went away, and the files to remove after it.
#[derive(Debug, Default)]
struct Dead {
    dirs: Vec<String>,
    blobs: Vec<String>,
    bytes: u64,
    layers: u64,
    records: u64,
}

impl Store {
    /// Forgets build records, then removes every layer and blob that nothing needs any more.
    ///
    /// # Errors
    /// When rows or files can't be removed; what was removed stays removed.
    pub fn collect(&self, forget: Forget) -> Result<Freed> {
        bury(self)?;
        let dead = self.write("collecting layers", |tx| collect_rows(tx, forget))?;
        for dir in &dead.dirs {
            self.discard("layers", dir)?;
        }
        for digest in dead.blobs.iter().map(|d| d.parse::<Digest>()) {
            self.remove_blob(&digest?)?;
        }
        self.remove_litter()?;
        Ok(Freed { layers: dead.layers, records: dead.records, bytes: dead.bytes })
    }

    /// Moves the directory out of sight first, so that a kill leaves litter but never half a layer.
    fn discard(&self, parent: &str, name: &str) -> Result<()> {
        let path = self.path().join(parent).join(name);
        let away = self.path().join("tmp").join(format!("dead-{name}"));
        match std::fs::rename(&path, &away) {
            Ok(()) => remove_tree(&away),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io("removing", path)(e)),
        }
    }

    /// Directories that no row names: their makers died between renaming and recording. A living process may be
    /// between the two right now, so nothing is litter while another one holds a lease; and the directories are
    /// listed before that is asked, so that one made afterwards is never among them.
    fn remove_litter(&self) -> Result<()> {
        let own = self.lease()?;
        let layers = self.path().join("layers");
        let names: Vec<std::ffi::OsString> = std::fs::read_dir(&layers)
            .and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect())
            .map_err(Error::io("listing", &layers))?;
        if living(self)?.iter().any(|name| name != own.name()) {
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
        for name in names.iter().filter_map(|n| n.to_str()).filter(|n| !known.contains(*n)) {
            self.discard("layers", name)?;
        }
        Ok(())
    }
}

fn collect_rows(tx: &rusqlite::Transaction<'_>, forget: Forget) -> rusqlite::Result<Dead> {
    let records = match forget {
        Forget::None => 0,
        Forget::All => tx.execute("DELETE FROM records", [])?,
        Forget::Unused => tx.execute(
            "DELETE FROM records WHERE id NOT IN
             (SELECT record FROM record_layers JOIN image_layers USING (layer))",
            [],
        )?,
    };
    let unneeded = "SELECT id FROM layers WHERE id NOT IN (SELECT layer FROM image_layers)
        AND id NOT IN (SELECT layer FROM record_layers) AND id NOT IN (SELECT layer FROM leases)";
    let mut dead = Dead { records: records as u64, ..Dead::default() };
    let mut select = tx.prepare(&format!("SELECT dir, bytes FROM layers WHERE id IN ({unneeded})"))?;
    for row in select.query_map([], |r| Ok((r.get::<_, Option<String>>(0)?, r.get::<_, u64>(1)?)))? {
        let (dir, bytes) = row?;
        dead.dirs.extend(dir);
        dead.bytes += bytes;
        dead.layers += 1;
    }
    let blobs = format!(
        "SELECT digest, size FROM layer_blobs WHERE present AND layer IN ({unneeded})
         AND digest NOT IN (SELECT digest FROM layer_blobs WHERE present AND layer NOT IN ({unneeded}))"
    );
    for row in tx.prepare(&blobs)?.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, u64>(1)?)))? {
        let (digest, size) = row?;
        dead.blobs.push(digest);
        dead.bytes += size;
    }
    let settled = format!("SELECT dir FROM settlements WHERE dir IS NOT NULL AND top IN ({unneeded})");
    for row in tx.prepare(&settled)?.query_map([], |r| r.get::<_, String>(0))? {
        dead.dirs.push(row?);
    }
    tx.execute(&format!("DELETE FROM layers WHERE id IN ({unneeded})"), [])?;
    Ok(dead)
}
