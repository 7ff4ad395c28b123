//! Compressing on all cores, the same bytes however many there are: the input is cut into blocks of one size, and each
//! becomes a gzip member (RFC 1952, section 2.2) or zstd frame (RFC 8878, section 3.1) of its own.

use std::collections::VecDeque;
use std::io::{Error, Result, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use super::pool::{Block, Job, Permit, Pool};
use crate::oci::descriptor::{OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD};

/// How bytes are compressed when they leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    Plain,
    /// The level from 0 (none) to 9, as zlib has them.
    Gzip(u8),
    /// The level from 1 to 22, as zstd has them.
    Zstd(u8),
}

impl Default for Packing {
    fn default() -> Packing {
        Packing::GZIP
    }
}

impl Packing {
    /// libdeflate's fastest level: it gives what zlib gives at its default, in a fraction of the time.
    pub const GZIP: Packing = Packing::Gzip(1);
    /// The default level of the format's own tool.
    pub const ZSTD: Packing = Packing::Zstd(3);

    /// What a store remembers a blob by that came of it.
    pub(crate) fn key(self) -> String {
        match self {
            Packing::Plain => "plain".to_owned(),
            Packing::Gzip(level) => format!("gzip {level}"),
            Packing::Zstd(level) => format!("zstd {level}"),
        }
    }

    /// The OCI media type of a layer.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Packing::Plain => OCI_LAYER,
            Packing::Gzip(_) => OCI_LAYER_GZIP,
            Packing::Zstd(_) => OCI_LAYER_ZSTD,
        }
    }

    /// How much input becomes one block. It is part of what makes the output what it is.
    fn block(self) -> usize {
        match self {
            Packing::Plain => 128 << 10,
            Packing::Gzip(_) => 1 << 20,
            Packing::Zstd(_) => 2 << 20,
        }
    }
}

/// Compresses what is written to it, on as many threads as there are processors. [`Packer::finish`] must be called; a
/// writer that is dropped leaves the output unfinished.
#[derive(Debug)]
pub struct Packer<W: Write> {
    out: W,
    packing: Packing,
    block: Block,
    any: bool,
    /// Blocks in the making, in order.
    pending: VecDeque<(Receiver<Result<Block>>, Option<Permit>)>,
    pool: Arc<Pool>,
    _place: Place,
}

/// A writer's place among those that share spare memory.
#[derive(Debug)]
struct Place(Arc<Pool>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.spare().leave();
    }
}

impl<W: Write> Packer<W> {
    pub fn new(out: W, packing: Packing) -> Packer<W> {
        Packer::with_pool(out, packing, Pool::common())
    }

    fn with_pool(out: W, packing: Packing, pool: Arc<Pool>) -> Packer<W> {
        pool.spare().enter();
        let place = Place(Arc::clone(&pool));
        Packer {
            out,
            packing,
            block: Block::default(),
            any: false,
            pending: VecDeque::new(),
            pool,
            _place: place,
        }
    }

    /// Writes what is left and gives the output back.
    ///
    /// # Errors
    /// When the output can't be written.
    pub fn finish(mut self) -> Result<W> {
        // No input at all is one empty block: no block would not be that format.
        if !self.block.bytes.is_empty() || !self.any {
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
        if self.packing == Packing::Plain {
            self.out.write_all(&self.block.bytes)?;
            self.block.bytes.clear();
            return Ok(());
        }
        // One block is always in order: to wait for those of others could be to wait for oneself.
        let mut permit = None;
        while !self.pending.is_empty() {
            permit = Permit::of(&self.pool, self.packing.block());
            if permit.is_some() {
                break;
            }
            self.take()?;
        }
        let (done, packed) = channel();
        let block = std::mem::take(&mut self.block);
        self.pool.run(Job { block, packing: self.packing, done });
        self.pending.push_back((packed, permit));
        Ok(())
    }

    fn take(&mut self) -> Result<()> {
        let Some((packed, _permit)) = self.pending.pop_front() else { return Ok(()) };
        let block = packed.recv().map_err(|_| Error::other("a compressing thread ended"))??;
        self.out.write_all(&block.bytes[..block.size])?;
        self.pool.spare().give(block.bytes);
        Ok(())
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let size = self.packing.block();
        let data = &mut self.block.bytes;
        if data.capacity() == 0 && self.packing != Packing::Plain {
            *data = self.pool.spare().take();
            data.clear();
        }
        let n = bytes.len().min(size - data.len());
        if data.capacity() < size {
            // What is packed may be larger, and has this memory next.
            data.reserve_exact(size + size / 128 + 1024);
        }
        data.extend_from_slice(&bytes[..n]);
        if data.len() == size {
            self.submit()?;
        }
        Ok(n)
    }

    /// Does nothing: where blocks end must not depend on when somebody flushes.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::layer::Compression;
    use crate::layer::compress::decompressor;
    use crate::layer::compress::tests::sample;

    const PACKINGS: [Packing; 4] = [Packing::Gzip(0), Packing::Gzip(1), Packing::Gzip(9), Packing::Zstd(3)];

    /// As large as all addresses that a process has: the kernel gives no such thread.
    const NO_SUCH_STACK: usize = 1 << 47;

    fn pack(data: &[u8], packing: Packing, threads: usize, piece: usize) -> Vec<u8> {
        let mut writer = Packer::with_pool(Vec::new(), packing, Arc::new(Pool::new(threads)));
        for part in data.chunks(piece) {
            writer.write_all(part).unwrap();
            writer.flush().unwrap();
        }
        writer.finish().unwrap()
    }

    fn unpack(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        decompressor(Compression::detect(bytes), bytes).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn the_bytes_are_the_same_for_any_number_of_threads_and_any_pieces() {
        let data = sample((5 << 20) + 12345);
        for packing in PACKINGS {
            let one = pack(&data, packing, 1, 1 << 16);
            for (threads, piece) in [(2, 1 << 16), (3, 999_983), (8, data.len())] {
                let same = pack(&data, packing, threads, piece) == one;
                assert!(same, "{packing:?}, {threads} threads, pieces of {piece}");
            }
            assert!(unpack(&one) == data, "{packing:?}");
        }
    }

    /// All memory that was in use at a time is spare at the end.
    #[test]
    fn memory_does_not_multiply_with_what_is_compressed_at_once() {
        for (threads, writers, packing) in
            [(2, 8, Packing::GZIP), (16, 8, Packing::GZIP), (16, 8, Packing::ZSTD)]
        {
            let (pool, data) = (Arc::new(Pool::new(threads)), vec![0; 1 << 20]);
            pool.spare().enter();
            std::thread::scope(|scope| {
                for _ in 0..writers {
                    scope.spawn(|| {
                        let mut writer = Packer::with_pool(std::io::sink(), packing, Arc::clone(&pool));
                        (0..24).for_each(|_| writer.write_all(&data).unwrap());
                        writer.finish().unwrap();
                    });
                }
            });
            let (most, bytes) = (threads + 2 + threads + 2 * writers, pool.spare().bytes());
            let room = packing.block() + packing.block() / 64;
            assert!(bytes > 2 << 20 && bytes <= most * room, "{threads} threads: {bytes} bytes");
            pool.spare().leave();
            assert_eq!(pool.spare().bytes(), 0, "nothing is kept when nobody compresses");
        }
    }

    #[test]
    fn who_may_start_no_thread_compresses_alone() {
        let (data, none) = (sample((2 << 20) + 7), Arc::new(Pool::with_stack(2, NO_SUCH_STACK)));
        for packing in [Packing::GZIP, Packing::ZSTD] {
            let mut writer = Packer::with_pool(Vec::new(), packing, Arc::clone(&none));
            writer.write_all(&data).unwrap();
            assert!(writer.finish().unwrap() == pack(&data, packing, 2, data.len()), "{packing:?}");
        }
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_room_to_the_others() {
        let pool = Arc::new(Pool::new(2));
        for _ in 0..20 {
            let mut writer = Packer::with_pool(Vec::new(), Packing::GZIP, Arc::clone(&pool));
            writer.write_all(&vec![0; 3 << 20]).unwrap();
        }
        let data = vec![1; 8 << 20];
        let mut writer = Packer::with_pool(Vec::new(), Packing::GZIP, Arc::clone(&pool));
        writer.write_all(&data).unwrap();
        assert!(unpack(&writer.finish().unwrap()) == data);
    }

    #[test]
    fn whole_blocks_and_none_at_all_are_read_again() {
        for packing in PACKINGS.into_iter().chain([Packing::Plain]) {
            let exact = sample(2 * packing.block());
            assert!(unpack(&pack(&exact, packing, 2, 1 << 20)) == exact, "{packing:?}");
            let empty = pack(b"", packing, 2, 1);
            assert!(unpack(&empty).is_empty(), "{packing:?}");
            assert_eq!(empty.is_empty(), packing == Packing::Plain);
        }
    }

    #[test]
    fn other_tools_read_it() {
        let data = sample((2 << 20) + 5);
        let dir = tempfile::tempdir().unwrap();
        for (tool, packing) in
            [("gzip", Packing::Gzip(0)), ("gzip", Packing::Gzip(9)), ("zstd", Packing::Zstd(9))]
        {
            let path = dir.path().join("packed");
            std::fs::write(&path, pack(&data, packing, 2, 1 << 20)).unwrap();
            let file = std::fs::File::open(&path).unwrap();
            let read = std::process::Command::new(tool).arg("-dc").stdin(file).output().unwrap();
            assert!(read.stdout == data, "{tool} {packing:?}");
        }
    }
}
