//! What is done where there is no overlay: a container in a copy of its layers, of which what it changed is left.

use std::os::fd::AsFd;
use std::path::Path;

use boxwright_cache::Cancel;
use boxwright_cache::snapshot::Marks;
use boxwright_cache::snapshot::copy::Copied;
use rustix::fs::{AtFlags, statat};
use rustix::mount::MountAttrFlags;

use super::Answer;
use super::child::attempt_in_namespace;
use super::overlay::{bottom, change, open};
use super::scratch::Scratch;
use crate::rootfs::bind_alone;

/// Changes, removes and replaces what is in a copy on the store's file system.
///
/// # Errors
/// Which of that failed, and what the kernel says.
pub fn copies(store: &Path) -> Answer {
    attempt_in_namespace(0, || {
        let scratch = Scratch::below(store)?;
        let layer = open(&bottom(&scratch)?)?;
        let (copy, work) = (open(&scratch.dir("copy")?)?, open(&scratch.dir("list")?)?);
        let marks = Marks::possible(work.as_fd()).ok_or("no file can be marked as removed")?;
        marks.declare(&copy).map_err(|errno| format!("marking a layer: {errno}"))?;
        let said = |error: boxwright_cache::Error| error.to_string();
        let cancel = Cancel::new().map_err(said)?;
        let copied = Copied::new(vec![layer], copy.as_fd(), work.as_fd(), &cancel).map_err(said)?;
        let root = bind_alone(copy.as_fd(), MountAttrFlags::MOUNT_ATTR_NODEV).map_err(|e| e.to_string())?;
        change(&root).map_err(|(doing, errno)| format!("{doing} in the copy: {errno}"))?;
        copied.reduce(&cancel).map_err(said)?;
        let gone = statat(&copy, c"gone", AtFlags::SYMLINK_NOFOLLOW);
        match gone.and_then(|stat| marks.is_whiteout_at(&copy, c"gone", &stat)) {
            Ok(true) => Ok(()),
            _ => Err("removing a file in a copy leaves no mark".to_owned()),
        }
    })
}
