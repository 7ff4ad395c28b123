//! The bottom-most layer of every container: the mount points that an image may lack. What is mounted over needs no
//! place of its own in the upper directory then, and so nothing has to be cleaned up there.
//!
//! A stub does not help where the image hides it, by a symlink on the way, a whiteout or an opaque directory; see
//! [`crate::mountpoint`] for those.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use boxwright_cache::digest::Digest;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, mkdirat, mknodat, openat, renameat, statat, symlinkat,
    unlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// A directory of stub layers, one for each set of mount points; made once, never changed, safe to delete when no
/// container runs.
#[derive(Debug)]
pub struct Stubs {
    dir: OwnedFd,
    /// Distinguishes the half-made layers of the threads of this process.
    next: Mutex<u64>,
}

/// What every container needs.
const ALWAYS: &[(&str, FileType)] =
    &[("proc", FileType::Directory), ("sys", FileType::Directory), ("dev", FileType::Directory)];

/// What docker gives a container besides: programs look for the first to know that they are in one, for the second to know
/// what is mounted.
pub(crate) const DOCKERS: [(&str, FileType); 2] =
    [("/.dockerenv", FileType::RegularFile), ("/etc/mtab", FileType::Symlink)];

/// Where the only symlink of a stub leads.
const MOUNTS: &str = "/proc/mounts";

impl Stubs {
    /// `dir` is ours alone; it may be shared by processes.
    pub fn new(dir: OwnedFd) -> Stubs {
        Stubs { dir, next: Mutex::new(0) }
    }

    /// The layer with the mount points of every container and `targets`: paths in the root, files or directories, or a
    /// symlink, which leads to what is mounted.
    pub(crate) fn layer(&self, targets: &[(&str, FileType)]) -> Result<OwnedFd> {
        let mut wanted = BTreeMap::new();
        for (path, kind) in ALWAYS.iter().chain(targets) {
            let names: Vec<&str> = path.split('/').filter(|n| !n.is_empty() && *n != ".").collect();
            // A path that goes up is resolved when it is mounted on, and made then.
            if names.is_empty() || names.contains(&"..") {
                continue;
            }
            wanted.entry(names.join("/")).or_insert(*kind);
        }
        self.find_or_make(&wanted)
    }

    /// A layer without anything in it: an overlay without an upper directory needs at least two lower ones.
    pub(crate) fn empty(&self) -> Result<OwnedFd> {
        self.find_or_make(&BTreeMap::new())
    }

    fn find_or_make(&self, wanted: &BTreeMap<String, FileType>) -> Result<OwnedFd> {
        let listing: String = wanted.iter().map(|(path, kind)| format!("{kind:?} {path}\0")).collect();
        let name = &Digest::of(listing.as_bytes()).hex()[..32];
        match open_dir(&self.dir, name) {
            Err(Errno::NOENT) => {}
            result => return result.map_err(Error::io("opening stub layer", name)),
        }
        self.make(name, wanted).map_err(Error::io("making stub layer", name))?;
        open_dir(&self.dir, name).map_err(Error::io("opening stub layer", name))
    }

    fn make(&self, name: &str, wanted: &BTreeMap<String, FileType>) -> rustix::io::Result<()> {
        let number = {
            let mut next = self.next.lock().unwrap_or_else(|e| e.into_inner());
            *next += 1;
            *next
        };
        let temporary = format!("{name}.{}.{number}", rustix::process::getpid());
        mkdirat(&self.dir, &temporary, Mode::from_raw_mode(0o755))?;
        let new = open_dir(&self.dir, &temporary)?;
        rustix::fs::fchmod(&new, Mode::from_raw_mode(0o755))?;
        for (path, kind) in wanted {
            make_target(&new, path, *kind)?;
        }
        match rustix::fs::renameat_with(&self.dir, &temporary, &self.dir, name, RenameFlags::NOREPLACE) {
            // Another container made the same one meanwhile.
            Err(Errno::EXIST) => remove(&self.dir, &temporary, wanted),
            Err(Errno::INVAL) => renameat(&self.dir, &temporary, &self.dir, name),
            result => result,
        }
    }
}

fn open_dir(dir: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn make_target(layer: &OwnedFd, path: &str, kind: FileType) -> rustix::io::Result<()> {
    let mut parent = layer.try_clone().map_err(|_| Errno::MFILE)?;
    let names: Vec<&str> = path.split('/').collect();
    for (n, name) in names.iter().enumerate() {
        if n + 1 == names.len() && kind != FileType::Directory {
            // A target that is the directory of another target stays one; mounting a file there is refused later.
            let made = if kind == FileType::Symlink {
                symlinkat(MOUNTS, &parent, *name)
            } else {
                mknodat(&parent, *name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)
            };
            return match made {
                Err(Errno::EXIST) => Ok(()),
                result => result,
            };
        }
        match mkdirat(&parent, *name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            result => result?,
        }
        parent = match open_dir(&parent, name) {
            // Below a file: refused later, too.
            Err(Errno::NOTDIR) => return Ok(()),
            result => result?,
        };
    }
    Ok(())
}

/// Removes what [`make_target`] made; the names are ours, so there is nothing in it that isn't known.
fn remove(dir: &OwnedFd, name: &str, wanted: &BTreeMap<String, FileType>) -> rustix::io::Result<()> {
    let mut paths: Vec<&str> = Vec::new();
    for path in wanted.keys() {
        paths.push(path);
        paths.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
    }
    paths.sort_unstable_by(|a, b| b.cmp(a));
    paths.dedup();
    let layer = open_dir(dir, name)?;
    for path in paths {
        let Ok(stat) = statat(&layer, path, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        unlinkat(&layer, path, if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() })?;
    }
    unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// A directory for [`Stubs::new`], made where it is missing.
///
/// # Errors
/// When it can't be made or opened.
pub fn open_directory(path: &std::path::Path) -> Result<OwnedFd> {
    match mkdirat(CWD, path, Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) => {}
        result => result.map_err(Error::io("creating directory", path))?,
    }
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("opening directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stubs() -> (tempfile::TempDir, Stubs) {
        let dir = tempfile::tempdir().unwrap();
        let stubs = Stubs::new(open_directory(dir.path()).unwrap());
        (dir, stubs)
    }

    #[test]
    fn equal_sets_of_targets_share_a_layer() {
        let (dir, stubs) = stubs();
        let count = || std::fs::read_dir(dir.path()).unwrap().count();
        stubs.layer(&[("/data", FileType::Directory), ("/x/y", FileType::RegularFile)]).unwrap();
        stubs.layer(&[("x//y", FileType::RegularFile), ("data/", FileType::Directory)]).unwrap();
        assert_eq!(count(), 1);
        stubs.layer(&[]).unwrap();
        assert_eq!(count(), 2);
    }

    #[test]
    fn a_layer_has_what_was_asked_for() {
        let (_dir, stubs) = stubs();
        let layer = stubs.layer(&[
            ("/a/b", FileType::Directory),
            ("/a/f", FileType::RegularFile),
            ("/../up", FileType::Directory),
        ]);
        let layer = layer.unwrap();
        let kind = |path| statat(&layer, path, AtFlags::empty()).map(|s| FileType::from_raw_mode(s.st_mode));
        assert_eq!(kind("a/b"), Ok(FileType::Directory));
        assert_eq!(kind("a/f"), Ok(FileType::RegularFile));
        assert_eq!(kind("proc"), Ok(FileType::Directory));
        assert_eq!(kind("up"), Err(Errno::NOENT));
    }

    #[test]
    fn a_lost_race_leaves_nothing() {
        let (dir, stubs) = stubs();
        stubs.layer(&[("/a/b", FileType::Directory)]).unwrap();
        let name = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().file_name();
        let wanted = ALWAYS.iter().copied().chain([("a/b", FileType::Directory)]);
        let wanted = wanted.map(|(p, k)| (p.to_owned(), k)).collect();
        stubs.make(name.to_str().unwrap(), &wanted).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
