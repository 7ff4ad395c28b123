//! The packet filter: a table of our own by which the bridge's packets leave under the host's address, and nobody but
//! the host gets to containers; and a word for the bridge where others filter what is forwarded, as Docker does.

mod foreign;
mod table;

use std::path::Path;

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use super::Interrupted;
use super::namespace::failed;
use super::netlink::{Answer, Message, Netlink};
use super::subnet::Subnet;
use crate::error::Result;
use table::{RULES, TABLE, batch};

/// Of `struct nfgenmsg`.
const FIXED: usize = 4;
/// In the directory of the bridge: which generation of the kernel's rules let it through.
const SEEN: &str = "rules";

/// Attributes of nf_tables that libc does not name.
mod nfta {
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_POLICY: u16 = 5;
    pub(super) const CHAIN_TYPE: u16 = 7;
    pub(super) const GENERATION: u16 = 1;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
    pub(super) const RULE_TABLE: u16 = 1;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const LIST_ELEMENT: u16 = 1;
    pub(super) const EXPRESSION_NAME: u16 = 1;
    pub(super) const EXPRESSION_DATA: u16 = 2;
    /// Where `meta`, `ct`, `payload` and `immediate` put what they load.
    pub(super) const DESTINATION: u16 = 1;
    /// What `meta` and `ct` load.
    pub(super) const KEY: u16 = 2;
    pub(super) const CMP_SOURCE: u16 = 1;
    pub(super) const CMP_OPERATION: u16 = 2;
    pub(super) const CMP_DATA: u16 = 3;
    pub(super) const PAYLOAD_BASE: u16 = 2;
    pub(super) const PAYLOAD_OFFSET: u16 = 3;
    pub(super) const PAYLOAD_LENGTH: u16 = 4;
    pub(super) const BITWISE_SOURCE: u16 = 1;
    pub(super) const BITWISE_DESTINATION: u16 = 2;
    pub(super) const BITWISE_LENGTH: u16 = 3;
    pub(super) const BITWISE_MASK: u16 = 4;
    pub(super) const BITWISE_XOR: u16 = 5;
    pub(super) const IMMEDIATE_DATA: u16 = 2;
    pub(super) const DATA_VALUE: u16 = 1;
    pub(super) const DATA_VERDICT: u16 = 2;
    pub(super) const VERDICT_CODE: u16 = 1;
}

/// Makes the rules for the bridge's network where they are not there, or in any case. Gives who drops the packets of
/// containers nevertheless.
///
/// # Errors
/// When neither the kernel's nf_tables nor the host's iptables takes them; [`crate::Error::Cancelled`].
pub(super) fn ensure(
    dir: &Path,
    subnet: Subnet,
    anew: bool,
    interrupted: Interrupted<'_>,
) -> Result<Option<String>> {
    let doing = "making the bridge's rules for the packet filter";
    foreign::let_through_by_older_filter(interrupted)?;
    let mut netlink = Netlink::open(Some(NETFILTER)).map_err(failed(doing))?;
    let seen = dir.join(SEEN);
    let generation = generation(&mut netlink).map_err(failed(doing))?;
    // The kernel counts all changes of its rules, whoever makes them.
    if !anew && std::fs::read_to_string(&seen).is_ok_and(|seen| seen == generation) {
        return Ok(None);
    }
    let mut changes = false;
    if anew || rules(&mut netlink, libc::NFPROTO_IPV4, TABLE, None).map_err(failed(doing))?.len() < RULES {
        netlink.transact(batch(true), table::table(subnet), batch(false)).map_err(failed(doing))?;
        changes = true;
    }
    let found = foreign::look(&mut netlink).map_err(failed(doing))?;
    for other in &found.others {
        other.let_through(interrupted)?;
        changes = true;
    }
    if !changes {
        // If it can't be kept the next one looks again.
        let _ = std::fs::write(&seen, generation);
    }
    Ok(found.advice())
}

/// Takes all of it away.
pub(super) fn remove(interrupted: Interrupted<'_>) -> Result<()> {
    foreign::take_back(&mut remove_own()?, interrupted)
}

/// Takes our own table away, and gives the connection for whatever else is to be asked.
pub(super) fn remove_own() -> Result<Netlink> {
    let doing = "removing the bridge's rules from the packet filter";
    let mut netlink = Netlink::open(Some(NETFILTER)).map_err(failed(doing))?;
    let delete = message(libc::NFT_MSG_DELTABLE, 0).text(nfta::TABLE_NAME, TABLE);
    match netlink.transact(batch(true), vec![delete], batch(false)) {
        Ok(()) | Err(Errno::NOENT) => Ok(netlink),
        Err(errno) => Err(failed(doing)(errno)),
    }
}

/// What the host's own rules have against the packets of containers, if anything, and what helps.
///
/// # Errors
/// What the kernel says.
pub fn advice() -> Result<Option<String>> {
    let doing = "looking at the packet filter";
    let mut netlink = Netlink::open(Some(NETFILTER)).map_err(failed(doing))?;
    foreign::look(&mut netlink).map(|found| found.advice()).map_err(failed(doing))
}

fn generation(netlink: &mut Netlink) -> Result<String, Errno> {
    let answer = netlink.get(message(libc::NFT_MSG_GETGEN, 0))?;
    let number = answer.as_ref().and_then(|answer| answer.attribute(FIXED, nfta::GENERATION));
    Ok(number.map_or_else(String::new, |bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn rules(netlink: &mut Netlink, family: i32, table: &str, chain: Option<&str>) -> Result<Vec<Answer>, Errno> {
    let get = of_family(libc::NFT_MSG_GETRULE, 0, family).text(nfta::RULE_TABLE, table);
    let get = match chain {
        Some(chain) => get.text(nfta::RULE_CHAIN, chain),
        None => get,
    };
    match netlink.dump(get) {
        Err(Errno::NOENT) => Ok(Vec::new()),
        rules => rules,
    }
}

fn of_family(kind: i32, flags: u16, family: i32) -> Message {
    let kind = ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | kind as u16;
    Message::new(kind, flags, &[family as u8, libc::NFNETLINK_V0 as u8, 0, 0])
}

fn message(kind: i32, flags: u16) -> Message {
    of_family(kind, flags, libc::NFPROTO_IPV4)
}
