//! Whether a place is on a mount that is shared with the host: what is attached there, the host gets as well, and keeps.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, read};

use super::mounts::fd_path;

/// By the host's procfs, which is still there.
pub(super) fn is_shared(place: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut buffer = [0u8; 1024];
    let mut path = [0u8; 32];
    let about = open(fd_path(&mut path, b"/proc/self/fdinfo/", place.as_raw_fd()))?;
    let length = read(&about, &mut buffer)?;
    let id = mount_id(buffer.get(..length).unwrap_or_default()).ok_or(Errno::INVAL)?;
    let mounts = open(c"/proc/self/mountinfo")?;
    let mut search = Search::of(id);
    loop {
        match read(&mounts, &mut buffer)? {
            // A mount that nothing is known about is none to attach to.
            0 => return Err(Errno::INVAL),
            length => {
                let mut bytes = buffer.iter().take(length);
                if let Some(shared) = bytes.find_map(|byte| search.next(*byte)) {
                    return Ok(shared);
                }
            }
        }
    }
}

fn open(path: &CStr) -> Result<std::os::fd::OwnedFd, Errno> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

fn mount_id(about: &[u8]) -> Option<u64> {
    let line = about.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"mnt_id:"))?;
    let digits = line.trim_ascii();
    (!digits.is_empty()).then(|| digits.iter().fold(0, |number, digit| append(number, *digit)))
}

fn append(number: u64, digit: u8) -> u64 {
    number.wrapping_mul(10).wrapping_add(u64::from(digit.wrapping_sub(b'0')))
}

/// Reads `mountinfo` byte by byte, as there is no room for all of it.
struct Search {
    wanted: u64,
    id: u64,
    /// How many fields of the line are over.
    field: usize,
    /// How the field begins, and its length.
    word: [u8; 7],
    length: usize,
    /// The optional fields are over.
    past: bool,
    shared: bool,
}

impl Search {
    fn of(wanted: u64) -> Search {
        Search { wanted, id: 0, field: 0, word: [0; 7], length: 0, past: false, shared: false }
    }

    /// At the end of the line of the mount, whether it is shared.
    fn next(&mut self, byte: u8) -> Option<bool> {
        match byte {
            b' ' => self.end_field(),
            b'\n' => {
                let found = (self.id == self.wanted && self.field > 0).then_some(self.shared);
                *self = Search::of(self.wanted);
                return found;
            }
            byte => {
                if self.field == 0 {
                    self.id = append(self.id, byte);
                }
                if let Some(place) = self.word.get_mut(self.length) {
                    *place = byte;
                }
                self.length = self.length.saturating_add(1);
            }
        }
        None
    }

    /// Six fields, then any number of optional ones up to a hyphen.
    fn end_field(&mut self) {
        if self.field >= 6 && !self.past {
            self.past = self.length == 1 && self.word[0] == b'-';
            self.shared |= self.length > 7 && self.word == *b"shared:";
        }
        (self.field, self.length) = (self.field.saturating_add(1), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_mount_tells() {
        let mounts = b"21 1 8:1 / / rw,noatime shared:1 - ext4 /dev/sda1 rw\n\
            22 21 0:5 / /a rw master:2 propagate_from:1 - tmpfs shared:9 rw\n\
            122 21 0:5 / /shared:1 rw - tmpfs shared:9 rw\n\
            23 21 0:6 / /b rw master:3 shared:12 - tmpfs none rw\n";
        let shared = |id| {
            let mut search = Search::of(id);
            mounts.iter().find_map(|byte| search.next(*byte))
        };
        assert_eq!(shared(21), Some(true));
        assert_eq!(shared(22), Some(false));
        assert_eq!(shared(122), Some(false));
        assert_eq!(shared(23), Some(true));
        assert_eq!(shared(2), None);
    }

    #[test]
    fn the_id_is_a_line_of_its_own() {
        assert_eq!(mount_id(b"pos:\t0\nflags:\t012000000\nmnt_id:\t1204\nino:\t7\n"), Some(1204));
        assert_eq!(mount_id(b"pos:\t0\nmnt_id:\t\n"), None);
        assert_eq!(mount_id(b""), None);
    }

    #[test]
    fn a_pipe_is_on_no_mount_that_is_listed() {
        let (reading, _writing) = rustix::pipe::pipe().unwrap();
        assert_eq!(is_shared(std::os::fd::AsFd::as_fd(&reading)), Err(Errno::INVAL));
        let root = open(c"/").unwrap();
        assert!(is_shared(std::os::fd::AsFd::as_fd(&root)).is_ok());
    }
}
