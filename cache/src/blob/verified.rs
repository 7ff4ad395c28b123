//! A blob on its way from somebody who may send anything.

use std::io::{self, Read};

use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::oci::Descriptor;

/// Reads a blob; at its end, and only there, it is known to have had the right size and digest. Errors are
/// [`crate::Error`] inside an [`io::Error`].
pub(crate) struct Verified<R> {
    source: R,
    blob: Descriptor,
    read: u64,
    /// Gone once the digest has been compared.
    hasher: Option<Hasher>,
}

impl<R> std::fmt::Debug for Verified<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.blob.digest, self.read)
    }
}

impl<R: Read> Verified<R> {
    pub(crate) fn new(source: R, blob: &Descriptor) -> Verified<R> {
        let hasher = Some(blob.digest.algorithm().hasher());
        Verified { source, blob: blob.clone(), read: 0, hasher }
    }

    /// Called when the bytes are over: compares the digest, once.
    fn finish(&mut self) -> Result<()> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        if self.read != self.blob.size {
            return Err(wrong_size(&self.blob, self.read));
        }
        let actual = hasher.finish();
        if actual == self.blob.digest {
            return Ok(());
        }
        let (expected, actual) = (self.blob.digest.to_string(), actual.to_string());
        Err(Error::Mismatch { what: "digest of a fetched blob".to_owned(), expected, actual })
    }
}

pub(crate) fn wrong_size(blob: &Descriptor, actual: u64) -> Error {
    Error::Mismatch {
        what: format!("size of blob {}", blob.digest),
        expected: format!("{} bytes", blob.size),
        actual: format!("{actual} bytes"),
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let n = self.source.read(buffer)?;
        if n == 0 {
            return self.finish().map(|()| 0).map_err(io::Error::other);
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        self.read += n as u64;
        if self.read > self.blob.size {
            return Err(io::Error::other(wrong_size(&self.blob, self.read)));
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn read(bytes: &[u8], promised: &[u8]) -> String {
        let blob = Descriptor::new("", Digest::of(promised), promised.len() as u64);
        let mut out = Vec::new();
        match Verified::new(bytes, &blob).read_to_end(&mut out) {
            Ok(_) => format!("read {}", String::from_utf8(out).unwrap()),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn only_what_was_promised_is_read_to_its_end() {
        assert_eq!(read(b"abc", b"abc"), "read abc");
        assert_eq!(read(b"", b""), "read ");
        assert!(read(b"abd", b"abc").starts_with("digest of a fetched blob"));
        for other in [&b"ab"[..], b"", b"abcd"] {
            assert!(
                read(other, b"abc").starts_with("size of blob sha256:ba7816bf"),
                "{}",
                read(other, b"abc")
            );
        }
    }
}
