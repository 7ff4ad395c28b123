//! The store: what images bring, set-id programs among them, is for nobody else on the machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use boxwright_testdata::{base, run};

use super::wrapped;
use crate::tool::{Boxwright, Context, Who, cache};

/// Every set-id program below `dir`.
fn set_id_programs(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(set_id_programs(&path));
        } else if metadata.is_file() && metadata.mode() & 0o4000 != 0 {
            found.push(path);
        }
    }
    found
}

fn as_nobody(program: &str, argument: &Path) -> boxwright_testdata::Ran {
    let drop = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", program];
    run(Command::new("setpriv").args(drop).arg(argument))
}

/// The store has set-id programs, and another user can neither see nor run them.
#[track_caller]
pub(super) fn assert_closed(boxwright: &Boxwright) {
    let store = boxwright.store();
    let above = store.parent().unwrap();
    // The directory of the test is closed anyway; this is about the store.
    fs::set_permissions(above, fs::Permissions::from_mode(0o755)).unwrap();
    as_nobody("ls", above).says("store").ok();
    for name in ["layers", "blobs", "tmp", "containers", "stubs", "leases", "locks"] {
        let mode = fs::metadata(store.join(name)).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o700, "{name}");
        assert_ne!(as_nobody("ls", &store.join(name)).status, 0, "{name}");
    }
    let programs = set_id_programs(&store);
    assert!(!programs.is_empty(), "there is no set-id program to try");
    for program in programs {
        as_nobody("env", &program).says("Permission denied").fails_with(126);
    }
}

const SET_ID: &str =
    "FROM busybox\nRUN cp /bin/busybox /bin/su-once && chmod 4755 /bin/su-once && chmod 777 /bin /\n";

fn other_users_reach_no_program_of_an_image(who: Who) {
    // CVE-2021-41091
    let boxwright = Boxwright::with_busybox_of(who);
    boxwright.build(&Context::new(SET_ID), &["-t", "set-id"]).ok();
    assert_closed(&boxwright);
    let mode = fs::metadata(boxwright.store()).unwrap().mode() & 0o7777;
    assert_eq!(mode, 0o700);
    assert_ne!(as_nobody("cat", &boxwright.store().join("db")).status, 0);
}

#[test]
fn neither_a_careless_umask_nor_an_open_directory_opens_the_store() {
    let boxwright = Boxwright::new();
    fs::create_dir(boxwright.store()).unwrap();
    fs::set_permissions(boxwright.store(), fs::Permissions::from_mode(0o755)).unwrap();
    let careless = |args: &[&str]| {
        let command = boxwright.command(args);
        run(&mut wrapped(&["sh", "-c", "umask 0; exec \"$@\"", "sh"], &command)).ok()
    };
    careless(&["load", "-q", "-i", base::busybox(cache()).to_str().unwrap()]);
    let context = Context::new(SET_ID);
    careless(&["build", "-q", "-t", "set-id", context.path()]);
    // Nor does the umask reach inside.
    assert_eq!(
        careless(&["run", "--rm", "set-id", "sh", "-c", "umask; touch /f; stat -c %a /f"]),
        "0022\n644\n"
    );
    assert_closed(&boxwright);
    for name in ["db", "db-wal"] {
        let Ok(metadata) = fs::metadata(boxwright.store().join(name)) else { continue };
        assert_eq!(metadata.mode() & 0o022, 0, "{name} can be written by others");
    }
}

fn what_is_written_for_the_user_is_not_for_others(who: Who) {
    // An image may hold secrets; whoever saves it says where, and the mask of the process says for whom.
    let boxwright = Boxwright::with_busybox_of(who);
    let out = boxwright.scratch("out.tar");
    let command = boxwright.command(&["save", "-o", out.to_str().unwrap(), "busybox"]);
    run(&mut wrapped(&["sh", "-c", "umask 077; exec \"$@\"", "sh"], &command)).ok();
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o777, 0o600);
    let output = format!("type=tar,dest={}", boxwright.scratch("flat.tar").display());
    let context = Context::new("FROM busybox\n");
    let command = boxwright.command(&["build", "-q", "-o", &output, context.path()]);
    run(&mut wrapped(&["sh", "-c", "umask 077; exec \"$@\"", "sh"], &command)).ok();
    assert_eq!(fs::metadata(boxwright.scratch("flat.tar")).unwrap().mode() & 0o777, 0o600);
}

super::by_both!(other_users_reach_no_program_of_an_image, what_is_written_for_the_user_is_not_for_others,);
