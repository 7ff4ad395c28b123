//! Settings of the kernel that a container has for itself, and no others: what is not in one of its namespaces is the
//! host's.

use std::ffi::CString;

use rustix::fs::{fstat, stat};

use crate::error::{Error, Result};
use crate::spec::{Network, Spec};

/// Those of its namespace for communication, besides the ones of message queues.
#[rustfmt::skip]
const OF_IPC: [&str; 8] = [
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Paths below procfs, and what is to be written there.
pub(super) fn paths(spec: &Spec) -> Result<Vec<(CString, CString)>> {
    let mut found = Vec::with_capacity(spec.sysctls.len());
    for (name, value) in &spec.sysctls {
        let of_network = name.starts_with("net.");
        if !is_name(name)
            || !(of_network || name.starts_with("fs.mqueue.") || OF_IPC.contains(&name.as_str()))
        {
            return Err(Error::start(125, format!("sysctl '{name}={value}' is not allowed")));
        }
        if of_network && is_hosts(&spec.network)? {
            return Err(Error::start(125, format!("sysctl {name:?} not allowed in host network namespace")));
        }
        let string = |text: String| CString::new(text).map_err(|_| super::nul("a sysctl"));
        found.push((string(format!("sys/{}", name.replace('.', "/")))?, string(value.clone())?));
    }
    Ok(found)
}

/// Whether it is that of whoever started us, which may also be what another container is in.
fn is_hosts(network: &Network) -> Result<bool> {
    let joined = match network {
        Network::Host => return Ok(true),
        Network::None => return Ok(false),
        Network::Joined(namespace) => fstat(namespace),
    };
    let of = "looking at a network namespace";
    let (joined, own) =
        (joined.map_err(Error::io(of, ""))?, stat(c"/proc/self/ns/net").map_err(Error::io(of, ""))?);
    Ok((joined.st_dev, joined.st_ino) == (own.st_dev, own.st_ino))
}

/// Words with dots between them, so that what becomes of them leads nowhere else.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    name.split('.').all(|word| !word.is_empty() && word.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn a_name_is_words() {
        for name in ["net.ipv4.ip_forward", "net.ipv4.conf.eth0-1.arp_filter", "kernel.sem"] {
            assert!(is_name(name), "{name}");
        }
        for name in
            ["", "net.", ".net", "net...kernel.sem", "net./x", "net./../kernel.sem", "net.a b", "net.\0"]
        {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
