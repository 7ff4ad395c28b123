//! The tar format: a strict reader of ustar, PAX and GNU archives, and a writer whose output depends on the entries
//! alone (POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format").

mod header;
mod pax;
mod reader;
mod writer;

pub use header::{BLOCK, is_header};
pub use reader::{Entry, EntryKind, Limits, Reader, clean_path};
pub use writer::Writer;

use super::Compression;

/// Whether a stream that starts so ([`BLOCK`] bytes of it, where there are so many) is to be read as an archive: it is
/// compressed, or has a header.
pub fn is_archive(start: &[u8]) -> bool {
    Compression::detect(start) != Compression::None || start.first_chunk().is_some_and(is_header)
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
