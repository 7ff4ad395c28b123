//! One 512-byte header block: its fields and its checksum. Names and sizes that extended headers override are the
//! reader's business.

use crate::layer::sink::Timestamp;

/// What headers and contents are padded to, in bytes.
pub const BLOCK: usize = 512;

/// Whether the block has the checksum of a header.
pub fn is_header(block: &[u8; BLOCK]) -> bool {
    block.iter().any(|b| *b != 0) && Header(block).check().is_ok()
}

/// Why a header is refused.
pub(super) type Reason = String;

pub(super) struct Header<'a>(pub(super) &'a [u8; BLOCK]);

impl<'a> Header<'a> {
    /// # Errors
    /// When the checksum is not that of the block: then it is no header at all.
    pub(super) fn check(&self) -> Result<(), Reason> {
        let told =
            number(&self.0[148..156]).map_err(|_| "a header was expected, and this is none".to_owned())?;
        let with_blanks =
            |sum: i64, at: usize, byte: u8| sum + if (148..156).contains(&at) { 32 } else { byte.into() };
        let unsigned = self.0.iter().enumerate().fold(0, |sum, (at, byte)| with_blanks(sum, at, *byte));
        // Old archivers summed signed bytes; both sums have always been accepted.
        let high: i64 =
            self.0.iter().enumerate().filter(|(at, b)| !(148..156).contains(at) && **b >= 128).count() as i64;
        if told == unsigned || told == unsigned - 256 * high {
            Ok(())
        } else {
            Err("a header was expected, and its checksum is wrong".into())
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Whether it is of the POSIX format, and not an older one or GNU's.
    pub(super) fn is_posix(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    /// The name with the prefix of the POSIX format.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = if self.is_posix() { text(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link_name(&self) -> &'a [u8] {
        text(&self.0[157..257])
    }

    pub(super) fn size(&self) -> Result<u64, Reason> {
        unsigned(&self.0[124..136], "size")
    }

    pub(super) fn mode(&self) -> Result<u32, Reason> {
        // Writers put file type bits here as well.
        Ok((unsigned(&self.0[100..108], "mode")? & 0o7777) as u32)
    }

    pub(super) fn uid(&self) -> Result<u64, Reason> {
        unsigned(&self.0[108..116], "uid")
    }

    pub(super) fn gid(&self) -> Result<u64, Reason> {
        unsigned(&self.0[116..124], "gid")
    }

    pub(super) fn mtime(&self) -> Result<Timestamp, Reason> {
        let secs = number(&self.0[136..148]).map_err(|()| "bad mtime".to_owned())?;
        Ok(Timestamp { secs, nanos: 0 })
    }

    pub(super) fn device(&self) -> Result<(u32, u32), Reason> {
        let part = |field: &[u8]| {
            u32::try_from(unsigned(field, "device number")?)
                .map_err(|_| "device number out of range".to_owned())
        };
        Ok((part(&self.0[329..337])?, part(&self.0[337..345])?))
    }
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

fn unsigned(field: &[u8], what: &str) -> Result<u64, Reason> {
    number(field).ok().and_then(|n| u64::try_from(n).ok()).ok_or_else(|| format!("bad {what}"))
}

/// Octal digits between blanks, or GNU's base 256 with the top bit set. An empty field is zero.
fn number(field: &[u8]) -> Result<i64, ()> {
    if field[0] & 0x80 != 0 {
        return base256(field);
    }
    let digits = field.split(|b| *b == 0).next().unwrap_or_default().trim_ascii();
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).and_then(|v| v.checked_add(i64::from(digit - b'0'))).ok_or(()),
        _ => Err(()),
    })
}

fn base256(field: &[u8]) -> Result<i64, ()> {
    let negative = field[0] & 0x40 != 0;
    let first = if negative { i128::from(field[0]) - 256 } else { i128::from(field[0] & 0x7f) };
    let value = field[1..].iter().try_fold(first, |value, byte| {
        let value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
        i64::try_from(value).ok().map(i128::from)
    });
    value.and_then(|v| i64::try_from(v).ok()).ok_or(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Ok(0));
        assert_eq!(number(b"77777777777\0"), Ok(0o77777777777));
        assert_eq!(number(&[0x80, 0, 0, 0, 1, 0, 0, 0]), Ok(1 << 24));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        for bad in [&b"0000648\0"[..], b"-1\0", b"1 1", &[0x8f; 12], &[0x81; 40]] {
            assert_eq!(number(bad), Err(()), "{bad:?}");
        }
    }
}
