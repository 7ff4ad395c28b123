//! Networks of IPv4 addresses: which one the bridge gets, and which address each container.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet {
    pub(super) first: Ipv4Addr,
    pub(super) prefix: u8,
}

/// Where docker and podman don't look for theirs.
#[rustfmt::skip]
const CANDIDATES: [[u8; 2]; 6] = [[10, 210], [10, 211], [10, 178], [10, 153], [172, 16], [192, 168]];
const PREFIX: u8 = 20;
/// The third number, so that a home's 192.168.0.0/24 is not met.
const WITHIN: u8 = 208;

impl Subnet {
    /// The network with `prefix` bits that `address` is in.
    pub(super) fn around(address: Ipv4Addr, prefix: u8) -> Subnet {
        let prefix = prefix.min(32);
        Subnet { first: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix }
    }

    pub(super) fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    pub(super) fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | !mask(self.prefix))
    }

    pub(super) fn overlaps(self, other: Subnet) -> bool {
        self.first.to_bits() <= other.last().to_bits() && other.first.to_bits() <= self.last().to_bits()
    }

    /// The first network for a bridge that overlaps none of those.
    pub(super) fn free(taken: &[Subnet]) -> Option<Subnet> {
        let subnets = CANDIDATES.map(|[a, b]| Subnet::around(Ipv4Addr::new(a, b, WITHIN, 0), PREFIX));
        subnets.into_iter().find(|subnet| !taken.iter().any(|other| subnet.overlaps(*other)))
    }

    /// Every address that a container may have: not the bridge's, which is the first one.
    fn places(self) -> u32 {
        (self.last().to_bits() - self.first.to_bits()).saturating_sub(2)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// An address that is one container's, as long as a file is locked.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) address: Ipv4Addr,
    path: PathBuf,
    file: File,
}

impl Address {
    /// One that nobody has. The search begins at `start`, so that an address that was just given back rests a while.
    pub(super) fn take(dir: &Path, subnet: Subnet, start: u32) -> Result<Address> {
        let places = subnet.places();
        for n in 0..places {
            let address = Ipv4Addr::from_bits(subnet.first.to_bits() + 2 + start.wrapping_add(n) % places);
            if let Some(taken) = Address::try_take(dir, address)? {
                return Ok(taken);
            }
        }
        Err(Error::Setup {
            doing: "looking for an address for a container".to_owned(),
            reason: format!("all {places} of the bridge are in use"),
        })
    }

    fn try_take(dir: &Path, address: Ipv4Addr) -> Result<Option<Address>> {
        let path = dir.join(address.to_string());
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(Error::io("making", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // Whoever had it before may have removed the file between our opening and locking it.
            Ok(()) if rustix::fs::fstat(&file).is_ok_and(|stat| stat.st_nlink > 0) => {
                Ok(Some(Address { address, path, file }))
            }
            Ok(()) | Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Error::io("locking", &path)(errno)),
        }
    }

    /// Whether a living process has one of this directory.
    pub(super) fn any_taken(dir: &Path) -> Result<bool> {
        let entries = std::fs::read_dir(dir).map_err(Error::io("listing", dir))?;
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            if let Ok(address) = name.parse::<Ipv4Addr>()
                && Address::try_take(dir, address)?.is_none()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Drop for Address {
    /// The file goes while it is still locked, so that whoever opened it sees that it is nameless.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        let (address, prefix) = text.split_once('/').unwrap();
        Subnet::around(address.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn a_bridge_keeps_out_of_the_way_of_what_is_there() {
        assert_eq!(Subnet::free(&[]), Some(subnet("10.210.208.0/20")));
        assert_eq!(Subnet::free(&[subnet("10.210.0.0/16")]), Some(subnet("10.211.208.0/20")));
        assert_eq!(Subnet::free(&[subnet("10.0.0.0/8")]), Some(subnet("172.16.208.0/20")));
        assert_eq!(Subnet::free(&[subnet("10.210.220.7/32")]), Some(subnet("10.211.208.0/20")));
        assert_eq!(Subnet::free(&[subnet("0.0.0.0/1"), subnet("128.0.0.0/1")]), None);
        assert_eq!(subnet("10.1.2.3/20").last(), Ipv4Addr::new(10, 1, 15, 255));
    }

    #[test]
    fn an_address_is_one_containers() {
        let dir = tempfile::tempdir().unwrap();
        let subnet = subnet("10.9.8.0/29");
        let take = |start| Address::take(dir.path(), subnet, start);
        let held: Vec<Address> = (0..5).map(|_| take(3).unwrap()).collect();
        let mut given: Vec<u8> = held.iter().map(|a| a.address.octets()[3]).collect();
        assert_eq!(given, [5, 6, 2, 3, 4]);
        given.sort();
        assert!(take(0).unwrap_err().to_string().contains("in use"));
        assert!(Address::any_taken(dir.path()).unwrap());
        drop(held);
        assert!(!Address::any_taken(dir.path()).unwrap());
        // What a process that was killed leaves.
        std::fs::write(dir.path().join("10.9.8.2"), "").unwrap();
        assert_eq!(take(0).unwrap().address, Ipv4Addr::new(10, 9, 8, 2));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
