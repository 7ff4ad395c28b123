//! Datagrams, with the address of this machine that they were sent to: an answer has to come from there.

use std::mem::{size_of_val, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::SocketAddrAny;
use rustix::net::addr::SocketAddrArg as _;

use super::exec::check;

/// What control messages are kept in, as aligned as they have to be.
type Control = [u64; 8];

/// An address of this machine, and its interface where other interfaces may have the same; those of IPv4 as IPv6 has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Own {
    address: Ipv6Addr,
    interface: u32,
}

/// Has [`receive`] tell what address datagrams were sent to.
pub(crate) fn tell_addresses(socket: BorrowedFd<'_>, is_v6: bool) -> Result<(), Errno> {
    let (level, name) = match is_v6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option is an int, and the call reads the one that it is given.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const on).cast(), length) };
    check(set.into()).map(drop)
}

/// The length of the next datagram, who sent it, and to which address.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> Result<(usize, SocketAddr, Option<Own>), Errno> {
    let mut control: Control = Control::default();
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: both are plain data, for which all zeroes is a valid value.
    let (mut from, mut message): (libc::sockaddr_storage, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of_val(&from) as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the message names memory of ours with its lengths, and all of it outlives the call.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(check(received as libc::c_long)?).unwrap_or(0);
    if message.msg_namelen < size_of::<libc::sockaddr_in>() as libc::socklen_t {
        return Err(Errno::AFNOSUPPORT);
    }
    // SAFETY: the kernel has written an address of this length there, and all of it was initialised before.
    let from = unsafe { SocketAddrAny::read((&raw const from).cast(), message.msg_namelen) };
    Ok((length, SocketAddr::try_from(from)?, own(&message)))
}

fn own(message: &libc::msghdr) -> Option<Own> {
    // SAFETY: the kernel has filled the control messages, which are still there, and set their length.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: it is null, or a header within the control messages.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: as before.
        let data = unsafe { libc::CMSG_DATA(header) };
        match (header.cmsg_level, header.cmsg_type) {
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: that is what such a message has.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let interface = if address.is_unicast_link_local() { info.ipi6_ifindex } else { 0 };
                return Some(Own { address, interface });
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: that is what such a message has.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                let address = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).to_ipv6_mapped();
                return Some(Own { address, interface: 0 });
            }
            // SAFETY: the header is one of the message's.
            _ => next = unsafe { libc::CMSG_NXTHDR(message, header) },
        }
    }
    None
}

/// Sends a datagram from that address.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], to: SocketAddr, from: Own) -> Result<(), Errno> {
    match to {
        SocketAddr::V6(_) => {
            let ipi6_addr = libc::in6_addr { s6_addr: from.address.octets() };
            let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: from.interface as _ };
            send_with(socket, bytes, to, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info)
        }
        SocketAddr::V4(_) => {
            let address = from.address.to_ipv4_mapped().ok_or(Errno::ADDRNOTAVAIL)?;
            let address = libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: address,
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            send_with(socket, bytes, to, (libc::IPPROTO_IP, libc::IP_PKTINFO), info)
        }
    }
}

/// `info` is what a control message of this level and type has.
fn send_with<T: Copy>(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    to: SocketAddr,
    (level, kind): (libc::c_int, libc::c_int),
    info: T,
) -> Result<(), Errno> {
    let size = size_of::<T>() as libc::c_uint;
    let mut control: Control = Control::default();
    let to = to.as_any();
    // Neither is written to.
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: it is plain data, for which all zeroes is a valid value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.addr_len();
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the three calculate; the control messages have room for one header and the larger of the two infos.
    unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(info);
    }
    // SAFETY: the message names memory of ours with its lengths, and all of it outlives the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    check(sent as libc::c_long).map(drop)
}
