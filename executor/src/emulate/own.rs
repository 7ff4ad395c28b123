//! A list of emulators of our own: a user namespace that we made may have one, which hides the machine's (Linux 6.7).

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::MountAttrFlags;

use super::machine::{MACHINES, Machine, is_static};
use super::{find, list, open};
use crate::{dev, idmap, rootfs, sys};

/// The list, and whom it has an entry for. The entries go with the last descriptor of it.
#[derive(Debug)]
struct Own {
    _list: OwnedFd,
    machines: Vec<&'static Machine>,
}

/// None before it is tried, and then what came of it.
static OWN: Mutex<Option<Option<Own>>> = Mutex::new(None);

fn own() -> MutexGuard<'static, Option<Option<Own>>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether programs of `machine` are run by an emulator of our own list.
pub(super) fn has(machine: &'static Machine) -> bool {
    own().as_ref().and_then(Option::as_ref).is_some_and(|own| own.machines.contains(&machine))
}

/// Whether it has, after a list was made if it can be. It is made once, for all machines: those that the machine's own list
/// has are lost by it, so they are taken over where we can open what is meant.
pub(super) fn register(path: &OsStr, machine: &'static Machine) -> bool {
    if idmap::entered() && find(machine, path).is_some() {
        own().get_or_insert_with(|| make(path).ok());
    }
    has(machine)
}

fn make(path: &OsStr) -> crate::Result<Own> {
    // Whom the machine's own list has comes from there, before that is hidden.
    let known = list::read();
    let taken = |machine: &Machine| {
        let entry = known.iter().find(|entry| entry.runs(machine))?;
        open(entry.interpreter.as_ref()).ok().filter(|file| is_static(file).is_ok_and(|is| is))
    };
    let found = MACHINES.iter().filter(|machine| !machine.is_native()).filter_map(|machine| {
        let file = taken(machine).or_else(|| find(machine, path).map(|(_, file)| file))?;
        Some((machine, file))
    });
    let found: Vec<_> = found.collect();
    let list = rootfs::filesystem(c"binfmt_misc", &[], MountAttrFlags::empty())?;
    let entered =
        |(machine, file): (&'static Machine, File)| add(&list, machine, &file).ok().map(|()| machine);
    let machines = found.into_iter().filter_map(entered).collect();
    Ok(Own { _list: list, machines })
}

/// The kernel opens the emulator now, from a mount that can't be written: a container could reach the file by way of
/// `/proc/PID/exe`, and it may be the user's.
fn add(list: &OwnedFd, machine: &Machine, file: &File) -> rustix::io::Result<()> {
    let mount = dev::bind(file, false)?;
    sys::mount::add_attributes(mount.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, false)?;
    let register = openat(list, c"register", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let entry = machine.entry(&format!("/proc/self/fd/{}", mount.as_raw_fd()));
    rustix::io::write(&register, entry.as_bytes()).map(drop)
}
