//! `/sys/fs/cgroup`: of version 2 the container's own mount, of version 1 a directory for each hierarchy.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, mkdirat, symlinkat};

use super::layout::QUIET;
use super::sources::Scratch;
use crate::cgroup::view;
use crate::error::Result;
use crate::init::{Hierarchies, Source};

/// What is attached there; nothing where the host has no control groups. `made` are the container's own of version 1.
pub(super) fn source(scratch: &mut Scratch, made: &[(PathBuf, OwnedFd)]) -> Result<Option<Source>> {
    if has_cgroup2() {
        return Ok(Some(Source::New(c"cgroup2", QUIET)));
    }
    let mounts = view::mounts(made);
    if mounts.is_empty() {
        return Ok(None);
    }
    let directory = scratch.directory("cgroup")?;
    let mut hierarchies = Hierarchies { directory: c"cgroup".to_owned(), mounts: Vec::new() };
    for (name, mount) in mounts {
        // Where two have one name, the first one has it.
        if mkdirat(&directory, &*name, Mode::from_raw_mode(0o555)).is_err() {
            continue;
        }
        for controller in name.split(',').filter(|controller| *controller != name) {
            let _ = symlinkat(&*name, &directory, controller);
        }
        let name = CString::new(name).map_err(|_| super::nul("a hierarchy's name"))?;
        hierarchies.mounts.push((name, mount));
    }
    Ok(Some(Source::Hierarchies(hierarchies)))
}

fn has_cgroup2() -> bool {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    rustix::fs::statfs(c"/sys/fs/cgroup").is_ok_and(|fs| fs.f_type == CGROUP2_SUPER_MAGIC)
}
