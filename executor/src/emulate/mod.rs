//! Programs of other machines: who runs them here, and what a container needs so that it can. The kernel starts an
//! emulator for them (`binfmt_misc`), which it opened when that was registered (flag F), or else looks for by its path in
//! the container: then it is bound there. Where none is registered, and our user namespace can have a list of its own
//! (Linux 6.7), one that is found on the search path is registered there, for as long as this process lives.

mod list;
mod machine;
mod own;

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use boxwright_cache::oci::Platform;
use rustix::fs::{FileType, Mode, OFlags, fstat};
use serde::{Deserialize, Serialize};

use crate::spec::{Bind, Mount, MountSource};
use list::Entry;
pub use machine::Machine;

/// Why programs of a machine may not run in containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lack {
    /// None is registered, nor on the search path under this name.
    Missing { name: String },
    /// It is there, and nobody told the kernel. The entry is what to write into `register`.
    Unregistered { program: PathBuf, entry: String },
    /// It is registered by a path where containers can't have it.
    Unusable { program: PathBuf, why: String },
}

/// A file that containers need at the path by which the kernel knows it.
#[derive(Debug)]
pub(crate) struct Interpreter {
    pub(crate) target: String,
    pub(crate) file: File,
}

/// What a container for `platform` has to have mounted. `path` is where emulators are looked for.
///
/// # Errors
/// What is lacking, if the kernel doesn't say that it has something. It may have: a list that is not mounted can't be
/// read, and an image may hold programs of this machine whatever it says. So a container should be tried nevertheless.
pub fn mounts(platform: &Platform, path: &OsStr) -> Result<Vec<Mount>, Lack> {
    let interpreters = interpreters(platform, path)?;
    let mount = |interpreter: Interpreter| Mount {
        target: interpreter.target,
        source: MountSource::Bind(Bind { recursive: false, ..Bind::from(OwnedFd::from(interpreter.file)) }),
        // It is the host's, and root in a container may be root of the host.
        read_only: true,
    };
    Ok(interpreters.into_iter().map(mount).collect())
}

pub(crate) fn interpreters(platform: &Platform, path: &OsStr) -> Result<Vec<Interpreter>, Lack> {
    let Some(machine) = Machine::of(platform) else { return Ok(Vec::new()) };
    // What every container would have to wait for is not asked for this machine itself.
    if machine.is_this() || own::has(machine) {
        return Ok(Vec::new());
    }
    let entries: Vec<Entry> = list::read().into_iter().filter(|entry| entry.runs(machine)).collect();
    if !entries.is_empty() {
        let needed: Result<Vec<_>, Lack> =
            entries.iter().filter(|entry| !entry.opened).map(interpreter).collect();
        return if needed.is_err() && own::register(path, machine) { Ok(Vec::new()) } else { needed };
    }
    if machine.is_native() || own::register(path, machine) {
        return Ok(Vec::new());
    }
    match find(machine, path) {
        Some((program, _)) => {
            let entry = machine.entry(&program.to_string_lossy());
            Err(Lack::Unregistered { program, entry })
        }
        None => Err(Lack::Missing { name: machine.emulator() }),
    }
}

fn interpreter(entry: &Entry) -> Result<Interpreter, Lack> {
    let program = Path::new(&entry.interpreter);
    let unusable = |why: String| Lack::Unusable { program: program.to_owned(), why };
    let file = open(program).map_err(|e| unusable(e.to_string()))?;
    match machine::is_static(&file) {
        Ok(true) => Ok(Interpreter { target: entry.interpreter.clone(), file }),
        Ok(false) => Err(unusable("it is not linked statically".to_owned())),
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// The first static emulator on the search path. A directory of the path that is relative is nobody's.
fn find(machine: &Machine, path: &OsStr) -> Option<(PathBuf, File)> {
    let dirs = std::env::split_paths(path).filter(|dir| dir.is_absolute());
    let names = [machine.emulator(), machine.emulator().trim_end_matches("-static").to_owned()];
    let programs = dirs.flat_map(|dir| names.clone().map(|name| dir.join(name)));
    programs.filter_map(|program| Some((open(&program).ok()?, program))).find_map(|(file, program)| {
        let usable = is_executable(&file) && machine::is_static(&file).is_ok_and(|is| is);
        usable.then_some((program, file))
    })
}

/// Nobody writes to a FIFO for our sake, and a device could do anything when it is opened: the type is looked at before.
fn open(program: &Path) -> std::io::Result<File> {
    let place = rustix::fs::open(program, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&place)?.st_mode) != FileType::RegularFile {
        return Err(std::io::Error::other("it is no file"));
    }
    let again = format!("/proc/self/fd/{}", place.as_raw_fd());
    Ok(rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?.into())
}

fn is_executable(file: &File) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_on_the_search_path_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("qemu-s390x-static");
        let machine = Machine::of(&"linux/s390x".parse().unwrap()).unwrap();
        let found = || find(machine, dir.path().as_os_str()).map(|(path, _)| path);
        let mode = Mode::from_raw_mode(0o777);
        rustix::fs::mknodat(rustix::fs::CWD, &place, FileType::Fifo, mode, 0).unwrap();
        assert_eq!(found(), None);
        std::fs::remove_file(&place).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &place).unwrap();
        assert_eq!(found(), None);
        std::fs::remove_file(&place).unwrap();
        std::fs::copy("/proc/self/exe", &place).unwrap();
        assert_eq!(found(), Some(place));
    }
}
