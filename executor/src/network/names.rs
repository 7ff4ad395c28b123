//! `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`: mounted over whatever the image has, never part of a layer.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::{Connection, Resolver};
use crate::error::{Error, Result};
use crate::spec::{Mount, MountSource, Network};

/// What the three files say.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub hostname: String,
    /// What comes after it in the first name that the hosts file has for the container.
    pub domain: Option<String>,
    /// Further lines of the hosts file, as (address, name). The address [`HOST_GATEWAY`] is that of the host.
    pub hosts: Vec<(String, String)>,
    pub resolver: Resolver,
}

/// What is written to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFiles {
    pub hostname: String,
    #[serde(default)]
    pub domain: Option<String>,
    pub hosts: String,
    pub resolv_conf: Vec<u8>,
}

const LOCAL: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// Where systemd-resolved says which servers it asks itself.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
/// What docker takes where the host names no server that a container could reach.
const PUBLIC: &[u8] = b"nameserver 8.8.8.8\nnameserver 8.8.4.4\n";

impl Names {
    /// What the files say in `network`, of which `connection` tells more where it is one of ours.
    ///
    /// # Errors
    /// When the host's resolver configuration can't be read.
    pub fn files(&self, network: &Network, connection: Option<&Connection>) -> Result<NameFiles> {
        let resolv_conf = self.resolver.apply(resolv_conf(network, connection)?);
        Ok(NameFiles {
            hostname: self.hostname.clone(),
            domain: self.domain.clone(),
            hosts: self.hosts(network, connection.map(|c| (c.address(), c.host()))),
            resolv_conf,
        })
    }

    /// The addresses are the container's own and the host's.
    fn hosts(&self, network: &Network, addresses: Option<(Ipv4Addr, Ipv4Addr)>) -> String {
        let mut hosts = LOCAL.to_owned();
        let own = match network {
            Network::Host => Some("127.0.1.1".to_owned()),
            Network::None | Network::Joined(_) => addresses.map(|(own, _)| own.to_string()),
        };
        if let Some(own) = own.filter(|_| !self.hostname.is_empty()) {
            hosts.push_str(&format!("{own}\t{}\n", self.in_full()));
        }
        let host = addresses.map_or(Ipv4Addr::LOCALHOST, |(_, host)| host).to_string();
        for (address, name) in &self.hosts {
            let address = if address == HOST_GATEWAY { &host } else { address };
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
        hosts
    }

    /// With its domain, and without, wherever that is said.
    fn in_full(&self) -> String {
        let domain = self.domain.as_ref().map_or(String::new(), |domain| format!(".{domain}"));
        let full = format!("{}{domain}", self.hostname);
        full.split_once('.').map_or(full.clone(), |(short, _)| format!("{full} {short}"))
    }
}

impl NameFiles {
    pub fn mounts(self, read_only: bool) -> Vec<Mount> {
        let file = |target: &str, data: Vec<u8>| Mount {
            target: target.to_owned(),
            source: MountSource::File { data, mode: 0o644 },
            read_only,
        };
        vec![
            file("/etc/hosts", self.hosts.into_bytes()),
            file("/etc/hostname", format!("{}\n", self.hostname).into_bytes()),
            file("/etc/resolv.conf", self.resolv_conf),
        ]
    }
}

/// In place of an address: the host's.
pub const HOST_GATEWAY: &str = "host-gateway";

/// The host's resolver configuration as it holds in `network`, with servers that are reached there.
fn resolv_conf(network: &Network, connection: Option<&Connection>) -> Result<Vec<u8>> {
    let host = read("/etc/resolv.conf")?.unwrap_or_default();
    Ok(match (network, connection) {
        (Network::Host, _) => host,
        (_, None) => without_servers(&host, is_local),
        (_, Some(connection)) => match connection.name_server() {
            Some(server) => {
                let own = format!("nameserver {server}\n").into_bytes();
                [own, without_servers(&host, |_| true)].concat()
            }
            None => reachable(&host, read(UPSTREAM)?.as_deref()),
        },
    })
}

/// The lines of the host's file, or of that of its local server, without servers that answer on the host alone.
fn reachable(host: &[u8], upstream: Option<&[u8]>) -> Vec<u8> {
    let file = if count(host, is_server) > 0 && count(host, |l| is_server(l) && !is_local(l)) == 0 {
        upstream.unwrap_or(host)
    } else {
        host
    };
    // The container has no IPv6 beyond its own loopback.
    let kept = without_servers(file, |line| {
        is_local(line) || server(line).is_some_and(|address| address.contains(':'))
    });
    if count(&kept, is_server) > 0 { kept } else { [PUBLIC, &kept].concat() }
}

fn read(path: &str) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some).map_err(Error::io("reading", path)),
    }
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next().unwrap_or_default())
}

fn is_server(line: &str) -> bool {
    server(line).is_some()
}

fn is_local(line: &str) -> bool {
    server(line).is_some_and(|address| address.starts_with("127.") || address == "::1")
}

fn count(text: &[u8], which: impl Fn(&str) -> bool) -> usize {
    String::from_utf8_lossy(text).lines().filter(|line| which(line)).count()
}

fn without_servers(text: &[u8], left_out: impl Fn(&str) -> bool) -> Vec<u8> {
    let goes = |line: &&[u8]| {
        let line = String::from_utf8_lossy(line);
        is_server(&line) && left_out(&line)
    };
    text.split_inclusive(|b| *b == b'\n').filter(|line| !goes(line)).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_say_who_is_where() {
        let names = Names {
            hostname: "box".into(),
            hosts: vec![("10.0.0.1".into(), "db".into()), (HOST_GATEWAY.into(), "host".into())],
            ..Names::default()
        };
        let none = names.hosts(&Network::None, None);
        assert!(none.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(none.ends_with("ip6-allrouters\n10.0.0.1\tdb\n127.0.0.1\thost\n"));
        let addresses = Some((Ipv4Addr::new(10, 1, 0, 9), Ipv4Addr::new(10, 1, 0, 1)));
        let own = names.hosts(&Network::None, addresses);
        assert!(own.ends_with("10.1.0.9\tbox\n10.0.0.1\tdb\n10.1.0.1\thost\n"));
        assert!(names.hosts(&Network::Host, None).contains("127.0.1.1\tbox\n"));
    }

    #[test]
    fn servers_are_those_that_a_container_reaches() {
        let reachable = |host: &str, upstream: Option<&str>| {
            String::from_utf8(reachable(host.as_bytes(), upstream.map(str::as_bytes))).unwrap()
        };
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(reachable("nameserver 9.9.9.9\nsearch a\n", None), "nameserver 9.9.9.9\nsearch a\n");
        assert_eq!(reachable(stub, Some("nameserver 9.9.9.9\n")), "nameserver 9.9.9.9\n");
        assert_eq!(
            reachable(&format!("{stub}nameserver 1.1.1.1\n"), None),
            "options edns0\nnameserver 1.1.1.1\n"
        );
        assert_eq!(
            reachable("search a\n", Some("nameserver 9.9.9.9\n")),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\nsearch a\n"
        );
        assert_eq!(reachable(stub, None), "nameserver 8.8.8.8\nnameserver 8.8.4.4\noptions edns0\n");
        for other in ["fe80::1", "2001:db8:1:2:3:4:5:6"] {
            let host = format!("nameserver {other}\n");
            assert_eq!(reachable(&host, None), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
        }
    }
}
