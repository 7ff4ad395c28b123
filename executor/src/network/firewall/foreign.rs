//! Somebody else's rules about what is forwarded. What they refuse stays refused, whatever our own table says: iptables and
//! firewalld are told of the bridge, by the programs that know their form of it, as Docker tells them of its own. What a
//! person wrote for nf_tables is theirs to change.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::super::netlink::{Answer, Netlink};
use super::super::{BRIDGE, Interrupted, LOOK, PROGRAMS, program};
use super::{FIXED, nfta, of_family, rules, table};
use crate::error::{Error, Result};
use crate::sys::signal;

const NFT: Iptables =
    Iptables { rule: ["iptables-nft", "iptables"], rules: ["iptables-nft-restore", "iptables-restore"] };
const LEGACY: Iptables = Iptables {
    rule: ["iptables-legacy", "iptables"],
    rules: ["iptables-legacy-restore", "iptables-restore"],
};
/// For which iptables waits for others that use it, in seconds.
const PATIENCE: &str = "5";
/// For which a program is waited for: others wait behind us.
const LIMIT: Duration = Duration::from_secs(20);

/// Who has to be told of the bridge.
#[derive(Debug)]
pub(super) enum Other {
    /// The filter table.
    Iptables(Iptables),
    Firewalld,
}

/// Programs that change one rule, and that change several at once: the first that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Iptables {
    rule: [&'static str; 2],
    rules: [&'static str; 2],
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

/// The kernel's older packet filter does not count changes of its rules, nor show them in a form that lasts: its program
/// tells of one, and both are made at once.
pub(super) fn let_through_by_older_filter(interrupted: Interrupted<'_>) -> Result<()> {
    if !has_older_filter() || LEGACY.change("-C", "-o", interrupted)? {
        return Ok(());
    }
    LEGACY.let_through(interrupted)
}

/// What they were told is taken back.
pub(super) fn take_back(netlink: &mut Netlink, interrupted: Interrupted<'_>) -> Result<()> {
    let doing = "removing the bridge's rules from the packet filter";
    let mut knows = |family, table, chain| {
        let rules = rules(netlink, family, table, chain).map_err(super::failed(doing))?;
        Ok(rules.iter().any(mentions_bridge))
    };
    if knows(libc::NFPROTO_IPV4, "filter", Some("FORWARD"))? {
        NFT.take_back(interrupted)?;
    }
    if knows(libc::NFPROTO_INET, "firewalld", None)? {
        firewalld("--remove-interface", interrupted)?;
    }
    if has_older_filter() { LEGACY.take_back(interrupted) } else { Ok(()) }
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
    pub(super) fn let_through(&self, interrupted: Interrupted<'_>) -> Result<()> {
        match self {
            Other::Iptables(iptables) => iptables.let_through(interrupted),
            Other::Firewalld => firewalld("--add-interface", interrupted),
        }
    }
}

impl Iptables {
    const NO_SUCH_RULE: i32 = 1;
    const BUSY: i32 = 4;

    /// Both rules or none: whatever ends the program, half of them would be taken for all.
    fn let_through(&self, interrupted: Interrupted<'_>) -> Result<()> {
        let rule = |direction| format!("-I FORWARD {direction} {BRIDGE} -j ACCEPT\n");
        let rules = format!("*filter\n{}{}COMMIT\n", rule("-i"), rule("-o"));
        let output = run(&self.rules, &["-w", PATIENCE, "--noflush"], &rules, interrupted)?;
        match output.status.code() {
            Some(0) => Ok(()),
            _ => Err(self.failed(&output)),
        }
    }

    fn take_back(&self, interrupted: Interrupted<'_>) -> Result<()> {
        for direction in ["-i", "-o"] {
            while self.change("-D", direction, interrupted)? {}
        }
        Ok(())
    }

    /// False where there is no such rule.
    fn change(&self, action: &str, direction: &str, interrupted: Interrupted<'_>) -> Result<bool> {
        let args = ["-w", PATIENCE, action, "FORWARD", direction, BRIDGE, "-j", "ACCEPT"];
        let output = run(&self.rule, &args, "", interrupted)?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(Self::NO_SUCH_RULE) => Ok(false),
            _ => Err(self.failed(&output)),
        }
    }

    fn failed(&self, output: &Output) -> Error {
        match output.status.code() {
            // Not said of what this machine can't do.
            Some(Self::BUSY) | None => Error::Setup { doing: doing(&self.rule), reason: said(output) },
            Some(_) => refused(&self.rule, &said(output)),
        }
    }
}

fn firewalld(action: &str, interrupted: Interrupted<'_>) -> Result<()> {
    let programs = ["firewall-cmd"];
    let output = run(&programs, &["-q", "--zone=trusted", &format!("{action}={BRIDGE}")], "", interrupted)?;
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

/// Runs the first of the programs that is there, and gives it a short `input`. Nothing of ours is for it to see.
fn run(programs: &[&str], args: &[&str], input: &str, interrupted: Interrupted<'_>) -> Result<Output> {
    let found: Option<PathBuf> = programs.iter().find_map(|name| program(name));
    let path = found.ok_or_else(|| refused(programs, "it is not installed"))?;
    let mut command = Command::new(&path);
    command.args(args).env_clear().env("PATH", PROGRAMS.join(":")).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Ctrl-C is for us alone: what it means for a rule that is being made, we say.
    command.process_group(0);
    let mut child = signal::pass_on(&mut command).spawn().map_err(Error::io("starting", &path))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Of what it does not read it says why with its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    let given_up = wait(&child, interrupted);
    if given_up.is_some() {
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    match given_up {
        None => child.wait_with_output().map_err(Error::io("waiting for", &path)),
        Some(why) => {
            let _ = child.wait();
            Err(match why {
                GivenUp::Interrupted => Error::Cancelled,
                GivenUp::Late => {
                    let reason = format!("{} did not end within {} seconds", path.display(), LIMIT.as_secs());
                    Error::Setup { doing: doing(programs), reason }
                }
            })
        }
    }
}

/// Why a program is not waited for any more.
enum GivenUp {
    Interrupted,
    Late,
}

/// What can't be known is waited for.
fn wait(child: &Child, interrupted: Interrupted<'_>) -> Option<GivenUp> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok()?;
    let slice = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
    let start = Instant::now();
    while matches!(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&slice)), Ok(0) | Err(Errno::INTR))
    {
        if interrupted() {
            return Some(GivenUp::Interrupted);
        }
        if start.elapsed() >= LIMIT {
            return Some(GivenUp::Late);
        }
    }
    None
}
