//! Netlink: messages put together by hand, and a socket that sends them and waits for the kernel's answers. What they
//! mean is in [`super::link`] (rtnetlink) and [`super::firewall`] (nfnetlink).

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::Protocol;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

/// The kernel answers at once; where it does not, nobody should wait for ever.
const PATIENCE: Duration = Duration::from_secs(10);
const HEADER: usize = 16;
/// More than any answer takes: the kernel sends a dump in parts of at most 32 KiB.
const BUFFER: usize = 64 << 10;

const ACK: u16 = libc::NLM_F_ACK as u16;
const DUMP: u16 = libc::NLM_F_DUMP as u16;
const REQUEST: u16 = libc::NLM_F_REQUEST as u16;
pub(super) const CREATE: u16 = libc::NLM_F_CREATE as u16;
pub(super) const EXCLUSIVE: u16 = libc::NLM_F_EXCL as u16;
pub(super) const APPEND: u16 = libc::NLM_F_APPEND as u16;

/// A message to the kernel: its kind and flags, a fixed part, and attributes.
#[derive(Debug)]
pub(super) struct Message(Vec<u8>);

/// A message from the kernel.
#[derive(Debug)]
pub(super) struct Answer {
    payload: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Message {
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Message(bytes)
    }

    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        self.push(kind, value);
        self
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Message {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// An attribute that holds attributes, `fixed` in front of them.
    pub(super) fn nested(self, kind: u16, fixed: &[u8], inner: impl FnOnce(Message) -> Message) -> Message {
        let inner = inner(Message(fixed.to_vec())).0;
        self.attribute(kind | NESTED, &inner)
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).expect("attributes are short");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn sealed(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("messages are short");
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | flags;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0
    }
}

const NESTED: u16 = libc::NLA_F_NESTED as u16;

impl Answer {
    /// The fixed part, of which there are `length` bytes at least.
    pub(super) fn fixed(&self, length: usize) -> Option<&[u8]> {
        self.payload.get(..length)
    }

    /// The attribute `kind` behind a fixed part of `fixed` bytes.
    pub(super) fn attribute(&self, fixed: usize, kind: u16) -> Option<&[u8]> {
        attributes(self.payload.get(fixed..)?).find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    /// An attribute in the attribute `kind`.
    pub(super) fn inner(&self, fixed: usize, kind: u16, inner: u16) -> Option<&[u8]> {
        attributes(self.attribute(fixed, kind)?).find(|(k, _)| *k == inner).map(|(_, value)| value)
    }

    pub(super) fn mentions(&self, bytes: &[u8]) -> bool {
        self.payload.windows(bytes.len()).any(|window| window == bytes)
    }
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & !NESTED;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

impl Netlink {
    /// A socket of the network namespace that this thread is in. rtnetlink has no name here: it is number 0.
    pub(super) fn open(protocol: Option<Protocol>) -> Result<Netlink, Errno> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Netlink { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Sends the messages as one, and waits until the kernel has done all of them, or the first that it refuses.
    pub(super) fn request(&mut self, messages: impl IntoIterator<Item = Message>) -> Result<(), Errno> {
        self.send(messages.into_iter().map(|message| (message, ACK)))
    }

    /// The same as a transaction: all of them or none. Those at both ends only say where it begins and ends.
    pub(super) fn transact(
        &mut self,
        begin: Message,
        messages: Vec<Message>,
        end: Message,
    ) -> Result<(), Errno> {
        let inner = messages.into_iter().map(|message| (message, ACK));
        self.send(std::iter::once((begin, 0)).chain(inner).chain(std::iter::once((end, 0))))
    }

    fn send(&mut self, messages: impl Iterator<Item = (Message, u16)>) -> Result<(), Errno> {
        let (mut bytes, mut waiting) = (Vec::new(), 0);
        for (message, flags) in messages {
            self.sequence += 1;
            waiting += u32::from(flags & ACK != 0);
            bytes.extend(message.sealed(self.sequence, flags));
        }
        send(&self.socket, &bytes, SendFlags::empty())?;
        while waiting > 0 {
            self.receive(|kind, payload| {
                if kind == libc::NLMSG_ERROR as u16 {
                    waiting = u32::saturating_sub(waiting, 1);
                    outcome(payload)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// All that there is of a kind.
    pub(super) fn dump(&mut self, message: Message) -> Result<Vec<Answer>, Errno> {
        self.ask(message, DUMP)
    }

    /// What the message asks for.
    pub(super) fn get(&mut self, message: Message) -> Result<Option<Answer>, Errno> {
        Ok(self.ask(message, ACK)?.pop())
    }

    fn ask(&mut self, message: Message, flags: u16) -> Result<Vec<Answer>, Errno> {
        self.sequence += 1;
        send(&self.socket, &message.sealed(self.sequence, flags), SendFlags::empty())?;
        let (mut answers, mut done) = (Vec::new(), false);
        while !done {
            self.receive(|kind, payload| {
                if kind == libc::NLMSG_ERROR as u16 || kind == libc::NLMSG_DONE as u16 {
                    done = true;
                    return outcome(payload);
                }
                answers.push(Answer { payload: payload.to_vec() });
                Ok(())
            })?;
        }
        Ok(answers)
    }

    /// Gives each message of one datagram to `take`.
    fn receive(&mut self, mut take: impl FnMut(u16, &[u8]) -> Result<(), Errno>) -> Result<(), Errno> {
        // Memory that is never written to costs nothing.
        self.buffer.clear();
        recv(&self.socket, spare_capacity(&mut self.buffer), RecvFlags::empty())?;
        let mut rest = &self.buffer[..];
        while rest.len() >= HEADER {
            let word = |at: usize| [rest[at], rest[at + 1], rest[at + 2], rest[at + 3]];
            let length = (u32::from_ne_bytes(word(0)) as usize).clamp(HEADER, rest.len());
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            // What comes too late for an earlier request is not for this one.
            if u32::from_ne_bytes(word(8)) <= self.sequence {
                take(kind, &rest[HEADER..length])?;
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

/// The number that such a message begins with; zero is success.
fn outcome(payload: &[u8]) -> Result<(), Errno> {
    let number = payload.get(..4).and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
    match number.unwrap_or(0) {
        0 => Ok(()),
        number => Err(Errno::from_raw_os_error(number.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_among_others_and_never_outside() {
        let message = Message::new(1, 0, b"four").text(3, "name").nested(4, b"", |m| m.attribute(1, &[7]));
        let answer = Answer { payload: message.0[HEADER..].to_vec() };
        assert_eq!(answer.fixed(4), Some(&b"four"[..]));
        assert_eq!(answer.attribute(4, 3), Some(&b"name\0"[..]));
        assert_eq!(answer.attribute(4, 4).map(|inner| attributes(inner).count()), Some(1));
        assert_eq!(answer.attribute(4, 5), None);
        for broken in [&[9, 0, 3, 0][..], &[3, 0, 3, 0], &[0; 4], &[255]] {
            assert_eq!(attributes(broken).count(), 0, "{broken:?}");
        }
    }
}
