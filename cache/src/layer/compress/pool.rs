//! The threads that compress blocks, and how many blocks there may be at a time.

use std::io::Result;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::Builder;

use super::blocks::Packing;

/// Some input, and then what became of it.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    /// How many of them count, once they are packed.
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
/// What compresses has its tables elsewhere.
const STACK: usize = 1 << 20;
/// Memory is counted in these.
const UNIT: usize = 1 << 20;

/// Threads that compress, started as there is work for them. All writers of the process share one pool, so that neither
/// threads nor the memory of their blocks multiply with the layers that are compressed at the same time: there are as many
/// blocks as there are permits, one for each thread, and two for each writer.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: Sender<Job>,
    queue: Arc<Queue>,
    started: Mutex<usize>,
    max: usize,
    stack: usize,
    /// Units of input that may still be taken in.
    free: AtomicUsize,
}

#[derive(Debug)]
struct Queue {
    jobs: Mutex<Receiver<Job>>,
    spare: Spare,
}

/// Memory to be used again: new memory would cost more page faults than reading the input does. It is shared by all, so that
/// there is never more of it than was in use at a time, and goes with the last writer.
#[derive(Debug, Default)]
pub(super) struct Spare {
    kept: Mutex<(usize, Vec<Vec<u8>>)>,
}

impl Spare {
    /// A writer begins.
    pub(super) fn enter(&self) {
        self.lock().0 += 1;
    }

    /// A writer ends.
    pub(super) fn leave(&self) {
        let mut kept = self.lock();
        kept.0 -= 1;
        if kept.0 == 0 {
            kept.1 = Vec::new();
        }
    }

    pub(super) fn take(&self) -> Vec<u8> {
        self.lock().1.pop().unwrap_or_default()
    }

    pub(super) fn give(&self, memory: Vec<u8>) {
        let mut kept = self.lock();
        if kept.0 > 0 {
            kept.1.push(memory);
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.lock().1.iter().map(Vec::capacity).sum()
    }

    fn lock(&self) -> MutexGuard<'_, (usize, Vec<Vec<u8>>)> {
        self.kept.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Pool {
    pub(super) fn common() -> Arc<Pool> {
        static POOL: OnceLock<Arc<Pool>> = OnceLock::new();
        let threads = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Arc::clone(POOL.get_or_init(|| Arc::new(Pool::new(threads().min(MOST_THREADS)))))
    }

    pub(super) fn new(max: usize) -> Pool {
        Pool::with_stack(max, STACK)
    }

    pub(super) fn with_stack(max: usize, stack: usize) -> Pool {
        let (jobs, queue) = channel();
        let queue = Arc::new(Queue { jobs: Mutex::new(queue), spare: Spare::default() });
        Pool { jobs, queue, started: Mutex::new(0), max, stack, free: AtomicUsize::new(max + 2) }
    }

    pub(super) fn spare(&self) -> &Spare {
        &self.queue.spare
    }

    /// Has the job done; by the caller itself where no thread is to be had.
    pub(super) fn run(&self, job: Job) {
        if self.staffed() {
            self.jobs.send(job).expect("the queue lives as long as the pool");
        } else {
            job.done(&mut None, self.spare());
        }
    }

    /// Starts another thread if there may be one more; says whether there is any. Who may have no more goes on with fewer.
    fn staffed(&self) -> bool {
        let mut started = self.started.lock().unwrap_or_else(|e| e.into_inner());
        if *started < self.max {
            let queue = Arc::clone(&self.queue);
            *started +=
                usize::from(Builder::new().stack_size(self.stack).spawn(move || work(&queue)).is_ok());
        }
        *started > 0
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

type Deflate = Option<(u8, libdeflater::Compressor)>;

fn work(queue: &Queue) {
    let mut deflate = None;
    loop {
        let job = queue.jobs.lock().unwrap_or_else(|e| e.into_inner()).recv();
        let Ok(job) = job else { return };
        job.done(&mut deflate, &queue.spare);
    }
}

impl Job {
    /// The block's memory and that of what became of it change places.
    fn done(self, deflate: &mut Deflate, spare: &Spare) {
        let Job { mut block, packing, done } = self;
        let mut packed = spare.take();
        let size = match packing {
            Packing::Plain => unreachable!("what is not compressed is written as it comes"),
            Packing::Gzip(level) => Ok(gzip_member(&block.bytes, &mut packed, level, deflate)),
            Packing::Zstd(level) => zstd_frame(&block.bytes, &mut packed, level),
        };
        spare.give(std::mem::replace(&mut block.bytes, packed));
        // Nobody takes the block when the writer was dropped.
        let _ = done.send(size.map(|size| Block { size, ..block }));
    }
}

/// `kept` is what compressed the block before, if one of the same level did.
fn gzip_member(bytes: &[u8], packed: &mut Vec<u8>, level: u8, kept: &mut Deflate) -> usize {
    if kept.as_ref().is_none_or(|(of, _)| *of != level) {
        let valid = libdeflater::CompressionLvl::new(level.into()).expect("libdeflate has levels 0 to 12");
        *kept = Some((level, libdeflater::Compressor::new(valid)));
    }
    let (_, compressor) = kept.as_mut().expect("it was just made");
    make_room(packed, compressor.gzip_compress_bound(bytes.len()));
    compressor.gzip_compress(bytes, packed).expect("the buffer is as large as the bound")
}

fn zstd_frame(bytes: &[u8], packed: &mut Vec<u8>, level: u8) -> Result<usize> {
    let mut compressor = zstd::bulk::Compressor::new(level.into())?;
    compressor.include_checksum(true)?;
    make_room(packed, zstd::zstd_safe::compress_bound(bytes.len()));
    compressor.compress_to_buffer(bytes, &mut packed[..])
}

/// Not more than that: a vector that grows by itself doubles.
fn make_room(packed: &mut Vec<u8>, bound: usize) {
    if packed.len() < bound {
        packed.reserve_exact(bound - packed.len());
        packed.resize(bound, 0);
    }
}
