//! Numbers and strings of bytes one after the other, and what is made of them: metadata, paths.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use boxwright_cache::layer::{Metadata, NodeKind, Timestamp};

use super::kept::Keep;

/// What keeping an attribute takes besides its name and value.
const ATTRIBUTE: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Packed(Vec<u8>);

/// Reads what [`Packed`] has, in the same order; none where there is nothing left.
#[derive(Debug)]
pub(super) struct Unpacked<'a>(&'a [u8]);

impl Packed {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Seven bits a byte, the lowest first.
    pub(super) fn number(&mut self, number: impl Into<u64>) {
        let mut rest = number.into();
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    pub(super) fn string(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn metadata(&mut self, meta: &Metadata) {
        let Metadata { mode, uid, gid, mtime, xattrs } = meta;
        [*mode, *uid, *gid, mtime.nanos].into_iter().for_each(|n| self.number(n));
        self.number(mtime.secs.cast_unsigned());
        self.number(xattrs.len() as u64);
        for (name, value) in xattrs {
            self.string(name);
            self.string(value);
        }
    }

    pub(super) fn node(&mut self, kind: NodeKind) {
        let (tag, major, minor) = match kind {
            NodeKind::Fifo => (0_u32, 0, 0),
            NodeKind::Char { major, minor } => (1, major, minor),
            NodeKind::Block { major, minor } => (2, major, minor),
        };
        [tag, major, minor].into_iter().for_each(|n| self.number(n));
    }
}

impl<'a> Unpacked<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Unpacked<'a> {
        Unpacked(bytes)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.0.split_off_first()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    pub(super) fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.0.split_off(..length)
    }

    pub(super) fn metadata(&mut self) -> Option<Metadata> {
        let (mode, uid, gid, nanos) = (self.small()?, self.small()?, self.small()?, self.small()?);
        let mtime = Timestamp { secs: self.number()?.cast_signed(), nanos };
        let count = self.number()?;
        let attribute = |_| Some((self.string()?.to_vec(), self.string()?.to_vec()));
        let xattrs = (0..count).map(attribute).collect::<Option<_>>()?;
        Some(Metadata { mode, uid, gid, mtime, xattrs })
    }

    pub(super) fn node(&mut self) -> Option<NodeKind> {
        let (tag, major, minor) = (self.small()?, self.small()?, self.small()?);
        Some(match tag {
            0 => NodeKind::Fifo,
            1 => NodeKind::Char { major, minor },
            2 => NodeKind::Block { major, minor },
            _ => return None,
        })
    }
}

impl Keep for Metadata {
    type Aside = ();

    fn weight(&self) -> usize {
        self.xattrs.iter().map(|(name, value)| ATTRIBUTE + name.len() + value.len()).sum()
    }

    fn pack(&self, to: &mut Packed, (): &mut ()) {
        to.metadata(self);
    }

    fn unpack(from: &mut Unpacked<'_>, (): &()) -> Option<Metadata> {
        from.metadata()
    }
}

impl Keep for PathBuf {
    type Aside = ();

    fn weight(&self) -> usize {
        self.as_os_str().len()
    }

    fn pack(&self, to: &mut Packed, (): &mut ()) {
        to.string(self.as_os_str().as_bytes());
    }

    fn unpack(from: &mut Unpacked<'_>, (): &()) -> Option<PathBuf> {
        Some(OsString::from_vec(from.string()?.to_vec()).into())
    }
}
