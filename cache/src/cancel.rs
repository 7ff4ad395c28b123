//! One cancellation token for everything that can be long: a lock wait, a download, a container, a solve.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::event::EventfdFlags;

use crate::error::{Error, Result};

/// Shared by clones. Raised once, never lowered; raising a token raises its children, not its parent.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    raised: AtomicBool,
    event: OwnedFd,
    children: Mutex<Vec<Weak<Inner>>>,
    parent: Option<Cancel>,
    when_long: Mutex<Option<WhenLong>>,
}

#[derive(Clone)]
struct WhenLong(Arc<dyn Fn(&Cancel) + Send + Sync>);

impl Cancel {
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> Result<Cancel> {
        Cancel::below(None)
    }

    fn below(parent: Option<Cancel>) -> Result<Cancel> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(Error::io("creating the cancellation", "eventfd"))?;
        let (raised, children, when_long) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        Ok(Cancel(Arc::new(Inner { raised, event, children, parent, when_long })))
    }

    /// A token that is raised with this one, and can be raised alone.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn child(&self) -> Result<Cancel> {
        let child = Cancel::below(Some(self.clone()))?;
        let mut children = self.0.children.lock().unwrap_or_else(|e| e.into_inner());
        children.retain(|c| c.strong_count() > 0);
        children.push(Arc::downgrade(&child.0));
        drop(children);
        if self.is_raised() {
            child.raise();
        }
        Ok(child)
    }

    pub fn raise(&self) {
        raise(&self.0);
    }

    pub fn is_raised(&self) -> bool {
        self.0.raised.load(Ordering::Acquire)
    }

    /// Calls `begins` whenever something begins under this token, or a child of it, that may take long: for who would
    /// raise it, but can't look out for a reason all the time.
    pub fn when_long(&self, begins: impl Fn(&Cancel) + Send + Sync + 'static) {
        *self.0.when_long.lock().unwrap_or_else(PoisonError::into_inner) = Some(WhenLong(Arc::new(begins)));
    }

    /// To be called before whatever may take longer than a person waits without a thought: copies of many files, locks
    /// that others hold.
    pub fn begin_long(&self) {
        if let Some(parent) = &self.0.parent {
            return parent.begin_long();
        }
        let begins = self.0.when_long.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(WhenLong(begins)) = begins {
            begins(self);
        }
    }

    /// # Errors
    /// [`Error::Cancelled`] once the token is raised.
    pub fn check(&self) -> Result<()> {
        if self.is_raised() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// The descriptor becomes readable when the token is raised, and stays so: for `poll`, never to be read.
impl AsFd for Cancel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

impl std::fmt::Debug for WhenLong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WhenLong")
    }
}

fn raise(inner: &Inner) {
    if inner.raised.swap(true, Ordering::AcqRel) {
        return;
    }
    // An eventfd that already holds a count stays readable, so a refused write changes nothing.
    let _ = rustix::io::write(&inner.event, &1u64.to_ne_bytes());
    let children = std::mem::take(&mut *inner.children.lock().unwrap_or_else(|e| e.into_inner()));
    for child in children.iter().filter_map(Weak::upgrade) {
        raise(&child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    #[test]
    fn raising_reaches_children_but_not_parents() {
        let parent = Cancel::new().unwrap();
        let (a, b) = (parent.child().unwrap(), parent.child().unwrap());
        a.raise();
        assert!(a.is_raised() && !parent.is_raised() && !b.is_raised());
        parent.raise();
        assert!(b.is_raised());
        assert!(parent.child().unwrap().is_raised(), "a late child of a raised token is raised");
    }

    #[test]
    fn who_would_raise_a_token_hears_of_what_is_long_below_it() {
        let parent = Cancel::new().unwrap();
        let child = parent.child().unwrap();
        child.begin_long();
        parent.when_long(Cancel::raise);
        assert!(!child.is_raised());
        child.begin_long();
        assert!(parent.is_raised() && child.is_raised());
    }

    #[test]
    fn a_raised_token_stays_readable() {
        let cancel = Cancel::new().unwrap();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&cancel, PollFlags::IN)], Some(&now)).unwrap(), 0);
        cancel.raise();
        for _ in 0..2 {
            assert_eq!(poll(&mut [PollFd::new(&cancel, PollFlags::IN)], Some(&now)).unwrap(), 1);
        }
    }
}
