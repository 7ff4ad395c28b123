//! On how many processors this process and what it starts run.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// One, until this is dropped. What can't be kept to one, for want of `/proc` or of the right to, runs on all as before.
#[derive(Debug)]
pub(super) struct OneProcessor(Option<CpuSet>);

impl OneProcessor {
    pub(super) fn new() -> OneProcessor {
        let before = sched_getaffinity(None).ok().filter(|all| all.count() > 1);
        if let Some(last) = before.as_ref().and_then(|all| (0..CpuSet::MAX_CPU).rfind(|n| all.is_set(*n))) {
            let mut one = CpuSet::new();
            one.set(last);
            keep_to(&one);
        }
        OneProcessor(before)
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            keep_to(before);
        }
    }
}

/// All threads that there are; those to come, and processes, have what the thread has that starts them.
fn keep_to(processors: &CpuSet) {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return };
    for thread in threads.flatten() {
        let id = thread.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        // One that has ended meanwhile needs nothing.
        let _ = id.map(|id| sched_setaffinity(Some(id), processors));
    }
}
