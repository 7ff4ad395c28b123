//! Cache mounts: directories that outlive builds. Each lies in `caches/` with a file that whoever uses it keeps
//! locked: a holder that dies, however it dies, frees it. No path is ever made of an id.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FlockOperation, OFlags, Timespec, Timestamps, statat};

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::fs::allocated;
use crate::held::{self, DATA, Held, LOCK};
use crate::layer::Metadata;
use crate::snapshot::{ActiveLayer, Snapshot};
use crate::store::Store;
use crate::usage::seconds;

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sharing {
    /// Any number of users.
    #[default]
    Shared,
    /// One; another gets a cache of its own.
    Private,
    /// One; another waits.
    Locked,
}

/// A cache as somebody asks for it. `id`, `base` and `top` make it another than others.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub id: &'a str,
    /// What is in a new one: a path in a snapshot.
    pub base: Option<(&'a Snapshot, &'a str)>,
    /// Mode and owner of the top of a new one, where they are not those of the base, or 0755 and root's.
    pub top: [Option<u32>; 3],
    pub sharing: Sharing,
    /// What is there is thrown away.
    pub fresh: bool,
}

/// A cache in use. Dropping it frees it.
#[derive(Debug)]
pub struct CacheDir {
    _lock: OwnedFd,
    data: OwnedFd,
}

impl CacheDir {
    /// The directory (or file, where the base is one), as a place only.
    pub fn data(&self) -> BorrowedFd<'_> {
        self.data.as_fd()
    }
}

const CACHES: &str = "caches";
/// The id, for people.
const ABOUT: &str = "id";
const NOW: Timestamps = {
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    Timestamps { last_access: now, last_modification: now }
};

impl Wanted<'_> {
    /// What its directories are called, but for a number: no id becomes a path.
    pub fn name(&self) -> String {
        let base = self.base.map(|(snapshot, path)| {
            let layers: Vec<String> = snapshot.diff_ids().iter().map(|id| id.0.to_string()).collect();
            let content = snapshot.content().map_or_else(|| layers.join(" "), |content| content.hex());
            (content, path)
        });
        Digest::of(format!("{:?}", (self.id, base, self.top)).as_bytes()).hex()[..32].to_owned()
    }
}

impl Store {
    /// Finds or makes a cache, and waits for it where that was asked for.
    ///
    /// # Errors
    /// [`Error::Cancelled`] while it waits; when there is nothing at the base's path; when it can't be made.
    pub fn cache_dir(&self, wanted: &Wanted<'_>, cancel: &Cancel) -> Result<CacheDir> {
        let caches = held::open(self, CACHES)?;
        let mut search = Search { store: self, caches, name: wanted.name(), wanted, fresh: wanted.fresh };
        loop {
            cancel.check()?;
            match search.free(cancel)? {
                Some(found) => return Ok(found),
                None => crate::lock::wait(cancel)?,
            }
        }
    }

    /// All caches, those that were used last first.
    ///
    /// # Errors
    /// When they can't be listed.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountUsage>> {
        let Some(caches) = held::find(self, CACHES)? else { return Ok(Vec::new()) };
        let path = self.path().join(CACHES);
        let mut found = Vec::new();
        for name in &self.names_in(CACHES)? {
            let read =
                |file: &str| std::fs::metadata(path.join(name).join(file)).and_then(|meta| meta.modified());
            // It may be going at this moment.
            let (Ok(created), Ok(used)) = (read(ABOUT), read(LOCK)) else { continue };
            found.push(CacheMountUsage {
                id: String::from_utf8_lossy(&std::fs::read(path.join(name).join(ABOUT)).unwrap_or_default())
                    .into_owned(),
                bytes: allocated(self, &format!("{CACHES}/{name}"))?,
                created: seconds(created),
                used: seconds(used),
                in_use: matches!(
                    held::hold(&caches, name, FlockOperation::NonBlockingLockExclusive)?,
                    Held::InUse
                ),
                name: name.to_owned(),
            });
        }
        found.sort_by_key(|cache| std::cmp::Reverse(cache.used));
        Ok(found)
    }

    /// Removes a cache, unless somebody uses it. Says whether it did.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove_cache_mount(&self, cache: &CacheMountUsage) -> Result<bool> {
        let Held::Here(_lock) =
            held::hold(&held::open(self, CACHES)?, &cache.name, FlockOperation::NonBlockingLockExclusive)?
        else {
            return Ok(false);
        };
        held::discard(self, CACHES, &cache.name).map(|()| true)
    }
}

/// A cache as it lies there. Times are seconds since 1970.
#[derive(Clone, Debug)]
pub struct CacheMountUsage {
    name: String,
    pub id: String,
    /// What it takes on the disk.
    pub bytes: u64,
    pub created: i64,
    pub used: i64,
    /// Right now.
    pub in_use: bool,
}

struct Search<'a> {
    store: &'a Store,
    caches: OwnedFd,
    name: String,
    wanted: &'a Wanted<'a>,
    fresh: bool,
}

impl Search<'_> {
    /// One that may be used now; none where the only one that will do is in use.
    fn free(&mut self, cancel: &Cancel) -> Result<Option<CacheDir>> {
        let mut number = 0;
        loop {
            let name = format!("{}-{number}", self.name);
            let alone = self.fresh || self.wanted.sharing != Sharing::Shared;
            let how = if alone {
                FlockOperation::NonBlockingLockExclusive
            } else {
                FlockOperation::NonBlockingLockShared
            };
            match held::hold(&self.caches, &name, how)? {
                Held::Here(_lock) if self.fresh => {
                    held::discard(self.store, CACHES, &name)?;
                    self.fresh = false;
                }
                Held::Here(lock) => {
                    // The lock's time says when the cache was used last. That it can't be set harms nobody.
                    let _ = rustix::fs::futimens(&lock, &NOW);
                    let data = held::open_at(&self.caches, &format!("{name}/{DATA}"), OFlags::PATH)
                        .map_err(Error::io("opening cache", self.store.path().join(CACHES).join(&name)))?;
                    return Ok(Some(CacheDir { _lock: lock, data }));
                }
                Held::InUse if self.wanted.sharing == Sharing::Locked => return Ok(None),
                Held::InUse => number += 1,
                Held::Missing => self.make(&name, cancel)?,
            }
        }
    }

    /// Makes it aside and gives it its name. Another process may have been faster.
    fn make(&mut self, name: &str, cancel: &Cancel) -> Result<()> {
        let new = self.store.new_layer()?;
        match self.wanted.base {
            Some((snapshot, path)) => copy(snapshot, path, &new, cancel)?,
            None => held::make_data(&new)?,
        }
        self.set_wanted_top(&new)?;
        held::write(new.fs(), LOCK, "")?;
        held::write(new.fs(), ABOUT, self.wanted.id)?;
        self.fresh = false;
        new.place_as(&format!("{CACHES}/{name}")).map(drop)
    }

    fn set_wanted_top(&self, new: &ActiveLayer) -> Result<()> {
        if self.wanted.top == [None; 3] {
            return Ok(());
        }
        let stat = statat(new.fs(), DATA, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io("making cache", self.wanted.id))?;
        let [mode, uid, gid] = self.wanted.top;
        let meta = Metadata {
            mode: mode.unwrap_or(stat.st_mode) & 0o7777,
            uid: uid.unwrap_or_default(),
            gid: gid.unwrap_or_default(),
            ..Metadata::default()
        };
        held::set_top(new, &meta)
    }
}

/// Copies what is at `path` of the snapshot, with all below it, to be the data of a cache.
fn copy(snapshot: &Snapshot, path: &str, new: &ActiveLayer, cancel: &Cancel) -> Result<()> {
    let tree = snapshot.tree(cancel)?;
    if held::copy_in(&tree, path, new, cancel)? {
        Ok(())
    } else {
        Err(Error::NotFound { what: "cache base", name: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fstat;
    use std::time::Duration;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        (dir, store)
    }

    fn wanted(id: &str, sharing: Sharing) -> Wanted<'_> {
        Wanted { id, base: None, top: [None; 3], sharing, fresh: false }
    }

    fn take(store: &Store, id: &str, sharing: Sharing) -> CacheDir {
        store.cache_dir(&wanted(id, sharing), &Cancel::new().unwrap()).unwrap()
    }

    fn inode(cache: &CacheDir) -> u64 {
        fstat(cache.data()).unwrap().st_ino
    }

    #[test]
    fn sharing_decides_who_gets_which() {
        let (_dir, store) = store();
        let first = take(&store, "a", Sharing::Shared);
        let at = inode(&first);
        assert_eq!(inode(&take(&store, "a", Sharing::Shared)), at);
        assert_ne!(inode(&take(&store, "b", Sharing::Shared)), at);
        let private = take(&store, "a", Sharing::Private);
        assert_ne!(inode(&private), at, "another while it is in use");
        assert_ne!(inode(&take(&store, "a", Sharing::Private)), inode(&private));
        drop((first, private));
        assert_eq!(inode(&take(&store, "a", Sharing::Private)), at, "the first one when it is free");
    }

    #[test]
    fn a_locked_one_is_waited_for() {
        let (_dir, store) = store();
        let held = take(&store, "a", Sharing::Locked);
        let at = inode(&held);
        let cancel = Cancel::new().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| inode(&take(&store, "a", Sharing::Locked)));
            let cancelled = scope.spawn(|| store.cache_dir(&wanted("a", Sharing::Locked), &cancel));
            std::thread::sleep(Duration::from_millis(30));
            cancel.raise();
            assert!(matches!(cancelled.join().unwrap(), Err(Error::Cancelled)));
            assert!(!waiting.is_finished());
            drop(held);
            assert_eq!(waiting.join().unwrap(), at);
        });
    }

    #[test]
    fn what_is_in_use_is_not_removed() {
        let (dir, store) = store();
        let used = take(&store, "used", Sharing::Shared);
        drop(take(&store, "unused", Sharing::Locked));
        let count = || std::fs::read_dir(dir.path().join("store/caches")).unwrap().count();
        assert_eq!(count(), 2);
        let remove = || {
            store
                .cache_mounts()
                .unwrap()
                .iter()
                .map(|cache| store.remove_cache_mount(cache).unwrap())
                .collect::<Vec<_>>()
        };
        let listed = store.cache_mounts().unwrap();
        let mut known: Vec<_> = listed.iter().map(|cache| (cache.id.as_str(), cache.in_use)).collect();
        known.sort_unstable();
        assert_eq!(known, [("unused", false), ("used", true)]);
        assert!(listed.iter().all(|cache| cache.bytes > 0 && cache.created <= cache.used));
        remove();
        assert_eq!(count(), 1);
        drop(used);
        assert_eq!(remove(), [true]);
        assert_eq!(count(), 0);
    }

    #[test]
    fn the_top_is_as_asked_for_and_an_id_is_no_path() {
        let (dir, store) = store();
        let id = "../../../up\0/etc";
        let asked = Wanted { top: [Some(0o1773), None, None], ..wanted(id, Sharing::Shared) };
        let cache = store.cache_dir(&asked, &Cancel::new().unwrap()).unwrap();
        assert_eq!(fstat(cache.data()).unwrap().st_mode & 0o7777, 0o1773);
        assert_ne!(inode(&take(&store, id, Sharing::Shared)), inode(&cache));
        drop(cache);
        let (again, fresh) = (asked.name(), Wanted { fresh: true, ..asked });
        assert_eq!(again, fresh.name());
        let data = dir.path().join("store/caches").join(format!("{again}-0/data"));
        std::fs::write(data.join("file"), "x").unwrap();
        store.cache_dir(&fresh, &Cancel::new().unwrap()).unwrap();
        assert!(!data.join("file").exists());
    }
}
