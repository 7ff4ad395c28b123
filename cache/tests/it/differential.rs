//! Generated archives, sound and twisted, unpacked by us, GNU tar and bsdtar: what we accept means the same to both.
//! RUSTSEC-2026-0112 and its family came of readers that did not agree.

use std::fs;
use std::path::Path;
use std::process::Command;

use boxwright_cache::Cancel;
use boxwright_cache::layer::{DirSink, apply};
use boxwright_cache::snapshot::owner::OwnerView;
use boxwright_testdata::listing::Listing;
use boxwright_testdata::run;

/// How many archives, unless BOXWRIGHT_ROUNDS says otherwise.
const ARCHIVES: u64 = 120;

/// What follows a seed, always the same.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

/// An archive in the making: each name once, so that only the format can be understood in two ways.
struct Generated {
    numbers: Numbers,
    bytes: Vec<u8>,
    files: Vec<String>,
    count: u32,
}

impl Generated {
    fn archive(seed: u64) -> Vec<u8> {
        let mut made = Generated { numbers: Numbers(seed), bytes: Vec::new(), files: Vec::new(), count: 0 };
        // Half of them are sound, so that agreement is not only that of the refused.
        let twisted = seed % 2 == 1;
        for _ in 0..2 + made.numbers.below(6) {
            made.entry();
            if twisted && made.numbers.one_in(2) {
                made.twist();
            }
        }
        made.bytes.extend([0; 1024]);
        match made.numbers.below(12) {
            0 if twisted => made.bytes.truncate(usize::try_from(made.numbers.below(3000)).unwrap()),
            1 => made.bytes.extend([0; 9000]),
            2 if twisted => made.bytes.extend(b"what comes after the end".repeat(30)),
            _ => {}
        }
        made.bytes
    }

    fn name(&mut self) -> String {
        self.count += 1;
        let n = self.count;
        match self.numbers.below(6) {
            0 => format!("d{n}/e/f"),
            1 => format!("./f{n}"),
            2 => format!("{}/f{n}", "n".repeat(90)),
            3 => format!("name with blanks and \u{e9} {n}"),
            _ => format!("f{n}"),
        }
    }

    /// A sound entry, its names and sizes told in any of the ways that there are.
    fn entry(&mut self) {
        let name = self.name();
        let content = vec![b'a' + (self.count % 26) as u8; self.numbers.of(&[0, 1, 511, 512, 513, 1500])];
        match self.numbers.below(8) {
            0 => self.named(b'5', &format!("{name}/"), "", &[]),
            1 => {
                let target = "t".repeat(self.numbers.of(&[1, 100, 150]));
                self.named(b'2', &name, &target, &[]);
            }
            2 if !self.files.is_empty() => {
                let target =
                    self.files[usize::try_from(self.numbers.below(self.files.len() as u64)).unwrap()].clone();
                self.named(b'1', &name, &target, &[]);
            }
            3 => self.named(b'6', &name, "", &[]),
            _ => {
                let kind = self.numbers.of(b"0007\0");
                self.named(kind, &name, "", &content);
                self.files.push(name);
            }
        }
    }

    fn named(&mut self, kind: u8, name: &str, link: &str, content: &[u8]) {
        let long = name.len() > 100 || link.len() > 100;
        let mut records = Vec::new();
        if long && self.numbers.one_in(2) {
            self.header(b'L', "././@LongLink", "", (name.len() + 1) as u64, |_| ());
            self.padded(&[name.as_bytes(), &[0]].concat());
            self.header(b'K', "././@LongLink", "", (link.len() + 1) as u64, |_| ());
            self.padded(&[link.as_bytes(), &[0]].concat());
        } else if long || self.numbers.one_in(3) {
            records.push(("path", name.to_owned()));
            if !link.is_empty() {
                records.push(("linkpath", link.to_owned()));
            }
        }
        if self.numbers.one_in(4) {
            records.push(("mtime", "1234567890.5".to_owned()));
        }
        let mut plain = content.len() as u64;
        if kind == b'0' && self.numbers.one_in(4) {
            records.push(("size", content.len().to_string()));
            plain = self.numbers.of(&[plain, 0]);
        }
        self.records(&records);
        self.header(kind, name, link, plain, |_| ());
        self.padded(content);
    }

    /// Something that readers have once understood differently, or a plain lie.
    fn twist(&mut self) {
        let name = self.name();
        let hidden = Generated::archive(self.numbers.below(1000) * 2);
        let (n, size) = (hidden.len().to_string(), hidden.len() as u64);
        match self.numbers.below(16) {
            0 => self.pax_size(&n, 0, &name, &hidden),
            1 => self.pax_size("0", size, &name, &hidden),
            2 => self.pax_size("512", size, &name, &hidden),
            3 => {
                self.records(&[("size", "0".into())]);
                self.pax_size(&n, 0, &name, &hidden);
            }
            4 => {
                self.records(&[("size", n), ("size", "0".into())]);
                self.file(b'0', &name, size, &hidden, |_| ());
            }
            5 => {
                self.file(b'g', "g", 9, b"9 size=0\n", |_| ());
                self.file(b'0', &name, size, &hidden, |_| ());
            }
            6 => {
                let (kind, magic) =
                    (self.numbers.of(b"11123456"), self.numbers.of(&[b"ustar\x0000", b"ustar  \0"]));
                self.file(kind, &name, size, &hidden, |h| h[257..265].copy_from_slice(magic));
            }
            7 => self.file(b'0', &format!("{name}/"), size, &hidden, |_| ()),
            8 => {
                let kind = self.numbers.of(b"ADMNSVX89z\x80");
                self.file(kind, &name, size, &hidden, |_| ());
            }
            9 => self.file(b'0', &name, 0, &[], |h| h[345..350].copy_from_slice(b"pre/x")),
            10 => self.file(b'0', &name, 0, &[], |h| {
                h[257..265].copy_from_slice(b"ustar  \0");
                h[345..350].copy_from_slice(b"12345");
            }),
            11 => self.file(b'0', &name, 0, &hidden, |h| {
                h[124] = 0x80;
                h[128..136].copy_from_slice(&size.to_be_bytes());
            }),
            12 => self.file(b'0', &name, 0, &hidden, |h| h[124..136].fill(0xff)),
            13 => self.bytes.extend([0; 512]),
            14 => {
                self.file(b'L', "././@LongLink", 7, b"d1/../x", |_| ());
                self.records(&[("path", name.clone())]);
                self.file(b'0', &name, 0, &[], |_| ());
            }
            _ => {
                let garbage = vec![b'x'; 512];
                self.bytes.extend(garbage);
            }
        }
    }

    fn pax_size(&mut self, told: &str, plain: u64, name: &str, content: &[u8]) {
        self.records(&[("size", told.to_owned())]);
        self.file(b'0', name, plain, content, |_| ());
    }

    fn file(&mut self, kind: u8, name: &str, size: u64, content: &[u8], change: impl FnOnce(&mut [u8; 512])) {
        let link = self.files.first().cloned().unwrap_or_default();
        self.header(kind, name, &link, size, change);
        self.padded(content);
    }

    fn records(&mut self, records: &[(&str, String)]) {
        let mut text = String::new();
        for (name, value) in records {
            let rest = format!(" {name}={value}\n");
            let length = (rest.len() + 1..).find(|n| n.to_string().len() + rest.len() == *n).unwrap();
            text += &format!("{length}{rest}");
        }
        if !text.is_empty() {
            self.header(b'x', "PaxHeaders/x", "", text.len() as u64, |_| ());
            self.padded(text.as_bytes());
        }
    }

    fn header(&mut self, kind: u8, name: &str, link: &str, size: u64, change: impl FnOnce(&mut [u8; 512])) {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        // What is longer was told before.
        let cut = |text: &'_ str| text.as_bytes()[..text.len().min(100)].to_vec();
        put(0, &cut(name));
        put(100, b"0000644\x000000000\x000000000\0");
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"07346545000");
        put(156, &[kind]);
        put(157, &cut(link));
        put(257, b"ustar\x0000");
        change(&mut header);
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(header);
    }

    fn padded(&mut self, content: &[u8]) {
        self.bytes.extend(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }
}

/// The tree that we make of it, if we take it.
fn ours(archive: &[u8]) -> Option<Listing> {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = DirSink::new(fs::File::open(dir.path()).unwrap().into(), OwnerView::current());
    let mut bytes = archive;
    apply(&mut bytes, &mut sink, &Cancel::new().unwrap()).ok()?;
    let implied = sink.finish().unwrap();
    // A link into a lower layer: others know of none.
    implied.links.is_empty().then(|| Listing::of_dir(dir.path()))
}

/// The tree that another program makes of it.
fn theirs(tar: &mut Command, archive: &Path) -> (i32, String, Listing) {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(tar.args(["--numeric-owner", "-xpf"]).arg(archive).arg("-C").arg(dir.path()));
    (ran.status, ran.stderr, Listing::of_dir(dir.path()))
}

#[test]
fn what_we_accept_means_the_same_to_gnu_tar_and_bsdtar() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.tar");
    let (mut sound, mut twisted, mut refused, mut wrong) = (0, 0, 0, Vec::new());
    let rounds =
        std::env::var("BOXWRIGHT_ROUNDS").map_or(ARCHIVES, |n| n.parse().expect("a number of rounds"));
    for seed in 0..rounds {
        let archive = Generated::archive(seed);
        let Some(ours) = ours(&archive) else {
            assert!(seed % 2 == 1, "archive {seed} is sound");
            refused += 1;
            continue;
        };
        *(if seed % 2 == 1 { &mut twisted } else { &mut sound }) += 1;
        fs::write(&file, &archive).unwrap();
        for program in ["tar", "bsdtar"] {
            let (status, said, theirs) = theirs(&mut Command::new(program), &file);
            let differences = ours.differences(&theirs);
            if status != 0 || !differences.is_empty() {
                wrong.push(format!(
                    "archive {seed}, ours and {program}'s ({status}, {said}): {differences:#?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(sound > 20 && twisted > 5 && refused > 20, "{sound} sound, {twisted} twisted, {refused} refused");
}
