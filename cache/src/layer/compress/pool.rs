//! The threads that compress blocks, and how many blocks there may be at a time.

use std::io::Result;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};

use super::blocks::Packing;

/// Some input, and what became of it.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) data: Vec<u8>,
    pub(super) packed: Vec<u8>,
    /// How much of `packed` counts.
    pub(super) size: usize,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) block: Block,
    pub(super) packing: Packing,
    pub(super) done: Sender<Result<Block>>,
}

/// More threads would wait for the one that reads and hashes the input.
const MOST_THREADS: usize = 16;
/// Memory is counted in these.
const UNIT: usize = 1 << 20;

/// Threads that compress, started as there is work for them. All writers of the process share one pool, so that neither
/// threads nor the memory of their blocks multiply with the layers that are compressed at the same time.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    started: AtomicUsize,
    max: usize,
    /// Units of input that may still be taken in.
    free: AtomicUsize,
}

impl Pool {
    pub(super) fn common() -> Arc<Pool> {
        static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
        let threads = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Arc::clone(POOL.get_or_init(|| Arc::new(Pool::new(threads().min(MOST_THREADS)))))
    }

    pub(super) fn new(max: usize) -> Pool {
        let (jobs, queue) = channel();
        let (queue, free) = (Arc::new(Mutex::new(queue)), AtomicUsize::new(max + 2));
        Pool { jobs, queue, started: AtomicUsize::new(0), max, free }
    }

    pub(super) fn run(&self, job: Job) {
        let more = |started| (started < self.max).then_some(started + 1);
        if self.started.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
            let queue = Arc::clone(&self.queue);
            std::thread::spawn(move || work(&queue));
        }
        self.jobs.send(job).expect("the queue lives as long as the pool");
    }
}

/// The right to have a block in the making besides the first.
#[derive(Debug)]
pub(super) struct Permit(Arc<Pool>, usize);

impl Permit {
    pub(super) fn of(pool: &Arc<Pool>, bytes: usize) -> Option<Permit> {
        let units = bytes.div_ceil(UNIT);
        let less = |free: usize| free.checked_sub(units);
        pool.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
        Some(Permit(Arc::clone(pool), units))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.free.fetch_add(self.1, Ordering::Relaxed);
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    let mut deflate = None;
    loop {
        let job = queue.lock().unwrap_or_else(|e| e.into_inner()).recv();
        let Ok(Job { mut block, packing, done }) = job else { return };
        let packed = match packing {
            Packing::Plain => unreachable!("what is not compressed is written as it comes"),
            Packing::Gzip(level) => {
                gzip_member(&mut block, level, &mut deflate);
                Ok(block)
            }
            Packing::Zstd(level) => zstd_frame(&mut block, level).map(|()| block),
        };
        // Nobody takes the block when the writer was dropped.
        let _ = done.send(packed);
    }
}

/// `kept` is what compressed the block before, if one of the same level did.
fn gzip_member(block: &mut Block, level: u8, kept: &mut Option<(u8, libdeflater::Compressor)>) {
    if kept.as_ref().is_none_or(|(of, _)| *of != level) {
        let valid = libdeflater::CompressionLvl::new(level.into()).expect("libdeflate has levels 0 to 12");
        *kept = Some((level, libdeflater::Compressor::new(valid)));
    }
    let (_, compressor) = kept.as_mut().expect("it was just made");
    let bound = compressor.gzip_compress_bound(block.data.len());
    if block.packed.len() < bound {
        block.packed.resize(bound, 0);
    }
    let packed = compressor.gzip_compress(&block.data, &mut block.packed);
    block.size = packed.expect("the buffer is as large as the bound");
}

fn zstd_frame(block: &mut Block, level: u8) -> Result<()> {
    let mut compressor = zstd::bulk::Compressor::new(level.into())?;
    compressor.include_checksum(true)?;
    block.packed = compressor.compress(&block.data)?;
    block.size = block.packed.len();
    Ok(())
}
