//! The flags of `run` about networks: which one, and what of it is reached from outside.

use std::collections::BTreeSet;

use boxwright_cache::record::ImageRecord;
use boxwright_executor::network::{Port, Transport};
use boxwright_frontend::{PortMapping, parse_ports};

use crate::engine::NetworkChoice;
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub(crate) struct NetworkFlags {
    /// bridge (a network of its own, the default), host, none, or container:NAME for that of another container
    #[arg(long, alias = "net", value_name = "MODE", default_value = "default")]
    network: String,
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
        choice(&self.network)
    }

    /// The ports that are named.
    pub(crate) fn ports(&self) -> Result<Vec<Port>> {
        let mut ports = Vec::new();
        for spec in &self.publish {
            ports.extend(mappings(spec, "-p, --publish")?.into_iter().map(port).collect::<Result<Vec<_>>>()?);
        }
        Ok(ports)
    }

    /// Those that --publish-all adds for a container of `image`.
    pub(crate) fn exposed(&self, image: &ImageRecord, named: &[Port]) -> Result<Vec<Port>> {
        let mut exposed: BTreeSet<(u16, Transport)> = BTreeSet::new();
        let of_image = image.config.config.exposed_ports.keys().filter(|_| self.publish_all);
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

fn choice(text: &str) -> Result<NetworkChoice> {
    Ok(match text.split_once(':').unwrap_or((text, "")) {
        ("default" | "", "") => NetworkChoice::Default,
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
