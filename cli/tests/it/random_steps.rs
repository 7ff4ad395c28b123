//! Steps of commands at random, where layers are mounted and where they are copied: what the steps leave must not tell which
//! of the two it was. A seed gives the same commands each time. Two things differ by what an overlay is, and are not asked for:
//! a change of a file that has several names below (an overlay makes it a file of its own), and whether a directory is copied
//! by `mv` (an overlay moves none that is below).

use std::fmt::Write as _;

use crate::hardship::rounds;
use crate::tool::{Boxwright, Context, Who};

const STEPS: usize = 4;
const COMMANDS: usize = 14;

const PATHS: [&str; 12] = ["a", "a/b", "a/b/f", "a/f", "a/g", "d", "d/e", "d/e/f", "d/f", "f", "g", "link"];
const NAMES: [&str; 5] = ["one", "two", "in/three", "y", "z"];

/// `move FROM TO` leaves out a directory after the first one, which could be back in its place, and one with links.
const TREE: &str =
    "mkdir -p /t/a/b /t/d/e /t/names/in; cd /t; for f in a/b/f a/f d/e/f d/f f; do echo $f > $f; done
ln -s a/f link; touch -d @5 a/f d/e a; chmod 600 d/f; truncate -s 300000 g; mkfifo a/pipe
cd names; echo one > one; ln one two; ln one in/three; echo z > z; ln z y
";
const STEP: &str = "cd /t; exec 2> /dev/null; moved=
move() {
    if [ -d $1 -a ! -L $1 ]; then
        [ -z \"$moved\" -a -z \"$(find $1 -type f -exec stat -c %h {} + | grep -v '^1$')\" ] || return
        moved=$1
    fi
    [ -e $1 -o -L $1 ] && rm -rf $2 && mv $1 $2
}
find . -type f ! -path './names/*' -exec stat -c '%h %n' {} + | grep -v '^1 ' | cut -d ' ' -f 2 > /dev/shm/linked
xargs -r rm -f < /dev/shm/linked
";

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn command(&mut self) -> String {
        let (path, other) = (self.one_of(&PATHS), self.one_of(&PATHS));
        let number = self.below(5);
        match self.below(20) {
            0 | 1 => format!("echo {number} > {path}"),
            2 => format!("echo {number} >> {path}"),
            // The size and the time may be as before.
            3 | 4 => format!("printf {number} | dd of={path} conv=notrunc && touch -d @5 {path}"),
            5 => format!("printf {number} | dd of={path} bs=1 seek={number}00000 conv=notrunc"),
            6 => format!("truncate -s {number}000 {path}"),
            7 => format!("touch -d @{number} {path}"),
            // With no bit that the kernel takes away from a file that a user writes.
            8 => format!("chmod {} {path}", ["700", "755", "600", "644", "1711"][number]),
            9 => format!("chown {number}:{number} {path}"),
            10 => format!("rm -rf {path}"),
            11 => format!("mkdir -p {path}"),
            12 => format!("rm -rf {path}; mkdir {path} && echo {number} > {path}/f"),
            13 => format!("rm -rf {path}; echo {number} > {path}"),
            14 => format!("rm -rf link; ln -s {path} link"),
            15 => format!("[ -f {path} -a ! -L {path} ] && ln {path} {other}"),
            16 => format!("[ -d {path} ] || {{ mv {path} away; mv away {path}; }}"),
            17 => format!("rm -rf copy && cp -a {path} copy"),
            18 => format!("rm -f names/{} a/pipe; mkfifo a/pipe", self.one_of(&NAMES)),
            _ => format!("move {path} {other}"),
        }
    }

    fn dockerfile(&mut self) -> String {
        let mut text = format!("FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN <<'END'\n{TREE}END\n");
        for _ in 0..STEPS {
            write!(text, "RUN <<'END'\n{STEP}").unwrap();
            (0..COMMANDS).for_each(|_| writeln!(text, "{}", self.command()).unwrap());
            text.push_str(":\nEND\n");
        }
        text
    }
}

#[test]
fn layers_are_equal_wherever_the_store_is() {
    let stores =
        [Boxwright::with_busybox(), Boxwright::on_overlay(Who::Root), Boxwright::on_overlay(Who::User)];
    for seed in 1..=u64::from(rounds(3)) {
        let dockerfile = Numbers(seed).dockerfile();
        let context = Context::new(&dockerfile);
        let layers = stores.each_ref().map(|store| {
            store.built(&context, &["--build-arg", "SOURCE_DATE_EPOCH=1700000000"]);
            store.inspect("x")["RootFS"]["Layers"].clone()
        });
        assert_eq!(layers[0], layers[1], "seed {seed}: {dockerfile}");
        assert_eq!(layers[0], layers[2], "seed {seed}, by a user: {dockerfile}");
        assert!(layers[0].as_array().unwrap().len() > STEPS, "{layers:?}");
    }
}
