//! What a tree takes on the disk, however deep it is, with few descriptors, and while containers change it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Stat, fstat, statat};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::fs::open_dir;
use crate::store::Store;

/// What a block of `st_blocks` is.
const BLOCK: u64 = 512;
/// Directories that are open at a time. Deeper ones are found again as the parent of what is in them.
const DEPTH: usize = 32;

/// A directory that is being counted.
struct Level {
    id: (u64, u64),
    open: Option<OwnedFd>,
    /// The directories in it that are not counted yet.
    pending: Vec<CString>,
}

/// What a file of the store, or a directory with all in it, takes on the disk; of a file with several names each is an equal
/// part, as layers share files. What can't be read counts nothing, and nothing outside of it is looked at.
///
/// # Errors
/// [`crate::Error::Cancelled`].
pub(crate) fn allocated(store: &Store, name: &str) -> Result<u64> {
    allocated_in(store.dir(), name, store.cancel())
}

fn allocated_in(dir: BorrowedFd<'_>, name: &str, cancel: &Cancel) -> Result<u64> {
    let Ok(stat) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(0) };
    let mut bytes = share(&stat);
    let mut levels = Vec::new();
    if let Ok(top) = open_dir(dir, name) {
        levels.extend(Level::of(top, &mut bytes, cancel)?);
    }
    while let Some(level) = levels.last_mut() {
        cancel.check()?;
        if let (Some(name), Some(own)) = (level.pending.pop(), &level.open) {
            let Ok(child) = open_dir(own.as_fd(), &name) else { continue };
            let Some(next) = Level::of(child, &mut bytes, cancel)? else { continue };
            if levels.len() > DEPTH
                && let Some(level) = levels.last_mut()
            {
                level.open = None;
            }
            levels.push(next);
        } else {
            leave(&mut levels);
        }
    }
    Ok(bytes)
}

/// Goes back to the directory above. Where a container has moved the one that is left, that is another one, and what it was
/// in counts no further.
fn leave(levels: &mut Vec<Level>) {
    let Some(left) = levels.pop() else { return };
    let Some(above) = levels.last_mut().filter(|above| above.open.is_none()) else { return };
    let parent = left.open.and_then(|left| open_dir(left.as_fd(), "..").ok());
    above.open = parent.filter(|parent| fstat(parent).is_ok_and(|stat| id(&stat) == above.id));
    if above.open.is_none() {
        levels.truncate(DEPTH);
    }
}

impl Level {
    /// Counts what is in the directory; none where it can't be read.
    fn of(dir: OwnedFd, bytes: &mut u64, cancel: &Cancel) -> Result<Option<Level>> {
        let (Ok(stat), Ok(entries)) = (fstat(&dir), Dir::read_from(&dir)) else { return Ok(None) };
        let mut pending = Vec::new();
        for entry in entries.flatten() {
            cancel.check()?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(stat) = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            *bytes += share(&stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                pending.push(name.to_owned());
            }
        }
        Ok(Some(Level { id: id(&stat), open: Some(dir), pending }))
    }
}

#[allow(clippy::unnecessary_cast, reason = "the field types differ between architectures")]
fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

#[allow(clippy::useless_conversion, reason = "the field types differ between architectures")]
fn share(stat: &Stat) -> u64 {
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let names = if is_dir { 1 } else { u64::from(stat.st_nlink).max(1) };
    stat.st_blocks.unsigned_abs() * BLOCK / names
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::fs::{CWD, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with};

    use super::*;

    fn allocated(path: &Path) -> u64 {
        allocated_in(CWD, path.to_str().unwrap(), &Cancel::new().unwrap()).unwrap()
    }

    #[test]
    fn nothing_outside_is_counted_however_often_a_directory_becomes_a_link() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        for n in 0..40 {
            std::fs::create_dir_all(one.join(n.to_string())).unwrap();
            std::fs::write(outside.path().join(n.to_string()), vec![1; 1 << 19]).unwrap();
        }
        std::os::unix::fs::symlink(outside.path(), &other).unwrap();
        let (done, mut most) = (AtomicBool::new(false), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _ = renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
                }
            });
            for _ in 0..500 {
                most = allocated(dir.path()).max(most);
            }
            done.store(true, Ordering::Relaxed);
        });
        // A directory that has both names while it is listed counts twice.
        assert!(most < 1 << 19, "{most}");
    }

    #[test]
    fn what_is_allocated_counts_not_what_sizes_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        let empty = allocated(dir.path());
        let sparse = std::fs::File::create(path("d/sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        std::fs::write(path("d/file"), vec![1; 100_000]).unwrap();
        let one = allocated(dir.path()) - empty;
        assert!((100_000..200_000).contains(&one), "{one}");
        std::fs::hard_link(path("d/file"), path("again")).unwrap();
        assert_eq!(allocated(dir.path()) - empty, one, "two names of one file");
        std::fs::rename(path("again"), dir.path().with_extension("elsewhere")).unwrap();
        let half = allocated(dir.path()) - empty;
        std::fs::remove_file(dir.path().with_extension("elsewhere")).unwrap();
        assert_eq!(half, one / 2, "the other name is of another layer");
    }

    #[test]
    fn no_depth_is_too_deep_and_a_walk_can_be_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (name, empty) = ("d".repeat(200), allocated(dir.path()));
        // Far longer than the longest path that the kernel takes.
        let mut deepest = open_dir(CWD, dir.path()).unwrap();
        for _ in 0..200 {
            mkdirat(&deepest, name.as_str(), Mode::RWXU).unwrap();
            let file = openat(&deepest, "file", OFlags::CREATE | OFlags::RDWR, Mode::RUSR).unwrap();
            rustix::io::write(&file, &[1; 10_000]).unwrap();
            deepest = open_dir(deepest.as_fd(), name.as_str()).unwrap();
        }
        let bytes = allocated(dir.path()) - empty;
        assert!((2_000_000..6_000_000).contains(&bytes), "{bytes}");
        let cancel = Cancel::new().unwrap();
        cancel.raise();
        assert!(allocated_in(CWD, dir.path().to_str().unwrap(), &cancel).is_err());
        std::process::Command::new("rm").arg("-rf").arg(dir.path()).status().unwrap();
    }

    #[test]
    fn what_is_left_by_another_way_than_it_was_entered_counts_no_further() {
        // The directory at the bottom goes elsewhere while it is looked at: its parent is not where the walk came from.
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let level = |path: &Path, opened: bool| {
            let (fd, cancel) = (open_dir(CWD, path).unwrap(), Cancel::new().unwrap());
            let mut level = Level::of(fd, &mut 0, &cancel).unwrap().unwrap();
            level.open = level.open.filter(|_| opened);
            level
        };
        let (above, below) = (dir.path().join("above"), dir.path().join("above/below"));
        std::fs::create_dir_all(&below).unwrap();
        let mut levels: Vec<Level> = (0..DEPTH).map(|_| level(dir.path(), true)).collect();
        levels.extend([level(&above, false), level(&below, true)]);
        leave(&mut levels);
        assert!(levels.len() == DEPTH + 1 && levels[DEPTH].open.is_some(), "back where it came from");
        levels[DEPTH].open = None;
        levels.push(level(&below, true));
        std::fs::rename(&below, outside.path().join("below")).unwrap();
        leave(&mut levels);
        assert_eq!(levels.len(), DEPTH);
    }
}
