//! What is kept back for the day when the disk is full: to remove something needs a little, too, since it is written down first
//! what goes. It is made while nobody waits, and given up by commands that remove.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::Store;
use crate::error::{Error, Result};

const DIRECTORY: &str = "reserve";
/// Several, as inodes may be what is lacking.
const FILES: [&str; 4] = ["0", "1", "2", "3"];
/// Bytes in all, for small databases and for large ones.
const LEAST: u64 = 2 << 20;
const MOST: u64 = 64 << 20;
/// Of a file system never more than this part.
const PART: u64 = 24;
/// With fewer inodes than this a removal may fail.
const INODES: u64 = 8;

impl Store {
    /// Gives up what was kept back if the file system has hardly anything else: before something is removed.
    ///
    /// # Errors
    /// When the file system can't be asked, or does not let go.
    pub fn give_reserve(&self) -> Result<()> {
        let disk = rustix::fs::fstatvfs(self.dir()).map_err(Error::io("looking at", self.path()))?;
        let without_inodes = disk.f_files > 0 && disk.f_favail < INODES;
        if disk.f_bavail * disk.f_frsize >= self.wanted() && !without_inodes {
            return Ok(());
        }
        give(self.dir(), self.path())
    }

    /// Keeps something back where there is much more than that. It is no failure that it can't.
    pub(super) fn keep_reserve(&self) {
        let Ok(disk) = rustix::fs::fstatvfs(self.dir()) else { return };
        let wanted = self.wanted().min(disk.f_blocks * disk.f_frsize / PART);
        if disk.f_bavail * disk.f_frsize < 4 * wanted {
            return;
        }
        let _ = rustix::fs::mkdirat(self.dir(), DIRECTORY, Mode::RWXU);
        for name in FILES {
            if self.fill(name, wanted / FILES.len() as u64).is_err() {
                return;
            }
        }
    }

    fn fill(&self, name: &str, size: u64) -> Result<(), Errno> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let path = format!("{DIRECTORY}/{name}");
        let file: OwnedFd = rustix::fs::openat(self.dir(), path, flags, Mode::RUSR | Mode::WUSR)?;
        // One that took no space would be no help.
        let has = rustix::fs::fstat(&file)?;
        if has.st_size.unsigned_abs() >= size {
            return Ok(());
        }
        match rustix::fs::fallocate(file.as_fd(), FallocateFlags::empty(), 0, size) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_noise(&mut File::from(file), size),
            other => other,
        }
    }

    /// A removal may write down each page of the database anew.
    fn wanted(&self) -> u64 {
        let size = rustix::fs::statat(self.dir(), "db", AtFlags::SYMLINK_NOFOLLOW);
        let size = size.map_or(0, |database| database.st_size.unsigned_abs());
        size.saturating_mul(2).clamp(LEAST, MOST)
    }
}

/// For file systems that can't reserve, as ext3's and NFS 3. Zeros may be kept as none.
fn write_noise(file: &mut File, size: u64) -> Result<(), Errno> {
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut chunk = vec![0; 64 << 10];
    let mut left = size;
    while left > 0 {
        noise.fill(&mut chunk);
        let n = left.min(chunk.len() as u64);
        file.write_all(&chunk[..n as usize]).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        left -= n;
    }
    Ok(())
}

/// Gives up what was kept back.
pub(super) fn give(store: impl AsFd, path: &Path) -> Result<()> {
    for name in FILES {
        match rustix::fs::unlinkat(&store, format!("{DIRECTORY}/{name}"), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(Error::io("removing", path.join(DIRECTORY))(e)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn what_can_only_be_written_takes_its_space() {
        let mut file = tempfile::tempfile().unwrap();
        let size = (5 << 16) + 7;
        write_noise(&mut file, size).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), size);
        file.sync_all().unwrap();
        assert!(file.metadata().unwrap().blocks() * 512 >= size);
    }
}
