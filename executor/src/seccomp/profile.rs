//! A profile of the caller's own, in docker's JSON, compiled by the rules of libseccomp as runc uses it: of the rules about
//! a call those that look at arguments come first.

use std::collections::BTreeSet;

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Deserializer};

use super::compile::{
    AND, Architecture, IF_AT_LEAST, IF_EQUAL, IF_GREATER, JUMP, LOAD, branch, by_number, instruction, join,
    numbers, ret,
};
use super::number::find;
use crate::capability;
use crate::error::{Error, Result};
use crate::sys::seccomp::Instruction;

/// Which system calls a container may make.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default, deserialize_with = "list")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    arch_map: Vec<Family>,
    #[serde(default, deserialize_with = "list")]
    flags: Vec<String>,
    #[serde(default)]
    listener_path: String,
    #[serde(default)]
    listener_metadata: String,
    #[serde(default, deserialize_with = "list")]
    syscalls: Vec<Rule>,
}

/// An architecture, and those whose programs its machines run as well.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    architecture: String,
    #[serde(default, deserialize_with = "list")]
    sub_architectures: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default, deserialize_with = "list")]
    names: Vec<String>,
    name: Option<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default, deserialize_with = "list")]
    args: Vec<Argument>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default, deserialize_with = "list")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// Go writes an empty list as null.
fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A comparison of an argument; a masked one has the mask in `value` and what is to be left in `value_two`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Stands for a jump to the end of its rule.
const FAIL: Instruction = instruction(JUMP, u32::MAX);
/// How long a program the kernel takes.
const MOST_INSTRUCTIONS: usize = 4096;
const MOST_ARGUMENTS: u32 = 6;
/// Filters all threads of a process at once: there is one.
const TSYNC: &str = "SECCOMP_FILTER_FLAG_TSYNC";

impl Profile {
    /// # Errors
    /// When it is no profile, or asks for something that can't be done here.
    pub fn parse(text: &[u8]) -> Result<Profile> {
        let profile: Profile = serde_json::from_slice(text).map_err(|e| wrong(&e.to_string()))?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<()> {
        let default = action(&self.default_action, self.default_errno_ret)?;
        if !self.listener_path.is_empty() || !self.listener_metadata.is_empty() {
            return Err(wrong("a listener is not supported"));
        }
        if let Some(flag) = self.flags.iter().find(|flag| *flag != TSYNC) {
            return Err(wrong(&format!("the flag {flag:?} is not supported")));
        }
        if !self.architectures.is_empty() && !self.arch_map.is_empty() {
            return Err(wrong("it has both 'architectures' and 'archMap'"));
        }
        for rule in &self.syscalls {
            let what = action(&rule.action, rule.errno_ret)?;
            rule.check_names()?;
            for argument in &rule.args {
                argument.code()?;
            }
            // A call that isn't known gets the default, which may allow it.
            let unknown = rule.names().find(|name| find(name).is_none());
            if let Some(name) = unknown
                && allows(default)
                && what != default
            {
                return Err(wrong(&format!(
                    "the system call {name:?} is not known here, so it can't be refused"
                )));
            }
        }
        Ok(())
    }

    pub(super) fn program(
        &self,
        architectures: &[Architecture],
        capabilities: CapabilitySet,
    ) -> Result<Vec<Instruction>> {
        let default = action(&self.default_action, self.default_errno_ret)?;
        let changes = |rule: &&Rule| rule.code_of_action() != default && rule.applies(capabilities);
        let rules: Vec<&Rule> = self.syscalls.iter().filter(changes).collect();
        let program = join(&self.listed(architectures), |architecture| block(architecture, &rules, default));
        if program.len() > MOST_INSTRUCTIONS {
            return Err(wrong(&format!("it needs {} instructions of {MOST_INSTRUCTIONS}", program.len())));
        }
        Ok(program)
    }

    /// The machine's own architecture, which is the first, and of the others those that the profile lists.
    fn listed(&self, architectures: &[Architecture]) -> Vec<Architecture> {
        let own = architectures.first().map_or("", |own| own.name);
        let of_own = self.arch_map.iter().filter(|family| family.architecture == own);
        let listed: Vec<&String> =
            self.architectures.iter().chain(of_own.flat_map(|family| &family.sub_architectures)).collect();
        let is_listed = |a: &&Architecture| a.name == own || listed.iter().any(|name| *name == a.name);
        architectures.iter().filter(is_listed).copied().collect()
    }
}

fn wrong(reason: &str) -> Error {
    Error::start(125, format!("reading the seccomp profile: {reason}"))
}

/// What a filter returns for an action.
fn action(name: &str, errno: Option<u16>) -> Result<u32> {
    let errno = u32::from(errno.unwrap_or(libc::EPERM.unsigned_abs() as u16));
    match name {
        "SCMP_ACT_ALLOW" => Ok(libc::SECCOMP_RET_ALLOW),
        "SCMP_ACT_LOG" => Ok(libc::SECCOMP_RET_LOG),
        "SCMP_ACT_ERRNO" => Ok(libc::SECCOMP_RET_ERRNO | errno),
        "SCMP_ACT_TRAP" => Ok(libc::SECCOMP_RET_TRAP),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(libc::SECCOMP_RET_KILL_THREAD),
        "SCMP_ACT_KILL_PROCESS" => Ok(libc::SECCOMP_RET_KILL_PROCESS),
        _ => Err(wrong(&format!("the action {name:?} is not supported"))),
    }
}

fn allows(action: u32) -> bool {
    matches!(action, libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG)
}

impl Rule {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().chain(&self.name).map(String::as_str)
    }

    fn check_names(&self) -> Result<()> {
        if self.name.is_some() && !self.names.is_empty() {
            return Err(wrong("a rule has both 'name' and 'names'"));
        }
        if self.names().next().is_none() || self.names().any(str::is_empty) {
            return Err(wrong("a rule has no name of a system call"));
        }
        Ok(())
    }

    fn code_of_action(&self) -> u32 {
        action(&self.action, self.errno_ret).unwrap_or(libc::SECCOMP_RET_KILL_PROCESS)
    }

    fn applies(&self, capabilities: CapabilitySet) -> bool {
        let has = |name: &String| capability::by_name(name).is_some_and(|c| capabilities.contains(c));
        let is_here = |name: &String| name == machine();
        let included = self.includes.as_ref().is_none_or(|only| {
            only.caps.iter().all(has)
                && (only.arches.is_empty() || only.arches.iter().any(is_here))
                && only.min_kernel.as_ref().is_none_or(|version| kernel_is(version))
        });
        let excluded = self.excludes.as_ref().is_some_and(|not| {
            not.caps.iter().any(has)
                || not.arches.iter().any(is_here)
                || not.min_kernel.as_ref().is_some_and(|version| kernel_is(version))
        });
        included && !excluded
    }

    /// Falls through where an argument is another one. All conditions have to hold, unless two are about one argument: then
    /// any will do.
    fn code(&self) -> Vec<Instruction> {
        let indices: BTreeSet<u32> = self.args.iter().map(|argument| argument.index).collect();
        if indices.len() == self.args.len() {
            return self.code_where(&self.args);
        }
        self.args.chunks(1).flat_map(|condition| self.code_where(condition)).collect()
    }

    fn code_where(&self, conditions: &[Argument]) -> Vec<Instruction> {
        let conditions = conditions.iter().flat_map(|argument| argument.code().unwrap_or_default());
        let mut code: Vec<Instruction> = conditions.chain([ret(self.code_of_action())]).collect();
        let length = code.len();
        for (n, instruction) in code.iter_mut().enumerate() {
            if instruction.code == JUMP && instruction.k == FAIL.k {
                instruction.k = u32::try_from(length - n - 1).unwrap_or(FAIL.k);
            }
        }
        code
    }
}

/// As Go calls it.
fn machine() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Whether the kernel is of this version (`4.8`) or a later one.
fn kernel_is(version: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        let parts = text.split(|c: char| !c.is_ascii_digit()).take(2);
        parts.map(|part| part.parse().unwrap_or(0)).collect()
    };
    numbers(&rustix::system::uname().release().to_string_lossy()) >= numbers(version)
}

impl Argument {
    /// Goes on behind the code where the comparison holds, and fails otherwise. Arguments are compared in two halves.
    fn code(&self) -> Result<Vec<Instruction>> {
        if self.index >= MOST_ARGUMENTS {
            return Err(wrong(&format!("a system call has no argument {}", self.index)));
        }
        let (low, high) = (16 + 8 * self.index, 20 + 8 * self.index);
        let (low, high) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
        let halves = |value: u64| (value as u32, (value >> 32) as u32);
        let (least, most) = halves(self.value);
        let load_high = instruction(LOAD, high);
        let load_low = instruction(LOAD, low);
        // The high half decides with `above` (then its jump goes past everything), or is equal and the low half decides.
        let ordered = |decides: Instruction, last: Instruction| {
            vec![load_high, decides, branch(IF_EQUAL, most, 1, 0), FAIL, load_low, last, FAIL]
        };
        Ok(match self.op.as_str() {
            "SCMP_CMP_EQ" => {
                let (high, low) = (branch(IF_EQUAL, most, 1, 0), branch(IF_EQUAL, least, 1, 0));
                vec![load_high, high, FAIL, load_low, low, FAIL]
            }
            "SCMP_CMP_NE" => {
                vec![load_high, branch(IF_EQUAL, most, 0, 3), load_low, branch(IF_EQUAL, least, 0, 1), FAIL]
            }
            "SCMP_CMP_MASKED_EQ" => {
                let (left_low, left_high) = halves(self.value_two);
                let (high, low) = (branch(IF_EQUAL, left_high, 1, 0), branch(IF_EQUAL, left_low, 1, 0));
                let (mask_high, mask_low) = (instruction(AND, most), instruction(AND, least));
                vec![load_high, mask_high, high, FAIL, load_low, mask_low, low, FAIL]
            }
            "SCMP_CMP_GT" => ordered(branch(IF_GREATER, most, 5, 0), branch(IF_GREATER, least, 1, 0)),
            "SCMP_CMP_GE" => ordered(branch(IF_GREATER, most, 5, 0), branch(IF_AT_LEAST, least, 1, 0)),
            "SCMP_CMP_LT" => ordered(branch(IF_AT_LEAST, most, 0, 5), branch(IF_AT_LEAST, least, 0, 1)),
            "SCMP_CMP_LE" => ordered(branch(IF_AT_LEAST, most, 0, 5), branch(IF_GREATER, least, 0, 1)),
            op => return Err(wrong(&format!("the comparison {op:?} is not known"))),
        })
    }
}

fn block(architecture: &Architecture, rules: &[&Rule], default: u32) -> Vec<Instruction> {
    // The rules about each number; equal lists are one action.
    let mut lists: Vec<Vec<usize>> = vec![Vec::new(); numbers(architecture)];
    for (n, rule) in rules.iter().enumerate() {
        for call in rule.names().filter_map(find) {
            if let Ok(number) = usize::try_from((architecture.number)(call)) {
                lists[number].push(n);
            }
        }
    }
    let mut known: Vec<Vec<usize>> = vec![Vec::new()];
    let actions: Vec<Option<usize>> = lists
        .into_iter()
        .map(|list| {
            let at = known.iter().position(|other| *other == list).unwrap_or(known.len());
            if at == known.len() {
                known.push(list);
            }
            Some(at)
        })
        .collect();
    // A call that is newer than all that are known does not exist, unless anything goes: libc then takes the older one.
    let newer = if allows(default) { Some(0) } else { None };
    let leaf = |action: Option<usize>| match action {
        None => vec![ret(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs())],
        Some(at) => {
            let (conditional, plain): (Vec<_>, Vec<_>) =
                known[at].iter().map(|n| rules[*n]).partition(|rule| !rule.args.is_empty());
            let mut code: Vec<Instruction> = conditional.iter().flat_map(|rule| rule.code()).collect();
            code.extend(plain.first().map_or_else(|| vec![ret(default)], |rule| rule.code()));
            code
        }
    };
    by_number(architecture, &actions, newer, None, &leaf)
}

#[cfg(test)]
mod tests;
