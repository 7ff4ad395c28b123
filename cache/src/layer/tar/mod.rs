//! The tar format: a strict reader of ustar, PAX and GNU archives, and a writer whose output depends on the entries
//! alone (POSIX.1-2017, pax, "ustar Interchange Format" and "pax Interchange Format").

mod header;
mod pax;
mod reader;
mod writer;

pub use reader::{Entry, EntryKind, Limits, Reader, clean_path};
pub use writer::Writer;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
