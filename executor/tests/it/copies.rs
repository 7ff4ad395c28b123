//! Where the kernel refuses the overlay of a file system that could have its marks: here, as the work directory is on
//! another one than the upper directory.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use boxwright_cache::Cancel;
use boxwright_executor::{Container, Spec};

use crate::fixture::{Sandbox, open, run};

fn refused(sandbox: &Sandbox, script: &str) -> (Spec, tempfile::TempDir) {
    let mut spec = sandbox.spec(&["sh", "-c", script]);
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    spec.root.upper.as_mut().unwrap().work = open(elsewhere.path());
    (spec, elsewhere)
}

#[test]
fn the_root_is_a_copy_that_the_host_shares_nothing_with() {
    let sandbox = Sandbox::new();
    let (spec, _work) = refused(&sandbox, "grep ' / / \\| / rw' /proc/self/mountinfo | head -1; ls /..");
    let text = run(spec).text();
    let (root, names) = text.split_once('\n').unwrap();
    assert!(!root.contains(" overlay "), "{root}");
    assert!(root.contains("nodev"), "{root}");
    assert!(!root.contains("shared:") && !root.contains("master:"), "{root}");
    assert!(names.lines().any(|name| name == "bin"), "{names}");
}

#[test]
fn what_was_changed_is_left_as_overlayfs_leaves_it() {
    let sandbox = Sandbox::new();
    let (spec, _work) =
        refused(&sandbox, "echo new > /new; rm /etc/passwd; rm -r /root; mkdir /root; exit 3");
    let cancel = Cancel::new().unwrap();
    let mut container = Container::spawn(spec).unwrap();
    let status = container.wait(&cancel, None, &mut |_, _: &[u8]| Ok(())).unwrap();
    assert_eq!(status.code(), 3);
    assert!(sandbox.upper().join("bin/busybox").exists(), "until it is asked for, all is there");
    container.leave_changes(&cancel).unwrap();
    assert_eq!(sandbox.changes(), ["etc", "new", "root"]);
    let gone = sandbox.upper().join("etc/passwd").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(fs::read_dir(sandbox.upper().join("etc")).unwrap().count(), 1);
    let mut opaque = [0; 8];
    let length = rustix::fs::lgetxattr(sandbox.upper().join("root"), c"trusted.overlay.opaque", &mut opaque);
    assert_eq!((length, opaque[0]), (Ok(1), b'y'));
}

#[test]
fn copying_ends_when_that_is_asked_for() {
    let sandbox = Sandbox::new();
    let (spec, _work) = refused(&sandbox, "true");
    spec.root.cancel.raise();
    let error = Container::spawn(spec).unwrap_err();
    assert!(matches!(error, boxwright_executor::Error::Cancelled), "{error}");
}
