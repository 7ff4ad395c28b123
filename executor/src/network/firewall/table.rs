//! Our table: what containers send leaves under the host's address, and nobody but the host gets to them.

use super::super::BRIDGE;
use super::super::netlink::{APPEND, CREATE, Message};
use super::super::subnet::Subnet;
use super::{message, nfta};

/// One for each family would be the same name.
pub(super) const TABLE: &str = "boxwright";
/// How many rules it has.
pub(super) const RULES: usize = 2;

const POSTROUTING: &str = "postrouting";
const FORWARD: &str = "forward";
const VERDICT: u32 = 0;
const REGISTER: u32 = 1;
/// The sender in an IPv4 header.
const SENDER: (u32, u32) = (12, 4);
/// Bits of a connection's state: established and related.
const KNOWN: u32 = 2 | 4;

/// The table in place of whatever has its name.
pub(super) fn table(subnet: Subnet) -> Vec<Message> {
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

pub(super) fn batch(begin: bool) -> Message {
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

pub(super) fn be(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}
