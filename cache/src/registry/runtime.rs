//! The one thread that runs asynchronous HTTP. Everything else in this crate blocks; a caller waits here for its
//! answer or for its cancellation. The thread starts with the first request and ends with the client.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::mpsc;
use std::task::Poll;

use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::cancel::Cancel;
use crate::error::{Error, Result};

#[derive(Debug, Default)]
pub(super) struct Runtime(Mutex<Option<Worker>>);

#[derive(Debug)]
struct Worker {
    handle: Handle,
    /// Dropping it ends the thread and whatever still runs on it.
    _stop: oneshot::Sender<()>,
}

impl Runtime {
    /// Runs `work` on the thread and waits for its result.
    pub(super) fn call<T, F>(&self, cancel: &Cancel, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        cancel.check()?;
        let (answer, result) = mpsc::sync_channel(1);
        let cancel = cancel.clone();
        self.handle()?.spawn(async move {
            // The caller always waits, so the answer is never refused.
            let _ = answer.send(cancellable(&cancel, work).await);
        });
        result.recv().unwrap_or(Err(Error::Cancelled))
    }

    /// Runs `work` on the thread and does not wait.
    pub(super) fn spawn<F: Future<Output = ()> + Send + 'static>(&self, work: F) -> Result<()> {
        self.handle()?.spawn(work);
        Ok(())
    }

    fn handle(&self) -> Result<Handle> {
        let mut worker = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if worker.is_none() {
            *worker = Some(start()?);
        }
        Ok(worker.as_ref().expect("it was just started").handle.clone())
    }
}

fn start() -> Result<Worker> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("starting", "the network event loop"))?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name("registry".to_owned())
        .spawn(move || {
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })
        .map_err(Error::io("starting", "the network thread"))?;
    Ok(Worker { handle, _stop: stop })
}

/// The result of `work`, or [`Error::Cancelled`] as soon as `cancel` is raised.
pub(super) async fn cancellable<T>(cancel: &Cancel, work: impl Future<Output = Result<T>>) -> Result<T> {
    use std::os::fd::AsFd;
    // A descriptor can be registered only once, and many requests share one token.
    let event = cancel
        .as_fd()
        .try_clone_to_owned()
        .and_then(watch)
        .map_err(Error::io("watching the cancellation", "eventfd"))?;
    let mut work = pin!(work);
    std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(result),
        Poll::Pending => event.poll_read_ready(cx).map(|_| Err(Error::Cancelled)),
    })
    .await
}

#[expect(deprecated, reason = "the unsound case is a descriptor that is not owned; this one is")]
fn watch(event: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(event)
}
