//! A layer in the making. It becomes a layer by `commit`, which takes it; dropped, it leaves nothing.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Layer, Marks, Unpacked, unread};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::fs::{allocated, remove_tree};
use crate::layer::LayerSummary;
use crate::lease::Lease;
use crate::store::{Store, unique_name};

/// Two empty directories on one file system: `fs` is to be filled (by a sink, or as an overlay's upper directory),
/// `work` is for overlayfs.
#[derive(Debug)]
pub struct ActiveLayer {
    store: Store,
    lease: Lease,
    /// Below the store's directory.
    path: String,
    fs: OwnedFd,
    work: OwnedFd,
    marks: Marks,
}

impl Store {
    /// # Errors
    /// When the directories can't be made.
    pub fn new_layer(&self) -> Result<ActiveLayer> {
        let lease = self.lease()?;
        let path = format!("tmp/{}-{}", lease.name(), unique_name()?);
        let make = |sub: &str, mode: u32| {
            let path = format!("{path}{sub}");
            rustix::fs::mkdirat(self.dir(), &path, Mode::from_raw_mode(mode))
                .map_err(Error::io("making", self.path().join(&path)))
        };
        let open = |sub: &str| {
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::openat(self.dir(), format!("{path}{sub}"), flags, Mode::empty())
                .map_err(Error::io("opening", self.path().join(&path)))
        };
        make("", 0o700)?;
        make("/fs", 0o755)?;
        make("/work", 0o700)?;
        let (fs, work) = (open("/fs")?, open("/work")?);
        // The root of a layer is 0755 whatever the user's umask says.
        rustix::fs::fchmod(&fs, Mode::from_raw_mode(0o755)).map_err(Error::io("making", &path))?;
        let marks = self.marks(work.as_fd());
        marks.declare(&fs).map_err(Error::io("making", &path))?;
        Ok(ActiveLayer { store: self.clone(), lease, fs, work, path, marks })
    }
}

impl ActiveLayer {
    /// The directory that becomes the layer.
    pub fn fs(&self) -> BorrowedFd<'_> {
        self.fs.as_fd()
    }

    /// overlayfs's work directory.
    pub fn work(&self) -> BorrowedFd<'_> {
        self.work.as_fd()
    }

    /// Reads what was written and makes it a layer.
    ///
    /// # Errors
    /// When it can't be read, named or recorded.
    pub fn commit(self, cancel: &Cancel) -> Result<Layer> {
        self.restore_form()?;
        let summary = crate::layer::diff::scan(self.fs.as_fd(), None, cancel)?;
        self.commit_as(&summary)
    }

    /// Makes it a layer that nobody reads but to look into it: its bytes are not looked at, and it has the name of no
    /// content, so that it is found by nothing but its record.
    ///
    /// # Errors
    /// When it can't be named or recorded.
    pub fn keep(self) -> Result<Layer> {
        self.restore_form()?;
        let dir = self.place()?;
        let tar_size = allocated(&self.store, &format!("layers/{dir}"))?;
        Unpacked { dir: &dir, tar_size, content: None, epoch: None }.insert(&self.store, unread(&dir))
    }

    /// Makes it a layer that was summed up while it was written.
    ///
    /// # Errors
    /// When it can't be named or recorded.
    pub fn commit_as(self, summary: &LayerSummary) -> Result<Layer> {
        let dir = self.place()?;
        Unpacked { dir: &dir, tar_size: summary.tar_size, content: Some(summary.content), epoch: None }
            .insert(&self.store, summary.diff_id)
    }

    /// Whoever writes by way of a mount of the directory may give its root an attribute by the name of ours.
    fn restore_form(&self) -> Result<()> {
        let restore = || match Marks::of(&self.fs)? {
            found if found == self.marks => Ok(()),
            found => found.take_off(&self.fs).and_then(|()| self.marks.declare(&self.fs)),
        };
        restore().map_err(Error::io("finishing", &self.path))
    }

    /// Moves the directory to its final place. Without a row that names it, it is litter that a collection removes.
    pub(super) fn place(&self) -> Result<String> {
        let name = unique_name()?;
        let (from, to) = (format!("{}/fs", self.path), format!("layers/{name}"));
        rustix::fs::renameat(self.store.dir(), &from, self.store.dir(), &to)
            .map_err(Error::io("naming layer", self.store.path().join(&to)))?;
        Ok(name)
    }

    /// Moves the directory to a place of the store (`caches/x`). False when something is there already.
    pub(crate) fn place_as(&self, to: &str) -> Result<bool> {
        match rustix::fs::renameat(self.store.dir(), format!("{}/fs", self.path), self.store.dir(), to) {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(errno) => Err(Error::io("naming", self.store.path().join(to))(errno)),
        }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Keeps the lease alive for as long as the directory is being filled.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for ActiveLayer {
    fn drop(&mut self) {
        let _ = remove_tree(&self.store, &self.path);
    }
}
