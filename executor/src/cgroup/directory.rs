//! One group: a directory of a control group file system that is made, locked, and removed. The lock tells other
//! processes that its owner lives; what nobody locks was left by somebody who was killed, and goes when the next group is
//! made beside it.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, openat, statat, unlinkat,
};
use rustix::io::Errno;

/// What the names of our groups begin with.
pub(super) const PREFIX: &str = "boxwright-";
/// The group in a group of ours, where that one is to stay out of the container's sight.
const INNER: &str = "container";

#[derive(Debug)]
pub(super) struct Directory {
    parent: OwnedFd,
    name: String,
    path: PathBuf,
    /// Locked while it lives.
    dir: OwnedFd,
}

impl Directory {
    /// A new group below `parent`, from which forgotten ones are removed.
    pub(super) fn new(parent: &Path) -> io::Result<Directory> {
        let below = open(rustix::fs::CWD, parent)?;
        sweep(&below);
        for attempt in 0.. {
            let name = format!("{PREFIX}{}", unique(attempt));
            match mkdirat(&below, &name, Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) => continue,
                result => result?,
            }
            // Until it is locked somebody may take it for a forgotten one.
            let dir = match open(below.as_fd(), &name) {
                Err(Errno::NOENT) => continue,
                result => result?,
            };
            if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() && is_there(&below, &name, &dir)
            {
                return Ok(Directory { parent: below, path: parent.join(&name), name, dir });
            }
        }
        unreachable!("the attempts never end")
    }

    /// A group in it, which goes with it.
    pub(super) fn inner(&self) -> io::Result<OwnedFd> {
        mkdirat(&self.dir, INNER, Mode::from_raw_mode(0o755))?;
        Ok(open(self.dir.as_fd(), INNER)?)
    }

    pub(super) fn same(&self) -> io::Result<OwnedFd> {
        Ok(open(self.dir.as_fd(), ".")?)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    pub(super) fn parent(&self) -> &OwnedFd {
        &self.parent
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let Ok(name) = CString::new(self.name.as_str()) else { return };
        // A process that was waited for may still count for a moment.
        for _ in 0..ATTEMPTS {
            match remove(&self.parent, &name) {
                Err(Errno::BUSY) => std::thread::sleep(PAUSE),
                _ => return,
            }
        }
    }
}

const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(2);

pub(super) fn open(at: impl AsFd, path: impl AsRef<OsStr>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path.as_ref().as_bytes(), flags, Mode::empty())
}

/// The end of a group for `cgroup.procs` and the like.
pub(super) fn open_file(group: &OwnedFd, file: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(group, file, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}

/// In one write, as these files want it.
pub(super) fn write(group: &OwnedFd, file: &str, value: &str) -> Result<(), Errno> {
    rustix::io::write(open_file(group, file, OFlags::WRONLY)?, value.as_bytes()).map(drop)
}

pub(super) fn read(group: &OwnedFd, file: &str) -> Result<String, Errno> {
    use std::io::Read;
    let mut text = String::new();
    let mut file = std::fs::File::from(open_file(group, file, OFlags::RDONLY)?);
    file.read_to_string(&mut text).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(text)
}

fn unique(attempt: u32) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}-{:x}-{attempt:x}", std::process::id(), now.as_nanos(), count)
}

fn is_there(parent: &OwnedFd, name: &str, dir: &OwnedFd) -> bool {
    let found = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    let (Ok(found), Ok(own)) = (found, fstat(dir)) else { return false };
    (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)
}

/// Whether we would give a group this name: somebody else's may well begin like it.
fn is_of_ours(name: &str) -> bool {
    let is_number =
        |part: &str| !part.is_empty() && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.split('-').count() == 4 && rest.split('-').all(is_number))
}

/// Removes what was left behind. What can't be removed now can be another time.
fn sweep(parent: &OwnedFd) {
    for name in groups(parent) {
        if let Some(text) = name.to_str().ok().filter(|text| is_of_ours(text))
            && let Ok(dir) = open(parent, text)
            && flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = remove(parent, &name);
        }
    }
}

fn groups(parent: &OwnedFd) -> Vec<CString> {
    let Ok(entries) = Dir::read_from(parent) else { return Vec::new() };
    let directories = entries.filter_map(Result::ok).filter(|entry| entry.file_type() == FileType::Directory);
    let names = directories.map(|entry| entry.file_name().to_owned());
    names.filter(|name| !matches!(name.as_bytes(), b"." | b"..")).collect()
}

/// Removes a group and those in it, however deep a container with the right to do so made them: by the way back from each to
/// the one around it, which nobody can change, as no group can be moved to another place.
fn remove(parent: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let Some(mut dir) = remove_empty(parent, name)? else { return Ok(()) };
    let mut levels = vec![(name.to_owned(), groups(&dir))];
    while let Some((_, inner)) = levels.last_mut() {
        if let Some(name) = inner.pop() {
            if let Some(deeper) = remove_empty(&dir, &name)? {
                levels.push((name, groups(&deeper)));
                dir = deeper;
            }
        } else if let Some((name, _)) = levels.pop() {
            let around = if levels.is_empty() { parent.try_clone() } else { Ok(open(&dir, "..")?) };
            dir = around.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            match unlinkat(&dir, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// None where it is gone; else it is opened, for it has others or processes in it.
fn remove_empty(parent: &OwnedFd, name: &CStr) -> Result<Option<OwnedFd>, Errno> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(Errno::BUSY | Errno::NOTEMPTY) => match open(parent, OsStr::from_bytes(name.to_bytes())) {
            Err(Errno::NOENT) => Ok(None),
            opened => opened.map(Some),
        },
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_are_made_at_the_same_time_are_all_made() {
        let place = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let made = Directory::new(place.path()).unwrap();
                        assert!(made.path().is_dir());
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_a_living_one_has_stays() {
        let place = tempfile::tempdir().unwrap();
        let living = Directory::new(place.path()).unwrap();
        let forgotten = format!("{PREFIX}{}", unique(0));
        std::fs::create_dir_all(place.path().join(&forgotten).join("container/deeper")).unwrap();
        let others =
            ["others", "boxwright-build", "boxwright-1-2-3", "boxwright-ci-2-3-4", "boxwright-1-2-3-4.scope"];
        others.iter().for_each(|name| std::fs::create_dir(place.path().join(name)).unwrap());
        let next = Directory::new(place.path()).unwrap();
        let is = |name: &str| place.path().join(name).is_dir();
        assert!(is(&living.name) && is(&next.name) && others.iter().all(|name| is(name)));
        assert!(!is(&forgotten));
        let inner = living.inner().unwrap();
        drop((living, inner));
        drop(next);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), others.len());
    }

    #[test]
    fn groups_go_however_deep_they_are_and_whatever_they_are_called() {
        let place = tempfile::tempdir().unwrap();
        let group = Directory::new(place.path()).unwrap();
        let mode = Mode::from_raw_mode(0o755);
        let mut deepest = group.same().unwrap();
        for name in std::iter::repeat_n("d".repeat(100), 100) {
            mkdirat(&deepest, c"beside\xff", mode).unwrap();
            mkdirat(&deepest, &*name, mode).unwrap();
            deepest = open(&deepest, &name).unwrap();
        }
        drop(group);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
