//! The flags of `run` and `build` about names of other machines: `--add-host`, `--dns` and what goes with it.

use super::steps::host;
use crate::engine::Resolver;
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub(crate) struct NameFlags {
    /// A name for the hosts file
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
    #[command(flatten)]
    resolver: ResolverFlags,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResolverFlags {
    /// A name server instead of the host's
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// A domain in which names are looked for; `.` for none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// An option of the resolver
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
}

impl NameFlags {
    /// Lines of the hosts file: address and name.
    pub(crate) fn hosts(&self) -> Result<Vec<(String, String)>> {
        self.add_host.iter().map(|text| host(text).map(|host| (host.address.0, host.name))).collect()
    }

    pub(crate) fn resolver(&self) -> Result<Resolver> {
        self.resolver.resolver()
    }
}

impl ResolverFlags {
    pub(crate) fn resolver(&self) -> Result<Resolver> {
        for address in &self.dns {
            if address.parse::<std::net::IpAddr>().is_err() {
                let reason = format!("{address} is not an ip address");
                return Err(Error::invalid(format!(
                    "invalid argument \"{address}\" for \"--dns\" flag: {reason}"
                )));
            }
        }
        let odd =
            |text: &&String| text.is_empty() || text.contains(|c: char| c.is_whitespace() || c.is_control());
        if let Some(word) = self.dns_search.iter().chain(&self.dns_option).find(odd) {
            return Err(Error::invalid(format!("{word:?} is no word for the resolver's configuration")));
        }
        Ok(Resolver {
            servers: self.dns.clone(),
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
        })
    }
}
