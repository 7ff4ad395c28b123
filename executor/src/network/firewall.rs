//! The packet filter: a table of our own by which the bridge's packets leave under the host's address, and nobody but
//! the host gets to containers; and a word for the bridge where others filter what is forwarded, as Docker does.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use super::namespace::failed;
use super::netlink::{APPEND, Answer, CREATE, Message, Netlink};
use super::subnet::Subnet;
use super::{BRIDGE, program};
use crate::error::{Error, Result};

/// Our table; one for each family would be the same name.
const TABLE: &str = "boxwright";
/// How many rules it has.
const RULES: usize = 2;

/// Of `struct nfgenmsg`.
const FIXED: usize = 4;
const POSTROUTING: &str = "postrouting";
const FORWARD: &str = "forward";

/// Attributes of nf_tables that libc does not name.
mod nfta {
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_TYPE: u16 = 7;
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

const VERDICT: u32 = 0;
const REGISTER: u32 = 1;
/// The sender in an IPv4 header.
const SENDER: (u32, u32) = (12, 4);
/// Bits of a connection's state: established and related.
const KNOWN: u32 = 2 | 4;

/// Makes the rules for the bridge's network where they are not there, or in any case.
///
/// # Errors
/// When neither the kernel's nf_tables nor the host's iptables takes them.
pub(super) fn ensure(subnet: Subnet, anew: bool) -> Result<()> {
    let doing = "making the bridge's rules for the packet filter";
    let mut netlink = Netlink::open(Some(NETFILTER)).map_err(failed(doing))?;
    if anew || rules(&mut netlink, libc::NFPROTO_IPV4, TABLE, None).map_err(failed(doing))?.len() < RULES {
        netlink.transact(batch(true), table(subnet), batch(false)).map_err(failed(doing))?;
    }
    for other in others(&mut netlink).map_err(failed(doing))? {
        other.let_through()?;
    }
    Ok(())
}

/// Takes all of it away.
pub(super) fn remove() -> Result<()> {
    let doing = "removing the bridge's rules from the packet filter";
    let mut netlink = Netlink::open(Some(NETFILTER)).map_err(failed(doing))?;
    let delete = message(libc::NFT_MSG_DELTABLE, 0).text(nfta::TABLE_NAME, TABLE);
    match netlink.transact(batch(true), vec![delete], batch(false)) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed(doing)(errno)),
    }
    let filter = rules(&mut netlink, libc::NFPROTO_IPV4, "filter", Some("FORWARD")).map_err(failed(doing))?;
    if filter.iter().any(mentions_bridge) {
        Other::Iptables(NFT).take_back()?;
    }
    if has_legacy_filter() {
        Other::Iptables(LEGACY).take_back()?;
    }
    Ok(())
}

/// Somebody else's rules about what is forwarded. What they refuse stays refused, whatever our own table says.
#[derive(Debug)]
enum Other {
    /// Its filter table, by the program that knows the kernel's form of it.
    Iptables([&'static str; 2]),
    Firewalld,
}

const NFT: [&str; 2] = ["iptables-nft", "iptables"];
const LEGACY: [&str; 2] = ["iptables-legacy", "iptables"];

/// Those that don't know the bridge yet.
fn others(netlink: &mut Netlink) -> Result<Vec<Other>, Errno> {
    let mut others = Vec::new();
    let filter = rules(netlink, libc::NFPROTO_IPV4, "filter", Some("FORWARD"))?;
    if (!filter.is_empty() || drops(netlink)?) && !filter.iter().any(mentions_bridge) {
        others.push(Other::Iptables(NFT));
    }
    if has_legacy_filter() {
        others.push(Other::Iptables(LEGACY));
    }
    let firewalld = rules(netlink, libc::NFPROTO_INET, "firewalld", None)?;
    if !firewalld.is_empty() && !firewalld.iter().any(mentions_bridge) {
        others.push(Other::Firewalld);
    }
    Ok(others)
}

/// Whether iptables' filter lets nothing through that no rule is about.
fn drops(netlink: &mut Netlink) -> Result<bool, Errno> {
    const POLICY: u16 = 5;
    let get = message(libc::NFT_MSG_GETCHAIN, 0)
        .text(nfta::CHAIN_TABLE, "filter")
        .text(nfta::CHAIN_NAME, "FORWARD");
    match netlink.get(get) {
        Err(Errno::NOENT) => Ok(false),
        chain => Ok(chain?.is_some_and(|chain| chain.attribute(FIXED, POLICY) == Some(&[0; 4]))),
    }
}

/// The filter table of the kernel's older packet filter, which that one tells by name.
fn has_legacy_filter() -> bool {
    std::fs::read_to_string("/proc/net/ip_tables_names")
        .is_ok_and(|names| names.lines().any(|n| n == "filter"))
}

fn mentions_bridge(rule: &Answer) -> bool {
    rule.mentions(BRIDGE.as_bytes())
}

impl Other {
    fn let_through(&self) -> Result<()> {
        match self {
            Other::Iptables(programs) => {
                for direction in ["-i", "-o"] {
                    if !iptables(programs, "-C", direction, true)? {
                        iptables(programs, "-I", direction, false)?;
                    }
                }
                Ok(())
            }
            Other::Firewalld => {
                let bridge = format!("--add-interface={BRIDGE}");
                run(&["firewall-cmd"], &["-q", "--zone=trusted", &bridge], false).map(drop)
            }
        }
    }

    fn take_back(&self) -> Result<()> {
        if let Other::Iptables(programs) = self {
            for direction in ["-i", "-o"] {
                while iptables(programs, "-D", direction, true)? {}
            }
        }
        Ok(())
    }
}

fn iptables(programs: &[&str], action: &str, direction: &str, may_fail: bool) -> Result<bool> {
    run(programs, &["-w", action, "FORWARD", direction, BRIDGE, "-j", "ACCEPT"], may_fail)
}

/// Runs the first of the programs that is there; whether it succeeded.
fn run(programs: &[&str], args: &[&str], may_fail: bool) -> Result<bool> {
    let doing = || format!("letting the bridge's packets through with {}", programs[0]);
    // What the host's packet filter does not take, it does not take the next time either.
    let failed = |reason: String| Error::Unsupported(format!("{}: {reason}", doing()));
    let found = programs.iter().find_map(|name| program(name));
    let path = found.ok_or_else(|| failed("it is not installed".to_owned()))?;
    let output = quiet(&path).args(args).output().map_err(|e| failed(e.to_string()))?;
    match output.status.success() {
        true => Ok(true),
        false if may_fail => Ok(false),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Nothing of ours is for it to see.
fn quiet(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("PATH", super::PROGRAMS.join(":")).current_dir("/").stdin(Stdio::null());
    command
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

/// The table in place of whatever has its name.
fn table(subnet: Subnet) -> Vec<Message> {
    let named = |kind| message(kind, CREATE).text(nfta::TABLE_NAME, TABLE);
    let outbound = [
        load("payload", |data| {
            data.attribute(nfta::PAYLOAD_BASE, &be(libc::NFT_PAYLOAD_NETWORK_HEADER as u32))
                .attribute(nfta::PAYLOAD_OFFSET, &be(SENDER.0))
                .attribute(nfta::PAYLOAD_LENGTH, &be(SENDER.1))
        }),
        and(&subnet.mask().octets()),
        compare(libc::NFT_CMP_EQ, &subnet.first.octets()),
        key("meta", libc::NFT_META_OIFNAME),
        compare(libc::NFT_CMP_NEQ, &interface(BRIDGE)),
        expression("masq", |data| data),
    ];
    let inbound = [
        key("meta", libc::NFT_META_OIFNAME),
        compare(libc::NFT_CMP_EQ, &interface(BRIDGE)),
        key("meta", libc::NFT_META_IIFNAME),
        compare(libc::NFT_CMP_NEQ, &interface(BRIDGE)),
        key("ct", libc::NFT_CT_STATE),
        and(&KNOWN.to_ne_bytes()),
        compare(libc::NFT_CMP_EQ, &[0; 4]),
        drop_it(),
    ];
    vec![
        named(libc::NFT_MSG_NEWTABLE),
        named(libc::NFT_MSG_DELTABLE),
        named(libc::NFT_MSG_NEWTABLE),
        chain(POSTROUTING, "nat", libc::NF_INET_POST_ROUTING, 100),
        chain(FORWARD, "filter", libc::NF_INET_FORWARD, 0),
        rule(POSTROUTING, outbound),
        rule(FORWARD, inbound),
    ]
}

fn of_family(kind: i32, flags: u16, family: i32) -> Message {
    let kind = ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | kind as u16;
    Message::new(kind, flags, &[family as u8, libc::NFNETLINK_V0 as u8, 0, 0])
}

fn message(kind: i32, flags: u16) -> Message {
    of_family(kind, flags, libc::NFPROTO_IPV4)
}

fn batch(begin: bool) -> Message {
    let kind = if begin { libc::NFNL_MSG_BATCH_BEGIN } else { libc::NFNL_MSG_BATCH_END };
    let [high, low] = (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes();
    Message::new(kind as u16, 0, &[libc::AF_UNSPEC as u8, libc::NFNETLINK_V0 as u8, high, low])
}

fn chain(name: &str, kind: &str, hook: i32, priority: u32) -> Message {
    message(libc::NFT_MSG_NEWCHAIN, CREATE)
        .text(nfta::CHAIN_TABLE, TABLE)
        .text(nfta::CHAIN_NAME, name)
        .nested(nfta::CHAIN_HOOK, b"", |inner| {
            inner.attribute(nfta::HOOK_NUMBER, &be(hook as u32)).attribute(nfta::HOOK_PRIORITY, &be(priority))
        })
        .text(nfta::CHAIN_TYPE, kind)
}

/// What an expression adds to a list of them.
type Expression = Box<dyn FnOnce(Message) -> Message>;

fn rule<const N: usize>(chain: &str, expressions: [Expression; N]) -> Message {
    message(libc::NFT_MSG_NEWRULE, CREATE | APPEND)
        .text(nfta::RULE_TABLE, TABLE)
        .text(nfta::RULE_CHAIN, chain)
        .nested(nfta::RULE_EXPRESSIONS, b"", |list| {
            expressions
                .into_iter()
                .fold(list, |list, expression| list.nested(nfta::LIST_ELEMENT, b"", expression))
        })
}

fn expression(name: &'static str, data: impl FnOnce(Message) -> Message + 'static) -> Expression {
    Box::new(move |inner| inner.text(nfta::EXPRESSION_NAME, name).nested(nfta::EXPRESSION_DATA, b"", data))
}

fn load(name: &'static str, what: impl FnOnce(Message) -> Message + 'static) -> Expression {
    expression(name, move |data| what(data.attribute(nfta::DESTINATION, &be(REGISTER))))
}

fn key(name: &'static str, key: i32) -> Expression {
    load(name, move |data| data.attribute(nfta::KEY, &be(key as u32)))
}

fn compare(operation: i32, with: &[u8]) -> Expression {
    let with = with.to_vec();
    expression("cmp", move |data| {
        data.attribute(nfta::CMP_SOURCE, &be(REGISTER))
            .attribute(nfta::CMP_OPERATION, &be(operation as u32))
            .nested(nfta::CMP_DATA, b"", |value| value.attribute(nfta::DATA_VALUE, &with))
    })
}

fn and(mask: &[u8; 4]) -> Expression {
    let mask = *mask;
    expression("bitwise", move |data| {
        data.attribute(nfta::BITWISE_SOURCE, &be(REGISTER))
            .attribute(nfta::BITWISE_DESTINATION, &be(REGISTER))
            .attribute(nfta::BITWISE_LENGTH, &be(4))
            .nested(nfta::BITWISE_MASK, b"", |value| value.attribute(nfta::DATA_VALUE, &mask))
            .nested(nfta::BITWISE_XOR, b"", |value| value.attribute(nfta::DATA_VALUE, &[0; 4]))
    })
}

fn drop_it() -> Expression {
    const DROP: u32 = 0;
    expression("immediate", |data| {
        data.attribute(nfta::DESTINATION, &be(VERDICT)).nested(nfta::IMMEDIATE_DATA, b"", |value| {
            value.nested(nfta::DATA_VERDICT, b"", |verdict| verdict.attribute(nfta::VERDICT_CODE, &be(DROP)))
        })
    })
}

/// As the kernel compares names of interfaces: all of the 16 bytes.
fn interface(name: &str) -> [u8; libc::IFNAMSIZ] {
    let mut bytes = [0; libc::IFNAMSIZ];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn be(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}
