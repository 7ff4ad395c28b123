//! Past holes of image builders and container runtimes, tried on the real binary: images, archives and Dockerfiles that
//! want to read, write or run what is the host's, each beside a canary that must stay as it is. `testdata/security.tsv`
//! says which hole is tried where, by whom, and which does not apply.

mod archive;
mod build;
mod context;
mod device;
mod emulator;
mod image;
mod login;
mod mount;
mod process;
mod pty;
mod race;
mod rights;
mod source;
mod step;
mod store;
mod system;
mod trace;
mod user;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use boxwright_testdata::listing::Listing;
use boxwright_testdata::tar::Tar;
use boxwright_testdata::{Ran, archive as image_archive, base};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::tool::{Boxwright, Who, cache, wrapped};

/// Makes two tests of each function, `root::NAME` and `user::NAME`: it is called with who starts the binary.
macro_rules! by_both {
    ($($name:ident),+ $(,)?) => {
        mod root {
            $(#[test] fn $name() { super::$name(crate::tool::Who::Root) })+
        }
        mod user {
            $(#[test] fn $name() { super::$name(crate::tool::Who::User) })+
        }
    };
}
pub(crate) use by_both;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SECRET: &str = "known to the host alone";

/// A directory of the host that nobody inside may read or change.
struct Canary {
    dir: TempDir,
    before: Listing,
}

impl Canary {
    /// It belongs to who starts the binary: what that user's rights allow could happen to it.
    fn of(who: Who) -> Canary {
        Canary::with(who, &[])
    }

    /// With empty files of these names besides the one that has the secret.
    fn with(who: Who, names: &[&str]) -> Canary {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("file"), SECRET).unwrap();
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        who.own_all(dir.path());
        let before = Listing::of_dir(dir.path());
        Canary { dir, before }
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    /// The path, and the same by way of more parents than any directory has.
    fn ways(&self) -> [String; 2] {
        [self.path().to_owned(), format!("../../../../../../../..{}", self.path())]
    }

    #[track_caller]
    fn assert_intact(&self, after: &str) {
        let now = Listing::of_dir(self.dir.path());
        assert_eq!(now.entries, self.before.entries, "{after}");
        assert_eq!(now.mtimes, self.before.mtimes, "{after}");
        assert_eq!(fs::metadata(self.path()).unwrap().permissions().mode() & 0o7777, 0o755, "{after}");
    }

    /// Nor is the secret in what a command said.
    #[track_caller]
    fn assert_unknown_to(&self, ran: &Ran) {
        assert!(!ran.stdout.contains(SECRET) && !ran.stderr.contains(SECRET), "{ran}");
        self.assert_intact(&ran.to_string());
    }
}

/// Of many cases, root tries all, and a user each `step`-th: what differs for a user is whose files are written, and a
/// build costs more.
fn tries(who: Who, case: usize, step: usize) -> bool {
    who == Who::Root || case.is_multiple_of(step)
}

/// Loads an image that is busybox with these layers on top. What it does not accept is returned.
fn try_load(boxwright: &Boxwright, name: &str, config: &Value, layers: Vec<Tar>) -> Ran {
    base::busybox(cache());
    let busybox = fs::read(cache().join("busybox.tar")).unwrap();
    let layers: Vec<_> = [busybox].into_iter().chain(layers.into_iter().map(Tar::finish)).collect();
    load_bytes(boxwright, &image_archive::docker(name, config, &layers))
}

#[track_caller]
fn load(boxwright: &Boxwright, name: &str, layer: Tar) {
    try_load(boxwright, name, &json!({ "Env": [PATH], "Cmd": ["sh"] }), vec![layer]).ok();
}

fn load_bytes(boxwright: &Boxwright, bytes: &[u8]) -> Ran {
    let file = boxwright.scratch("hostile.tar");
    fs::write(&file, bytes).unwrap();
    patient(&boxwright.command(&["load", "-i", file.to_str().unwrap()]))
}

/// Runs the command, for two minutes at most: what would wait for ever is told from what ends.
#[track_caller]
fn patient(command: &Command) -> Ran {
    let ran = boxwright_testdata::run(&mut wrapped(&["timeout", "-k", "5", "120"], command));
    assert!(![124, 137].contains(&ran.status), "it does not end: {ran}");
    ran
}
