//! The file system of the store: what is free there, and what it keeps of a file.

use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, lsetxattr};
use serde::{Deserialize, Serialize};

use super::child::attempt_in_namespace;
use super::scratch::Scratch;
use super::{Answer, existing};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Store {
    /// The store, or the directory in which it would be made.
    pub place: PathBuf,
    /// The file system's name, or its number.
    pub kind: String,
    /// Bytes that we may write.
    pub free: u64,
    /// Files that can be made; none where the file system has no limit.
    pub inodes: Option<u64>,
    pub hard_links: Answer,
    /// Attributes that images bring.
    pub xattrs: Vec<(String, Answer)>,
}

/// A capability of no program.
const NO_CAPABILITY: &[u8] = &[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Writes into it as a command would.
///
/// # Errors
/// When nothing can be written there.
pub fn store(store: &Path) -> Answer<Store> {
    attempt_in_namespace(0, || {
        let place = existing(store)?;
        let scratch = Scratch::below(store)?;
        let file = scratch.file("file", b"x")?;
        let space = rustix::fs::statvfs(place).map_err(|e| format!("asking {}: {e}", place.display()))?;
        let link = std::fs::hard_link(&file, scratch.path("link")).map_err(|e| e.to_string());
        let attributes = [("user.boxwright", &b"x"[..]), ("security.capability", NO_CAPABILITY)];
        let xattrs = attributes.map(|(name, value)| {
            let set = lsetxattr(&file, name, value, XattrFlags::empty());
            (name.to_owned(), set.map_err(|e| e.to_string()))
        });
        Ok(Store {
            place: place.to_owned(),
            kind: kind(place),
            free: space.f_bavail.saturating_mul(space.f_frsize),
            inodes: (space.f_files > 0).then_some(space.f_favail),
            hard_links: link,
            xattrs: xattrs.into(),
        })
    })
}

fn kind(place: &Path) -> String {
    let known = [
        (0xef53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x2fc1_2fc1, "zfs"),
        (0xf2f5_2010, "f2fs"),
        (0x0102_1994, "tmpfs"),
        (0x794c_7630, "overlayfs"),
        (0x6969, "nfs"),
        (0x6573_5546, "fuse"),
    ];
    let Ok(fs) = rustix::fs::statfs(place) else { return "unknown".to_owned() };
    let number = fs.f_type & 0xffff_ffff;
    let found = known.iter().find(|(magic, _)| *magic == number);
    found.map_or_else(|| format!("{number:#x}"), |(_, name)| (*name).to_owned())
}
