//! Bytes that are remembered while a layer is read or written: there may be a hundred mebibytes of them, in several layers at
//! once, so most of them wait in a file without a name.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Result, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Mode, OFlags};

/// As much is in memory.
const PIECE: usize = 1 << 20;

#[derive(Debug, Default)]
pub(super) struct Spill {
    /// What came before `tail`.
    file: Option<File>,
    written: u64,
    tail: Vec<u8>,
    /// Some file systems have no files without names, or no room.
    in_memory: bool,
}

impl Spill {
    pub(super) fn len(&self) -> u64 {
        self.written + self.tail.len() as u64
    }

    /// Appends a record; says where it begins. `root` is a directory in whose file system there may be room.
    pub(super) fn push(&mut self, root: impl AsFd, record: &[u8]) -> u64 {
        let at = self.len();
        self.tail.extend_from_slice(record);
        if self.tail.len() >= PIECE && !self.in_memory {
            self.in_memory = self.spill(root).is_err();
        }
        at
    }

    fn spill(&mut self, root: impl AsFd) -> Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                rustix::fs::openat(root, ".", flags, Mode::RUSR | Mode::WUSR)?.into()
            }
        };
        let written = file.write_all_at(&self.tail, self.written);
        self.file = Some(file);
        written?;
        self.written += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }

    /// Reads a part of one record.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        match (&self.file, at.checked_sub(self.written)) {
            (Some(file), None) => file.read_exact_at(buffer, at),
            (_, at) => {
                let at = usize::try_from(at.unwrap_or(0)).unwrap_or(usize::MAX);
                self.tail.get(at..).unwrap_or_default().read_exact(buffer)
            }
        }
    }

    /// All of it, in order.
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn reader(&self) -> Result<impl BufRead + '_> {
        all(self.file.as_ref(), self.written, &self.tail[..])
    }

    /// As [`Spill::reader`].
    ///
    /// # Errors
    /// When the file can't be read.
    pub(super) fn into_reader(self) -> Result<impl BufRead> {
        all(self.file, self.written, self.tail)
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.tail.capacity()
    }
}

fn all<'a>(
    file: Option<impl Read + Seek + 'a>,
    written: u64,
    tail: impl AsRef<[u8]> + 'a,
) -> Result<impl BufRead + 'a> {
    let file: Box<dyn BufRead + 'a> = match file {
        Some(mut file) => {
            file.rewind()?;
            Box::new(BufReader::new(file.take(written)))
        }
        None => Box::new(Cursor::new([])),
    };
    Ok(file.chain(Cursor::new(tail)))
}
