//! A file system as a sorted list of lines that can be compared: path, type, mode, owner, size and digest, link
//! target, hard-link group, xattrs. GNU tar unpacks what is listed, so our own reader is not its own judge.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::archive::sha256;
use crate::run;

/// What is at each path. Modification times stand apart, as most of them are the time of the build.
#[derive(Debug, Default)]
pub struct Listing {
    pub entries: BTreeMap<String, String>,
    pub mtimes: BTreeMap<String, i64>,
}

impl Listing {
    /// Unpacks the tar (as root: owners and devices are real) and lists it.
    pub fn of_tar(tar: &Path) -> Listing {
        let dir = tempfile::tempdir().unwrap();
        run(Command::new("tar")
            .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"])
            .arg(tar)
            .arg("-C")
            .arg(dir.path()))
        .ok();
        Self::of_dir(dir.path())
    }

    pub fn of_dir(root: &Path) -> Listing {
        let mut listing = Listing::default();
        let mut first_of_inode = BTreeMap::new();
        for path in sorted_paths(root) {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mut line = describe(&path, &metadata);
            if metadata.nlink() > 1 && !metadata.is_dir() {
                let first = first_of_inode.entry(metadata.ino()).or_insert_with(|| name.clone());
                line += &format!(" same-inode-as {first}");
            }
            listing.mtimes.insert(name.clone(), metadata.mtime());
            listing.entries.insert(name, line);
        }
        listing
    }

    /// One line for each path that is not the same in both, `-` what only `other` has.
    pub fn differences(&self, other: &Listing) -> Vec<(String, String)> {
        let mut paths: Vec<_> = self.entries.keys().chain(other.entries.keys()).collect();
        paths.sort();
        paths.dedup();
        paths
            .into_iter()
            .filter(|p| self.entries.get(*p) != other.entries.get(*p))
            .map(|p| {
                let show = |l: &Listing| l.entries.get(p).map_or("absent", String::as_str).to_owned();
                (p.clone(), format!("{} instead of {}", show(self), show(other)))
            })
            .collect()
    }
}

fn sorted_paths(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

fn describe(path: &Path, metadata: &fs::Metadata) -> String {
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("link to {}", fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        format!("file {} {}", metadata.len(), &sha256(&fs::read(path).unwrap())[..16])
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        format!("device {:x}", metadata.rdev())
    };
    let mut line = format!("{what} {:04o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    if !kind.is_symlink() {
        for (name, value) in xattrs(path) {
            line += &format!(" {name}={value}");
        }
    }
    line
}

fn xattrs(path: &Path) -> Vec<(String, String)> {
    let mut names = [0u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let mut found: Vec<_> = names[..length]
        .split(|b| *b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let name = String::from_utf8_lossy(name).into_owned();
            let mut value = [0u8; 4096];
            let length = rustix::fs::lgetxattr(path, name.as_str(), &mut value).unwrap();
            (name, sha256(&value[..length])[..16].to_owned())
        })
        .collect();
    found.sort();
    found
}
