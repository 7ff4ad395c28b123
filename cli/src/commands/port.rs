//! The command `port`: its options, and what it prints.

use std::net::{IpAddr, Ipv4Addr};

use boxwright_executor::network::Reached;
use boxwright_frontend::parse_ports;

use super::Session;
use crate::engine::RunningContainer;
use crate::error::{Error, Result};

/// Show where the ports of a container that runs are reached
#[derive(Debug, clap::Args)]
pub(crate) struct Port {
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Only where this port is reached
    #[arg(value_name = "PORT[/udp]")]
    port: Option<String>,
}

impl Port {
    pub(crate) fn execute(self, session: &mut Session<'_>) -> Result<()> {
        let running = RunningContainer::find(session.engine.store().path(), &self.container)?;
        let Some(wanted) = &self.port else {
            for port in &running.ports {
                for host in addresses(port) {
                    session.print(format_args!("{}/{} -> {host}", port.container, port.transport))?;
                }
            }
            return Ok(());
        };
        let wanted = parse_ports(wanted).map_err(Error::invalid)?;
        let fits = |port: &&Reached| {
            wanted.iter().any(|w| w.container == port.container && w.protocol == port.transport.to_string())
        };
        let hosts: Vec<String> = running.ports.iter().filter(fits).flat_map(addresses).collect();
        if hosts.is_empty() {
            let port = self.port.as_deref().unwrap_or_default();
            return Err(Error::invalid(format!("no public port '{port}' published for {}", self.container)));
        }
        session.print(hosts.join("\n"))
    }
}

/// All addresses of IPv6 are all of the other kind as well.
fn addresses(port: &Reached) -> Vec<String> {
    let own = port.host.to_string();
    match port.host.ip() {
        IpAddr::V6(any) if any.is_unspecified() => {
            vec![format!("{}:{}", Ipv4Addr::UNSPECIFIED, port.host.port()), own]
        }
        _ => vec![own],
    }
}
