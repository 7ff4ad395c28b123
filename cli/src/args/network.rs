//! The flags of `run` about networks: which one, and what of it is reached from outside.

use std::borrow::Cow;
use std::collections::BTreeSet;

use boxwright_cache::record::ImageRecord;
use boxwright_executor::network::{Port, Transport};
use boxwright_frontend::{PortMapping, parse_ports};

use crate::engine::NetworkChoice;
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub(crate) struct NetworkFlags {
    /// bridge (a network of its own, the default), host, none, or container:NAME for that of another container
    #[arg(long, alias = "net", value_name = "MODE")]
    network: Vec<String>,
    /// Pass on what arrives at a port of the host
    #[arg(short, long, value_name = "[[ADDRESS:]HOST:]CONTAINER[/udp]")]
    publish: Vec<String>,
    /// The same for all ports that the image or --expose names, at any free ports
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// A port of the container, for --publish-all
    #[arg(long, value_name = "PORT[/udp]")]
    expose: Vec<String>,
    /// NIS domain name of the container, and its domain in /etc/hosts
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domainname: Option<String>,
}

impl NetworkFlags {
    pub(crate) fn choice(&self) -> Result<NetworkChoice> {
        let names = self.network.iter().map(|text| name(text)).collect::<Result<Vec<_>>>()?;
        match names.as_slice() {
            [] => Ok(NetworkChoice::Default),
            [one] => choice(one),
            [first, rest @ ..] if rest.contains(first) => {
                Err(Error::invalid(format!("network \"{first}\" is specified multiple times")))
            }
            // None of those that there are goes with another one.
            several => Err(Error::invalid(format!(
                "container cannot be connected to network endpoints: {}",
                several.join(", ")
            ))),
        }
    }

    /// The ports that are named.
    pub(crate) fn ports(&self) -> Result<Vec<Port>> {
        let mut ports = Vec::new();
        for spec in &self.publish {
            let spec = short(spec)?;
            ports
                .extend(mappings(&spec, "-p, --publish")?.into_iter().map(port).collect::<Result<Vec<_>>>()?);
        }
        Ok(ports)
    }

    /// Those that --publish-all adds for a container of `image`.
    pub(crate) fn exposed(&self, image: &ImageRecord, named: &[Port]) -> Result<Vec<Port>> {
        let mut exposed: BTreeSet<(u16, Transport)> = BTreeSet::new();
        let of_image = image.config.config.exposed_ports.keys().filter(|_| self.publish_all);
        if let Some(odd) = self.expose.iter().find(|spec| spec.contains(':')) {
            return Err(Error::invalid(format!("invalid port format for --expose: {odd}")));
        }
        for spec in of_image.chain(&self.expose) {
            for mapping in mappings(spec, "--expose")? {
                exposed.insert((mapping.container, transport(mapping.protocol)?));
            }
        }
        if !self.publish_all {
            return Ok(Vec::new());
        }
        exposed.retain(|wanted| !named.iter().any(|port| (port.container, port.transport) == *wanted));
        let any = |(container, transport)| Port { host: None, host_ports: (0, 0), container, transport };
        Ok(exposed.into_iter().map(any).collect())
    }
}

fn mappings(spec: &str, flag: &str) -> Result<Vec<PortMapping>> {
    parse_ports(spec).map_err(|reason| {
        Error::invalid(format!("invalid argument \"{spec}\" for \"{flag}\" flag: {reason}"))
    })
}

/// `target=80,published=8080,protocol=tcp` as `8080:80/tcp`; where there is no swarm, each mode is that of a host.
fn short(spec: &str) -> Result<Cow<'_, str>> {
    if !spec.contains('=') {
        return Ok(Cow::Borrowed(spec));
    }
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for field in spec.split(',') {
        match field.split_once('=') {
            Some(("target", value)) => target = value,
            Some(("published", value)) => published = value,
            Some(("protocol", value)) => protocol = value,
            Some(("mode", "host" | "ingress")) => {}
            _ => {
                return Err(Error::invalid(format!(
                    "invalid publish opts format (should be name=value but got '{field}')"
                )));
            }
        }
    }
    Ok(Cow::Owned(format!("{published}:{target}/{protocol}")))
}

fn port(mapping: PortMapping) -> Result<Port> {
    if mapping.container == 0 {
        return Err(Error::invalid("port 0 of a container can't be published"));
    }
    Ok(Port {
        host: mapping.host,
        host_ports: mapping.host_ports.unwrap_or_default(),
        container: mapping.container,
        transport: transport(mapping.protocol)?,
    })
}

fn transport(protocol: &str) -> Result<Transport> {
    match protocol {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        other => Err(Error::Later(format!("publishing a port of {other}"))),
    }
}

/// That of `NAME`, or of `name=NAME`: fields that say more are about networks that there are not yet.
fn name(text: &str) -> Result<&str> {
    let mut name = "";
    if !text.contains('=') {
        name = text;
    } else {
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("name", value)) => name = value,
                Some((
                    key @ ("alias" | "ip" | "ip6" | "mac-address" | "link-local-ip" | "driver-opt"
                    | "gw-priority"),
                    _,
                )) => {
                    return Err(Error::Later(format!("{key} of --network")));
                }
                Some((key, _)) => return Err(Error::invalid(format!("--network: invalid field key {key}"))),
                None => return Err(Error::invalid(format!("--network: invalid field {field}"))),
            }
        }
    }
    if name.trim().is_empty() { Err(Error::invalid("no name set for network")) } else { Ok(name) }
}

fn choice(text: &str) -> Result<NetworkChoice> {
    Ok(match text.split_once(':').unwrap_or((text, "")) {
        ("default", "") => NetworkChoice::Default,
        ("bridge", "") => NetworkChoice::Bridge,
        ("host", "") => NetworkChoice::Host,
        ("none", "") => NetworkChoice::None,
        ("container", "") => {
            return Err(Error::invalid("invalid container format container:<name|id>"));
        }
        ("container", name) => NetworkChoice::Container(name.to_owned()),
        // There are none yet but those above.
        _ => return Err(Error::invalid(format!("network {text} not found"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use crate::commands::Command;

    fn chosen(flags: &str) -> std::result::Result<NetworkChoice, String> {
        let words = format!("boxwright run {flags} x");
        let args: Args = super::super::parse(words.split(' ').map(std::ffi::OsString::from)).unwrap();
        let Command::Run(run) = args.command else { panic!("a run") };
        run.network.choice().map_err(|error| error.to_string())
    }

    #[test]
    fn ports_may_be_named_in_fields() {
        assert_eq!(short("8080:80").unwrap(), "8080:80");
        assert_eq!(short("target=80,published=8080,protocol=udp,mode=host").unwrap(), "8080:80/udp");
        assert_eq!(mappings(&short("target=80").unwrap(), "-p").unwrap()[0].host_ports, None);
        for odd in ["target=80,published", "target=80,odd=1", "mode=odd"] {
            assert!(short(odd).unwrap_err().to_string().contains("should be name=value but got"), "{odd}");
        }
    }

    #[test]
    fn one_network_is_chosen_or_none() {
        assert_eq!(chosen("-i"), Ok(NetworkChoice::Default));
        assert_eq!(chosen("--network default"), Ok(NetworkChoice::Default));
        assert_eq!(chosen("--net name=bridge"), Ok(NetworkChoice::Bridge));
        assert_eq!(chosen("--network container:a"), Ok(NetworkChoice::Container("a".to_owned())));
        for (flags, words) in [
            ("--network host --net none", "container cannot be connected to network endpoints: host, none"),
            ("--network host --network host", "network \"host\" is specified multiple times"),
            ("--network=", "no name set for network"),
            ("--network name=", "no name set for network"),
            ("--network name=bridge,alias=x", "alias of --network is not supported yet"),
            ("--network name=bridge,odd=x", "invalid field key odd"),
            ("--network name=bridge,odd", "invalid field odd"),
            ("--network nosuch", "network nosuch not found"),
        ] {
            let refused = chosen(flags).unwrap_err();
            assert!(refused.contains(words), "{flags}: {refused}");
        }
    }
}
