//! A list of emulators of our own: a user namespace that we made may have one, which hides the machine's (Linux 6.7).

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Dir, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::machine::{MACHINES, Machine, is_static};
use super::{find, list, open};
use crate::{dev, idmap, rootfs, sys};

/// The list, and whom it has an entry for. The entries go with the last descriptor of it.
#[derive(Debug)]
struct Own {
    list: OwnedFd,
    machines: Vec<&'static Machine>,
    /// All that is in it, as it was made.
    made: Vec<(String, String)>,
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

/// Ends the list with what containers that may mount have written into it.
pub(super) fn forget() {
    drop(own().take());
}

/// The same, unless it is as it was made, with entries of ours alone.
pub(super) fn forget_if_changed() {
    let mut own = own();
    let is_ours = |list: &Own| list.has_only_ours() && contents(&list.list).is_ok_and(|now| now == list.made);
    if !own.as_ref().and_then(Option::as_ref).is_some_and(is_ours) {
        drop(own.take());
    }
}

/// The files of a list with what is in them; but for `register`, which can't be read.
fn contents(list: &OwnedFd) -> rustix::io::Result<Vec<(String, String)>> {
    let top = openat(list, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut found = Vec::new();
    for entry in Dir::read_from(&top)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if matches!(name.as_str(), "." | ".." | "register") {
            continue;
        }
        let file = openat(&top, name.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let text = std::io::read_to_string(File::from(file));
        found.push((name, text.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?));
    }
    found.sort();
    Ok(found)
}

impl Own {
    /// A container that could mount may have been there before.
    fn has_only_ours(&self) -> bool {
        let ours = |name: &str| self.machines.iter().any(|machine| machine.entry_name() == name);
        self.made.iter().all(|(name, _)| name == "status" || ours(name))
    }
}

/// The same, after a list was made if it can be. It is made once, for all machines: those that the machine's own list
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
    let made = contents(&list).map_err(crate::Error::io("reading", "binfmt_misc"))?;
    Ok(Own { list, machines, made })
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
