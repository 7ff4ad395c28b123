//! Mount points that a stub layer can't provide, because the image hides it: made in the upper directory through the
//! mounted root, and taken back after the container where nobody used them.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use boxwright_cache::fs::open_resolved;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, fstat, mkdirat, mknodat,
    statat, unlinkat, utimensat,
};
use rustix::io::Errno;

/// A directory or file that was made in the root, by its real path there.
#[derive(Debug)]
pub(crate) struct Made {
    parent: String,
    name: CString,
    kind: FileType,
    /// The parent's times before.
    before: Timestamps,
    /// As it was in the upper directory when it was new.
    new: Option<Identity>,
}

#[derive(Debug, PartialEq, Eq)]
struct Identity {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    changed: (i64, i64),
}

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
const REAL: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Makes `path` in the mounted `root`, unless something is there. What a symlink leads to is made in its place, in the
/// root: images bring an `/etc/resolv.conf` that points to where nothing is yet.
pub(crate) fn ensure(root: BorrowedFd<'_>, path: &str, kind: FileType) -> rustix::io::Result<Vec<Made>> {
    let mut made = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match walk(root, &path, kind, &mut made)? {
            Some(next) => path = next,
            None => return Ok(made),
        }
    }
    Err(Errno::LOOP)
}

/// As the kernel's own limit.
const MAX_LINKS: usize = 40;

/// Some other path that stands for this one, where a symlink on it leads nowhere.
fn walk(
    root: BorrowedFd<'_>,
    path: &str,
    kind: FileType,
    made: &mut Vec<Made>,
) -> rustix::io::Result<Option<String>> {
    let mut parent = open(root, ".", IN_ROOT)?;
    let names: Vec<&str> = path.split('/').filter(|n| !n.is_empty() && *n != ".").collect();
    for (n, name) in names.iter().enumerate() {
        let prefix = names[..=n].join("/");
        parent = match open(root, &prefix, IN_ROOT) {
            Err(Errno::NOENT) => {
                if let Ok(target) = rustix::fs::readlinkat(&parent, *name, Vec::new()) {
                    let target = target.into_string().map_err(|_| Errno::ILSEQ)?;
                    let before = if target.starts_with('/') { String::new() } else { names[..n].join("/") };
                    return Ok(Some(format!("{before}/{target}/{}", names[n + 1..].join("/"))));
                }
                let kind = if n + 1 == names.len() { kind } else { FileType::Directory };
                made.push(make(&parent, name, kind)?);
                open(parent.as_fd(), name, REAL)?
            }
            result => result?,
        };
    }
    Ok(None)
}

fn make(parent: &OwnedFd, name: &str, kind: FileType) -> rustix::io::Result<Made> {
    let place = rustix::fs::readlink(format!("/proc/self/fd/{}", parent.as_raw_fd()), Vec::new())?;
    let place = place.into_string().map_err(|_| Errno::ILSEQ)?;
    let before = times(&fstat(parent)?);
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match kind {
        FileType::Directory => mkdirat(parent, &name, Mode::from_raw_mode(0o755))?,
        _ => mknodat(parent, &name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0)?,
    }
    utimensat(parent, c"", &before, AtFlags::EMPTY_PATH)
        .or_else(|_| utimensat(parent, c".", &before, AtFlags::empty()))?;
    Ok(Made { parent: place.trim_start_matches('/').to_owned(), name, kind, before, new: None })
}

/// To be called before the container starts: remembers what the new places look like in the upper directory.
pub(crate) fn remember(upper: BorrowedFd<'_>, made: &mut [Made]) {
    for one in made {
        one.new = look(upper, one).ok();
    }
}

/// Removes what is still as it was made. Whatever the container did to it makes it part of the result.
pub(crate) fn take_back(upper: BorrowedFd<'_>, made: Vec<Made>) {
    for one in made.into_iter().rev() {
        if one.new.is_none() || look(upper, &one).ok() != one.new {
            continue;
        }
        let Ok(parent) = open_parent(upper, &one) else { continue };
        let flags = if one.kind == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        // A directory that is no longer empty is refused, and stays.
        if unlinkat(&parent, &one.name, flags).is_ok() {
            let _ = utimensat(&parent, c".", &one.before, AtFlags::empty());
        }
    }
}

fn look(upper: BorrowedFd<'_>, made: &Made) -> rustix::io::Result<Identity> {
    let stat = statat(open_parent(upper, made)?, &made.name, AtFlags::SYMLINK_NOFOLLOW)?;
    // The times of a directory move when something below it is made and taken back, which harms nobody.
    let changed =
        if made.kind == FileType::Directory { (0, 0) } else { (stat.st_mtime, stat.st_mtime_nsec as i64) };
    Ok(Identity { inode: stat.st_ino, mode: stat.st_mode, owner: (stat.st_uid, stat.st_gid), changed })
}

fn open_parent(upper: BorrowedFd<'_>, made: &Made) -> rustix::io::Result<OwnedFd> {
    let parent = if made.parent.is_empty() { "." } else { &made.parent };
    open_resolved(upper, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), REAL)
}

fn open(root: BorrowedFd<'_>, path: &str, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    open_resolved(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// The times of `stat`, to be set again once something inside was taken back.
pub(crate) fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn tree(make: impl FnOnce(&Path)) -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let fd = std::fs::File::open(dir.path()).unwrap().into();
        (dir, fd)
    }

    #[test]
    fn what_nobody_used_is_taken_back() {
        let (dir, root) = tree(|p| std::fs::create_dir(p.join("a")).unwrap());
        let time = || std::fs::metadata(dir.path().join("a")).unwrap().modified().unwrap();
        let before = time();
        let mut made = ensure_real(&root, &dir, "a/b/c", FileType::RegularFile);
        assert_eq!(made.len(), 2);
        assert!(dir.path().join("a/b/c").is_file());
        remember(root.as_fd(), &mut made);
        take_back(root.as_fd(), made);
        assert!(!dir.path().join("a/b").exists());
        assert_eq!(time(), before);
    }

    #[test]
    fn what_was_used_stays() {
        let (dir, root) = tree(|_| {});
        let mut made = ensure_real(&root, &dir, "a/b", FileType::Directory);
        remember(root.as_fd(), &mut made);
        std::fs::write(dir.path().join("a/b/file"), "x").unwrap();
        take_back(root.as_fd(), made);
        assert!(dir.path().join("a/b/file").exists());
    }

    #[test]
    fn a_link_put_in_the_way_is_not_followed() {
        let (canary, _) = tree(|p| std::fs::create_dir(p.join("b")).unwrap());
        let (dir, root) = tree(|_| {});
        let mut made = ensure_real(&root, &dir, "a/b", FileType::Directory);
        remember(root.as_fd(), &mut made);
        std::fs::rename(dir.path().join("a"), dir.path().join("was")).unwrap();
        symlink(canary.path(), dir.path().join("a")).unwrap();
        take_back(root.as_fd(), made);
        assert!(canary.path().join("b").exists());
    }

    #[test]
    fn links_on_the_way_are_followed_inside_the_root() {
        let (dir, root) = tree(|p| {
            std::fs::create_dir(p.join("run")).unwrap();
            std::fs::create_dir(p.join("var")).unwrap();
            symlink("/run", p.join("var/run")).unwrap();
        });
        let mut made = ensure_real(&root, &dir, "var/run/x", FileType::Directory);
        assert!(dir.path().join("run/x").is_dir());
        remember(root.as_fd(), &mut made);
        take_back(root.as_fd(), made);
        assert!(!dir.path().join("run/x").exists());
    }

    #[test]
    fn links_that_lead_nowhere_are_followed_as_well() {
        let (dir, root) = tree(|p| {
            std::fs::create_dir(p.join("etc")).unwrap();
            symlink("../run/resolve/stub.conf", p.join("etc/resolv.conf")).unwrap();
            symlink("loop", p.join("loop")).unwrap();
        });
        let mut made = ensure_real(&root, &dir, "etc/resolv.conf", FileType::RegularFile);
        assert!(dir.path().join("run/resolve/stub.conf").is_file());
        remember(root.as_fd(), &mut made);
        take_back(root.as_fd(), made);
        assert!(!dir.path().join("run").exists());
        assert_eq!(ensure(root.as_fd(), "loop/x", FileType::Directory).unwrap_err(), Errno::LOOP);
    }

    /// In a mount of our own a place is named by its path in it; in a plain directory, as here, by the host's.
    fn ensure_real(root: &OwnedFd, dir: &tempfile::TempDir, path: &str, kind: FileType) -> Vec<Made> {
        let mut made = ensure(root.as_fd(), path, kind).unwrap();
        let prefix = dir.path().to_str().unwrap().trim_start_matches('/').to_owned();
        for one in &mut made {
            one.parent = one.parent.strip_prefix(&prefix).unwrap().trim_start_matches('/').to_owned();
        }
        made
    }
}
