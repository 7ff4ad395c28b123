//! The database's tables. Rows only name files that were renamed into place before; a row's `boot` is the boot it was
//! written in until a sync made it durable, then null. Rows of another boot that never became durable are dropped.

use std::collections::BTreeSet;

use rusqlite::Connection;

use crate::error::{Error, Result};

/// Raised with each change of the tables; a store of another version is not touched.
const VERSION: i64 = 7;

/// The marks that a sync takes off.
pub(super) const MARKS: [(&str, &str); 7] = [
    ("names", "boot"),
    ("images", "boot"),
    ("records", "boot"),
    ("settlements", "boot"),
    ("layer_blobs", "boot"),
    ("layers", "boot"),
    ("layers", "dir_boot"),
];

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- A layer. `dir` (below layers/) is null while it is not unpacked. `diff_id` and `encoding` tell which tar it stands for.
-- With an `epoch` (seconds since 1970), that tar has no later time, and `dir` is also that of the layer without one.
-- `unsettled`: what the stack below has to settle (see snapshot::stack). `bytes`: what its files take on the disk, null
-- until that is measured.
CREATE TABLE layers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    diff_id TEXT NOT NULL,
    encoding INTEGER NOT NULL,
    epoch INTEGER,
    tar_size INTEGER,
    content BLOB,
    dir TEXT,
    dir_boot TEXT,
    bytes INTEGER,
    unsettled TEXT,
    created INTEGER NOT NULL,
    boot TEXT
);
CREATE INDEX layers_by_diff ON layers (diff_id);
CREATE INDEX layers_by_dir ON layers (dir);

-- What has to lie over `top` where it stands on the stack of the key; `dir` is null where nothing has to.
CREATE TABLE settlements (
    stack TEXT PRIMARY KEY,
    top INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    dir TEXT,
    boot TEXT
);

-- Compressed or plain forms of a layer, here (a file in blobs/) or in a repository.
CREATE TABLE layer_blobs (
    layer INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL,
    present INTEGER NOT NULL,
    repository TEXT,
    boot TEXT,
    PRIMARY KEY (layer, digest)
);
CREATE INDEX layer_blobs_by_digest ON layer_blobs (digest);

-- Which blob this store made of a layer by compressing it in this way.
CREATE TABLE compressed (
    layer INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    way TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (layer, way)
) WITHOUT ROWID;

-- The layer that was written last in a place (of a Dockerfile and its context): the next may be much like it.
-- `made_of` tells what went where, if that is known.
CREATE TABLE places (
    place BLOB PRIMARY KEY,
    layer INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    made_of TEXT
) WITHOUT ROWID;
CREATE INDEX places_by_layer ON places (layer);

-- Manifests and configs: small, so the bytes are here.
CREATE TABLE documents (digest TEXT PRIMARY KEY, bytes BLOB NOT NULL) WITHOUT ROWID;

-- Images by the digests of their manifests; an index is one too, by its own digest. `id` is the digest of the config, or of
-- the index itself. Several manifests may have one config: without a name the one with the highest `turn` is meant.
CREATE TABLE images (
    manifest TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    turn INTEGER NOT NULL,
    created INTEGER NOT NULL,
    boot TEXT
);
CREATE INDEX images_by_id ON images (id);
CREATE TABLE image_layers (
    image TEXT NOT NULL REFERENCES images (manifest) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    PRIMARY KEY (image, position)
);
CREATE INDEX image_layers_by_layer ON image_layers (layer);
-- The images of an index that are here.
CREATE TABLE members (
    parent TEXT NOT NULL REFERENCES images (manifest) ON DELETE CASCADE,
    image TEXT NOT NULL REFERENCES images (manifest) ON DELETE CASCADE,
    PRIMARY KEY (parent, image)
) WITHOUT ROWID;
CREATE INDEX members_by_image ON members (image);
-- `digest`: the manifest digest that the name's registry gave.
CREATE TABLE names (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (manifest),
    digest TEXT,
    boot TEXT
);
CREATE INDEX names_by_image ON names (image);
-- What a name stood for when that was last durable, where it stands for something else now that is not yet.
CREATE TABLE moved (name TEXT PRIMARY KEY, image TEXT NOT NULL, digest TEXT) WITHOUT ROWID;

-- What a key was made of (JSON), for as long as a result or a step of a build has that key.
CREATE TABLE keys (key BLOB PRIMARY KEY, fields TEXT NOT NULL) WITHOUT ROWID;

-- What each vertex key gave, when a build found that last (or made it), in seconds since 1970, and the cache of another
-- machine that it came from.
CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    definition BLOB NOT NULL UNIQUE,
    content_key BLOB,
    content BLOB,
    took_us INTEGER NOT NULL,
    created INTEGER NOT NULL,
    used INTEGER NOT NULL,
    origin TEXT,
    boot TEXT
);
CREATE INDEX records_by_content_key ON records (content_key);
CREATE INDEX records_by_content ON records (content);
CREATE TABLE record_layers (
    record INTEGER NOT NULL REFERENCES records (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    layer INTEGER NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    PRIMARY KEY (record, position)
);
CREATE INDEX record_layers_by_layer ON record_layers (layer);

-- Contents of host files by their stat data, so that an unchanged context is not read again.
CREATE TABLE files (
    dev INTEGER, ino INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER,
    hash BLOB NOT NULL,
    PRIMARY KEY (dev, ino)
) WITHOUT ROWID;

-- Builds, oldest first; times are milliseconds since 1970 and microseconds. `outcome` is null until it ended.
CREATE TABLE builds (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    about TEXT NOT NULL,
    started INTEGER NOT NULL,
    took_us INTEGER,
    outcome TEXT,
    error TEXT
);
CREATE TABLE build_steps (
    build INTEGER NOT NULL REFERENCES builds (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    key BLOB NOT NULL,
    title TEXT NOT NULL,
    line INTEGER,
    how TEXT NOT NULL,
    took_us INTEGER NOT NULL,
    files TEXT,
    origin TEXT,
    PRIMARY KEY (build, position)
) WITHOUT ROWID;
CREATE INDEX build_steps_by_key ON build_steps (key);

-- What the part of a host directory that an instruction reads held last.
CREATE TABLE selections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    place BLOB NOT NULL UNIQUE,
    content BLOB NOT NULL,
    files BLOB NOT NULL
);
";

pub(super) fn prepare(db: &mut Connection, boot: &str) -> Result<()> {
    let version = user_version(db)?;
    if version == 0 {
        create(db)?;
    } else if version != VERSION {
        return Err(Error::malformed(
            "store",
            format!(
                "its format is version {version}, this program reads version {VERSION}; choose another --root"
            ),
        ));
    }
    drop_undurable(db, boot)
}

fn user_version(db: &Connection) -> Result<i64> {
    db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(Error::db("reading the version"))
}

fn create(db: &mut Connection) -> Result<()> {
    let tx = db
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(Error::db("creating tables"))?;
    // Another process may have come first while this one waited.
    if user_version(&tx)? == 0 {
        tx.execute_batch(TABLES).map_err(Error::db("creating tables"))?;
        for (table, column) in MARKS {
            // Every command looks for marks, and most of the time there are none.
            let sql =
                format!("CREATE INDEX {table}_by_{column} ON {table} ({column}) WHERE {column} IS NOT NULL");
            tx.execute(&sql, []).map_err(Error::db("creating tables"))?;
        }
        tx.pragma_update(None, "user_version", VERSION).map_err(Error::db("creating tables"))?;
    }
    tx.commit().map_err(Error::db("creating tables"))
}

/// After another boot, what was written without a sync may be torn: forget it.
fn drop_undurable(db: &mut Connection, boot: &str) -> Result<()> {
    let doing = "dropping rows that an earlier boot left unsynced";
    let last: Option<String> = db
        .query_row("SELECT value FROM meta WHERE key = 'boot'", [], |row| row.get(0))
        .map(Some)
        .or_else(|e| if e == rusqlite::Error::QueryReturnedNoRows { Ok(None) } else { Err(e) })
        .map_err(Error::db(doing))?;
    if last.as_deref() == Some(boot) {
        return Ok(());
    }
    if db.is_readonly("main").map_err(Error::db(doing))? {
        return expect_durable(db, boot);
    }
    let tx =
        db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(Error::db(doing))?;
    // A mark may carry the name of a sync after the boot's.
    let old = |column: &str| format!("{column} IS NOT NULL AND substr({column}, 1, length(?1)) <> ?1");
    let drop_rows = || -> rusqlite::Result<()> {
        tx.execute(
            &format!("UPDATE layers SET dir = NULL, dir_boot = NULL WHERE {}", old("dir_boot")),
            [boot],
        )?;
        tx.execute(
            &format!("UPDATE layer_blobs SET present = 0, boot = NULL WHERE {}", old("boot")),
            [boot],
        )?;
        move_back(&tx, &format!("SELECT manifest FROM images WHERE {}", old("boot")), boot)?;
        for table in ["images", "records", "settlements"] {
            tx.execute(&format!("DELETE FROM {table} WHERE {}", old("boot")), [boot])?;
        }
        let torn = format!("SELECT id FROM layers WHERE {}", old("boot"));
        tx.execute(&format!("DELETE FROM layer_blobs WHERE layer IN ({torn})"), [boot])?;
        tx.execute(&format!("UPDATE layers SET dir = NULL, dir_boot = NULL WHERE {}", old("boot")), [boot])?;
        forget_lost(&tx, &BTreeSet::new())?;
        tx.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('boot', ?1)", [boot])?;
        Ok(())
    };
    drop_rows().map_err(Error::db(doing))?;
    tx.commit().map_err(Error::db(doing))
}

/// A name of a `torn` image stands again for what it stood for before; one that had been nothing goes. The others are what they
/// say: the image is whole, and they could be read.
fn move_back(tx: &rusqlite::Transaction<'_>, torn: &str, boot: &str) -> rusqlite::Result<()> {
    let whole = format!("SELECT manifest FROM images WHERE manifest NOT IN ({torn})");
    let sql = format!(
        "UPDATE names SET (image, digest) = (SELECT image, digest FROM moved WHERE moved.name = names.name)
         WHERE image IN ({torn}) AND name IN (SELECT name FROM moved WHERE image IN ({whole}))"
    );
    tx.execute(&sql, [boot])?;
    tx.execute(&format!("DELETE FROM names WHERE image IN ({torn})"), [boot])?;
    tx.execute("UPDATE names SET boot = NULL", [])?;
    tx.execute("DELETE FROM moved", []).map(drop)
}

/// Forgets where names stood that are durable where they stand, and with that the images that nothing else needs.
pub(super) fn settle(tx: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    let durable = "DELETE FROM moved WHERE name NOT IN (SELECT name FROM names WHERE boot IS NOT NULL)";
    if tx.execute(durable, [])? > 0 {
        crate::record::images::remove_older(tx)?;
    }
    Ok(())
}

/// What can't be forgotten, since nothing can be written, must not be taken for whole.
fn expect_durable(db: &Connection, boot: &str) -> Result<()> {
    for (table, column) in MARKS {
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM {table} WHERE {column} IS NOT NULL AND substr({column}, 1, length(?1)) <> ?1)"
        );
        if db.query_row(&sql, [boot], |row| row.get(0)).map_err(Error::db("looking for unsynced rows"))? {
            let reason = "the machine stopped before all of it was on the disk; it has to be writable once";
            return Err(Error::malformed("store", reason));
        }
    }
    Ok(())
}

/// Forgets layers that can't be had again, but for those that are `held`, and with them the records, images and names
/// that stand on them.
pub(crate) fn forget_lost(tx: &rusqlite::Transaction<'_>, held: &BTreeSet<i64>) -> rusqlite::Result<()> {
    let held = list(held);
    let lost = format!(
        "SELECT id FROM layers WHERE dir IS NULL
         AND NOT EXISTS (SELECT 1 FROM layer_blobs WHERE layer = id AND (present OR repository IS NOT NULL))
         AND id NOT IN ({held})"
    );
    let records = format!("SELECT record FROM record_layers WHERE layer IN ({lost})");
    tx.execute(&format!("DELETE FROM records WHERE id IN ({records})"), [])?;
    let images = format!("SELECT image FROM image_layers WHERE layer IN ({lost})");
    // An index of which nothing is here says nothing.
    let empty =
        "SELECT manifest FROM images WHERE id = manifest AND manifest NOT IN (SELECT parent FROM members)";
    for gone in [&*images, empty] {
        tx.execute(&format!("DELETE FROM names WHERE image IN ({gone})"), [])?;
        tx.execute(&format!("DELETE FROM images WHERE manifest IN ({gone})"), [])?;
    }
    tx.execute(&format!("DELETE FROM layers WHERE id IN ({lost})"), []).map(drop)
}

/// The numbers of all layers.
pub(super) fn all_layers(tx: &rusqlite::Transaction<'_>) -> rusqlite::Result<Vec<i64>> {
    tx.prepare("SELECT id FROM layers")?.query_map([], |row| row.get(0))?.collect()
}

/// Numbers as SQL has them between the brackets of IN.
pub(crate) fn list(numbers: &BTreeSet<i64>) -> String {
    numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}
