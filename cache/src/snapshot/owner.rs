//! [`OwnerView`]: the only place that reads or writes owner, mode and extended attributes of files in snapshots, so
//! that they mean what the image means, as root, in a user namespace, or with a single id.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::fs::xattr;
use crate::ids;
use crate::layer::sink::{Metadata, NodeKind, Timestamp, Xattrs};

const CAPABILITY: &[u8] = b"security.capability";
/// Where [`OwnerView::Recorded`] keeps the owner: eight bytes, uid and gid, little-endian.
const RECORD: &[u8] = b"user.boxwright.owner";
/// Where an empty file says which device it stands for, made by whom the kernel lets make none: `c` or `b`, and the
/// two numbers of four bytes, little-endian.
const DEVICE: &[u8] = b"user.boxwright.device";
const OURS: &[u8] = b"user.boxwright.";

/// How owners in the store relate to the owners that an image means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerView {
    /// The process is root on the host: ids are what they are.
    Real,
    /// The process is root in a user namespace with a range of ids: the kernel maps them.
    MappedIds,
    /// Only one id is mapped. Owners of files and directories are recorded in an attribute; what can't carry one
    /// (links, devices) belongs to root.
    Recorded,
}

impl OwnerView {
    /// The view of this process, from its `uid_map`. Asked for once; a process that moves into a user namespace
    /// does so before it asks, and has its ids then.
    pub fn current() -> OwnerView {
        static CURRENT: OnceLock<OwnerView> = OnceLock::new();
        *CURRENT.get_or_init(|| {
            ids::needed();
            // Where there is no /proc, there is no user namespace of ours either.
            std::fs::read_to_string("/proc/self/uid_map").map_or(OwnerView::Real, |map| from_uid_map(&map))
        })
    }

    /// The name of the attribute that makes a directory opaque for overlayfs.
    pub fn opaque_name(self) -> &'static [u8] {
        match self {
            OwnerView::Real => b"trusted.overlay.opaque",
            OwnerView::MappedIds | OwnerView::Recorded => b"user.overlay.opaque",
        }
    }

    /// # Errors
    /// What the kernel says.
    pub fn is_opaque(self, dir: impl AsFd) -> Result<bool, Errno> {
        Ok(xattr::get(dir, self.opaque_name())?.is_some_and(|v| v == b"y"))
    }

    /// # Errors
    /// What the kernel says.
    pub fn set_opaque(self, dir: impl AsFd) -> Result<(), Errno> {
        xattr::set(dir, self.opaque_name(), b"y")
    }

    /// Owner, mode, time and kept attributes (sorted by name) of a regular file or directory that is open.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(self, fd: impl AsFd, stat: &Stat) -> Result<Metadata, Errno> {
        let mut meta = self.read_plain(stat);
        if self == OwnerView::Recorded
            && let Some((uid, gid)) = xattr::get(&fd, RECORD)?.as_deref().and_then(parse_record)
        {
            (meta.uid, meta.gid) = (uid, gid);
        }
        meta.xattrs = self.xattrs(fd)?;
        Ok(meta)
    }

    /// The kept attributes of what is open, sorted by name.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn xattrs(self, fd: impl AsFd) -> Result<Xattrs, Errno> {
        let mut xattrs = Vec::new();
        for name in xattr::list(&fd, is_kept)? {
            if name == CAPABILITY {
                // The kernel says of them what they are in the namespace.
                ids::needed();
            }
            // An attribute that vanished since it was listed is not there.
            if let Some(value) = xattr::get(&fd, &name)? {
                let value = if name == CAPABILITY { capability_v2(value) } else { value };
                xattrs.push((name, value));
            }
        }
        xattrs.sort_unstable();
        Ok(xattrs)
    }

    /// The same for what has no attributes: links, devices, pipes.
    pub fn read_plain(self, stat: &Stat) -> Metadata {
        Metadata {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: mtime_of(stat),
            xattrs: Vec::new(),
        }
    }

    /// Makes an empty file stand for a device, which is what a container sees of it; the image has the device.
    ///
    /// # Errors
    /// What the kernel says; `EPERM` where devices can be made, or it is none.
    pub fn record_device(self, file: impl AsFd, device: NodeKind) -> Result<(), Errno> {
        let (letter, major, minor) = match device {
            NodeKind::Char { major, minor } if self != OwnerView::Real => (b'c', major, minor),
            NodeKind::Block { major, minor } if self != OwnerView::Real => (b'b', major, minor),
            _ => return Err(Errno::PERM),
        };
        let numbers = [major.to_le_bytes(), minor.to_le_bytes()].concat();
        xattr::set(file, DEVICE, &[&[letter], numbers.as_slice()].concat())
    }

    /// The device that an open regular file stands for.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn recorded_device(self, file: impl AsFd, stat: &Stat) -> Result<Option<NodeKind>, Errno> {
        if self == OwnerView::Real || stat.st_size != 0 {
            return Ok(None);
        }
        Ok(xattr::get(file, DEVICE)?.as_deref().and_then(parse_device))
    }

    /// Gives an open file or directory its owner, mode and attributes, but not its time: a directory's changes
    /// again with each entry. The owner comes first, because changing it clears set-id bits and capabilities.
    ///
    /// # Errors
    /// What the kernel says, with the action.
    pub fn write(self, fd: BorrowedFd<'_>, meta: &Metadata) -> Result<(), (&'static str, Errno)> {
        if self == OwnerView::Recorded {
            xattr::set(fd, RECORD, &record(meta)).map_err(|e| ("recording the owner of", e))?;
        } else {
            let (uid, gid) = ids(meta).map_err(|e| ("changing the owner of", e))?;
            rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(|e| ("changing the owner of", e))?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode & 0o7777))
            .map_err(|e| ("changing the mode of", e))?;
        for (name, value) in meta.xattrs.iter().filter(|(name, _)| is_kept(name)) {
            match xattr::set(fd, name, value) {
                // A file system that has no such attributes keeps the file without them, as docker does.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(e) => return Err(("setting an extended attribute of", e)),
            }
        }
        Ok(())
    }

    /// Owner, mode (not of a link) and time of an entry that is not opened, `name` in `parent`.
    ///
    /// # Errors
    /// What the kernel says, with the action.
    pub fn write_at(
        self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        meta: &Metadata,
        is_link: bool,
    ) -> Result<(), (&'static str, Errno)> {
        if self != OwnerView::Recorded {
            let (uid, gid) = ids(meta).map_err(|e| ("changing the owner of", e))?;
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| ("changing the owner of", e))?;
        }
        if !is_link {
            let mode = Mode::from_raw_mode(meta.mode & 0o7777);
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
                .map_err(|e| ("changing the mode of", e))?;
        }
        rustix::fs::utimensat(parent, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| ("setting the time of", e))
    }
}

/// Access and modification time, both `mtime`, so that unpacking leaves no trace of when it happened.
pub(crate) fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[allow(clippy::unnecessary_cast, reason = "the field types differ between architectures")]
pub(crate) fn mtime_of(stat: &Stat) -> Timestamp {
    Timestamp { secs: stat.st_mtime as i64, nanos: stat.st_mtime_nsec as u32 }
}

/// Whether an image keeps the attribute: capabilities and `user.*`, but nothing of overlayfs's or of ours.
pub fn is_kept(name: &[u8]) -> bool {
    name == CAPABILITY
        || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.starts_with(OURS)
}

fn ids(meta: &Metadata) -> Result<(Uid, Gid), Errno> {
    // The kernel takes the largest id to mean "unchanged", so it is nobody's.
    if meta.uid == u32::MAX || meta.gid == u32::MAX {
        return Err(Errno::INVAL);
    }
    Ok((Uid::from_raw(meta.uid), Gid::from_raw(meta.gid)))
}

fn record(meta: &Metadata) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&meta.uid.to_le_bytes());
    bytes[4..].copy_from_slice(&meta.gid.to_le_bytes());
    bytes
}

fn parse_record(bytes: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*uid), u32::from_le_bytes(gid.try_into().ok()?)))
}

fn parse_device(bytes: &[u8]) -> Option<NodeKind> {
    let (letter, numbers) = bytes.split_first()?;
    let (major, minor) = parse_record(numbers)?;
    match letter {
        b'c' => Some(NodeKind::Char { major, minor }),
        b'b' => Some(NodeKind::Block { major, minor }),
        _ => None,
    }
}

/// A capability attribute without the user namespace it belongs to (revision 3 made revision 2): in an image, the
/// only owner there is is the image's root.
fn capability_v2(mut value: Vec<u8>) -> Vec<u8> {
    const REVISION_3: u8 = 3;
    if value.len() == 24 && value[3] == REVISION_3 {
        value.truncate(20);
        value[3] = 2;
    }
    value
}

fn from_uid_map(map: &str) -> OwnerView {
    let ranges: Vec<[u64; 3]> = map
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(|n| n.parse().ok());
            Some([numbers.next()??, numbers.next()??, numbers.next()??])
        })
        .collect();
    match ranges[..] {
        [[0, 0, length]] if length >= u32::MAX.into() => OwnerView::Real,
        _ if ranges.iter().map(|r| r[2]).sum::<u64>() <= 1 => OwnerView::Recorded,
        _ => OwnerView::MappedIds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uid_map_decides() {
        assert_eq!(from_uid_map("         0          0 4294967295\n"), OwnerView::Real);
        assert_eq!(from_uid_map("0 1000 1\n1 100000 65536\n"), OwnerView::MappedIds);
        assert_eq!(from_uid_map("0 1000 1\n"), OwnerView::Recorded);
    }

    #[test]
    fn only_portable_attributes_are_kept() {
        for kept in ["security.capability", "user.a", "user.mime_type"] {
            assert!(is_kept(kept.as_bytes()), "{kept}");
        }
        for dropped in [
            "security.selinux",
            "trusted.overlay.opaque",
            "user.overlay.opaque",
            "user.boxwright.owner",
            "system.posix_acl_access",
            "user",
        ] {
            assert!(!is_kept(dropped.as_bytes()), "{dropped}");
        }
    }

    #[test]
    fn capabilities_lose_their_namespace() {
        let mut v3 = vec![1, 0, 0, 3];
        v3.extend([7; 16]);
        let mut v2 = v3.clone();
        v3.extend([0, 0, 1, 0]);
        v2[3] = 2;
        assert_eq!(capability_v2(v3), v2);
        assert_eq!(capability_v2(v2.clone()), v2);
    }

    #[test]
    fn a_recorded_device_survives() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        let read = |view: OwnerView| view.recorded_device(&file, &rustix::fs::fstat(&file).unwrap()).unwrap();
        let device = NodeKind::Block { major: 259, minor: 1_000_000 };
        OwnerView::MappedIds.record_device(&file, device).unwrap();
        assert_eq!((read(OwnerView::MappedIds), read(OwnerView::Recorded)), (Some(device), Some(device)));
        assert_eq!(
            read(OwnerView::Real),
            None,
            "root makes devices as they are, and takes nobody's word for one"
        );
        assert_eq!(OwnerView::Real.record_device(&file, device), Err(Errno::PERM));
        assert_eq!(OwnerView::MappedIds.xattrs(&file).unwrap(), []);
        std::fs::write(dir.path().join("f"), "x").unwrap();
        assert_eq!(read(OwnerView::MappedIds), None, "what was written to is a file");
    }

    #[test]
    fn a_recorded_owner_survives() {
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        let meta = Metadata { mode: 0o4755, uid: 4_000_000_000, gid: 7, ..Metadata::default() };
        OwnerView::Recorded.write(file.as_fd(), &meta).unwrap();
        let back = OwnerView::Recorded.read(&file, &rustix::fs::fstat(&file).unwrap()).unwrap();
        assert_eq!((back.uid, back.gid, back.mode), (4_000_000_000, 7, 0o4755));
        assert!(back.xattrs.is_empty(), "the record is no attribute of the image");
    }
}
