//! What builds were: when, how they ended, what became of each step and by which key, and what they printed. The
//! newest are kept.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Row, Transaction, params};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, openat, unlinkat};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::record::CacheKey;
use crate::store::{Store, unique_name};

/// How many builds are remembered.
pub const KEPT: usize = 100;
/// How many more there are before the oldest go.
const AT_ONCE: usize = 20;

const LOGS: &str = "builds";

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    Failed,
    Canceled,
}

impl Outcome {
    const ALL: [(Outcome, &str); 3] =
        [(Outcome::Completed, "completed"), (Outcome::Failed, "error"), (Outcome::Canceled, "canceled")];

    pub fn as_str(self) -> &'static str {
        Outcome::ALL[self as usize].1
    }

    fn parse(text: &str) -> Option<Outcome> {
        Outcome::ALL.iter().find(|(_, name)| *name == text).map(|(outcome, _)| *outcome)
    }
}

/// A build of which a record is to be kept. Its log is locked while it runs: one that nobody locks has ended.
#[derive(Debug)]
pub struct BuildLog {
    name: String,
    file: File,
}

/// What a build is, whatever comes of it.
#[derive(Debug)]
pub struct NewBuild<'a> {
    /// JSON, for whoever shows it.
    pub about: &'a str,
    /// Milliseconds since 1970.
    pub started: i64,
}

/// A build as it is remembered.
#[derive(Clone, Debug)]
pub struct BuildRecord {
    id: i64,
    /// 16 hexadecimal digits.
    pub name: String,
    pub about: String,
    /// Milliseconds since 1970.
    pub started: i64,
    pub took: Option<Duration>,
    /// None while it runs, and for one whose process was killed.
    pub outcome: Option<Outcome>,
    pub error: Option<String>,
    /// Whether its process lives.
    pub running: bool,
}

/// What became of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildStep {
    pub key: CacheKey,
    /// The key's field list (JSON).
    pub fields: String,
    pub title: String,
    pub line: Option<usize>,
    /// In the words of whoever runs steps.
    pub how: String,
    pub took: Duration,
    /// Which files of the host differ from what was there before (JSON).
    pub files: Option<String>,
    /// The cache of another machine that its result came from.
    pub origin: Option<String>,
}

impl BuildLog {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where what the build prints goes.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub fn writer(&self) -> Result<File> {
        self.file.try_clone().map_err(Error::io("opening the log of build", &self.name))
    }

    /// How much it printed so far; 0 where nobody can tell.
    pub fn length(&self) -> u64 {
        self.file.metadata().map_or(0, |file| file.len())
    }
}

impl Store {
    /// Makes the log of a new build.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn new_build_log(&self) -> Result<BuildLog> {
        loop {
            let name = unique_name()?;
            let failed = |e| Error::io("making", self.log_path(&name))(e);
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(self.dir(), format!("{LOGS}/{name}"), flags, Mode::RUSR | Mode::WUSR);
            let file = file.map_err(failed)?;
            // One that is not locked yet may be taken for a dead one's, and be removed.
            let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
            if locked && fstat(&file).map_err(failed)?.st_nlink > 0 {
                return Ok(BuildLog { name, file: file.into() });
            }
        }
    }

    /// Remembers that a build runs.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn begin_build(&self, log: &BuildLog, build: &NewBuild<'_>) -> Result<()> {
        self.write("recording a build", |tx| insert(tx, log, build).map(drop))
    }

    /// Remembers what became of a build and its steps, and forgets the oldest builds.
    ///
    /// # Errors
    /// When the store can't be written.
    pub fn end_build(
        &self,
        log: &BuildLog,
        build: &NewBuild<'_>,
        end: (Outcome, Option<&str>, Duration),
        steps: &[BuildStep],
    ) -> Result<()> {
        let forgotten = self.write("recording a build", |tx| {
            let id = insert(tx, log, build)?;
            let (outcome, error, took) = end;
            tx.prepare_cached("UPDATE builds SET outcome = ?2, error = ?3, took_us = ?4 WHERE id = ?1")?
                .execute(params![id, outcome.as_str(), error, micros(took)])?;
            let mut key = tx.prepare_cached("INSERT OR IGNORE INTO keys (key, fields) VALUES (?1, ?2)")?;
            let mut insert = tx.prepare_cached(
                "INSERT INTO build_steps (build, position, key, title, line, how, took_us, files, origin)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?;
            for (position, step) in steps.iter().enumerate() {
                key.execute(params![step.key.0, step.fields])?;
                let (line, took) = (step.line, micros(step.took));
                insert.execute(params![
                    id,
                    position,
                    step.key.0,
                    step.title,
                    line,
                    step.how,
                    took,
                    step.files,
                    step.origin
                ])?;
            }
            forget_oldest(tx)
        })?;
        forgotten.iter().try_for_each(|name| self.remove_ended_log(name))
    }

    /// All builds, newest first.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn builds(&self) -> Result<Vec<BuildRecord>> {
        let doing = "listing builds";
        let mut builds: Vec<BuildRecord> = {
            let db = self.db();
            let sql = "SELECT id, name, about, started, took_us, outcome, error FROM builds ORDER BY id DESC";
            let mut select = db.prepare_cached(sql).map_err(Error::db(doing))?;
            let rows = select.query_map([], record).map_err(Error::db(doing))?;
            rows.collect::<Result<_, _>>().map_err(Error::db(doing))?
        };
        for build in builds.iter_mut().filter(|build| build.outcome.is_none()) {
            build.running = self.is_locked(&build.name)?;
        }
        Ok(builds)
    }

    /// The steps of a build that ended, in order.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn build_steps(&self, build: &BuildRecord) -> Result<Vec<BuildStep>> {
        let doing = "reading the steps of a build";
        let db = self.db();
        let sql = format!(
            "SELECT {STEP} FROM build_steps JOIN keys USING (key) WHERE build = ?1 ORDER BY position"
        );
        let mut select = db.prepare_cached(&sql).map_err(Error::db(doing))?;
        let rows = select.query_map([build.id], step).map_err(Error::db(doing))?;
        rows.collect::<Result<_, _>>().map_err(Error::db(doing))
    }

    /// The steps of the `builds` newest builds before `build` (or of all), newest build first, each with the name of
    /// its build.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn steps_before(
        &self,
        build: Option<&BuildRecord>,
        builds: usize,
    ) -> Result<Vec<(String, BuildStep)>> {
        let doing = "reading the steps of builds";
        let db = self.db();
        let sql = format!(
            "SELECT {STEP}, name FROM (SELECT id, name FROM builds WHERE id < ?1 ORDER BY id DESC LIMIT ?2)
             JOIN build_steps ON build = id JOIN keys USING (key) ORDER BY build DESC, position"
        );
        let before = build.map_or(i64::MAX, |build| build.id);
        let mut select = db.prepare_cached(&sql).map_err(Error::db(doing))?;
        let rows = select
            .query_map(params![before, builds], |row| Ok((row.get(8)?, step(row)?)))
            .map_err(Error::db(doing))?;
        rows.collect::<Result<_, _>>().map_err(Error::db(doing))
    }

    /// What steps of recorded builds are called, by key: the newest of each.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn step_titles(&self) -> Result<HashMap<CacheKey, String>> {
        let doing = "reading the steps of builds";
        let db = self.db();
        let mut select = db
            .prepare_cached("SELECT key, title FROM build_steps ORDER BY build")
            .map_err(Error::db(doing))?;
        let rows =
            select.query_map([], |row| Ok((CacheKey(row.get(0)?), row.get(1)?))).map_err(Error::db(doing))?;
        rows.collect::<Result<_, _>>().map_err(Error::db(doing))
    }

    /// How long steps took when they ran last, by title.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn step_times(&self) -> Result<HashMap<String, Duration>> {
        let doing = "reading the times of steps";
        let db = self.db();
        let sql = "SELECT title, took_us FROM build_steps WHERE took_us > 0 ORDER BY build";
        let mut select = db.prepare_cached(sql).map_err(Error::db(doing))?;
        let rows = select
            .query_map([], |row| Ok((row.get(0)?, Duration::from_micros(row.get(1)?))))
            .map_err(Error::db(doing))?;
        rows.collect::<Result<_, _>>().map_err(Error::db(doing))
    }

    /// What a build printed; nothing if its log is gone.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn build_log(&self, build: &BuildRecord) -> Result<Option<File>> {
        match self.open_log(&build.name) {
            Ok(file) => Ok(Some(file.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(Error::io("opening", self.log_path(&build.name))(e)),
        }
    }

    /// Forgets a build and its log. One that runs is recorded again when it ends, with its log.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove_build(&self, build: &BuildRecord) -> Result<()> {
        self.write("forgetting a build", |tx| {
            tx.execute("DELETE FROM builds WHERE id = ?1", [build.id]).map(drop)
        })?;
        self.remove_ended_log(&build.name)
    }

    fn is_locked(&self, name: &str) -> Result<bool> {
        let Ok(file) = self.open_log(name) else { return Ok(false) };
        match flock(file.as_fd(), FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(e) => Err(Error::io("looking at", self.log_path(name))(e)),
        }
    }

    fn open_log(&self, name: &str) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.dir(), format!("{LOGS}/{name}"), flags, Mode::empty())
    }

    /// Removes logs that belong to no build: their makers died before they said what they were building.
    pub(crate) fn remove_stray_logs(&self) -> Result<()> {
        for name in &self.names_in(LOGS)? {
            let known: bool = self
                .db()
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM builds WHERE name = ?1)")
                .and_then(|mut select| select.query_row([name], |row| row.get(0)))
                .map_err(Error::db("listing builds"))?;
            if !known {
                self.remove_ended_log(name)?;
            }
        }
        Ok(())
    }

    /// One that is still written stays: its build is recorded again when it ends.
    fn remove_ended_log(&self, name: &str) -> Result<()> {
        if self.is_locked(name)? { Ok(()) } else { self.remove_log(name) }
    }

    fn remove_log(&self, name: &str) -> Result<()> {
        match unlinkat(self.dir(), format!("{LOGS}/{name}"), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(Error::io("removing", self.log_path(name))(e)),
        }
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.path().join(LOGS).join(name)
    }
}

/// Forgets the field lists that nothing has any more.
pub(crate) fn forget_keys(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let sql = "DELETE FROM keys WHERE NOT EXISTS (SELECT 1 FROM records WHERE definition = key)
               AND NOT EXISTS (SELECT 1 FROM build_steps WHERE build_steps.key = keys.key)";
    tx.execute(sql, []).map(drop)
}

/// The row of a build, made if it is not there, with what is known of it by now.
fn insert(tx: &Transaction<'_>, log: &BuildLog, build: &NewBuild<'_>) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO builds (name, about, started) VALUES (?1, ?2, ?3)
               ON CONFLICT (name) DO UPDATE SET about = excluded.about RETURNING id";
    tx.prepare_cached(sql)?.query_row(params![log.name, build.about, build.started], |row| row.get(0))
}

/// Gives their names. They go by several at once: not each build has to pay for an older one.
fn forget_oldest(tx: &Transaction<'_>) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT id, name FROM builds ORDER BY id DESC LIMIT -1 OFFSET ?1";
    let mut select = tx.prepare_cached(sql)?;
    let old: Vec<(i64, String)> =
        select.query_map([KEPT], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    if old.len() < AT_ONCE {
        return Ok(Vec::new());
    }
    for (id, _) in &old {
        tx.execute("DELETE FROM builds WHERE id = ?1", [id])?;
    }
    Ok(old.into_iter().map(|(_, name)| name).collect())
}

fn record(row: &Row<'_>) -> rusqlite::Result<BuildRecord> {
    let outcome: Option<String> = row.get(5)?;
    Ok(BuildRecord {
        id: row.get(0)?,
        name: row.get(1)?,
        about: row.get(2)?,
        started: row.get(3)?,
        took: row.get::<_, Option<u64>>(4)?.map(Duration::from_micros),
        outcome: outcome.as_deref().and_then(Outcome::parse),
        error: row.get(6)?,
        running: false,
    })
}

const STEP: &str = "key, fields, title, line, how, took_us, files, origin";

fn step(row: &Row<'_>) -> rusqlite::Result<BuildStep> {
    Ok(BuildStep {
        key: CacheKey(row.get(0)?),
        fields: row.get(1)?,
        title: row.get(2)?,
        line: row.get(3)?,
        how: row.get(4)?,
        took: Duration::from_micros(row.get(5)?),
        files: row.get(6)?,
        origin: row.get(7)?,
    })
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: NewBuild<'_> = NewBuild { about: "{}", started: 5 };

    fn step(key: u8, title: &str) -> BuildStep {
        let (how, took) = ("ran".to_owned(), Duration::from_micros(7));
        let (key, fields, title) = (CacheKey([key; 32]), format!("[{key}]"), title.to_owned());
        BuildStep { key, fields, title, line: Some(3), how, took, files: None, origin: None }
    }

    fn done(store: &Store, steps: &[BuildStep]) -> String {
        let log = store.new_build_log().unwrap();
        store.end_build(&log, &NEW, (Outcome::Completed, None, Duration::from_secs(1)), steps).unwrap();
        log.name().to_owned()
    }

    #[test]
    fn a_build_is_remembered_with_its_steps_and_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let log = store.new_build_log().unwrap();
        store.begin_build(&log, &NEW).unwrap();
        assert!(store.builds().unwrap()[0].running);
        std::io::Write::write_all(&mut log.writer().unwrap(), b"what it said").unwrap();
        let steps = [step(1, "a"), step(2, "b")];
        let end = (Outcome::Failed, Some("no"), Duration::from_millis(2));
        store.end_build(&log, &NEW, end, &steps).unwrap();
        drop(log);
        let [build] = &store.builds().unwrap()[..] else { panic!("one build") };
        assert_eq!(
            (build.outcome, build.error.as_deref(), build.running),
            (Some(Outcome::Failed), Some("no"), false)
        );
        assert_eq!((build.took, build.started), (Some(end.2), 5));
        assert_eq!(store.build_steps(build).unwrap(), steps);
        assert_eq!(store.fields_of(CacheKey([2; 32])).unwrap().as_deref(), Some("[2]"));
        assert_eq!(
            std::io::read_to_string(store.build_log(build).unwrap().unwrap()).unwrap(),
            "what it said"
        );
        store.remove_build(build).unwrap();
        store.collect(crate::gc::Forget::NONE).unwrap();
        assert_eq!((store.builds().unwrap().len(), store.fields_of(CacheKey([2; 32])).unwrap()), (0, None));
        assert!(store.build_log(build).unwrap().is_none());
    }

    #[test]
    fn one_whose_process_died_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let log = store.new_build_log().unwrap();
        store.begin_build(&log, &NEW).unwrap();
        drop(log);
        let build = store.builds().unwrap().remove(0);
        assert_eq!((build.outcome, build.running), (None, false));
    }

    #[test]
    fn the_oldest_go_and_earlier_steps_come_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let names: Vec<String> =
            (0..KEPT + AT_ONCE).map(|_| done(&store, &[step(1, "a"), step(2, "b")])).collect();
        let builds = store.builds().unwrap();
        assert_eq!(builds.len(), KEPT);
        assert!(builds.iter().rev().map(|build| &build.name).eq(&names[AT_ONCE..]));
        let is_there = |at: usize| store.log_path(&names[at]).exists();
        assert!(!is_there(AT_ONCE - 1) && is_there(AT_ONCE));
        let before: Vec<(String, String)> = store
            .steps_before(Some(&builds[0]), 2)
            .unwrap()
            .into_iter()
            .map(|(build, step)| (build, step.title))
            .collect();
        let step = |build: usize, title: &str| (builds[build].name.clone(), title.to_owned());
        assert_eq!(before, [step(1, "a"), step(1, "b"), step(2, "a"), step(2, "b")]);
    }
}
