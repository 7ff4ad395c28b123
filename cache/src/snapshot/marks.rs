//! [`Marks`]: how the directory of a layer says what it hides of the layers below. That is overlayfs's own way, or, where
//! the store's file system refuses that (another overlay does), one of ours, which can't be mounted. A directory
//! says itself which it is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fchmod, mknodat, openat, unlinkat};
use rustix::io::Errno;

use super::owner::OwnerView;
use crate::fs::whiteout::is_whiteout;
use crate::fs::xattr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// A character device 0:0, and the attribute that [`OwnerView::opaque_name`] names.
    Overlay,
    /// An empty file without any permission that has an attribute of ours; and another one.
    Own,
}

/// Of the root of a layer with marks of ours.
const FORM: &[u8] = b"user.boxwright.marks";
const WHITEOUT: &[u8] = b"user.boxwright.whiteout";
const OPAQUE: &[u8] = b"user.boxwright.opaque";
const SET: &[u8] = b"y";

impl Marks {
    /// Those that the directory of a layer has.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn of(layer: impl AsFd) -> Result<Marks, Errno> {
        Ok(if xattr::get(layer, FORM)?.is_some() { Marks::Own } else { Marks::Overlay })
    }

    /// Those that can be made in `empty`, an empty directory; none where that can't be told at the moment.
    pub fn possible(empty: BorrowedFd<'_>) -> Option<Marks> {
        let name = c"mark";
        match mknodat(empty, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => unlinkat(empty, name, AtFlags::empty()).ok().map(|()| Marks::Overlay),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                // Where there are no attributes either, what needs a mark fails by the name of that.
                Some(xattr::set(empty, OPAQUE, SET).map_or(Marks::Overlay, |()| Marks::Own))
            }
            Err(_) => None,
        }
    }

    /// Makes the directory of a new layer say which marks it has.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn declare(self, layer: impl AsFd) -> Result<(), Errno> {
        match self {
            Marks::Overlay => Ok(()),
            Marks::Own => xattr::set(layer, FORM, SET),
        }
    }

    /// The opposite of [`Marks::declare`].
    pub(crate) fn take_off(self, layer: impl AsFd) -> Result<(), Errno> {
        match self {
            Marks::Overlay => Ok(()),
            Marks::Own => xattr::remove(layer, FORM),
        }
    }

    /// Whether a name with this `stat` is the mark of a deletion; `open` opens it for reading.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_whiteout(
        self,
        stat: &Stat,
        open: impl FnOnce(OFlags) -> Result<OwnedFd, Errno>,
    ) -> Result<bool, Errno> {
        if self == Marks::Overlay || !self.may_be_whiteout(stat) {
            return Ok(is_whiteout(stat));
        }
        let file = open(OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC)?;
        Ok(xattr::get(file, WHITEOUT)?.is_some())
    }

    /// As [`Marks::is_whiteout`], of `name` in an open directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_whiteout_at(
        self,
        dir: impl AsFd,
        name: impl rustix::path::Arg,
        stat: &Stat,
    ) -> Result<bool, Errno> {
        self.is_whiteout(stat, |flags| openat(dir, name, flags, Mode::empty()))
    }

    /// Of what type the files are that may be marks: the others need not be looked at.
    pub(crate) fn whiteout_type(self) -> FileType {
        match self {
            Marks::Overlay => FileType::CharacterDevice,
            Marks::Own => FileType::RegularFile,
        }
    }

    fn may_be_whiteout(self, stat: &Stat) -> bool {
        FileType::from_raw_mode(stat.st_mode) == self.whiteout_type()
            && stat.st_size == 0
            && stat.st_mode & 0o7777 == 0
    }

    /// Marks `name` as deleted, where nothing is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn make_whiteout(self, dir: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<(), Errno> {
        if self == Marks::Overlay {
            return mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        // The mode last: only its owner may set an attribute of a file that is not writable.
        xattr::set(&file, WHITEOUT, SET)?;
        fchmod(&file, Mode::empty())
    }

    /// # Errors
    /// What the kernel says.
    pub fn is_opaque(self, view: OwnerView, dir: impl AsFd) -> Result<bool, Errno> {
        match self {
            Marks::Overlay => view.is_opaque(dir),
            Marks::Own => Ok(xattr::get(dir, OPAQUE)?.is_some()),
        }
    }

    /// Hides all that layers below have in an open directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_opaque(self, view: OwnerView, dir: impl AsFd) -> Result<(), Errno> {
        match self {
            Marks::Overlay => view.set_opaque(dir),
            Marks::Own => xattr::set(dir, OPAQUE, SET),
        }
    }
}
