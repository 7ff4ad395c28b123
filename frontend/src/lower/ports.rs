//! Port specifications, of EXPOSE and of `run --publish`: `[[ip:]host:]container[-range][/protocol]`.

use std::net::IpAddr;

use crate::notation::quote;

/// What may follow the slash.
pub(super) const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// A port of a container, and what of the host is to stand for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// None where no address is given.
    pub host: Option<IpAddr>,
    /// The first and the last of those that will do; None where none is given.
    pub host_ports: Option<(u16, u16)>,
    pub container: u16,
    pub protocol: &'static str,
}

/// The ports as the image config names them: `80/tcp`. Only the container's part counts.
///
/// # Errors
/// What is wrong with the specification.
pub(super) fn parse(spec: &str) -> Result<Vec<String>, String> {
    let mappings = parse_ports(spec)?;
    Ok(mappings.iter().map(|port| format!("{}/{}", port.container, port.protocol)).collect())
}

/// One mapping for each port of the container.
///
/// # Errors
/// What is wrong with the specification.
pub fn parse_ports(spec: &str) -> Result<Vec<PortMapping>, String> {
    let invalid = |reason: &str| format!("invalid port: {}: {reason}", quote(spec));
    let mut parts = spec.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let ip = parts.next().unwrap_or_default();
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    if container.is_empty() {
        return Err(invalid("no port specified"));
    }
    let named = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    let protocol = PROTOCOLS.into_iter().find(|known| *known == named);
    let protocol = protocol.ok_or_else(|| invalid(&format!("invalid proto: {named}")))?;
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    // Between two colons there is no address, as in `::80`.
    let address = match bare {
        "" | ":" => None,
        bare => Some(bare.parse().map_err(|_| invalid(&format!("invalid IP address: {ip}")))?),
    };
    let (first, last) =
        range(container).ok_or_else(|| invalid(&format!("invalid containerPort: {container}")))?;
    let host_ports = if host.is_empty() { None } else { Some(host) };
    let host_ports =
        host_ports.map(|text| range(text).ok_or_else(|| invalid(&format!("invalid hostPort: {text}"))));
    let host_ports = host_ports.transpose()?;
    if host_ports.is_some_and(|(low, high)| first != last && last - first != high - low) {
        let reason = format!("invalid ranges specified for container and host Ports: {container} and {host}");
        return Err(invalid(&reason));
    }
    let one = |container: u16| {
        let nth = |low: u16| low + (container - first);
        let host_ports =
            host_ports.map(|(low, high)| if first == last { (low, high) } else { (nth(low), nth(low)) });
        PortMapping { host: address, host_ports, container, protocol }
    };
    Ok((first..=last).map(one).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_container_part_counts() {
        for (spec, ports) in [
            ("80", vec!["80/tcp"]),
            ("53/UDP", vec!["53/udp"]),
            ("127.0.0.1:8000-8001:80-81/tcp", vec!["80/tcp", "81/tcp"]),
            ("[::1]:1:2", vec!["2/tcp"]),
            ("8000-9000:80", vec!["80/tcp"]),
        ] {
            assert_eq!(parse(spec).unwrap(), ports);
        }
    }

    #[test]
    fn the_hosts_part_is_an_address_and_ports() {
        let ports = |spec: &str| {
            let mappings = parse_ports(spec).unwrap();
            mappings.into_iter().map(|m| (m.host.map(|ip| ip.to_string()), m.host_ports)).collect::<Vec<_>>()
        };
        assert_eq!(ports("80"), [(None, None)]);
        assert_eq!(ports("8080:80"), [(None, Some((8080, 8080)))]);
        assert_eq!(ports("127.0.0.1::80"), [(Some("127.0.0.1".to_owned()), None)]);
        assert_eq!(ports("[::1]:1-2:7-8")[1], (Some("::1".to_owned()), Some((2, 2))));
        assert_eq!(ports("8000-9000:80"), [(None, Some((8000, 9000)))]);
    }

    #[test]
    fn the_reason_of_a_refusal_names_the_port() {
        for (spec, reason) in [
            ("", "no port specified"),
            ("80/icmp", "invalid proto: icmp"),
            ("x:1:2", "invalid IP address: x"),
            ("9-8", "invalid containerPort: 9-8"),
            ("70000", "invalid containerPort: 70000"),
            ("1-2:3-5", "invalid ranges"),
        ] {
            let message = parse(spec).err().unwrap_or_default();
            assert!(message.contains(reason), "{spec}: {message}");
        }
    }
}
