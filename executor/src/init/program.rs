//! The working directory and the program: found inside the root, by the user's own rights.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, openat, statat};
use rustix::io::Errno;

use super::mounts::{Mounts, Steps};
use super::{Failure, Identity, Outcome, Stage, at};
use crate::sys;
use crate::sys::exec::Strings;

#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) cwd: Steps,
    /// The paths to try, in order.
    pub(crate) candidates: Vec<CString>,
    /// The name had no slash: the candidates come from PATH.
    pub(crate) searched: bool,
    /// None of them is tried: what is executed is `init`, with its only arguments.
    pub(crate) own_shell: bool,
    pub(crate) args: Strings,
    pub(crate) env: Strings,
    /// Device and inode of our own executable, which no container may run: `/proc/self/exe` is us until the exec.
    pub(crate) ours: Option<(u64, u64)>,
    pub(crate) init: Option<Init>,
}

/// The first process that starts the program.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) binary: OwnedFd,
    /// Its arguments for each of the candidates.
    pub(crate) args: Vec<Strings>,
}

impl Program {
    /// False when it is not for root to enter, as on a network file system: then the user tries.
    pub(super) fn enter_cwd(&self, mounts: &Mounts, identity: &Identity) -> Outcome<bool> {
        let owner = identity.owns_cwd.then_some((identity.uid, identity.gid));
        let own = |fd: std::os::fd::BorrowedFd<'_>| match owner {
            Some((uid, gid)) => rustix::fs::chownat(fd, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH),
            None => Ok(()),
        };
        let fd = match self.cwd.open_or_create(mounts.root.as_fd(), FileType::Directory, own) {
            Err(Errno::ACCESS) => return Ok(false),
            result => result.map_err(at(Stage::Cwd, 0))?,
        };
        match rustix::process::fchdir(&fd) {
            Err(Errno::ACCESS) => return Ok(false),
            result => result.map_err(at(Stage::Cwd, 1))?,
        }
        self.check_cwd().map(|()| true)
    }

    pub(super) fn enter_cwd_as_user(&self, mounts: &Mounts) -> Outcome {
        let fd = self.cwd.open_or_create(mounts.root.as_fd(), FileType::Directory, |_| Ok(()));
        let fd = fd.map_err(at(Stage::Cwd, 2))?;
        rustix::process::fchdir(&fd).map_err(at(Stage::Cwd, 3))?;
        self.check_cwd()
    }

    /// The descriptor was resolved inside the root, so this can't fail; if it does, somebody found a way around.
    fn check_cwd(&self) -> Outcome {
        if sys::exec::cwd_is_below_root() { Ok(()) } else { Err(at(Stage::Cwd, 4)(Errno::XDEV)) }
    }

    /// Returns only when there is nothing to execute.
    pub(super) fn start(&self) -> Outcome {
        let (n, path) = if self.own_shell { (0, c"") } else { self.find()? };
        if !self.own_shell && self.is_ours(path, 4) {
            return Err(at(Stage::Executable, n)(Errno::ACCESS));
        }
        sys::signal::set_mask(sys::signal::Set::NONE).map_err(at(Stage::Exec, n))?;
        sys::fd::cloexec_from(3).map_err(at(Stage::Exec, n))?;
        let errno = match self.init.as_ref().and_then(|init| Some((&init.binary, init.args.get(n)?))) {
            Some((binary, args)) => sys::exec::execute(binary.as_fd(), args, &self.env),
            None => sys::exec::execve(path, &self.args, &self.env),
        };
        Err(at(Stage::Exec, n)(errno))
    }

    fn find(&self) -> Outcome<(usize, &CStr)> {
        let mut failure = at(Stage::Search, 0)(Errno::NOENT);
        for (n, path) in self.candidates.iter().enumerate() {
            match executable(path, n) {
                Ok(()) => return Ok((n, path)),
                Err(error) if !self.searched => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    /// Whether executing `path` would run our own binary, by itself or as the interpreter of a script.
    fn is_ours(&self, path: &CStr, depth: u32) -> bool {
        let Some(ours) = self.ours else { return false };
        let Ok(stat) = statat(CWD, path, AtFlags::empty()) else { return false };
        if (stat.st_dev, stat.st_ino) == ours {
            return true;
        }
        if depth == 0 || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return false;
        }
        let Ok(file) = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
        else {
            return false;
        };
        let mut head = [0u8; 257];
        let Ok(read) = rustix::io::read(&file, &mut head[..256]) else { return false };
        match interpreter(&mut head, read) {
            Some(interpreter) => self.is_ours(interpreter, depth - 1),
            None => false,
        }
    }
}

fn executable(path: &CStr, n: usize) -> Result<(), Failure> {
    let stat = statat(CWD, path, AtFlags::empty()).map_err(at(Stage::Stat, n))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(at(Stage::Executable, n)(Errno::ISDIR));
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::empty()).map_err(at(Stage::Executable, n))
}

/// What the kernel takes as interpreter from the first bytes of a script: the first word after `#!`.
fn interpreter(head: &mut [u8; 257], length: usize) -> Option<&CStr> {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let line = head.get(..length)?.strip_prefix(b"#!")?;
    let start = 2 + line.iter().take_while(|b| blank(b)).count();
    let word = head.get(start..length)?;
    let end = start + word.iter().position(|b| blank(b) || matches!(b, b'\n' | 0)).unwrap_or(word.len());
    *head.get_mut(end)? = 0;
    CStr::from_bytes_until_nul(head.get(start..)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_read_as_the_kernel_reads_them() {
        for (script, expected) in [
            ("#!/bin/sh\n", Some(c"/bin/sh")),
            ("#! \t/proc/self/exe run x\n", Some(c"/proc/self/exe")),
            ("#!/bin/sh", Some(c"/bin/sh")),
            ("\x7fELF", None),
        ] {
            let mut head = [0; 257];
            head[..script.len()].copy_from_slice(script.as_bytes());
            assert_eq!(interpreter(&mut head, script.len()), expected, "{script:?}");
        }
    }
}
