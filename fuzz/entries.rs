//! An archive made of a fuzzer's bytes: headers whose checksums hold, so that what lies behind them is reached.

/// Names that mean something to each other.
const NAMES: [&str; 16] = [
    "a",
    "a/b",
    "a/b/c",
    "d/",
    "./",
    "..",
    "../canary",
    "/a",
    "a/../d",
    ".wh.a",
    "a/.wh..wh..opq",
    ".wh..wh.plnk/x",
    "d/.wh.x",
    "l",
    "l/f",
    "",
];
const KINDS: &[u8] = b"000001122345567xxxgLLKS\0A";
const KEYS: [&str; 10] = [
    "path",
    "linkpath",
    "size",
    "uid",
    "mtime",
    "gid",
    "SCHILY.xattr.user.a",
    "GNU.sparse.major",
    "comment",
    "x",
];

/// Takes bytes while there are any.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let n = usize::from(self.byte().unwrap_or(0)).min(most).min(self.0.len());
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken.to_vec()
    }

    fn name(&mut self) -> Vec<u8> {
        match self.byte().unwrap_or(0) {
            n @ 0..=199 => NAMES[usize::from(n) % NAMES.len()].as_bytes().to_vec(),
            _ => self.bytes(100),
        }
    }
}

pub(crate) fn archive(input: &[u8]) -> Vec<u8> {
    let mut source = Source(input);
    let mut out = Vec::new();
    while let Some(kind) = source.byte() {
        entry(&mut out, KINDS[usize::from(kind) % KINDS.len()], &mut source);
    }
    out.extend([0; 1024]);
    out
}

fn entry(out: &mut Vec<u8>, kind: u8, source: &mut Source<'_>) {
    let (name, link, how) = (source.name(), source.name(), source.byte().unwrap_or(0));
    let content = match kind {
        b'x' | b'g' if how & 1 == 0 => records(source),
        b'L' | b'K' => [source.name(), vec![0; usize::from(how & 1)]].concat(),
        b'0' | b'7' | 0 | b'x' | b'g' => source.bytes(255),
        _ => Vec::new(),
    };
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name);
    put(100, b"0000644\0000000000\0000000000");
    put(124, format!("{:011o}", content.len()).as_bytes());
    put(136, b"00000000007");
    put(156, &[kind]);
    put(157, &link);
    put(257, if how & 2 == 0 { b"ustar\x0000" } else { b"ustar  \0" });
    // Any field may be anything.
    if how & 4 != 0 {
        let (at, bytes) = (usize::from(source.byte().unwrap_or(0)) * 2, source.bytes(24));
        let end = (at + bytes.len()).min(512);
        header[at..end].copy_from_slice(&bytes[..end - at]);
    }
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(header);
    out.extend(content);
    // Now and then an archive goes on where it should not.
    if how & 0xf8 != 0xf8 {
        out.resize(out.len().next_multiple_of(512), 0);
    }
}

fn records(source: &mut Source<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..source.byte().unwrap_or(0) % 4 {
        let key = KEYS[usize::from(source.byte().unwrap_or(0)) % KEYS.len()];
        let value = match key {
            "path" | "linkpath" => source.name(),
            "size" | "uid" | "gid" => source.byte().unwrap_or(0).to_string().into_bytes(),
            _ => source.bytes(40),
        };
        let rest = [b" ", key.as_bytes(), b"=", &value[..], b"\n"].concat();
        let length = (rest.len() + 1..).find(|n| n.to_string().len() + rest.len() == *n);
        out.extend(length.expect("some number counts its own digits").to_string().into_bytes());
        out.extend(rest);
    }
    out
}
