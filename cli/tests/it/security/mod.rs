//! Holes that other builders and runtimes had, tried on the real binary: images and contexts made to get out, to get
//! more, or to make us run them. Each test has something of the host's that must stay as it is. What needs no whole
//! command is tested below: paths in archives and digests in `cache`, passwd files in `solver`, mounts in `executor`.

mod build;
mod image;
mod process;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use boxwright_testdata::archive;
use boxwright_testdata::tar::Tar;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::archives::which_busybox;
use crate::tool::Boxwright;

/// A layer with a shell and its usual tools, to which a test adds what is evil.
fn shell() -> Tar {
    let mut tar = Tar::new()
        .dir("bin", 0o755)
        .file("bin/busybox", 0o755, fs::read(which_busybox()).unwrap())
        .dir("tmp", 0o1777)
        .dir("etc", 0o755)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\nweb:x:1000:\nmore:x:2000:web\n");
    for name in
        ["sh", "cat", "ls", "id", "echo", "grep", "true", "stat", "test", "tr", "readlink", "ip", "touch"]
    {
        tar = tar.symlink(&format!("bin/{name}"), "busybox");
    }
    tar
}

/// A store that has the image `evil` of these layers.
fn with_image(config: &Value, layers: &[Tar]) -> Boxwright {
    let boxwright = Boxwright::new();
    let file = boxwright.scratch("evil.tar");
    let layers: Vec<Vec<u8>> = layers.iter().map(|layer| layer.clone().finish()).collect();
    fs::write(&file, archive::docker("evil", config, &layers)).unwrap();
    boxwright.ok(&["load", "-q", "-i", file.to_str().unwrap()]);
    boxwright
}

fn with_layer(layer: Tar) -> Boxwright {
    with_image(&json!({}), &[shell(), layer])
}

/// A directory of the host that anybody could write to, with one file in it.
struct Canary(TempDir);

impl Canary {
    fn new() -> Canary {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(dir.path().join("secret"), "canary\n").unwrap();
        Canary(dir)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    #[track_caller]
    fn is_untouched(&self) {
        let names: Vec<_> = fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        let file = self.0.path().join("secret");
        assert_eq!(fs::read_to_string(&file).unwrap(), "canary\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(fs::metadata(self.0.path()).unwrap().permissions().mode() & 0o7777, 0o777);
    }
}
