//! Standard input, read without a buffer of ours; waiting for it ends with Ctrl-C.

use std::io::{self, Read};

use boxwright_cache::Cancel;
use rustix::event::{PollFd, PollFlags, poll};

pub(crate) struct Stdin<'a>(pub(crate) &'a Cancel);

impl Read for Stdin<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let input = rustix::stdio::stdin();
        loop {
            let mut fds =
                [PollFd::from_borrowed_fd(input, PollFlags::IN), PollFd::new(self.0, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            if self.0.is_raised() {
                return Err(io::Error::other("canceled"));
            }
            match rustix::io::read(input, &mut *buffer) {
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
    }
}
