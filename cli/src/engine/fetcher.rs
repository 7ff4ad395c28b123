//! Layers that are only named so far are fetched by whoever needs them first: with patience, but for those that a cache
//! of another machine promised. There is another way to have them, which is to make them.

use std::io::{self, Read};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use boxwright_cache::blob::BlobFetch;
use boxwright_cache::oci::Descriptor;
use boxwright_cache::{Cancel, Error, Result};

/// How long a layer of a cache may take: so long, and as long as its bytes take at this many a second.
const DELAY: Duration = Duration::from_secs(20);
const LEAST_RATE: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Fetcher {
    inner: Box<dyn BlobFetch>,
    delay: Duration,
    /// The repositories of the caches that this build reads; none any more once one of them was too slow.
    caches: Arc<Mutex<Vec<String>>>,
}

impl Fetcher {
    pub(super) fn new(inner: impl BlobFetch + 'static) -> Fetcher {
        Fetcher { inner: Box::new(inner), delay: DELAY, caches: Arc::default() }
    }

    /// From here on, layers of this repository have to come soon.
    pub(super) fn hurry(&self, repository: &str) {
        self.caches.lock().unwrap_or_else(|e| e.into_inner()).push(repository.to_owned());
    }
}

impl BlobFetch for Fetcher {
    fn fetch(&self, repository: &str, blob: &Descriptor, cancel: &Cancel) -> Result<Box<dyn Read + Send>> {
        let caches = self.caches.lock().unwrap_or_else(|e| e.into_inner());
        if !caches.iter().any(|cache| cache == repository) {
            drop(caches);
            return self.inner.fetch(repository, blob, cancel);
        }
        drop(caches);
        let limit = self.delay + Duration::from_secs(blob.size / LEAST_RATE);
        let limited = Limited {
            deadline: Deadline::new(limit, cancel)?,
            caches: self.caches.clone(),
            repository: repository.to_owned(),
        };
        match self.inner.fetch(repository, blob, limited.deadline.cancel()) {
            Ok(reader) => Ok(Box::new(Hurried { reader, limited })),
            Err(error) => Err(limited.explain(error)),
        }
    }
}

/// A fetch that has to end in time.
struct Limited {
    deadline: Deadline,
    caches: Arc<Mutex<Vec<String>>>,
    repository: String,
}

impl Limited {
    /// What ended the fetch: if it was its time, then nothing is expected of caches any more.
    fn explain(&self, error: Error) -> Error {
        if !self.deadline.has_passed() {
            return error;
        }
        self.caches.lock().unwrap_or_else(|e| e.into_inner()).clear();
        Error::Registry {
            registry: self.repository.clone(),
            doing: "fetching a layer".to_owned(),
            reason: format!("it took longer than {} s", self.deadline.limit.as_secs()),
            remedy: None,
        }
    }
}

struct Hurried {
    reader: Box<dyn Read + Send>,
    limited: Limited,
}

impl Read for Hurried {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            if self.limited.deadline.has_passed() {
                return io::Error::other(self.limited.explain(Error::Cancelled));
            }
            error
        })
    }
}

/// A token of its own that is raised when its time has passed, or with its parent.
pub(super) struct Deadline {
    limit: Duration,
    parent: Cancel,
    own: Cancel,
    /// Its end ends the clock.
    _done: Sender<()>,
}

impl Deadline {
    pub(super) fn new(limit: Duration, parent: &Cancel) -> Result<Deadline> {
        let own = parent.child()?;
        let (done, waiting) = channel::<()>();
        let clock = own.clone();
        let ring = move || {
            if waiting.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                clock.raise();
            }
        };
        std::thread::Builder::new().spawn(ring).map_err(Error::io("starting", "a clock"))?;
        Ok(Deadline { limit, parent: parent.clone(), own, _done: done })
    }

    pub(super) fn cancel(&self) -> &Cancel {
        &self.own
    }

    /// Whether it ended because of its time, and nothing else.
    pub(super) fn has_passed(&self) -> bool {
        self.own.is_raised() && !self.parent.is_raised()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A registry that answers and then says nothing.
    #[derive(Debug)]
    struct Silent;

    struct Silence(Cancel);

    impl BlobFetch for Silent {
        fn fetch(&self, _: &str, _: &Descriptor, cancel: &Cancel) -> Result<Box<dyn Read + Send>> {
            Ok(Box::new(Silence(cancel.clone())))
        }
    }

    impl Read for Silence {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            while !self.0.is_raised() {
                std::thread::yield_now();
            }
            Err(io::Error::other(Error::Cancelled))
        }
    }

    #[test]
    fn a_layer_of_a_slow_cache_is_given_up_and_patience_returns() {
        let fetcher = Fetcher { delay: Duration::from_millis(20), ..Fetcher::new(Silent) };
        let blob = Descriptor::new("x", boxwright_cache::digest::Digest::of(b"x"), 1);
        fetcher.hurry("caches/app");
        let cancel = Cancel::new().unwrap();
        let read = |cancel: &Cancel| {
            let mut reader = fetcher.fetch("caches/app", &blob, cancel).unwrap();
            reader.read(&mut [0]).unwrap_err().to_string()
        };
        let error = read(&cancel);
        assert!(error.contains("caches/app") && error.contains("longer than"), "{error}");
        // Now it would wait for ever.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| read(&cancel));
            std::thread::sleep(Duration::from_millis(60));
            assert!(!waiting.is_finished());
            cancel.raise();
            let error = waiting.join().unwrap();
            assert!(!error.contains("longer than"), "{error}");
        });
    }
}
