//! Without root: a program of the host (pasta, slirp4netns) that takes what a container sends and sends it itself, as
//! any program may. One that works here is remembered, and so is one that runs and runs instead of starting.

mod memory;
mod running;

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;

use memory::{Memory, State};
pub(super) use running::Running;
use running::{Failed, HELPERS, Helper, How};

use super::link::Links;
use super::namespace::{self, failed};
use super::subnet::Subnet;
use super::{Connection, Held, bridge};
use crate::error::{Error, Result};
use crate::idmap;

/// The network behind a helper: the one that slirp4netns is known for, or another where the host, such as a virtual
/// machine, is in that itself.
#[derive(Clone, Copy, Debug)]
struct Place([u8; 3]);

const PLACES: [[u8; 3]; 4] = [[10, 0, 2], [10, 0, 3], [172, 31, 202], [192, 168, 202]];
const PREFIX: u8 = 24;

impl Place {
    fn free(taken: &[Subnet]) -> Place {
        let is_free = |place: &Place| !taken.iter().any(|other| place.subnet().overlaps(*other));
        PLACES.map(Place).into_iter().find(is_free).unwrap_or(Place(PLACES[0]))
    }

    fn subnet(self) -> Subnet {
        Subnet { first: self.at(0), prefix: PREFIX }
    }

    fn container(self) -> Ipv4Addr {
        self.at(100)
    }

    fn gateway(self) -> Ipv4Addr {
        self.at(2)
    }

    fn name_server(self) -> Ipv4Addr {
        self.at(3)
    }

    fn at(self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.0;
        Ipv4Addr::new(a, b, c, last)
    }
}

/// In a network namespace that is there and empty, or in a new one. `interrupted` is asked while a helper is waited for.
pub(super) fn connect(
    memory: &Path,
    given: Option<&OwnedFd>,
    interrupted: &dyn Fn() -> bool,
) -> Result<Connection> {
    idmap::settle()?;
    let memory = Memory::read(memory);
    let (mut reasons, mut found) = (Vec::new(), Vec::new());
    for helper in &HELPERS {
        match helper.program() {
            Some(path) => found.push((helper, State::of(&path)?, path)),
            None => reasons.push(format!("{} is not installed", helper.name)),
        }
    }
    // One that may be slow to fail is not tried before one that works.
    found.sort_by_key(|(_, state, _)| !memory.works(state));
    let mut may_work = false;
    for (helper, state, path) in found {
        if memory.is_broken(&state) {
            reasons.push(format!("{} did not work here before", helper.name));
            continue;
        }
        match start(helper, &path, given, interrupted) {
            Ok(connection) => {
                memory.remember_working(&state);
                return Ok(connection);
            }
            Err(Failed { how: How::Interrupted, .. }) => return Err(Error::Cancelled),
            Err(Failed { reason, how }) => {
                let worked = memory.works(&state);
                may_work |= worked || how == How::Late;
                // What fails at once costs nothing to be tried again, and may be mended by then.
                if how == How::Busy && !worked {
                    memory.remember_broken(&state);
                }
                reasons.push(format!("{}: {reason}", helper.name));
            }
        }
    }
    let reason = reasons.join("; ");
    if !may_work {
        return Err(Error::Unsupported(reason));
    }
    // That it failed this once is no reason to let the container into the host's network.
    let reason = format!("{reason}; the host's network is used in its place only with --network host");
    Err(Error::Setup { doing: "joining a container to the world".to_owned(), reason })
}

fn start(
    helper: &Helper,
    path: &Path,
    given: Option<&OwnedFd>,
    interrupted: &dyn Fn() -> bool,
) -> Result<Connection, Failed> {
    let (place, host) = surroundings()?;
    // A helper takes with it what it made, so what another one failed in is empty again.
    let (namespace, mut links) = namespace::make(given, || {
        bridge::furnish()?;
        Links::open().map_err(failed("looking into the network namespace"))
    })?;
    let mut running = Running::start(helper, path, place, &namespace)?;
    running.wait(&mut links, interrupted)?;
    Ok(Connection {
        namespace: namespace.into(),
        address: place.container(),
        host,
        name_server: Some(place.name_server()),
        warning: None,
        held: Held::Helper(running),
    })
}

/// Where a container can be without being in the way of what the host reaches, and the address by which it reaches the
/// host: the helper's own is that of nobody.
fn surroundings() -> Result<(Place, Ipv4Addr)> {
    let doing = "looking at the host's network";
    let mut links = Links::open().map_err(failed(doing))?;
    let (taken, _) = links.routes().map_err(failed(doing))?;
    let place = Place::free(&taken);
    let host = match towards_the_world() {
        Some(address) => Some(address),
        None => links.any_address().map_err(failed(doing))?,
    };
    // A machine that has none but its loopback's reaches nobody, and is reached by nobody.
    Ok((place, host.unwrap_or(place.gateway())))
}

/// The address under which this machine sends to others. Nothing is sent: the kernel looks for the way when a socket is
/// connected.
fn towards_the_world() -> Option<Ipv4Addr> {
    const ANYBODY: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
    const ANY_PORT: u16 = 53;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((ANYBODY, ANY_PORT)).ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_where_the_host_is_not() {
        let subnet = |address: [u8; 4], prefix| Subnet::around(Ipv4Addr::from(address), prefix);
        let free = |taken: &[Subnet]| Place::free(taken).container().to_string();
        assert_eq!(free(&[subnet([192, 168, 1, 0], 24)]), "10.0.2.100");
        assert_eq!(free(&[subnet([10, 0, 2, 15], 24)]), "10.0.3.100");
        assert_eq!(free(&[subnet([10, 0, 0, 0], 8)]), "172.31.202.100");
        let everything = [subnet([0, 0, 0, 0], 1), subnet([128, 0, 0, 0], 1)];
        assert_eq!(free(&everything), "10.0.2.100");
    }
}
