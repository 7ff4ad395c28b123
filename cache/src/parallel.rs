//! The same work for several things, on a few threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

use crate::cancel::Cancel;
use crate::error::Result;

/// Things that are worked on at the same time. What takes long here is bound by the processor, so more would only compete.
const THREADS: usize = 4;

/// The results of `work`, in the order of `items`, which are begun in that order.
///
/// # Errors
/// The first error; the others are stopped by the token that `work` is given.
pub(crate) fn each<I: Sync, T: Send>(
    items: &[I],
    cancel: &Cancel,
    work: impl Fn(&I, &Cancel) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    if let [only] = items {
        return Ok(vec![work(only, cancel)?]);
    }
    let (stop, next) = (cancel.child()?, AtomicUsize::new(0));
    let (results, failure) = (Mutex::new(Vec::new()), Mutex::new(None));
    let worker = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            match work(item, &stop) {
                Ok(result) => results.lock().unwrap_or_else(|e| e.into_inner()).push((at, result)),
                Err(e) => {
                    // What the others say after this is only that they were stopped.
                    failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(e);
                    stop.raise();
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // Who may have no more threads goes on with fewer: the caller's own is one.
        let others = (1..THREADS.min(items.len())).map(|_| Builder::new().spawn_scoped(scope, worker));
        others.take_while(std::result::Result::is_ok).for_each(drop);
        worker();
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(error);
    }
    let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.sort_unstable_by_key(|(at, _)| *at);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        for n in [0, 1, 2, 100] {
            let doubled = each(&items[..n], &Cancel::new().unwrap(), |i, _| Ok(2 * i)).unwrap();
            assert_eq!(doubled, items[..n].iter().map(|i| 2 * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_error_stops_the_others_and_not_the_caller() {
        let (cancel, begun) = (Cancel::new().unwrap(), AtomicUsize::new(0));
        let items: Vec<u32> = (0..100).collect();
        let result: Result<Vec<()>> = each(&items, &cancel, |item, stop| {
            begun.fetch_add(1, Ordering::Relaxed);
            if *item == 3 {
                return Err(Error::malformed("the fourth", "it is bad"));
            }
            while !stop.is_raised() {
                std::thread::yield_now();
            }
            Err(Error::Cancelled)
        });
        assert!(result.unwrap_err().to_string().contains("the fourth"));
        assert!(begun.into_inner() <= THREADS && !cancel.is_raised());
    }
}
