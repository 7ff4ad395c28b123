//! A tar writer for fixtures that writes what it is told, in that order, sensible or not. Names have up to 100 bytes,
//! times whole seconds; what needs more is given as an extended header.

use std::collections::BTreeMap;

/// An archive in the making. `owner` and `mtime` hold for the entries that follow them.
#[derive(Debug, Clone)]
pub struct Tar {
    bytes: Vec<u8>,
    modes: BTreeMap<String, u32>,
    owner: (u32, u32),
    mtime: u64,
}

impl Default for Tar {
    fn default() -> Self {
        Self::new()
    }
}

impl Tar {
    pub fn new() -> Self {
        Tar { bytes: Vec::new(), modes: BTreeMap::new(), owner: (0, 0), mtime: 1_577_836_800 }
    }

    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    #[must_use]
    pub fn mtime(mut self, seconds: u64) -> Self {
        self.mtime = seconds;
        self
    }

    #[must_use]
    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(path, b'5', mode, "", b"")
    }

    #[must_use]
    pub fn file(self, path: &str, mode: u32, data: impl AsRef<[u8]>) -> Self {
        self.entry(path, b'0', mode, "", data.as_ref())
    }

    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, b'2', 0o777, target, b"")
    }

    /// The entry has its target's mode, if the target came before it.
    #[must_use]
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        let mode = self.modes.get(target).copied().unwrap_or(0o644);
        self.entry(path, b'1', mode, target, b"")
    }

    #[must_use]
    pub fn fifo(self, path: &str, mode: u32) -> Self {
        self.entry(path, b'6', mode, "", b"")
    }

    #[must_use]
    pub fn device(mut self, path: &str, kind: u8, major: u32, minor: u32) -> Self {
        let at = self.bytes.len();
        self = self.entry(path, kind, 0o666, "", b"");
        self.bytes[at + 329..at + 336].copy_from_slice(format!("{major:07o}").as_bytes());
        self.bytes[at + 337..at + 344].copy_from_slice(format!("{minor:07o}").as_bytes());
        self.sum(at);
        self
    }

    /// A file whose header says another size than its data has.
    #[must_use]
    pub fn file_of_size(mut self, path: &str, size: u64, data: impl AsRef<[u8]>) -> Self {
        let at = self.bytes.len();
        self = self.file(path, 0o644, data);
        self.bytes[at + 124..at + 135].copy_from_slice(format!("{size:011o}").as_bytes());
        self.sum(at);
        self
    }

    /// An extended header (`kind` is `x`, or `g` for all that follow) with these records.
    #[must_use]
    pub fn pax(self, kind: u8, records: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (name, value) in records {
            let rest = format!(" {name}={value}\n");
            // The length counts its own digits.
            let length = (rest.len() + 1..).find(|n| n.to_string().len() + rest.len() == *n).unwrap();
            text += &format!("{length}{rest}");
        }
        self.entry("PaxHeaders/x", kind, 0o644, "", text.as_bytes())
    }

    /// Marks `name` in `parent` (empty for the root) as removed.
    #[must_use]
    pub fn whiteout(self, parent: &str, name: &str) -> Self {
        let slash = if parent.is_empty() { "" } else { "/" };
        self.file(&format!("{parent}{slash}.wh.{name}"), 0o644, b"")
    }

    #[must_use]
    pub fn opaque(self, dir: &str) -> Self {
        self.file(&format!("{dir}/.wh..wh..opq"), 0o644, b"")
    }

    /// The archive so far.
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    /// The archive, with the two empty blocks that end it.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }

    fn entry(mut self, path: &str, kind: u8, mode: u32, link: &str, data: &[u8]) -> Self {
        self.modes.insert(path.to_owned(), mode);
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        assert!(path.len() <= 100 && link.len() <= 100, "{path}: too long for ustar");
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, format!("{:07o}", self.owner.0).as_bytes());
        put(116, format!("{:07o}", self.owner.1).as_bytes());
        put(124, format!("{:011o}", data.len()).as_bytes());
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let at = self.bytes.len();
        self.bytes.extend(header);
        self.sum(at);
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// Sets the checksum of the header that begins at `at`.
    fn sum(&mut self, at: usize) {
        let header = &mut self.bytes[at..at + 512];
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
