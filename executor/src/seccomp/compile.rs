//! Policy → BPF: a binary search over ranges of call numbers with the same action, then the checks of arguments.

use rustix::thread::CapabilitySet;

use super::number::{CALLS, Call, REFUSED};
use super::policy::{CHECKED, Check, NAMESPACE_FLAGS, PERSONALITIES, REFUSED_FAMILIES, RULES};
use crate::sys::seccomp::Instruction;

/// How one architecture numbers its calls.
#[derive(Clone, Copy)]
pub(super) struct Architecture {
    /// In profiles.
    pub(super) name: &'static str,
    pub(super) audit: u32,
    pub(super) number: fn(&Call) -> i16,
    /// Numbers from here on belong to another ABI of the same architecture (x32), which is treated as not there.
    foreign_from: Option<u32>,
}

pub(super) const X86_64: Architecture = Architecture {
    name: "SCMP_ARCH_X86_64",
    audit: 0xc000_003e,
    number: |c| c.x86_64,
    foreign_from: Some(0x4000_0000),
};
pub(super) const I386: Architecture =
    Architecture { name: "SCMP_ARCH_X86", audit: 0x4000_0003, number: |c| c.i386, foreign_from: None };
pub(super) const AARCH64: Architecture =
    Architecture { name: "SCMP_ARCH_AARCH64", audit: 0xc000_00b7, number: |c| c.aarch64, foreign_from: None };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Allow,
    Refuse(i32),
    Check(Check),
}

// Offsets in struct seccomp_data. Arguments are 64 bits wide; the low half of the first one is all that is looked at,
// as the kernel takes the arguments in question as 32-bit values.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

pub(super) const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
pub(super) const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
pub(super) const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
pub(super) const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
pub(super) const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
pub(super) const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const ALLOW: Instruction = ret(libc::SECCOMP_RET_ALLOW);
const REFUSE: Instruction = ret(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
const KILL: Instruction = ret(libc::SECCOMP_RET_KILL_PROCESS);

pub(super) fn program(architectures: &[Architecture], capabilities: CapabilitySet) -> Vec<Instruction> {
    join(architectures, |architecture| block(architecture, capabilities))
}

/// One program of a block for each architecture; there is no other.
pub(super) fn join(
    architectures: &[Architecture],
    block: impl Fn(&Architecture) -> Vec<Instruction>,
) -> Vec<Instruction> {
    let mut program = vec![instruction(LOAD, ARCHITECTURE)];
    for architecture in architectures {
        let block = block(architecture);
        program.push(branch(IF_EQUAL, architecture.audit, 1, 0));
        program.push(instruction(JUMP, length(&block)));
        program.extend(block);
    }
    program.push(KILL);
    program
}

fn block(architecture: &Architecture, capabilities: CapabilitySet) -> Vec<Instruction> {
    // What is newer than the table does not exist for the container: libc then takes the older call.
    let absent = Action::Refuse(libc::ENOSYS);
    by_number(architecture, &actions(architecture, capabilities), absent, absent, &leaf)
}

/// What is done about the call of each number, those after the last one, and those of a foreign ABI.
pub(super) fn by_number<A: Copy + PartialEq>(
    architecture: &Architecture,
    actions: &[A],
    newer: A,
    foreign: A,
    leaf: &impl Fn(A) -> Vec<Instruction>,
) -> Vec<Instruction> {
    let mut ranges = ranges(actions, newer);
    if let Some(first) = architecture.foreign_from {
        ranges.push((first, foreign));
        ranges.dedup_by(|b, a| a.1 == b.1);
    }
    let mut block = vec![instruction(LOAD, NUMBER)];
    block.extend(search(&ranges, leaf));
    block
}

/// One for each number that the tables have.
pub(super) fn numbers(architecture: &Architecture) -> usize {
    let last = CALLS.iter().chain(REFUSED).map(architecture.number).max().unwrap_or(0);
    usize::try_from(last).unwrap_or(0) + 1
}

/// The action for each call number up to the last one known.
fn actions(architecture: &Architecture, capabilities: CapabilitySet) -> Vec<Action> {
    let mut actions = vec![Action::Refuse(libc::EPERM); numbers(architecture)];
    let mut set = |name: &str, action| {
        let call = CALLS.binary_search_by_key(&name, |c| c.name).map(|n| (architecture.number)(&CALLS[n]));
        if let Some(slot) = call.ok().and_then(|number| usize::try_from(number).ok()) {
            actions[slot] = action;
        }
    };
    for (name, check) in CHECKED {
        set(name, Action::Check(*check));
    }
    for rule in RULES.iter().filter(|r| r.when.is_empty() || r.when.intersects(capabilities)) {
        for name in rule.calls {
            set(name, Action::Allow);
        }
    }
    actions
}

/// Joins neighbours.
fn ranges<A: Copy + PartialEq>(actions: &[A], newer: A) -> Vec<(u32, A)> {
    let mut ranges: Vec<_> = (0..).zip(actions.iter().copied().chain([newer])).collect();
    ranges.dedup_by(|b, a| a.1 == b.1);
    ranges
}

/// The number is in the accumulator; each range begins where the one before ends.
fn search<A: Copy>(ranges: &[(u32, A)], leaf: &impl Fn(A) -> Vec<Instruction>) -> Vec<Instruction> {
    if let [(_, action)] = ranges {
        return leaf(*action);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (below, above) = (search(low, leaf), search(high, leaf));
    let mut code = match u8::try_from(below.len()) {
        Ok(skip) => vec![branch(IF_AT_LEAST, high[0].0, skip, 0)],
        Err(_) => vec![branch(IF_AT_LEAST, high[0].0, 0, 1), instruction(JUMP, length(&below))],
    };
    code.extend(below);
    code.extend(above);
    code
}

fn leaf(action: Action) -> Vec<Instruction> {
    match action {
        Action::Allow => vec![ALLOW],
        Action::Refuse(errno) => vec![ret(libc::SECCOMP_RET_ERRNO | errno.cast_unsigned())],
        Action::Check(Check::Clone3) => vec![ret(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)],
        Action::Check(Check::Clone) => {
            vec![instruction(LOAD, FIRST_ARGUMENT), branch(IF_ANY_BIT, NAMESPACE_FLAGS, 1, 0), ALLOW, REFUSE]
        }
        Action::Check(Check::Socket) => one_of(REFUSED_FAMILIES, REFUSE, ALLOW),
        Action::Check(Check::Personality) => one_of(PERSONALITIES, ALLOW, REFUSE),
    }
}

fn one_of(values: &[u32], then: Instruction, otherwise: Instruction) -> Vec<Instruction> {
    let mut code = vec![instruction(LOAD, FIRST_ARGUMENT)];
    for (left, value) in (0..values.len()).rev().zip(values) {
        code.push(branch(IF_EQUAL, *value, u8::try_from(left + 1).expect("a handful of values"), 0));
    }
    code.extend([otherwise, then]);
    code
}

pub(super) const fn instruction(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

pub(super) const fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

pub(super) const fn ret(value: u32) -> Instruction {
    instruction(RETURN, value)
}

fn length(code: &[Instruction]) -> u32 {
    u32::try_from(code.len()).expect("a program is a few hundred instructions")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn run(program: &[Instruction], audit: u32, number: u32, argument: u32) -> u32 {
        run_with(program, audit, number, &[u64::from(argument)])
    }

    /// Runs a program as the kernel would.
    pub(in super::super) fn run_with(
        program: &[Instruction],
        audit: u32,
        number: u32,
        arguments: &[u64],
    ) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
            match i.code {
                LOAD => {
                    accumulator = match i.k {
                        NUMBER => number,
                        ARCHITECTURE => audit,
                        offset => {
                            let argument = arguments[(offset as usize - 16) / 8];
                            if offset % 8 == 0 { argument as u32 } else { (argument >> 32) as u32 }
                        }
                    }
                }
                JUMP => at += i.k as usize,
                IF_EQUAL => at += jump(accumulator == i.k),
                IF_AT_LEAST => at += jump(accumulator >= i.k),
                IF_GREATER => at += jump(accumulator > i.k),
                AND => accumulator &= i.k,
                IF_ANY_BIT => at += jump(accumulator & i.k != 0),
                RETURN => return i.k,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn errno(code: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | code.cast_unsigned()
    }

    #[test]
    fn every_call_gets_the_action_of_the_policy() {
        let capabilities = crate::capability::DEFAULT;
        let architectures = [X86_64, I386, AARCH64];
        let program = program(&architectures, capabilities);
        assert!(program.len() < 1200, "{} instructions", program.len());
        for architecture in &architectures {
            for (number, action) in (0..).zip(actions(architecture, capabilities)) {
                let expected = match action {
                    Action::Allow => libc::SECCOMP_RET_ALLOW,
                    Action::Refuse(code) => errno(code),
                    Action::Check(_) => continue,
                };
                assert_eq!(run(&program, architecture.audit, number, 0), expected, "call {number}");
            }
        }
    }

    #[test]
    fn arguments_decide_where_the_policy_says_so() {
        let program = program(&[X86_64, I386], crate::capability::DEFAULT);
        let x86 = |number, argument| run(&program, X86_64.audit, number, argument);
        let (socket, clone, personality, clone3) = (41, 56, 135, 435);
        assert_eq!(x86(socket, 2), libc::SECCOMP_RET_ALLOW);
        assert_eq!(x86(socket, 38), errno(libc::EPERM));
        assert_eq!(x86(socket, 39), libc::SECCOMP_RET_ALLOW);
        assert_eq!(x86(socket, 40), errno(libc::EPERM));
        assert_eq!(x86(clone, 0x11), libc::SECCOMP_RET_ALLOW);
        assert_eq!(x86(clone, 0x1000_0011), errno(libc::EPERM));
        assert_eq!(x86(personality, 8), libc::SECCOMP_RET_ALLOW);
        assert_eq!(x86(personality, 0x0040_0000), errno(libc::EPERM));
        assert_eq!(x86(clone3, 0), errno(libc::ENOSYS));
        assert_eq!(run(&program, I386.audit, 359, 40), errno(libc::EPERM));
    }

    #[test]
    fn the_unknown_is_refused() {
        let program = program(&[X86_64], crate::capability::DEFAULT);
        assert_eq!(run(&program, X86_64.audit, 999, 0), errno(libc::ENOSYS));
        assert_eq!(run(&program, X86_64.audit, 0x4000_0000, 0), errno(libc::ENOSYS), "x32");
        assert_eq!(run(&program, AARCH64.audit, 0, 0), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn capabilities_open_their_calls() {
        let mount = 165;
        let run = |capabilities| run(&program(&[X86_64], capabilities), X86_64.audit, mount, 0);
        assert_eq!(run(CapabilitySet::empty()), errno(libc::EPERM));
        assert_eq!(run(CapabilitySet::SYS_ADMIN), libc::SECCOMP_RET_ALLOW);
    }
}
