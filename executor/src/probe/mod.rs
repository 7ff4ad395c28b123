//! What this machine lets us do, found out by doing it: each attempt is made by a process that is thrown away, in the
//! namespaces that a command would use. To be called while the process has one thread.

mod cgroup;
mod child;
mod copies;
mod foreign;
mod overlay;
mod scratch;
mod store;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::MountAttrFlags;
use rustix::net::{AddressFamily, SocketType, socket};

use crate::idmap::{self, Ids, Unmapped};
use crate::network::{self, Networks};
use crate::{rootfs, sys};
use child::{attempt, attempt_in_namespace};

pub use cgroup::{Cgroups, cgroups};
pub use copies::copies;
pub use foreign::{Emulation, PLATFORMS, emulation};
pub use overlay::overlay;
pub use store::{Store, store};

/// What was found, or why it did not work.
pub type Answer<T = ()> = Result<T, String>;

/// The ids that containers of this user have.
///
/// # Errors
/// When there is no user namespace to be had.
pub fn ids() -> Answer<(Ids, Option<Unmapped>)> {
    attempt(0, || {
        let ids = idmap::enter_user_namespace().and_then(|()| idmap::settle_with_reason());
        ids.map_err(|e| e.to_string())
    })
}

/// The namespaces that every container gets, with a `/proc` of its own.
///
/// # Errors
/// What the kernel says.
pub fn namespaces() -> Answer {
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    attempt_in_namespace(flags, || {
        let proc = rootfs::filesystem(c"proc", &[], MountAttrFlags::empty());
        proc.map(drop).map_err(|e| e.to_string())
    })
}

/// A network with nothing but a loopback interface, as `--network none` is.
///
/// # Errors
/// What the kernel says.
pub fn no_network() -> Answer {
    attempt_in_namespace(libc::CLONE_NEWNET, || {
        use std::os::fd::AsFd;
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(|e| e.to_string())?;
        sys::net::loopback_up(socket.as_fd()).map_err(|e| e.to_string())
    })
}

/// A network of a container's own that is joined to the world: by the helper of this name, or by a bridge. `memory` is
/// where commands remember which helpers don't work.
///
/// # Errors
/// Why there is none.
pub fn network(memory: &Path) -> Answer<Option<String>> {
    if idmap::may_mount() {
        return attempt(libc::CLONE_NEWNET, || {
            network::attempt_bridge().map(|()| None).map_err(|e| e.to_string())
        });
    }
    attempt_in_namespace(0, || {
        let connection = Networks::new(memory).connect(None, &|| false).map_err(|e| e.to_string())?;
        Ok(connection.helper().map(str::to_owned))
    })
}

/// What the host's own rules have against the packets of containers on a bridge; whoever has none can't know.
pub fn packet_filter() -> Option<String> {
    if idmap::may_mount() { network::packet_filter_advice().ok().flatten() } else { None }
}

/// What `program --version` prints, found on `path`.
///
/// # Errors
/// When it does not start, or does not end well or in time.
pub fn version(program: &str, path: &OsStr) -> Answer<String> {
    attempt(0, || {
        let mut command = Command::new(program);
        command.arg("--version").env_clear().env("PATH", path).current_dir("/");
        let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{program}: {e}"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(format!("{program} --version: {}", output.status))
        }
    })
}

/// The directory of the store, or the one in which a command would make it.
fn existing(store: &Path) -> Answer<&Path> {
    let here = Path::new(".");
    let mut dirs = store.ancestors().map(|dir| if dir.as_os_str().is_empty() { here } else { dir });
    let found = dirs.find(|dir| dir.symlink_metadata().is_ok()).unwrap_or(here);
    if found.is_dir() { Ok(found) } else { Err(format!("{} is not a directory", found.display())) }
}
