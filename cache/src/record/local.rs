//! Build records: which snapshot a vertex of a given key gave, and the fields its key was made of.

use std::fmt;
use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use crate::digest::ContentDigest;
use crate::error::{Error, Result};
use crate::snapshot::{LayerId, Snapshot};
use crate::store::{Store, now};

/// How exactly it is known when a record was used, in seconds: more often would be a write for each look.
const USED_STEP: i64 = 60;

/// Of how many steps that failed it is kept what they left.
pub const KEPT_FAILURES: usize = 10;
/// Marks what failed steps left. It is the hash of nothing, so no contents are ever looked up by it.
const FAILURE: CacheKey = CacheKey(*b"boxwright: left by a failed step");

/// The hash of a key's field list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(pub [u8; 32]);

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A vertex' earlier result; its layers are leased.
#[derive(Clone, Debug)]
pub struct Record {
    pub content_key: Option<CacheKey>,
    pub snapshot: Snapshot,
    pub took: Duration,
    /// The cache of another machine that it came from.
    pub origin: Option<String>,
}

/// Its id, content, time, origin and content key.
type Row = (i64, Option<[u8; 32]>, u64, Option<String>, Option<[u8; 32]>, i64);

/// What to remember of a vertex that ran.
#[derive(Debug)]
pub struct NewRecord<'a> {
    pub definition: CacheKey,
    pub content_key: Option<CacheKey>,
    pub snapshot: &'a Snapshot,
    /// The key's field list as JSON. Secrets never enter it.
    pub fields: &'a str,
    pub took: Duration,
    /// The cache of another machine that it comes from.
    pub origin: Option<&'a str>,
}

/// By what a record is looked up.
#[derive(Clone, Copy, Debug)]
pub enum Lookup {
    /// The definition key: ops and the keys of their inputs.
    Definition(CacheKey),
    /// The op and the contents of its inputs.
    Contents(CacheKey),
    /// The content of the result itself; the oldest such snapshot.
    Result(ContentDigest),
}

impl Store {
    /// The newest record (for [`Lookup::Result`] the oldest) whose layers are all known.
    ///
    /// # Errors
    /// When the store can't be read or written.
    pub fn record(&self, lookup: Lookup) -> Result<Option<Record>> {
        let (column, order, key) = match lookup {
            Lookup::Definition(key) => ("definition", "DESC", key.0),
            Lookup::Contents(key) => ("content_key", "DESC", key.0),
            Lookup::Result(content) => ("content", "ASC", content.0),
        };
        let sql = format!(
            "SELECT id, content, took_us, origin, content_key, used FROM records WHERE {column} = ?1 ORDER BY id {order} LIMIT 1"
        );
        let lease = self.lease()?;
        let found = self.take("looking up a build record", &lease, |tx| {
            let row: Option<Row> = tx
                .prepare_cached(&sql)?
                .query_row([key], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?)))
                .optional()?;
            let Some(row) = row else { return Ok(None) };
            let mut select =
                tx.prepare_cached("SELECT layer FROM record_layers WHERE record = ?1 ORDER BY position")?;
            let ids: Vec<LayerId> =
                select.query_map([row.0], |r| r.get(0).map(LayerId))?.collect::<Result<_, _>>()?;
            Ok(self.leased(tx, &lease, &ids)?.map(|layers| (row, layers)))
        })?;
        let Some(((id, content, took, origin, content_key, used), layers)) = found else { return Ok(None) };
        if used < now() - USED_STEP {
            self.write("noting that a build record was used", |tx| {
                let values = params![id, now()];
                tx.execute("UPDATE records SET used = ?2 WHERE id = ?1 AND used < ?2", values).map(drop)
            })?;
        }
        Ok(Some(Record {
            content_key: content_key.map(CacheKey),
            snapshot: Snapshot::recorded(layers, content.map(ContentDigest)),
            took: Duration::from_micros(took),
            origin,
        }))
    }

    /// Remembers a result; an older record of the same definition is replaced.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn put_record(&self, record: &NewRecord<'_>) -> Result<()> {
        let took = i64::try_from(record.took.as_micros()).unwrap_or(i64::MAX);
        self.write("recording a result", |tx| {
            tx.prepare_cached("DELETE FROM records WHERE definition = ?1")?.execute([record.definition.0])?;
            tx.prepare_cached("INSERT OR REPLACE INTO keys (key, fields) VALUES (?1, ?2)")?
                .execute(params![record.definition.0, record.fields])?;
            tx.prepare_cached(
                "INSERT INTO records (definition, content_key, content, took_us, created, used, origin, boot)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)",
            )?
            .execute(params![
                record.definition.0,
                record.content_key.map(|k| k.0),
                record.snapshot.content().map(|c| c.0),
                took,
                now(),
                record.origin,
                self.boot()
            ])?;
            let id = tx.last_insert_rowid();
            let mut insert =
                tx.prepare_cached("INSERT INTO record_layers (record, position, layer) VALUES (?1, ?2, ?3)")?;
            for (position, layer) in record.snapshot.layers().iter().enumerate() {
                insert.execute(params![id, position, layer.id().0])?;
            }
            Ok(())
        })
    }

    /// Whether a fiftieth of the file system's bytes and of its inodes is free, so that more than results may be kept.
    /// Not where it can't be told.
    pub fn has_room(&self) -> bool {
        let Ok(disk) = rustix::fs::fstatvfs(self.dir()) else { return false };
        let part_is_free = |free: u64, all: u64| free >= all / 50;
        part_is_free(disk.f_bavail, disk.f_blocks) && part_is_free(disk.f_favail, disk.f_files)
    }

    /// Remembers what a step that failed left, for people to look into: under a key that no step has, and found by no
    /// contents. The newest [`KEPT_FAILURES`] stay.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn keep_failure(
        &self,
        definition: CacheKey,
        fields: &str,
        left: &Snapshot,
        took: Duration,
    ) -> Result<()> {
        let snapshot = Snapshot::recorded(left.layers().to_vec(), None);
        let content_key = Some(FAILURE);
        let record = NewRecord { definition, content_key, snapshot: &snapshot, fields, took, origin: None };
        self.put_record(&record)?;
        self.write("forgetting failed steps", |tx| {
            let newest = "SELECT id FROM records WHERE content_key = ?1 ORDER BY id DESC LIMIT ?2";
            let sql = format!("DELETE FROM records WHERE content_key = ?1 AND id NOT IN ({newest})");
            tx.execute(&sql, params![FAILURE.0, KEPT_FAILURES]).map(drop)
        })
    }

    /// Forgets results that came from other machines and whose layers are not all here. Says how many.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn forget_imports(&self) -> Result<usize> {
        self.write("forgetting results of other machines", |tx| {
            tx.execute(
                "DELETE FROM records WHERE origin IS NOT NULL AND id IN
                 (SELECT record FROM record_layers JOIN layers ON layer = layers.id WHERE dir IS NULL)",
                [],
            )
        })
    }

    /// The field list of a key that a result or a step of a recorded build has.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn fields_of(&self, key: CacheKey) -> Result<Option<String>> {
        self.db()
            .prepare_cached("SELECT fields FROM keys WHERE key = ?1")
            .and_then(|mut s| s.query_row([key.0], |r| r.get(0)).optional())
            .map_err(Error::db("looking up a key"))
    }

    /// The field lists of all records, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn record_fields(&self) -> Result<Vec<String>> {
        let doing = "listing build records";
        let db = self.db();
        let mut select = db
            .prepare("SELECT fields FROM records JOIN keys ON key = definition ORDER BY id DESC")
            .map_err(Error::db(doing))?;
        let rows = select.query_map([], |r| r.get(0)).map_err(Error::db(doing))?;
        rows.collect::<Result<_, _>>().map_err(Error::db(doing))
    }
}
