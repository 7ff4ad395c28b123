//! Volumes: directories with a name that containers share and leave behind, in `volumes/`. Who uses one keeps a lock, so
//! that it can't be removed meanwhile.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;

use crate::fs::{allocated, open_resolved};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, ResolveFlags, unlinkat};
use serde::{Deserialize, Serialize};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::held::{self, DATA, Held};
use crate::lock::KeyLock;
use crate::snapshot::Snapshot;
use crate::store::{Store, now, unique_name};

const VOLUMES: &str = "volumes";
const ABOUT: &str = "about";
/// Is there while content is moved in: a fill that was cut off is done again.
const FILLING: &str = "filling";

/// A name as docker allows them: at least two letters, digits, `_`, `.` and `-`, of which the first is a letter or digit. So
/// it is never a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeName(String);

impl VolumeName {
    /// A name that nothing else has.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn random() -> Result<VolumeName> {
        let part = || unique_name();
        Ok(VolumeName(format!("{}{}{}{}", part()?, part()?, part()?, part()?)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<VolumeName> {
        let word = |b: u8| b.is_ascii_alphanumeric();
        let valid = (2..=255).contains(&text.len())
            && text.bytes().next().is_some_and(word)
            && text.bytes().all(|b| word(b) || matches!(b, b'_' | b'.' | b'-'));
        if valid {
            Ok(VolumeName(text.to_owned()))
        } else {
            Err(Error::malformed(format!("volume name {text:?}"), "no name for a volume"))
        }
    }
}

/// What is said of a volume beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAbout {
    /// Seconds since 1970.
    #[serde(default)]
    pub created: i64,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Nobody gave it its name.
    #[serde(default)]
    pub anonymous: bool,
}

/// A volume as it lies there.
#[derive(Clone, Debug)]
pub struct VolumeRecord {
    pub name: VolumeName,
    pub about: VolumeAbout,
    /// Right now.
    pub in_use: bool,
    pub path: PathBuf,
}

/// A volume in use, until this is dropped.
#[derive(Debug)]
pub struct VolumeDir {
    _lock: OwnedFd,
    data: OwnedFd,
}

impl VolumeDir {
    /// The directory, as a place only.
    pub fn data(&self) -> BorrowedFd<'_> {
        self.data.as_fd()
    }

    /// Something in it. No link on the way is followed: whoever uses the volume may have put it there.
    ///
    /// # Errors
    /// When it isn't there.
    pub fn below(&self, path: &str) -> Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        open_resolved(&self.data, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
            .map_err(Error::io("opening the subpath of a volume", path))
    }
}

/// What came of an attempt to remove a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeRemoval {
    Done,
    InUse,
    Missing,
}

impl Store {
    /// Makes a volume. One that is there stays as it is.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn create_volume(&self, name: &VolumeName, about: &VolumeAbout) -> Result<()> {
        let dir = held::open(self, VOLUMES)?;
        if held::open_at(&dir, name.as_str(), OFlags::PATH).is_ok() {
            return Ok(());
        }
        let new = self.new_layer()?;
        held::make_data(&new)?;
        held::write(new.fs(), held::LOCK, "")?;
        let about = VolumeAbout { created: now(), ..about.clone() };
        let text = serde_json::to_string(&about).map_err(|e| Error::malformed("a label", e.to_string()))?;
        held::write(new.fs(), ABOUT, &text)?;
        // Another process may have been faster, and then its volume is the one.
        new.place_as(&format!("{VOLUMES}/{}", name.as_str())).map(drop)
    }

    /// Finds or makes a volume. An empty one gets what is at a path of the snapshot, its mode and owner included, whoever
    /// else uses it.
    ///
    /// # Errors
    /// [`Error::Cancelled`] while it waits for one that is being filled or removed; when it can't be made.
    pub fn use_volume(
        &self,
        name: &VolumeName,
        about: &VolumeAbout,
        content: Option<(&Snapshot, &str)>,
        cancel: &Cancel,
    ) -> Result<VolumeDir> {
        let dir = held::open(self, VOLUMES)?;
        let lock = loop {
            cancel.check()?;
            match held::hold(&dir, name.as_str(), FlockOperation::NonBlockingLockShared)? {
                Held::Here(lock) => break lock,
                Held::InUse => crate::lock::wait(cancel)?,
                Held::Missing => self.create_volume(name, about)?,
            }
        };
        if let Some((snapshot, path)) = content {
            self.fill_volume(name, snapshot, path, cancel)?;
        }
        let data = self.open_volume(&format!("{}/{DATA}", name.as_str()), OFlags::PATH)?;
        Ok(VolumeDir { _lock: lock, data })
    }

    fn open_volume(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        let path = format!("{VOLUMES}/{path}");
        held::open_at(self.dir(), &path, flags | OFlags::DIRECTORY)
            .map_err(Error::io("opening volume", self.path().join(&path)))
    }

    /// One process at a time looks whether there is something to do. The content is made aside and moved in, as a container
    /// that uses the volume has the directory itself. The caller uses the volume.
    fn fill_volume(&self, name: &VolumeName, snapshot: &Snapshot, path: &str, cancel: &Cancel) -> Result<()> {
        let _alone = self.lock("volume-fill", name.as_str(), cancel)?;
        let own = self.open_volume(name.as_str(), OFlags::RDONLY)?;
        let data = self.open_volume(&format!("{}/{DATA}", name.as_str()), OFlags::RDONLY)?;
        let cut_off = held::open_at(&own, FILLING, OFlags::PATH).is_ok();
        if !cut_off && !held::names(&data)?.is_empty() {
            return Ok(());
        }
        let tree = snapshot.tree(cancel)?;
        let Some(top) = tree.lookup(path, true)? else { return Ok(()) };
        let new = self.new_layer()?;
        held::copy_in(&tree, path, &new, cancel)?;
        let io = |doing| Error::io(doing, self.path().join(VOLUMES).join(name.as_str()));
        held::set_meta(&data, &top.meta)?;
        let content =
            held::open_at(new.fs(), DATA, OFlags::RDONLY | OFlags::DIRECTORY).map_err(io("filling"))?;
        if held::names(&content)?.is_empty() {
            return Ok(());
        }
        // A power cut may take all of it, but leaves no names without their content.
        rustix::fs::syncfs(&content).map_err(io("writing to disk"))?;
        held::write(&own, FILLING, "")?;
        held::move_all(&content, &data)?;
        unlinkat(&own, FILLING, AtFlags::empty()).map_err(io("filling"))
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// When they can't be listed.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>> {
        let Some(dir) = held::find(self, VOLUMES)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for name in self.names_in(VOLUMES)?.iter().filter_map(|name| name.parse().ok()) {
            found.extend(self.read_volume(&dir, name)?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The volume of this name, if there is one.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn volume(&self, name: &VolumeName) -> Result<Option<VolumeRecord>> {
        held::find(self, VOLUMES)?.map_or(Ok(None), |dir| self.read_volume(&dir, name.clone()))
    }

    /// What a volume takes on the disk.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn volume_bytes(&self, volume: &VolumeRecord) -> Result<u64> {
        allocated(self, &format!("{VOLUMES}/{}/{DATA}", volume.name.as_str()))
    }

    fn read_volume(&self, dir: &OwnedFd, name: VolumeName) -> Result<Option<VolumeRecord>> {
        // Let go after the volume itself: who removes it must not find us in its way.
        let _looking = match self.looking(&name) {
            // Where nothing can be removed, nobody is in the way.
            Err(error) if error.kind() == Some(ErrorKind::ReadOnlyFilesystem) => None,
            other => Some(other?),
        };
        let in_use = match held::hold(dir, name.as_str(), FlockOperation::NonBlockingLockExclusive)? {
            Held::Missing => return Ok(None),
            held => matches!(held, Held::InUse),
        };
        let own = self.path().join(VOLUMES).join(name.as_str());
        // A volume whose description a power cut took is still a volume.
        let about = std::fs::read(own.join(ABOUT)).unwrap_or_default();
        let about = serde_json::from_slice(&about).unwrap_or_default();
        Ok(Some(VolumeRecord { name, about, in_use, path: own.join(DATA) }))
    }

    /// Of those that look whether a volume is in use, by trying to have it alone, one does so at a time.
    fn looking(&self, name: &VolumeName) -> Result<KeyLock> {
        self.lock("volume-look", name.as_str(), self.cancel())
    }

    /// Removes a volume, unless somebody uses it.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove_volume(&self, name: &VolumeName) -> Result<VolumeRemoval> {
        let dir = held::open(self, VOLUMES)?;
        let _looking = self.looking(name)?;
        match held::hold(&dir, name.as_str(), FlockOperation::NonBlockingLockExclusive)? {
            Held::Here(_lock) => held::discard(self, VOLUMES, name.as_str()).map(|()| VolumeRemoval::Done),
            Held::InUse => Ok(VolumeRemoval::InUse),
            Held::Missing => Ok(VolumeRemoval::Missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        (dir, store)
    }

    fn name(text: &str) -> VolumeName {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_no_paths() {
        for bad in ["", "a", "../x", "a/b", "-a", ".hidden", "a b", "..", &"x".repeat(256)] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
        assert!("db_1.x-y".parse::<VolumeName>().is_ok());
        assert_eq!(VolumeName::random().unwrap().as_str().len(), 64);
    }

    #[test]
    fn a_volume_stays_until_it_is_removed_and_nobody_uses_it() {
        let (_dir, store) = store();
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let about = VolumeAbout { labels, ..VolumeAbout::default() };
        store.create_volume(&name("data"), &about).unwrap();
        store.create_volume(&name("data"), &VolumeAbout::default()).unwrap();
        let cancel = Cancel::new().unwrap();
        let used = store.use_volume(&name("data"), &VolumeAbout::default(), None, &cancel).unwrap();
        let again = store.use_volume(&name("data"), &VolumeAbout::default(), None, &cancel).unwrap();
        let listed = store.volumes().unwrap();
        assert_eq!(listed.len(), 1);
        assert!(listed[0].in_use && listed[0].about.labels == about.labels && listed[0].about.created > 0);
        assert_eq!(store.remove_volume(&name("data")).unwrap(), VolumeRemoval::InUse);
        drop((used, again));
        assert_eq!(store.remove_volume(&name("data")).unwrap(), VolumeRemoval::Done);
        assert_eq!(store.remove_volume(&name("data")).unwrap(), VolumeRemoval::Missing);
        assert!(store.volumes().unwrap().is_empty());
    }

    #[test]
    fn a_subpath_follows_no_link() {
        let (dir, store) = store();
        let cancel = Cancel::new().unwrap();
        let used = store.use_volume(&name("data"), &VolumeAbout::default(), None, &cancel).unwrap();
        let data = dir.path().join("store/volumes/data/data");
        std::fs::create_dir_all(data.join("a/b")).unwrap();
        std::os::unix::fs::symlink("/", data.join("link")).unwrap();
        std::os::unix::fs::symlink("a", data.join("inner")).unwrap();
        assert!(used.below("a/b").is_ok());
        for path in ["link", "link/etc", "inner/b", "../lock", "/etc", "none"] {
            assert!(used.below(path).is_err(), "{path}");
        }
    }
}
