//! `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`: mounted over whatever the image has, never part of a layer.

use crate::spec::{Mount, MountSource, Network};

/// What the three files say.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub hostname: String,
    /// Further lines of the hosts file, as (address, name).
    pub hosts: Vec<(String, String)>,
    /// The host's resolver configuration; None leaves the container without one.
    pub resolv_conf: Option<Vec<u8>>,
}

const LOCAL: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// The mounts for `names`. In a container's own network, servers at loopback addresses are left out: nobody answers.
pub fn files(names: &Names, network: Network, read_only: bool) -> Vec<Mount> {
    let mut hosts = LOCAL.to_owned();
    if network == Network::Host && !names.hostname.is_empty() {
        hosts.push_str(&format!("127.0.1.1\t{}\n", names.hostname));
    }
    for (address, name) in &names.hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    let hostname = format!("{}\n", names.hostname);
    let resolv_conf = names.resolv_conf.clone().unwrap_or_default();
    let resolv_conf = match network {
        Network::Host => resolv_conf,
        Network::None => without_local_servers(&resolv_conf),
    };
    let file = |target: &str, data: Vec<u8>| Mount {
        target: target.to_owned(),
        source: MountSource::File { data, mode: 0o644 },
        read_only,
    };
    vec![
        file("/etc/hosts", hosts.into_bytes()),
        file("/etc/hostname", hostname.into_bytes()),
        file("/etc/resolv.conf", resolv_conf),
    ]
}

/// The host's resolver configuration; None where it has none that can be read.
pub fn host_resolv_conf() -> Option<Vec<u8>> {
    std::fs::read("/etc/resolv.conf").ok()
}

fn without_local_servers(resolv_conf: &[u8]) -> Vec<u8> {
    let local = |line: &&[u8]| {
        let text = String::from_utf8_lossy(line);
        let mut words = text.split_whitespace();
        words.next() == Some("nameserver")
            && words.next().is_some_and(|a| a.starts_with("127.") || a == "::1")
    };
    resolv_conf.split_inclusive(|b| *b == b'\n').filter(|line| !local(line)).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(mount: &Mount) -> &str {
        match &mount.source {
            MountSource::File { data, .. } => std::str::from_utf8(data).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_files_say_who_is_where() {
        let names = Names {
            hostname: "box".into(),
            hosts: vec![("10.0.0.1".into(), "db".into())],
            resolv_conf: Some(b"nameserver 127.0.0.53\nnameserver 9.9.9.9\n".to_vec()),
        };
        let mounts = files(&names, Network::None, true);
        assert!(text(&mounts[0]).ends_with("10.0.0.1\tdb\n"));
        assert!(text(&mounts[0]).starts_with("127.0.0.1\tlocalhost\n"));
        assert_eq!(text(&mounts[1]), "box\n");
        assert_eq!(text(&mounts[2]), "nameserver 9.9.9.9\n");
        assert!(text(&files(&names, Network::Host, true)[2]).contains("127.0.0.53"));
    }
}
