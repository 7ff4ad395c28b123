//! Deletions: as overlayfs stores them (a character device 0:0, an xattr on a directory) and as archives name them
//! (`.wh.NAME`, `.wh..wh..opq`; OCI image-spec, layer, "Whiteouts").

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Stat};

/// The prefix of an archive entry that deletes the entry named by the rest.
pub const PREFIX: &[u8] = b".wh.";
/// The archive entry that hides everything lower layers have in its directory.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// What the last component of an archive path says about deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker<'a> {
    /// An ordinary entry.
    None,
    /// Deletes the sibling of this name.
    Whiteout(&'a OsStr),
    /// Makes the directory that holds it opaque.
    Opaque,
    /// Bookkeeping of the AUFS driver; to be ignored.
    Reserved,
    /// A whiteout of nothing, of `.` or of `..`.
    Bad,
}

pub fn marker(name: &OsStr) -> Marker<'_> {
    let bytes = name.as_bytes();
    if bytes == OPAQUE {
        return Marker::Opaque;
    }
    match bytes.strip_prefix(PREFIX) {
        None => Marker::None,
        Some(b"" | b"." | b"..") => Marker::Bad,
        Some(rest) if rest.starts_with(PREFIX) => Marker::Reserved,
        Some(rest) => Marker::Whiteout(OsStr::from_bytes(rest)),
    }
}

/// Whether `stat` is of overlayfs's whiteout device.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_apart() {
        let of = |s: &'static str| marker(OsStr::new(s));
        assert_eq!(of("a.wh."), Marker::None);
        assert_eq!(of(".wh.a"), Marker::Whiteout(OsStr::new("a")));
        assert_eq!(of(".wh..hidden"), Marker::Whiteout(OsStr::new(".hidden")));
        assert_eq!(of(".wh..wh..opq"), Marker::Opaque);
        assert_eq!(of(".wh..wh.plnk"), Marker::Reserved);
        for bad in [".wh.", ".wh..", ".wh..."] {
            assert_eq!(of(bad), Marker::Bad, "{bad}");
        }
    }
}
