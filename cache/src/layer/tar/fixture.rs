//! Archives for tests, byte by byte: what honest writers make, and what they would never make.

use super::header::BLOCK;
use super::pax::push_record;

/// Collects raw blocks.
#[derive(Default)]
pub(crate) struct Raw(Vec<u8>);

impl Raw {
    pub(crate) fn new() -> Raw {
        Raw::default()
    }

    /// A header whose checksum is right, after `change` had its way with it, and the padded content.
    pub(crate) fn header(
        mut self,
        kind: u8,
        name: &str,
        link: &str,
        content: &[u8],
        change: impl FnOnce(&mut [u8; BLOCK]),
    ) -> Raw {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, if kind == b'5' { b"0000755\0" } else { b"0000644\0" });
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, b"00000000000\0");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        change(&mut block);
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self.blocks(content)
    }

    pub(crate) fn entry(self, kind: u8, name: &str, link: &str, content: &[u8]) -> Raw {
        self.header(kind, name, link, content, |_| ())
    }

    pub(crate) fn dir(self, name: &str) -> Raw {
        self.entry(b'5', name, "", b"")
    }

    pub(crate) fn file(self, name: &str, content: &str) -> Raw {
        self.entry(b'0', name, "", content.as_bytes())
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Raw {
        self.entry(b'2', name, target, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Raw {
        self.entry(b'1', name, target, b"")
    }

    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Raw {
        let mut content = Vec::new();
        for (key, value) in records {
            push_record(&mut content, key.as_bytes(), value);
        }
        self.entry(b'x', "PaxHeaders/x", "", &content)
    }

    /// Bytes padded to whole blocks.
    pub(crate) fn blocks(mut self, bytes: &[u8]) -> Raw {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    pub(crate) fn unfinished(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK]);
        self.0
    }
}
