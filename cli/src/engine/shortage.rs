//! What may help against errors of the machine. Mostly it is what a file system lacks on which nothing could be written:
//! the kernel says "No space left on device" also where there is space and no inode is left, and never on which file
//! system.

use std::io::ErrorKind;
use std::path::Path;

use boxwright_cache as cache;
use cache::error::Remedy;

use crate::error::Error;
use crate::format;

const PRUNE: &str = "; 'boxwright system prune' removes what no image needs";

/// The error with what may help against it, if there is something. `store` is the one that the command works with.
pub(crate) fn helped(error: Error, store: &Path) -> Error {
    let help = match &error {
        Error::Cache(error) => help(error, store),
        Error::Io { path, source, .. } => help_at(source.kind(), path, store),
        _ => None,
    };
    match help {
        Some(help) => Error::Helped { error: Box::new(error), help },
        None => error,
    }
}

pub(super) fn help(error: &cache::Error, store: &Path) -> Option<String> {
    let path = match error {
        cache::Error::Registry { registry, remedy, .. } => return remedy.map(|r| configured(registry, r)),
        cache::Error::Io { path, .. } => path,
        _ => store,
    };
    help_at(error.kind()?, path, store)
}

/// What the configuration should say of a registry.
fn configured(registry: &str, remedy: Remedy) -> String {
    let table = format!("[registry.{registry:?}]");
    let file = "~/.config/boxwright/config.toml or /etc/boxwright/config.toml";
    match remedy {
        Remedy::PlainHttp => {
            format!("if it is meant to have no TLS: plain-http = true below {table} in {file}")
        }
        Remedy::Ca => format!(
            "the certificate that vouches for it belongs to ca = [\"FILE\"] below {table} in {file}, or is \
             /etc/docker/certs.d/{registry}/ca.crt"
        ),
    }
}

/// `path` is what could not be written; a relative one is that of a file in a layer.
pub(super) fn help_at(kind: ErrorKind, path: &Path, store: &Path) -> Option<String> {
    let of_store = path.is_relative() || path.starts_with(store);
    let place = if of_store { store } else { path };
    let place = place.ancestors().find(|place| place.exists())?;
    // What a device has no room for is no matter of the file system that it is in.
    if !of_store && std::fs::metadata(place).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return None;
    }
    match kind {
        ErrorKind::StorageFull => {
            let lacking = lacking(place)?;
            let prune = if of_store { PRUNE } else { "" };
            Some(format!("{} is short of {lacking}{prune}", file_system(place)))
        }
        ErrorKind::ReadOnlyFilesystem => {
            let other = if of_store { ", or name another store with --root" } else { "" };
            Some(format!("{} is mounted read-only; mount it read-write{other}", file_system(place)))
        }
        _ => None,
    }
}

fn file_system(place: &Path) -> String {
    format!("the file system of {}", place.display())
}

/// Whichever is scarcer. What was half written is gone by now, and has given back what it took.
fn lacking(place: &Path) -> Option<String> {
    let disk = rustix::fs::statvfs(place).ok()?;
    let (free, all) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
    Some(scarcer((free, all), (disk.f_favail, disk.f_files)))
}

/// Of bytes and of inodes: those that are free, and all.
fn scarcer((free, size): (u64, u64), (inodes, count): (u64, u64)) -> String {
    // Some file systems count no inodes.
    if count > 0 && u128::from(inodes) * u128::from(size) < u128::from(free) * u128::from(count) {
        return format!("inodes, of which each file takes one: {inodes} of {count} are free now");
    }
    format!("space: {} of {} are free now", format::size(free), format::size(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_and_inodes_are_told_apart() {
        assert_eq!(scarcer((0, 1000), (10, 100)), "space: 0B of 1kB are free now");
        assert_eq!(
            scarcer((500, 1000), (0, 100)),
            "inodes, of which each file takes one: 0 of 100 are free now"
        );
        assert_eq!(scarcer((5, 1000), (0, 0)), "space: 5B of 1kB are free now", "without inodes");
    }

    #[test]
    fn what_lies_elsewhere_is_no_matter_of_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let (store, other) = (dir.path().join("store"), dir.path().join("other"));
        std::fs::create_dir(&store).unwrap();
        let help = |path: &Path, kind| help_at(kind, path, &store);
        let of_store = format!("the file system of {} is", store.display());
        for path in [&store.join("layers/x"), Path::new("usr/bin/x")] {
            let full = help(path, ErrorKind::StorageFull).unwrap();
            assert!(full.starts_with(&of_store) && full.contains("prune"), "{full}");
            let sealed = help(path, ErrorKind::ReadOnlyFilesystem).unwrap();
            assert!(sealed.starts_with(&of_store) && sealed.contains("--root"), "{sealed}");
        }
        let of_other = format!("the file system of {} is", dir.path().display());
        for kind in [ErrorKind::StorageFull, ErrorKind::ReadOnlyFilesystem] {
            let elsewhere = help(&other.join("image.tar"), kind).unwrap();
            assert!(elsewhere.starts_with(&of_other), "{elsewhere}");
            assert!(!elsewhere.contains("prune") && !elsewhere.contains("--root"), "{elsewhere}");
        }
        assert_eq!(help(&store, ErrorKind::PermissionDenied), None);
    }
}
