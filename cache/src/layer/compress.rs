//! Compression of layers and archives: what it is, how it is read, and (in `blocks`) how it is made.

mod blocks;
mod members;
mod pool;

use std::io::{BufReader, Cursor, Read, Result};

use flate2::bufread::MultiGzDecoder;

pub use blocks::{Packer, Packing};
use members::Members;

/// How bytes are compressed. Bzip2 and xz occur in archives that ADD unpacks, never in layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// As many bytes as [`Compression::detect`] wants to see.
pub const MAGIC: usize = 6;
/// The largest window that a zstd frame may ask for, as a power of two: the default of the format's own tool.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Enough for what `xz -9` makes; a larger dictionary is refused.
const XZ_MEMORY_KIB: u32 = 96 * 1024;
const BUFFER: usize = 128 * 1024;

impl Compression {
    /// From the first bytes of a stream ([`MAGIC`] of them, where there are so many).
    pub fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame can come first (lz4 has them too, but no image is lz4).
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// Reads what `source` holds in compressed form. Several gzip members or zstd frames are one stream.
///
/// # Errors
/// When a decoder can't be made.
pub fn decompressor<'a>(
    compression: Compression,
    source: impl Read + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>> {
    let buffered = BufReader::with_capacity(BUFFER, source);
    Ok(match compression {
        Compression::None => Box::new(buffered),
        Compression::Gzip => Box::new(MultiGzDecoder::new(buffered)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(buffered, true, XZ_MEMORY_KIB)),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

/// As [`detect_and_decompress`], faster for layers that were compressed here. It takes some streams for whole that other
/// decoders refuse, so it is for those whose diff id is compared.
///
/// # Errors
/// When the source can't be read.
pub(crate) fn layer_decompressor<'a>(mut source: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let start = read_start(&mut source)?;
    let compression = Compression::detect(&start);
    let source = Cursor::new(start).chain(source);
    match compression {
        Compression::Gzip => Ok(Box::new(Members::new(source))),
        other => decompressor(other, source),
    }
}

/// [`Compression::detect`] and [`decompressor`] in one, for a source that can't be rewound.
///
/// # Errors
/// When the source can't be read.
pub fn detect_and_decompress<'a>(
    mut source: impl Read + Send + 'a,
) -> Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let start = read_start(&mut source)?;
    let compression = Compression::detect(&start);
    Ok((compression, decompressor(compression, Cursor::new(start).chain(source))?))
}

fn read_start(source: &mut impl Read) -> Result<Vec<u8>> {
    let mut start = Vec::with_capacity(MAGIC);
    source.take(MAGIC as u64).read_to_end(&mut start)?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    pub(super) fn sample(size: usize) -> Vec<u8> {
        let mut state = 1u32;
        (0..size)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b"abcdefgh"[(state >> 29) as usize]
            })
            .collect()
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut writer = Packer::new(Vec::new(), Packing::Gzip(1));
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    }

    fn read(compression: Compression, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        decompressor(compression, bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn streams_are_recognised_and_read() {
        let data = sample(300_000);
        let zstd = zstd::encode_all(&data[..], 1).unwrap();
        for (compression, bytes) in [
            (Compression::Gzip, gzip(&data)),
            (Compression::Zstd, [zstd.clone(), Vec::new()].concat()),
            (Compression::None, data.clone()),
        ] {
            let (found, mut reader) = detect_and_decompress(&bytes[..]).unwrap();
            assert_eq!(found, compression);
            let mut out = Vec::new();
            reader.read_to_end(&mut out).unwrap();
            assert!(out == data, "{compression:?}");
        }
        let twice = [zstd.clone(), zstd].concat();
        assert_eq!(read(Compression::Zstd, &twice).unwrap().len(), 2 * data.len());
        assert_eq!(Compression::detect(b""), Compression::None);
        let (found, mut reader) = detect_and_decompress(&b"x"[..]).unwrap();
        let mut out = Vec::new();
        reader.read_to_end(&mut out).unwrap();
        assert_eq!((found, &out[..]), (Compression::None, &b"x"[..]));
    }

    #[test]
    fn what_other_tools_compress_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let data = sample(200_000);
        std::fs::write(dir.path().join("f"), &data).unwrap();
        for (tool, compression) in
            [("gzip", Compression::Gzip), ("bzip2", Compression::Bzip2), ("xz", Compression::Xz)]
        {
            let output =
                std::process::Command::new(tool).args(["-c", "f"]).current_dir(dir.path()).output().unwrap();
            assert!(output.status.success(), "{tool} failed");
            assert_eq!(Compression::detect(&output.stdout), compression);
            assert!(read(compression, &output.stdout).unwrap() == data, "{tool}");
            let cut = &output.stdout[..output.stdout.len() - 9];
            assert!(read(compression, cut).is_err(), "{tool}: a truncated stream must be an error");
        }
    }

    #[test]
    fn a_zstd_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(ZSTD_WINDOW_LOG + 1).unwrap();
        encoder.write_all(&sample(1000)).unwrap();
        assert!(read(Compression::Zstd, &encoder.finish().unwrap()).is_err());
    }
}
