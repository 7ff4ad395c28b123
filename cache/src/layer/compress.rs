//! Compression of layers and archives: what it is, how it is read, and gzip made on all cores, the same bytes
//! however many there are.

use std::collections::VecDeque;
use std::io::{BufReader, Read, Result, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use flate2::bufread::MultiGzDecoder;

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
/// The input of one gzip member. It is part of what makes the output what it is.
const MEMBER: usize = 1 << 20;
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

/// [`Compression::detect`] and [`decompressor`] in one, for a source that can't be rewound.
///
/// # Errors
/// When the source can't be read.
pub fn detect_and_decompress<'a>(
    mut source: impl Read + Send + 'a,
) -> Result<(Compression, Box<dyn Read + Send + 'a>)> {
    let mut start = Vec::with_capacity(MAGIC);
    (&mut source).take(MAGIC as u64).read_to_end(&mut start)?;
    let compression = Compression::detect(&start);
    Ok((compression, decompressor(compression, std::io::Cursor::new(start).chain(source))?))
}

/// Compresses into gzip members of 1 MiB of input each (RFC 1952, section 2.2), on as many threads as there are
/// processors. [`GzipWriter::finish`] must be called; a writer that is dropped leaves the output unfinished.
#[derive(Debug)]
pub struct GzipWriter<W: Write> {
    out: W,
    level: i32,
    block: Vec<u8>,
    any: bool,
    /// Members in the making, in order.
    pending: VecDeque<Receiver<Vec<u8>>>,
    workers: Workers,
}

impl<W: Write> GzipWriter<W> {
    /// `level` from 1 (fast) to 12, as libdeflate has them.
    pub fn new(out: W, level: i32) -> GzipWriter<W> {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        GzipWriter::with_threads(out, level, threads)
    }

    fn with_threads(out: W, level: i32, threads: usize) -> GzipWriter<W> {
        let workers = Workers::new(threads);
        GzipWriter {
            out,
            level: level.clamp(1, 12),
            block: Vec::new(),
            any: false,
            pending: VecDeque::new(),
            workers,
        }
    }

    /// Writes what is left and gives the output back.
    ///
    /// # Errors
    /// When the output can't be written.
    pub fn finish(mut self) -> Result<W> {
        // No input at all is one empty member: no member would not be gzip.
        if !self.block.is_empty() || !self.any {
            self.submit()?;
        }
        while !self.pending.is_empty() {
            self.take()?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    fn submit(&mut self) -> Result<()> {
        self.any = true;
        if self.pending.len() >= 2 * self.workers.max {
            self.take()?;
        }
        let (done, member) = channel();
        let block = std::mem::take(&mut self.block);
        self.workers.run(Job { block, level: self.level, done }, self.pending.len());
        self.pending.push_back(member);
        Ok(())
    }

    fn take(&mut self) -> Result<()> {
        let Some(member) = self.pending.pop_front() else { return Ok(()) };
        let member = member.recv().map_err(|_| std::io::Error::other("a compressing thread ended"))?;
        self.out.write_all(&member)
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let n = bytes.len().min(MEMBER - self.block.len());
        if self.block.capacity() == 0 {
            self.block.reserve_exact(MEMBER);
        }
        self.block.extend_from_slice(&bytes[..n]);
        if self.block.len() == MEMBER {
            self.submit()?;
        }
        Ok(n)
    }

    /// Does nothing: where members end must not depend on when somebody flushes.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Job {
    block: Vec<u8>,
    level: i32,
    done: Sender<Vec<u8>>,
}

/// Threads that compress, started as there is work for them; they end when the writer does.
#[derive(Debug)]
struct Workers {
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    started: usize,
    max: usize,
}

impl Workers {
    fn new(max: usize) -> Workers {
        let (jobs, queue) = channel();
        Workers { jobs, queue: Arc::new(Mutex::new(queue)), started: 0, max: max.max(1) }
    }

    fn run(&mut self, job: Job, waiting: usize) {
        if self.started < self.max && self.started <= waiting {
            let queue = Arc::clone(&self.queue);
            std::thread::spawn(move || work(&queue));
            self.started += 1;
        }
        self.jobs.send(job).expect("the queue lives as long as the writer");
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(|e| e.into_inner()).recv();
        let Ok(job) = job else { return };
        // Nobody takes the member when the writer was dropped.
        let _ = job.done.send(member(&job.block, job.level));
    }
}

fn member(block: &[u8], level: i32) -> Vec<u8> {
    let level = libdeflater::CompressionLvl::new(level).expect("the level was clamped");
    let mut compressor = libdeflater::Compressor::new(level);
    let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
    let n = compressor.gzip_compress(block, &mut out).expect("the buffer is as large as the bound");
    out.truncate(n);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(size: usize) -> Vec<u8> {
        let mut state = 1u32;
        (0..size)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b"abcdefgh"[(state >> 29) as usize]
            })
            .collect()
    }

    fn gzip(data: &[u8], threads: usize, piece: usize) -> Vec<u8> {
        let mut writer = GzipWriter::with_threads(Vec::new(), 1, threads);
        for part in data.chunks(piece) {
            writer.write_all(part).unwrap();
            writer.flush().unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(compression: Compression, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        decompressor(compression, bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn gzip_is_the_same_for_any_number_of_threads_and_any_pieces() {
        let data = sample(5 * MEMBER + 12345);
        let one = gzip(&data, 1, 1 << 16);
        for (threads, piece) in [(2, 1 << 16), (3, 999_983), (8, data.len())] {
            assert!(gzip(&data, threads, piece) == one, "{threads} threads, pieces of {piece}");
        }
        assert!(read(Compression::Gzip, &one).unwrap() == data);
        let exact = sample(2 * MEMBER);
        assert!(read(Compression::Gzip, &gzip(&exact, 2, MEMBER)).unwrap() == exact);
        assert!(read(Compression::Gzip, &gzip(b"", 2, 1)).unwrap().is_empty());
    }

    #[test]
    fn streams_are_recognised_and_read() {
        let data = sample(300_000);
        let zstd = zstd::encode_all(&data[..], 1).unwrap();
        for (compression, bytes) in [
            (Compression::Gzip, gzip(&data, 1, 4096)),
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
