//! Somebody else's rules about what is forwarded. What they refuse stays refused, whatever our own table says: iptables and
//! firewalld are told of the bridge, by the programs that know their form of it, as Docker tells them of its own. What a
//! person wrote for nf_tables is theirs to change.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::super::netlink::{Answer, Netlink};
use super::super::{BRIDGE, PROGRAMS, program};
use super::{FIXED, nfta, of_family, rules, table};
use crate::error::{Error, Result};
use crate::sys::signal;

const NFT: [&str; 2] = ["iptables-nft", "iptables"];
const LEGACY: [&str; 2] = ["iptables-legacy", "iptables"];
/// For which iptables waits for others that use it, in seconds.
const PATIENCE: &str = "5";
/// For which a program is waited for: others wait behind us.
const LIMIT: Duration = Duration::from_secs(20);

/// Who has to be told of the bridge.
#[derive(Debug)]
pub(super) enum Other {
    /// The filter table, by one of these programs.
    Iptables([&'static str; 2]),
    Firewalld,
}

/// What others have against the bridge's packets.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) others: Vec<Other>,
    /// Chains that drop what none of their rules is about, and no rule is about the bridge.
    refusing: Vec<Chain>,
}

/// A chain that all that is forwarded passes.
#[derive(Debug)]
struct Chain {
    family: i32,
    table: String,
    name: String,
}

impl Found {
    pub(super) fn advice(&self) -> Option<String> {
        let chain = self.refusing.first()?;
        let family = if chain.family == libc::NFPROTO_INET { "inet" } else { "ip" };
        let Chain { table, name, .. } = chain;
        let insert = format!("nft insert rule {family} {table} {name}");
        Some(format!(
            "the packet filter drops what containers send beyond this machine, by the policy of chain {name} of table \
             {family} {table}; this lets it through: {insert} iifname {BRIDGE} accept; \
             {insert} oifname {BRIDGE} ct state established,related accept"
        ))
    }
}

/// Those that don't know the bridge yet.
pub(super) fn look(netlink: &mut Netlink) -> Result<Found, Errno> {
    let mut found = Found::default();
    let dropping = dropping(netlink)?;
    let filter = rules(netlink, libc::NFPROTO_IPV4, "filter", Some("FORWARD"))?;
    let drops = dropping.iter().any(Chain::is_of_iptables);
    if (!filter.is_empty() || drops) && !filter.iter().any(mentions_bridge) {
        found.others.push(Other::Iptables(NFT));
    }
    let firewalld = rules(netlink, libc::NFPROTO_INET, "firewalld", None)?;
    if !firewalld.is_empty() && !firewalld.iter().any(mentions_bridge) {
        found.others.push(Other::Firewalld);
    }
    for chain in dropping.into_iter().filter(|chain| !chain.is_of_iptables()) {
        if !rules(netlink, chain.family, &chain.table, None)?.iter().any(mentions_bridge) {
            found.refusing.push(chain);
        }
    }
    Ok(found)
}

/// The kernel's older packet filter has no such thing as a look at its rules: its program tells.
pub(super) fn let_through_by_older_filter() -> Result<()> {
    if has_older_filter() { Other::Iptables(LEGACY).let_through() } else { Ok(()) }
}

/// What they were told is taken back.
pub(super) fn take_back(netlink: &mut Netlink) -> Result<()> {
    let doing = "removing the bridge's rules from the packet filter";
    let mut knows = |family, table, chain| {
        let rules = rules(netlink, family, table, chain).map_err(super::failed(doing))?;
        Ok(rules.iter().any(mentions_bridge))
    };
    if knows(libc::NFPROTO_IPV4, "filter", Some("FORWARD"))? {
        Other::Iptables(NFT).take_back()?;
    }
    if knows(libc::NFPROTO_INET, "firewalld", None)? {
        Other::Firewalld.take_back()?;
    }
    if has_older_filter() { Other::Iptables(LEGACY).take_back() } else { Ok(()) }
}

impl Chain {
    fn is_of_iptables(&self) -> bool {
        self.family == libc::NFPROTO_IPV4 && self.table == "filter" && self.name == "FORWARD"
    }
}

/// The chains for forwarded IPv4 that let nothing through that no rule is about.
fn dropping(netlink: &mut Netlink) -> Result<Vec<Chain>, Errno> {
    let chains = netlink.dump(of_family(libc::NFT_MSG_GETCHAIN, 0, libc::NFPROTO_UNSPEC))?;
    let text = |answer: &Answer, kind| {
        let bytes = answer.attribute(FIXED, kind)?;
        Some(String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes)).into_owned())
    };
    let refusing = |answer: &Answer| {
        let family = i32::from(*answer.fixed(FIXED)?.first()?);
        let hook = answer.inner(FIXED, nfta::CHAIN_HOOK, nfta::HOOK_NUMBER)?;
        let drops = answer.attribute(FIXED, nfta::CHAIN_POLICY)? == table::be(libc::NF_DROP as u32);
        let forward = hook == table::be(libc::NF_INET_FORWARD as u32);
        let ours = matches!(family, libc::NFPROTO_INET | libc::NFPROTO_IPV4);
        let chain =
            Chain { family, table: text(answer, nfta::CHAIN_TABLE)?, name: text(answer, nfta::CHAIN_NAME)? };
        (drops && forward && ours).then_some(chain)
    };
    Ok(chains.iter().filter_map(refusing).collect())
}

/// The filter table of the kernel's older packet filter, which that one tells by name.
fn has_older_filter() -> bool {
    std::fs::read_to_string("/proc/net/ip_tables_names")
        .is_ok_and(|names| names.lines().any(|n| n == "filter"))
}

fn mentions_bridge(rule: &Answer) -> bool {
    rule.mentions(BRIDGE.as_bytes())
}

impl Other {
    pub(super) fn let_through(&self) -> Result<()> {
        match self {
            Other::Iptables(programs) => {
                for direction in ["-i", "-o"] {
                    if !iptables(programs, "-C", direction)? {
                        iptables(programs, "-I", direction)?;
                    }
                }
                Ok(())
            }
            Other::Firewalld => firewalld("--add-interface"),
        }
    }

    fn take_back(&self) -> Result<()> {
        match self {
            Other::Iptables(programs) => {
                for direction in ["-i", "-o"] {
                    while iptables(programs, "-D", direction)? {}
                }
                Ok(())
            }
            Other::Firewalld => firewalld("--remove-interface"),
        }
    }
}

/// False where there is no such rule.
fn iptables(programs: &[&str], action: &str, direction: &str) -> Result<bool> {
    const NO_SUCH_RULE: i32 = 1;
    const BUSY: i32 = 4;
    let args = ["-w", PATIENCE, action, "FORWARD", direction, BRIDGE, "-j", "ACCEPT"];
    let output = run(programs, &args)?;
    match output.status.code() {
        Some(0) => Ok(true),
        Some(NO_SUCH_RULE) if action != "-I" => Ok(false),
        // Not said of what this machine can't do.
        Some(BUSY) | None => Err(Error::Setup { doing: doing(programs), reason: said(&output) }),
        Some(_) => Err(refused(programs, &said(&output))),
    }
}

fn firewalld(action: &str) -> Result<()> {
    let programs = ["firewall-cmd"];
    let output = run(&programs, &["-q", "--zone=trusted", &format!("{action}={BRIDGE}")])?;
    match output.status.code() {
        Some(0) => Ok(()),
        // Killed, which says nothing of what this machine can do.
        None => Err(Error::Setup { doing: doing(&programs), reason: said(&output) }),
        Some(_) => Err(refused(&programs, &said(&output))),
    }
}

fn doing(programs: &[&str]) -> String {
    format!("telling {} of the bridge", programs[0])
}

/// What the host's packet filter does not take, it does not take the next time either.
fn refused(programs: &[&str], reason: &str) -> Error {
    Error::Unsupported(format!("{}: {reason}", doing(programs)))
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    if text.is_empty() { output.status.to_string() } else { text }
}

/// Runs the first of the programs that is there. Nothing of ours is for it to see.
fn run(programs: &[&str], args: &[&str]) -> Result<Output> {
    let found: Option<PathBuf> = programs.iter().find_map(|name| program(name));
    let path = found.ok_or_else(|| refused(programs, "it is not installed"))?;
    let mut command = Command::new(&path);
    command.args(args).env_clear().env("PATH", PROGRAMS.join(":")).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Ctrl-C is for us alone: what it means for a rule that is being made, we say.
    command.process_group(0);
    let mut child = signal::pass_on(&mut command).spawn().map_err(Error::io("starting", &path))?;
    if !ends_in_time(&child) {
        let _ = child.kill();
        let _ = child.wait();
        let reason = format!("{} did not end within {} seconds", path.display(), LIMIT.as_secs());
        return Err(Error::Setup { doing: doing(programs), reason });
    }
    child.wait_with_output().map_err(Error::io("waiting for", &path))
}

/// What can't be known is waited for.
fn ends_in_time(child: &Child) -> bool {
    let Ok(process) = pidfd_open(Pid::from_child(child), PidfdFlags::empty()) else { return true };
    let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)) != Ok(0)
}
