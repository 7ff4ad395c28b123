//! The kernel's list of emulators, where it is mounted.

use std::path::Path;

use super::machine::{HEADER, MACHINES, Machine, TYPES};

const LIST: &str = "/proc/sys/fs/binfmt_misc";

/// Who runs programs that begin in a certain way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) interpreter: String,
    /// The kernel has opened the interpreter, so no container needs it.
    pub(super) opened: bool,
    offset: usize,
    magic: Vec<u8>,
    /// As long as the magic.
    mask: Vec<u8>,
}

/// The entries that count and are about programs; none where the list can't be seen.
pub(super) fn read() -> Vec<Entry> {
    let dir = Path::new(LIST);
    if std::fs::read_to_string(dir.join("status")).is_ok_and(|status| status.trim() == "disabled") {
        return Vec::new();
    }
    let Ok(files) = std::fs::read_dir(dir) else { return Vec::new() };
    let texts = files.filter_map(|file| {
        let file = file.ok()?;
        let is_entry = file.file_name() != "register" && file.file_name() != "status";
        if is_entry { std::fs::read_to_string(file.path()).ok() } else { None }
    });
    texts.filter_map(|text| parse(&text)).collect()
}

/// None for one that is switched off, or goes by the name of a file.
fn parse(text: &str) -> Option<Entry> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let magic = bytes(field("magic ")?)?;
    let mask = field("mask ").map_or_else(|| Some(vec![0xff; magic.len()]), bytes)?;
    let counts = text.lines().next()? == "enabled" && mask.len() == magic.len();
    counts.then_some(Entry {
        interpreter: field("interpreter ")?.to_owned(),
        opened: field("flags:").is_some_and(|flags| flags.contains('F')),
        offset: field("offset ").and_then(|number| number.parse().ok())?,
        magic,
        mask,
    })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).ok());
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

impl Entry {
    /// Whether programs of that machine, and not those of every machine, are run by it.
    pub(super) fn runs(&self, machine: &Machine) -> bool {
        self.matches(machine) && MACHINES.iter().any(|other| !self.matches(other))
    }

    /// What lies behind the machine's number does not tell machines apart.
    fn matches(&self, machine: &Machine) -> bool {
        TYPES.iter().any(|kind| {
            let header = machine.header(*kind);
            let pairs = self.magic.iter().zip(&self.mask).enumerate();
            let mut known = pairs.filter(|(n, _)| self.offset.saturating_add(*n) < HEADER);
            known.all(|(n, (magic, mask))| (header[self.offset + n] ^ magic) & mask == 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(entry: &Entry, platform: &str) -> bool {
        entry.runs(Machine::of(&platform.parse().unwrap()).unwrap())
    }

    #[test]
    fn an_entry_is_for_one_machine() {
        let text = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n\
                    magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
        let found = parse(text).unwrap();
        assert!(found.opened && found.interpreter == "/usr/bin/qemu-aarch64-static");
        assert!(runs(&found, "linux/arm64") && !runs(&found, "linux/arm") && !runs(&found, "linux/amd64"));
        assert_eq!(parse(&text.replace("enabled", "disabled")), None);
        assert!(!parse(&text.replace("OCF", "OC")).unwrap().opened);
    }

    #[test]
    fn entries_of_something_else_are_nobodys() {
        assert_eq!(parse("enabled\ninterpreter /usr/bin/cli\nflags: \nextension .exe\n"), None);
        let any = parse("enabled\ninterpreter /x\nflags: \noffset 0\nmagic 7f454c46\n").unwrap();
        assert!(!runs(&any, "linux/arm64"), "what runs every program runs none of another machine");
        let python = parse("enabled\ninterpreter /x\nflags: \noffset 0\nmagic a70d0d0a\n").unwrap();
        assert!(!runs(&python, "linux/arm64"));
        assert_eq!(parse("enabled\ninterpreter /x\nflags: \noffset 0\nmagic 7g\n"), None);
    }
}
