//! The port specifications of EXPOSE: `[[ip:]host:]container[-range][/protocol]`; only the container's part counts.

use std::net::IpAddr;

use crate::notation::quote;

/// What may follow the slash.
pub(super) const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// The ports as the image config names them: `80/tcp`.
///
/// # Errors
/// What is wrong with the specification.
pub(super) fn parse(spec: &str) -> Result<Vec<String>, String> {
    let invalid = |reason: &str| format!("invalid port: {}: {reason}", quote(spec));
    let mut parts = spec.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host = parts.next().unwrap_or_default();
    let ip = parts.next().unwrap_or_default();
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    if container.is_empty() {
        return Err(invalid("no port specified"));
    }
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" => "tcp".to_owned(),
        known @ ("tcp" | "udp" | "sctp") => known.to_owned(),
        other => return Err(invalid(&format!("invalid proto: {other}"))),
    };
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    // Between two colons there is no address, as in `::80`.
    if !bare.is_empty() && bare != ":" && bare.parse::<IpAddr>().is_err() {
        return Err(invalid(&format!("invalid IP address: {ip}")));
    }
    let (first, last) =
        range(container).ok_or_else(|| invalid(&format!("invalid containerPort: {container}")))?;
    if !host.is_empty() {
        let (low, high) = range(host).ok_or_else(|| invalid(&format!("invalid hostPort: {host}")))?;
        if first != last && last - first != high - low {
            let reason =
                format!("invalid ranges specified for container and host Ports: {container} and {host}");
            return Err(invalid(&reason));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
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
