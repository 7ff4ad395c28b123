//! Which devices the processes of a group can open: lines for the controller of version 1, a program for version 2.

use std::os::fd::AsFd;

use rustix::fs::{FileType, major, minor};

use crate::sys::bpf::Instruction;

/// Devices that a container may use. What no rule allows is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// None is both.
    pub kind: Option<DeviceKind>,
    /// None is every one.
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: DeviceAccess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    Block,
    Character,
}

/// What may be done to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAccess {
    pub read: bool,
    pub write: bool,
    /// Nodes of it may be made.
    pub make: bool,
}

impl DeviceAccess {
    pub const ALL: DeviceAccess = DeviceAccess { read: true, write: true, make: true };
    const MAKE: DeviceAccess = DeviceAccess { read: false, write: false, make: true };

    /// `rwm`, or some of these letters, each once; None for anything else.
    pub fn parse(text: &str) -> Option<DeviceAccess> {
        let has = |letter: char| text.contains(letter);
        let access = DeviceAccess { read: has('r'), write: has('w'), make: has('m') };
        (!text.is_empty() && access.letters().len() == text.len()).then_some(access)
    }

    fn letters(self) -> String {
        let letters = [(self.read, 'r'), (self.write, 'w'), (self.make, 'm')];
        letters.into_iter().filter(|(has, _)| *has).map(|(_, letter)| letter).collect()
    }

    /// In the kernel's bits.
    fn bits(self) -> i32 {
        i32::from(self.make) | i32::from(self.read) << 1 | i32::from(self.write) << 2
    }
}

impl DeviceRule {
    const fn character(major: u32, minor: Option<u32>) -> DeviceRule {
        let kind = Some(DeviceKind::Character);
        DeviceRule { kind, major: Some(major), minor, access: DeviceAccess::ALL }
    }

    /// For the device of a node; None where it is none.
    pub fn of(node: impl AsFd, access: DeviceAccess) -> Option<DeviceRule> {
        let stat = rustix::fs::fstat(node).ok()?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => DeviceKind::Block,
            FileType::CharacterDevice => DeviceKind::Character,
            _ => return None,
        };
        let (major, minor) = (Some(major(stat.st_rdev)), Some(minor(stat.st_rdev)));
        Some(DeviceRule { kind: Some(kind), major, minor, access })
    }
}

/// What every container may, as in docker: make any node, and use the ordinary ones and terminals.
const USUAL: [DeviceRule; 10] = [
    DeviceRule { kind: None, major: None, minor: None, access: DeviceAccess::MAKE },
    DeviceRule::character(1, Some(3)),
    DeviceRule::character(1, Some(5)),
    DeviceRule::character(1, Some(7)),
    DeviceRule::character(1, Some(8)),
    DeviceRule::character(1, Some(9)),
    DeviceRule::character(5, Some(0)),
    DeviceRule::character(5, Some(1)),
    DeviceRule::character(5, Some(2)),
    DeviceRule::character(136, None),
];

fn all(more: &[DeviceRule]) -> impl Iterator<Item = &DeviceRule> {
    USUAL.iter().chain(more)
}

/// For `devices.allow`, after everything was denied.
pub(super) fn lines(more: &[DeviceRule]) -> Vec<String> {
    let mut lines = Vec::new();
    for rule in all(more) {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
        // "a" would allow everything, whatever stands behind it.
        let kinds: &[char] = match rule.kind {
            Some(DeviceKind::Block) => &['b'],
            Some(DeviceKind::Character) => &['c'],
            None => &['b', 'c'],
        };
        for kind in kinds {
            let (major, minor) = (number(rule.major), number(rule.minor));
            lines.push(format!("{kind} {major}:{minor} {}", rule.access.letters()));
        }
    }
    lines
}

/// Asked for each opening and making of a device; 1 lets it be. The context has three words: the kind in the lower half of
/// the first, what is wanted in the upper, then the numbers.
pub(super) fn program(more: &[DeviceRule]) -> Vec<Instruction> {
    const KIND: u8 = 2;
    const WANTED: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    const SCRATCH: u8 = 6;
    let mut program = vec![
        load(KIND, 0),
        copy(WANTED, KIND),
        operate(AND, KIND, 0xffff),
        operate(SHIFT_RIGHT, WANTED, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in all(more) {
        let mut checks: Vec<(u8, i32)> = Vec::new();
        checks.extend(rule.kind.map(|kind| (KIND, if kind == DeviceKind::Block { 1 } else { 2 })));
        checks.extend(rule.major.map(|major| (MAJOR, major.cast_signed())));
        checks.extend(rule.minor.map(|minor| (MINOR, minor.cast_signed())));
        // Nothing is wanted that the rule does not have.
        let excess = 7 & !rule.access.bits();
        if excess != 0 {
            program.extend([copy(SCRATCH, WANTED), operate(AND, SCRATCH, excess)]);
            checks.insert(0, (SCRATCH, 0));
        }
        if checks.is_empty() {
            // The kernel takes no program with a part that is never reached.
            program.extend(answer(1));
            return program;
        }
        // Behind the rule's answer.
        let mut skip = checks.len() as i16 + 2;
        for (register, value) in checks {
            skip -= 1;
            program.push(unless_equal(register, value, skip));
        }
        program.extend(answer(1));
    }
    program.extend(answer(0));
    program
}

const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
    let registers = (from << 4) | to;
    code as u64 | (registers as u64) << 8 | (offset as u16 as u64) << 16 | (value as u32 as u64) << 32
}

/// A word of the context, which is in register 1.
fn load(to: u8, offset: i16) -> Instruction {
    instruction(0x61, to, 1, offset, 0)
}

fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbc, to, from, 0, 0)
}

fn operate(code: u8, register: u8, value: i32) -> Instruction {
    instruction(code, register, 0, 0, value)
}

/// Compares 32 bits.
fn unless_equal(register: u8, value: i32, skip: i16) -> Instruction {
    instruction(0x56, register, 0, skip, value)
}

fn answer(value: i32) -> [Instruction; 2] {
    [instruction(0xb7, 0, 0, 0, value), instruction(0x95, 0, 0, 0, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_letters() {
        for (text, bits) in [("r", 2), ("rw", 6), ("rwm", 7), ("mw", 5)] {
            assert_eq!(DeviceAccess::parse(text).unwrap().bits(), bits, "{text}");
        }
        for text in ["", "x", "rr", "rwmm", "r w"] {
            assert_eq!(DeviceAccess::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn lines_are_the_kernels() {
        let rule = |text: &str| DeviceRule {
            kind: Some(DeviceKind::Block),
            major: Some(8),
            minor: None,
            access: DeviceAccess::parse(text).unwrap(),
        };
        let lines = lines(&[rule("r")]);
        assert_eq!(lines[..3], ["b *:* m", "c *:* m", "c 1:3 rwm"]);
        assert_eq!(lines.last().unwrap(), "b 8:* r");
    }

    /// Runs a program as the kernel would.
    fn ask(program: &[Instruction], kind: u32, wanted: u32, major: u32, minor: u32) -> u64 {
        let context = [kind | wanted << 16, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        loop {
            let code = program[at];
            let (to, from) = ((code >> 8 & 15) as usize, (code >> 12 & 15) as usize);
            let (offset, value) = ((code >> 16) as u16 as i16, (code >> 32) as u32);
            match code as u8 {
                0x61 => registers[to] = context[offset as usize / 4].into(),
                0xbc => registers[to] = registers[from] & 0xffff_ffff,
                0xb7 => registers[to] = value.into(),
                AND => registers[to] &= u64::from(value),
                SHIFT_RIGHT => registers[to] = (registers[to] & 0xffff_ffff) >> value,
                0x56 if registers[to] as u32 != value => at += offset as usize,
                0x56 => {}
                0x95 => return registers[0],
                other => panic!("instruction {other:#x}"),
            }
            at += 1;
        }
    }

    #[test]
    fn the_program_allows_what_a_rule_allows_and_nothing_else() {
        let (block, character) = (1, 2);
        let (make, read, write) = (1, 2, 4);
        let disk = DeviceRule {
            kind: Some(DeviceKind::Block),
            major: Some(254),
            minor: Some(0),
            access: DeviceAccess::parse("r").unwrap(),
        };
        let program = program(&[disk]);
        for (kind, wanted, major, minor, allowed) in [
            (character, read | write, 1, 3, true),
            (character, read | write | make, 1, 3, true),
            (block, read, 1, 3, false),
            (character, read, 1, 4, false),
            (character, read, 136, 12345, true),
            (character, read, 10, 237, false),
            (character, make, 10, 237, true),
            (block, make, 7, 0, true),
            (block, make | read, 7, 0, false),
            (block, read, 254, 0, true),
            (block, read | write, 254, 0, false),
            (block, write, 254, 0, false),
            (character, read, 254, 0, false),
            (block, read, 254, 1, false),
        ] {
            let answer = ask(&program, kind, wanted, major, minor);
            assert_eq!(answer == 1, allowed, "{kind} {wanted:#x} {major}:{minor}");
        }
    }
}
