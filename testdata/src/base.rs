//! The base images that tests build on: busybox and Debian, from root file systems that `scripts/bases` makes.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::{archive, run};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A docker archive of `busybox:latest`. `cache` keeps it for the next test.
pub fn busybox(cache: &Path) -> PathBuf {
    image(cache, "busybox", "busybox:latest", "sh")
}

/// A docker archive of `debian:bookworm-slim` (170 MB, which is why it is made once).
pub fn debian(cache: &Path) -> PathBuf {
    image(cache, "debian", "debian:bookworm-slim", "bash")
}

/// The files of busybox for arm64, as a tar.
pub fn busybox_arm64(cache: &Path) -> PathBuf {
    root(cache, "busybox-arm64")
}

fn root(cache: &Path, base: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace");
    run(Command::new(repository.join("scripts/bases")).arg(cache).arg(base)).ok();
    cache.join(format!("{base}.tar"))
}

fn image(cache: &Path, base: &str, name: &str, shell: &str) -> PathBuf {
    let root = root(cache, base);
    let made = cache.join(format!("{base}.docker.tar"));
    let time = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    if time(&made) < time(&root) {
        let config = json!({ "Env": [PATH], "Cmd": [shell] });
        let bytes = archive::docker(name, &config, &[fs::read(root).unwrap()]);
        // Several tests may get here at once: each writes its own file, and the last rename wins.
        let mut mine = tempfile::NamedTempFile::new_in(cache).unwrap();
        mine.write_all(&bytes).unwrap();
        mine.persist(&made).unwrap();
    }
    made
}
