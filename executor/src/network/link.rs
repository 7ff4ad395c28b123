//! Interfaces, addresses and routes, by rtnetlink: those of the namespace that the calling thread is in.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use super::netlink::{CREATE, EXCLUSIVE, Message, Netlink};
use super::subnet::Subnet;

/// An interface, as the kernel numbers it, and how many bytes a packet may have there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) mtu: u32,
}

#[derive(Debug)]
pub(super) struct Links(Netlink);

/// Of `struct ifinfomsg`, `ifaddrmsg` and `rtmsg`.
const IFINFO: usize = 16;
const IFADDR: usize = 8;
const RTMSG: usize = 12;
const INET: u8 = libc::AF_INET as u8;
const UP: u32 = libc::IFF_UP as u32;
const VETH_INFO_PEER: u16 = 1;

impl Links {
    pub(super) fn open() -> Result<Links, Errno> {
        Netlink::open(None).map(Links)
    }

    pub(super) fn find(&mut self, name: &str) -> Result<Option<Interface>, Errno> {
        let message = Message::new(libc::RTM_GETLINK, 0, &ifinfo(0, 0)).text(libc::IFLA_IFNAME, name);
        self.interface(message)
    }

    fn interface(&mut self, message: Message) -> Result<Option<Interface>, Errno> {
        let answer = match self.0.get(message) {
            Err(Errno::NODEV) => return Ok(None),
            answer => answer?,
        };
        Ok(answer.and_then(|link| {
            let index = number(link.fixed(IFINFO)?.get(4..8)?)?;
            Some(Interface { index, mtu: number(link.attribute(IFINFO, libc::IFLA_MTU)?)? })
        }))
    }

    /// A bridge that is up. It keeps its hardware address and MTU, whatever is plugged into it.
    pub(super) fn add_bridge(&mut self, name: &str, mtu: u32, hardware: [u8; 6]) -> Result<(), Errno> {
        // What it is made with, the kernel takes for a first guess.
        let change = Message::new(libc::RTM_NEWLINK, 0, &ifinfo(0, UP))
            .text(libc::IFLA_IFNAME, name)
            .attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        let message = Message::new(libc::RTM_NEWLINK, CREATE | EXCLUSIVE, &ifinfo(0, 0))
            .text(libc::IFLA_IFNAME, name)
            .attribute(libc::IFLA_ADDRESS, &hardware)
            .nested(libc::IFLA_LINKINFO, b"", |info| info.text(libc::IFLA_INFO_KIND, "bridge"));
        self.0.request([message, change])
    }

    pub(super) fn remove(&mut self, interface: Interface) -> Result<(), Errno> {
        self.0.request([Message::new(libc::RTM_DELLINK, 0, &ifinfo(interface.index, 0))])
    }

    /// A cable between `bridge` and the interface `inside` of another namespace; that end can be brought up only once
    /// there is the other.
    pub(super) fn add_cable(
        &mut self,
        bridge: Interface,
        outside: &str,
        inside: &str,
        namespace: BorrowedFd<'_>,
        hardware: [u8; 6],
    ) -> Result<(), Errno> {
        let mtu = bridge.mtu.to_ne_bytes();
        let peer = |peer: Message| {
            peer.text(libc::IFLA_IFNAME, inside)
                .attribute(libc::IFLA_MTU, &mtu)
                .attribute(libc::IFLA_ADDRESS, &hardware)
                .attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes())
        };
        let message = Message::new(libc::RTM_NEWLINK, CREATE | EXCLUSIVE, &ifinfo(0, UP))
            .text(libc::IFLA_IFNAME, outside)
            .attribute(libc::IFLA_MTU, &mtu)
            .attribute(libc::IFLA_MASTER, &bridge.index.to_ne_bytes())
            .nested(libc::IFLA_LINKINFO, b"", |info| {
                let info = info.text(libc::IFLA_INFO_KIND, "veth");
                info.nested(libc::IFLA_INFO_DATA, b"", |data| {
                    data.nested(VETH_INFO_PEER, &ifinfo(0, 0), peer)
                })
            });
        self.0.request([message])
    }

    pub(super) fn set_up(&mut self, interface: u32) -> Result<(), Errno> {
        self.0.request([Message::new(libc::RTM_NEWLINK, 0, &ifinfo(interface, UP))])
    }

    pub(super) fn add_address(
        &mut self,
        interface: Interface,
        address: Ipv4Addr,
        subnet: Subnet,
    ) -> Result<(), Errno> {
        self.0.request([new_address(interface, address, subnet)])
    }

    /// Brings the interface up and gives it an address, and its namespace a way out.
    pub(super) fn connect(
        &mut self,
        interface: Interface,
        address: Ipv4Addr,
        subnet: Subnet,
        gateway: Ipv4Addr,
    ) -> Result<(), Errno> {
        let up = Message::new(libc::RTM_NEWLINK, 0, &ifinfo(interface.index, UP));
        self.0.request([up, new_address(interface, address, subnet), default_route(gateway)])
    }

    /// The first address of an interface, with the network that it is in.
    pub(super) fn address(&mut self, interface: Interface) -> Result<Option<(Ipv4Addr, Subnet)>, Errno> {
        let message = Message::new(libc::RTM_GETADDR, 0, &[INET, 0, 0, 0, 0, 0, 0, 0]);
        let addresses = self.0.dump(message)?;
        Ok(addresses.iter().find_map(|answer| {
            let fixed = answer.fixed(IFADDR)?;
            let address = ipv4(answer.attribute(IFADDR, libc::IFA_LOCAL)?)?;
            let ours = number(fixed.get(4..8)?)? == interface.index;
            ours.then(|| (address, Subnet::around(address, fixed[1])))
        }))
    }

    /// An address of the namespace's that others may know.
    pub(super) fn any_address(&mut self) -> Result<Option<Ipv4Addr>, Errno> {
        let addresses = self.0.dump(Message::new(libc::RTM_GETADDR, 0, &[INET, 0, 0, 0, 0, 0, 0, 0]))?;
        Ok(addresses.iter().find_map(|answer| {
            let universe = answer.fixed(IFADDR)?[3] == libc::RT_SCOPE_UNIVERSE;
            let address = ipv4(answer.attribute(IFADDR, libc::IFA_LOCAL)?)?;
            (universe && !address.is_loopback()).then_some(address)
        }))
    }

    /// Where packets go by IPv4, other than by the default route, and the interface of that.
    pub(super) fn routes(&mut self) -> Result<(Vec<Subnet>, Option<Interface>), Errno> {
        let answers =
            self.0.dump(Message::new(libc::RTM_GETROUTE, 0, &[INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))?;
        let (mut taken, mut default) = (Vec::new(), None);
        for answer in &answers {
            let Some(fixed) = answer.fixed(RTMSG) else { continue };
            match answer.attribute(RTMSG, libc::RTA_DST).and_then(ipv4) {
                Some(address) => taken.push(Subnet::around(address, fixed[1])),
                None if default.is_none() => {
                    default = answer.attribute(RTMSG, libc::RTA_OIF).and_then(number)
                }
                None => {}
            }
        }
        let default = match default {
            Some(index) => self.interface(Message::new(libc::RTM_GETLINK, 0, &ifinfo(index, 0)))?,
            None => None,
        };
        Ok((taken, default))
    }
}

fn new_address(interface: Interface, address: Ipv4Addr, subnet: Subnet) -> Message {
    let fixed = [&[INET, subnet.prefix, 0, 0][..], &interface.index.to_ne_bytes()].concat();
    Message::new(libc::RTM_NEWADDR, CREATE | EXCLUSIVE, &fixed)
        .attribute(libc::IFA_LOCAL, &address.octets())
        .attribute(libc::IFA_ADDRESS, &address.octets())
        .attribute(libc::IFA_BROADCAST, &subnet.last().octets())
}

fn default_route(gateway: Ipv4Addr) -> Message {
    let (table, protocol, scope) = (libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, libc::RT_SCOPE_UNIVERSE);
    let fixed = [INET, 0, 0, 0, table, protocol, scope, libc::RTN_UNICAST, 0, 0, 0, 0];
    Message::new(libc::RTM_NEWROUTE, CREATE | EXCLUSIVE, &fixed)
        .attribute(libc::RTA_GATEWAY, &gateway.octets())
}

/// `change` are flags that are set.
fn ifinfo(index: u32, set: u32) -> [u8; IFINFO] {
    let mut bytes = [0; IFINFO];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&set.to_ne_bytes());
    bytes[12..16].copy_from_slice(&set.to_ne_bytes());
    bytes
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?))
}
