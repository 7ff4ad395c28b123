//! Reading gzip streams that are made of small members, as [`super::Packer`] writes them: each is inflated at once, in half
//! the time that a stream takes. Whatever looks otherwise is read as a stream.

use std::io::{BufReader, Chain, Cursor, Read, Result};
use std::ops::Range;

use flate2::bufread::MultiGzDecoder;
use libdeflater::Decompressor;
use memchr::memmem::Finder;

use super::BUFFER;

/// What a full member holds, and any member at most.
const PLAIN: usize = 1 << 20;
/// A member is no larger: what can't be compressed grows by five bytes for each 65,535, and by its frame.
const MOST: usize = PLAIN + (1 << 12);
const HEADER: usize = 10;
/// Checksum and size of what was compressed.
const FOOTER: usize = 8;
/// Where a full member ends and another one begins: its size, and a header without name, flags and time.
const SEAM: [u8; 12] = [0, 0, 0x10, 0, 0x1f, 0x8b, 8, 0, 0, 0, 0, 0];
/// How each member begins, of whoever made it.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// So much of the seam belongs to the member that ends.
const SIZE: usize = 4;

/// The content of a gzip stream. Bytes between the data of a member and its footer are not noticed, unless they may be members.
pub(super) enum Members<R> {
    Apart(Apart<R>),
    /// From the first member on that was none of ours.
    Stream(MultiGzDecoder<BufReader<Chain<Cursor<Vec<u8>>, R>>>),
    Ended,
}

pub(super) struct Apart<R> {
    source: R,
    /// What was read and not inflated yet. It begins with a member.
    packed: Vec<u8>,
    /// How much of it was searched for a seam.
    searched: usize,
    seam: Finder<'static>,
    magic: Finder<'static>,
    inflate: Decompressor,
    /// What was inflated last.
    plain: Vec<u8>,
    left: Range<usize>,
}

impl<R: Read> Members<R> {
    pub(super) fn new(source: R) -> Members<R> {
        Members::Apart(Apart {
            source,
            packed: Vec::new(),
            searched: 0,
            seam: Finder::new(&SEAM),
            magic: Finder::new(&MAGIC),
            inflate: Decompressor::new(),
            plain: Vec::new(),
            left: 0..0,
        })
    }
}

impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self {
                Members::Ended => return Ok(0),
                Members::Stream(stream) => return stream.read(buffer),
                Members::Apart(apart) if !apart.left.is_empty() => return Ok(apart.give(buffer)),
                Members::Apart(apart) => {
                    let member = apart.member()?;
                    if member.is_some_and(|end| apart.inflate(end)) {
                        continue;
                    }
                    let Members::Apart(apart) = std::mem::replace(self, Members::Ended) else { return Ok(0) };
                    if !apart.packed.is_empty() {
                        let rest = Cursor::new(apart.packed).chain(apart.source);
                        *self = Members::Stream(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, rest)));
                    }
                }
            }
        }
    }
}

impl<R: Read> Apart<R> {
    fn give(&mut self, buffer: &mut [u8]) -> usize {
        let n = buffer.len().min(self.left.len());
        buffer[..n].copy_from_slice(&self.plain[self.left.start..][..n]);
        self.left.start += n;
        n
    }

    /// Where the next member ends, if it looks like one.
    fn member(&mut self) -> Result<Option<usize>> {
        loop {
            if let Some(at) = self.seam.find(&self.packed[self.searched..]) {
                return Ok(Some(self.searched + at + SIZE));
            }
            self.searched = self.packed.len().saturating_sub(SEAM.len() - 1);
            if self.packed.len() > MOST + SEAM.len() {
                return Ok(None);
            }
            // Without the zeros that a buffer for `read` would be filled with each time.
            if (&mut self.source).take(BUFFER as u64).read_to_end(&mut self.packed)? == 0 {
                return Ok((!self.packed.is_empty()).then_some(self.packed.len()));
            }
        }
    }

    /// Inflates the first `end` bytes as a member; says whether they were one.
    fn inflate(&mut self, end: usize) -> bool {
        let member = &self.packed[..end];
        if end < HEADER + FOOTER || !member.starts_with(&SEAM[SIZE..]) {
            return false;
        }
        let (data, footer) = member[HEADER..].split_at(end - HEADER - FOOTER);
        let (sum, size) = footer.split_at(SIZE);
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("the footer is two numbers"));
        let size = number(size) as usize;
        if size > PLAIN {
            return false;
        }
        self.plain.resize(PLAIN, 0);
        let plain = &mut self.plain[..size];
        // A size that is wrong either way is not that of a member.
        if self.inflate.deflate_decompress(data, plain) != Ok(size)
            || libdeflater::crc32(plain) != number(sum)
        {
            return false;
        }
        // What is not needed would be members of their own, which no seam is before.
        if self.magic.find(data).is_some()
            && self.inflate.deflate_decompress(&data[..data.len() - 1], plain) == Ok(size)
        {
            return false;
        }
        self.left = 0..size;
        self.packed.drain(..end);
        self.searched = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::tests::sample;
    use super::super::{Packer, Packing};
    use super::*;

    fn packed(data: &[u8]) -> Vec<u8> {
        let mut writer = Packer::new(Vec::new(), Packing::Gzip(1));
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    }

    /// What is read, and whether all of it was read by members.
    fn read(bytes: &[u8]) -> (Result<Vec<u8>>, bool) {
        let (mut members, mut out) = (Members::new(bytes), Vec::new());
        let result = members.read_to_end(&mut out);
        (result.map(|_| out), matches!(members, Members::Ended))
    }

    fn stream(bytes: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        MultiGzDecoder::new(bytes).read_to_end(&mut out).map(|_| out)
    }

    fn noise(size: usize) -> Vec<u8> {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..size).map(|_| next()).collect()
    }

    #[test]
    fn what_was_compressed_here_is_read_by_members() {
        for data in [vec![], sample(1), sample(PLAIN), sample(2 * PLAIN + 7), noise(2 * PLAIN + 7)] {
            let (found, by_members) = read(&packed(&data));
            assert!(found.unwrap() == data && by_members, "{} bytes", data.len());
        }
    }

    #[test]
    fn what_others_compressed_is_read_as_a_stream() {
        let data = sample(3 * PLAIN + 7);
        let mut whole = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        whole.write_all(&data).unwrap();
        let whole = whole.finish().unwrap();
        let (found, by_members) = read(&whole);
        assert!(found.unwrap() == data && !by_members);
        let mixed = [packed(&data), whole, packed(&data)].concat();
        let (found, by_members) = read(&mixed);
        assert!(found.unwrap() == data.repeat(3) && !by_members);
    }

    /// A layer may hold, uncompressible, what looks like the seam between two members.
    #[test]
    fn a_seam_within_a_member_is_none() {
        let mut data = noise(PLAIN + 5);
        data[5000..5000 + SEAM.len()].copy_from_slice(&SEAM);
        let bytes = packed(&data);
        assert!(bytes.windows(SEAM.len()).filter(|w| *w == SEAM).count() == 2);
        let (found, by_members) = read(&bytes);
        assert!(found.unwrap() == data && !by_members);
    }

    #[test]
    fn members_that_no_seam_separates_are_all_read() {
        // With a time in its header, so that it is behind no seam.
        let dated = |data: &[u8]| {
            let mut bytes = packed(data);
            bytes[4] = 1;
            bytes
        };
        let (small, zeros) = (sample(1000), vec![0; PLAIN]);
        let cases = [
            vec![packed(&small), packed(&small)],
            vec![packed(&[]), packed(&small), packed(&[])],
            vec![packed(&zeros), dated(&zeros), packed(&zeros)],
            vec![packed(&small), dated(&small), packed(&zeros), packed(&[])],
        ];
        for case in cases {
            let bytes = case.concat();
            assert!(read(&bytes).0.unwrap() == stream(&bytes).unwrap());
        }
    }

    #[test]
    fn what_is_cut_or_changed_is_refused_as_in_a_stream() {
        let data = sample(2 * PLAIN + 7);
        let bytes = packed(&data);
        let first = packed(&data[..PLAIN]).len();
        for cut in [1, 9, 17, first - 9, first - 1, first + 3, first + 500, bytes.len() - 1] {
            let (found, expected) = (read(&bytes[..cut]).0, stream(&bytes[..cut]));
            assert_eq!(found.unwrap_err().kind(), expected.unwrap_err().kind(), "cut at {cut}");
        }
        for at in [0, 3, 8, 11, first / 2, first - 8, first - 4, first - 1, first, first + 2, bytes.len() - 1]
        {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            let (found, expected) = (read(&bytes).0, stream(&bytes));
            assert!(found.ok() == expected.ok(), "changed at {at}");
        }
    }
}
