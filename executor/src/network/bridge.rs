//! The bridge of this machine, or rather of the network namespace that we run in: made by whoever needs it first, and
//! shared by all processes. What it is, the kernel knows; only who has which address is in files.

use std::fs::{File, Permissions};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::link::{Interface, Links};
use super::namespace::{self, failed};
use super::subnet::{Address, Subnet};
use super::{BRIDGE, Interrupted, LOOK, firewall};
use crate::error::{Error, Result};

const RUN: &str = "/run/boxwright/network";
const LOCK: &str = "lock";
const MTU: u32 = 1500;

/// A namespace with an end of the bridge's cable in it.
#[derive(Debug)]
pub(super) struct Plugged {
    pub(super) namespace: OwnedFd,
    pub(super) address: Address,
    pub(super) gateway: Ipv4Addr,
    /// Why it will reach nobody.
    pub(super) warning: Option<String>,
}

/// What there is to be plugged into.
struct Bridge {
    links: Links,
    bridge: Interface,
    gateway: Ipv4Addr,
    subnet: Subnet,
    warning: Option<String>,
}

/// Leaves the calling thread, which is to end then, in the new namespace.
///
/// # Errors
/// Whatever keeps this machine from having a bridge, or one more container on it; [`Error::Cancelled`].
pub(super) fn plug(interrupted: Interrupted<'_>) -> Result<Plugged> {
    let dir = directory()?;
    let (mut on, address) = {
        let _lock = lock(&dir, interrupted)?;
        let on = ensure(&dir, interrupted)?;
        let address = Address::take(&dir, on.subnet, random()?)?;
        (on, address)
    };
    let place = address.address;
    let namespace = namespace::leave()?;
    furnish()?;
    let outside = format!("bw{:08x}", random()?);
    let doing = "plugging a container into the bridge";
    let cable = on.links.add_cable(on.bridge, &outside, "eth0", namespace.as_fd(), hardware(place));
    cable.map_err(failed(doing))?;
    let mut inside = Links::open().map_err(failed(doing))?;
    let own = inside.find("eth0").map_err(failed(doing))?.ok_or_else(|| lost("eth0"))?;
    inside.connect(own, place, on.subnet, on.gateway).map_err(failed(doing))?;
    Ok(Plugged { namespace, address, gateway: on.gateway, warning: on.warning })
}

/// What docker's containers find in their network: no IPv6 but their own, and ports below 1024 for everybody. To be done
/// before there is an interface.
pub(super) fn furnish() -> Result<()> {
    // For interfaces to come; to change one that is there takes many times as long. A kernel without IPv6 has nothing to set.
    let _ = namespace::set("ipv6/conf/default/disable_ipv6", "1");
    namespace::set("ipv4/ip_unprivileged_port_start", "0")?;
    // The group of whoever may ping without rights: all of them.
    let _ = namespace::set("ipv4/ping_group_range", "0 2147483647");
    let loopback = 1;
    let up = Links::open().and_then(|mut links| links.set_up(loopback));
    up.map_err(failed("bringing the loopback interface up"))
}

/// Removes the bridge and its rules, if no container is on it; whether there was one.
///
/// # Errors
/// What the kernel says; [`Error::Cancelled`].
pub fn remove_unused(interrupted: &(dyn Fn() -> bool + Sync)) -> Result<bool> {
    let dir = directory()?;
    let _lock = lock(&dir, interrupted)?;
    let doing = "removing the bridge";
    let mut links = Links::open().map_err(failed(doing))?;
    let Some(bridge) = links.find(BRIDGE).map_err(failed(doing))? else { return Ok(false) };
    if Address::any_taken(&dir)? {
        return Ok(false);
    }
    firewall::remove(interrupted)?;
    links.remove(bridge).map_err(failed(doing))?;
    Ok(true)
}

/// Makes a bridge with a container on it, and removes both: in a namespace that is nobody else's, and goes with the
/// calling process.
pub(crate) fn attempt() -> Result<()> {
    let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
    if !effective.is_ok_and(|held| held.contains(rustix::thread::CapabilitySet::NET_ADMIN)) {
        return Err(Error::Unsupported("the right to change networks (CAP_NET_ADMIN) is missing".to_owned()));
    }
    let never = || false;
    let tried = namespace::in_thread(|| plug(&never)).map(drop).and_then(|()| remove_unused(&never));
    let dir = directory()?;
    match std::fs::remove_dir_all(&dir) {
        // Who made a bridge meanwhile has swept it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        removed => removed.map_err(Error::io("removing", &dir))?,
    }
    tried.map(drop)
}

/// The bridge with its address, made if it is not there, and its rules. One that was made and gets no rules is taken away.
fn ensure(dir: &Path, interrupted: Interrupted<'_>) -> Result<Bridge> {
    let doing = "making the bridge";
    let mut links = Links::open().map_err(failed(doing))?;
    let found = match links.find(BRIDGE).map_err(failed(doing))? {
        Some(bridge) => links.address(bridge).map_err(failed(doing))?.map(|(own, net)| (bridge, own, net)),
        None => None,
    };
    let (bridge, gateway, subnet) = match found {
        Some(found) => found,
        None => {
            sweep(dir);
            make(&mut links)?
        }
    };
    let ruled = firewall::ensure(dir, subnet, found.is_none(), interrupted);
    let ruled = ruled.and_then(|warning| forward().map(|()| warning));
    if let (Err(error), None) = (&ruled, found) {
        // Whoever is the next one makes it again, and says what there is to say.
        let _ = match error {
            // Rules in the filters of others are for a bridge that is not there.
            Error::Cancelled => firewall::remove_own().map(drop),
            _ => firewall::remove(&|| false),
        };
        let _ = links.remove(bridge);
    }
    let warning = ruled?;
    Ok(Bridge { links, bridge, gateway, subnet, warning })
}

/// Rules come before this, so that nothing is forwarded that they would not let through.
fn forward() -> Result<()> {
    match std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward") {
        Ok(text) if text.trim() == "0" => namespace::set("ipv4/ip_forward", "1"),
        _ => Ok(()),
    }
}

fn make(links: &mut Links) -> Result<(Interface, Ipv4Addr, Subnet)> {
    let doing = "making the bridge";
    let (taken, default) = links.routes().map_err(failed(doing))?;
    let subnet = Subnet::free(&[taken, name_servers()].concat()).ok_or_else(|| {
        Error::Unsupported("every network that the bridge could have is routed elsewhere".into())
    })?;
    let gateway = Ipv4Addr::from_bits(subnet.first.to_bits() + 1);
    // One without an address is what somebody left who was killed.
    if let Some(half) = links.find(BRIDGE).map_err(failed(doing))? {
        links.remove(half).map_err(failed(doing))?;
    }
    let mtu = default.map_or(MTU, |default| default.mtu.min(MTU));
    links.add_bridge(BRIDGE, mtu, hardware(gateway)).map_err(failed(doing))?;
    let bridge = links.find(BRIDGE).map_err(failed(doing))?.ok_or_else(|| lost(BRIDGE))?;
    // Containers have no IPv6, and so can't reach by it what listens on the host.
    let _ = namespace::set(&format!("ipv6/conf/{BRIDGE}/disable_ipv6"), "1");
    links.add_address(bridge, gateway, subnet).map_err(failed(doing))?;
    Ok((bridge, gateway, subnet))
}

/// Where the host's name servers are, which the bridge must not hide.
fn name_servers() -> Vec<Subnet> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok());
    servers.map(|address| Subnet::around(address, 32)).collect()
}

/// Each network namespace has a bridge of its own, and so a directory.
fn directory() -> Result<PathBuf> {
    let namespace =
        rustix::fs::fstat(namespace::current()?).map_err(Error::io("looking at", "our network"))?;
    let dir = Path::new(RUN).join(namespace.st_ino.to_string());
    // For nobody else: who may open a file may lock it, and have everybody wait.
    match rustix::fs::stat(&dir) {
        Ok(found) if found.st_mode & 0o077 == 0 => {}
        Ok(_) => std::fs::set_permissions(&dir, Permissions::from_mode(0o700))
            .map_err(Error::io("changing the mode of", &dir))?,
        Err(_) => {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(Error::io("making", &dir))?;
        }
    }
    Ok(dir)
}

/// As docker's: whoever has an address has its hardware's as well, so nobody's notes about it get stale.
fn hardware(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

fn lock(dir: &Path, interrupted: Interrupted<'_>) -> Result<File> {
    let path = dir.join(LOCK);
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = match file {
            // Somebody took the directory for one that nobody needs.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                directory()?;
                continue;
            }
            file => file.map_err(Error::io("making", &path))?,
        };
        // Who has it may wait for iptables: we are not to wait as long once nobody wants what it is for.
        match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if interrupted() => return Err(Error::Cancelled),
            Err(Errno::WOULDBLOCK) => {
                std::thread::sleep(LOOK);
                continue;
            }
            locked => locked.map_err(Error::io("locking", &path))?,
        }
        if rustix::fs::fstat(&file).is_ok_and(|stat| stat.st_nlink > 0) {
            return Ok(file);
        }
    }
}

/// Removes what network namespaces have left that are gone. Whose containers have ended may lose its directory as well, and
/// makes it again.
fn sweep(own: &Path) {
    let Ok(dirs) = std::fs::read_dir(RUN) else { return };
    for dir in dirs.filter_map(|dir| Some(dir.ok()?.path())).filter(|dir| dir != own) {
        let Ok(lock) = File::options().write(true).open(dir.join(LOCK)) else { continue };
        let locked = flock(lock.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok();
        if locked && Address::any_taken(&dir).is_ok_and(|taken| !taken) {
            let _ = std::fs::remove_dir_all(&dir);
        }
    }
}

fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(Error::io("reading", "random numbers"))?;
    Ok(u32::from_ne_bytes(bytes))
}

fn lost(name: &str) -> Error {
    Error::Setup { doing: format!("looking for the interface {name}"), reason: "it is gone".to_owned() }
}
