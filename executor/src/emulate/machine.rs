//! The machines that there are emulators for, and how programs for them begin.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use boxwright_cache::oci::Platform;

/// A machine, by what the header of an ELF program says of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    /// As platforms name it.
    architecture: &'static str,
    /// As QEMU names it.
    qemu: &'static str,
    /// 1 for 32 bits, 2 for 64.
    class: u8,
    /// 1 for little-endian, 2 for big-endian.
    order: u8,
    number: u16,
}

const fn machine(
    architecture: &'static str,
    qemu: &'static str,
    class: u8,
    order: u8,
    number: u16,
) -> Machine {
    Machine { architecture, qemu, class, order, number }
}

pub(super) static MACHINES: [Machine; 9] = [
    machine("amd64", "x86_64", 2, 1, 62),
    machine("386", "i386", 1, 1, 3),
    machine("arm64", "aarch64", 2, 1, 183),
    machine("arm", "arm", 1, 1, 40),
    machine("riscv64", "riscv64", 2, 1, 243),
    machine("ppc64le", "ppc64le", 2, 1, 21),
    machine("s390x", "s390x", 2, 2, 22),
    machine("mips64le", "mips64el", 2, 1, 8),
    machine("loong64", "loongarch64", 2, 1, 258),
];

/// Those whose programs this one runs itself, or may.
const NATIVE: &[&str] = if cfg!(target_arch = "x86_64") { &["amd64", "386"] } else { &["arm64", "arm"] };

/// As much of a header as tells machines apart: up to the machine's number.
pub(super) const HEADER: usize = 20;
/// Of an executable, and of a position-independent one.
pub(super) const TYPES: [u16; 2] = [2, 3];

impl Machine {
    /// None for one that we know nothing of.
    pub fn of(platform: &Platform) -> Option<&'static Machine> {
        let known = |machine: &&Machine| machine.architecture == platform.architecture;
        MACHINES.iter().find(known).filter(|_| platform.os == "linux")
    }

    /// Whether it is the one that we are made for.
    pub(super) fn is_this(&self) -> bool {
        self.architecture == NATIVE[0]
    }

    /// Whether no emulator is needed. The processor may still refuse: not every one for arm64 has 32 bits as well.
    pub fn is_native(&self) -> bool {
        NATIVE.contains(&self.architecture)
    }

    /// The usual name of the program.
    pub fn emulator(&self) -> String {
        format!("qemu-{}-static", self.qemu)
    }

    /// What an entry for it is called.
    pub(super) fn entry_name(&self) -> String {
        format!("qemu-{}", self.qemu)
    }

    /// How a program of this machine begins.
    pub(super) fn header(&self, kind: u16) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', self.class, self.order, 1]);
        let bytes = |number: u16| if self.order == 1 { number.to_le_bytes() } else { number.to_be_bytes() };
        header[16..18].copy_from_slice(&bytes(kind));
        header[18..20].copy_from_slice(&bytes(self.number));
        header
    }

    /// What to write into `register` of `binfmt_misc`: opened now (F), told the program's own name (P), with the
    /// program opened for it (O) and the rights of the program (C), for what is set-user-id.
    pub(super) fn entry(&self, interpreter: &str) -> String {
        let mut mask = [0xff; HEADER];
        // Whatever system it says it is for, and both types.
        mask[7] = 0;
        mask[if self.order == 1 { 16 } else { 17 }] = 0xfe;
        let [magic, mask] = [self.header(TYPES[0]), mask]
            .map(|bytes| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>());
        format!(":{}:M::{magic}:{mask}:{interpreter}:POCF", self.entry_name())
    }
}

/// Whether a program of this machine needs no other file to be started.
pub(super) fn is_static(file: &File) -> io::Result<bool> {
    const INTERPRETER: u32 = 3;
    const SEGMENT: usize = 56;
    let mut header = [0u8; 64];
    file.read_exact_at(&mut header, 0)?;
    if header[..4] != *b"\x7fELF" || header[4] != 2 {
        return Err(io::Error::other("it is no program of this machine"));
    }
    let long = |at: usize| u64::from_ne_bytes(std::array::from_fn(|n| header[at + n]));
    let short = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let (start, size, count) = (long(32), short(54), short(56));
    for n in 0..u64::from(count) {
        let mut segment = [0u8; SEGMENT];
        file.read_exact_at(&mut segment, start.saturating_add(n * u64::from(size)))?;
        if u32::from_ne_bytes(std::array::from_fn(|n| segment[n])) == INTERPRETER {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_the_one_that_qemu_comes_with() {
        let arm64 = Machine::of(&"linux/arm64/v8".parse().unwrap()).unwrap();
        let zeros = r"\x00".repeat(8);
        let magic = format!(r"\x7f\x45\x4c\x46\x02\x01\x01\x00{zeros}\x02\x00\xb7\x00");
        let mask = format!(r"{}\x00{}\xfe\xff\xff\xff", r"\xff".repeat(7), r"\xff".repeat(8));
        assert_eq!(arm64.entry("/q"), format!(":qemu-aarch64:M::{magic}:{mask}:/q:POCF"));
        let s390x = Machine::of(&"linux/s390x".parse().unwrap()).unwrap();
        assert_eq!(s390x.header(3)[16..], [0, 3, 0, 22]);
    }

    #[test]
    fn variants_of_a_machine_are_one() {
        let emulator = |text: &str| Machine::of(&text.parse().unwrap()).map(Machine::emulator);
        assert_eq!(emulator("linux/arm/v5"), emulator("linux/arm/v7"));
        assert_eq!(emulator("linux/riscv64").as_deref(), Some("qemu-riscv64-static"));
        let native = |text: &str| Machine::of(&text.parse().unwrap()).unwrap().is_native();
        let both = [
            native("linux/amd64/v3") && native("linux/386"),
            native("linux/arm64") && native("linux/arm/v6"),
        ];
        assert_eq!(both, [cfg!(target_arch = "x86_64"), cfg!(target_arch = "aarch64")]);
        assert_eq!(emulator("darwin/arm64"), None);
        assert_eq!(emulator("linux/wasm"), None);
    }

    #[test]
    fn our_own_programs_are_told_apart() {
        // Tests are linked as the product is.
        assert!(is_static(&File::open("/proc/self/exe").unwrap()).unwrap());
        assert!(!is_static(&File::open("/bin/sh").unwrap()).unwrap());
        assert!(is_static(&File::open("/etc/passwd").unwrap()).is_err());
    }
}
