//! Working without root: the process moves into a user namespace in which it is root. The only place where that is
//! done, and where it is asked whether it was.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::UnshareFlags;

use crate::error::{Error, Result};
use crate::{sys, user};

/// Which ids of a container there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Ids {
    /// Root's: all of them.
    Real,
    /// Those of `/etc/subuid` and `/etc/subgid`.
    Mapped,
    /// The user's own, as 0.
    Single,
}

/// Why there are no [`Ids::Mapped`].
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Unmapped {
    /// These files have no range for the user.
    NoRanges { user: String, files: Vec<String> },
    /// What a helper said, or why it did not start.
    Refused(String),
}

/// Makes the process root of a user namespace of its own, with a mount namespace to match. Nothing is done for a
/// process that may mount already. To be called in `main`, before any thread is started.
///
/// # Errors
/// When the machine does not let users make user namespaces.
pub fn enter_user_namespace() -> Result<Ids> {
    enter().map(|(ids, _)| ids)
}

/// The same, with the reason where one id is all there is.
pub(crate) fn enter() -> Result<(Ids, Option<Unmapped>)> {
    if may_mount() {
        return Ok((Ids::Real, None));
    }
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let name = user::name_of(uid.as_raw())?;
    let uids = ranges("/etc/subuid", &name, uid.as_raw())?;
    let gids = ranges("/etc/subgid", &name, uid.as_raw())?;
    let files = [("/etc/subuid", &uids), ("/etc/subgid", &gids)];
    let lacking = files.iter().filter(|(_, ranges)| ranges.is_empty()).map(|(file, _)| (*file).to_owned());
    let lacking: Vec<String> = lacking.collect();
    let mapper = if lacking.is_empty() {
        Ok(Mapper::start(arguments(uid.as_raw(), &uids), arguments(gid.as_raw(), &gids))?)
    } else {
        let user = if name.is_empty() { uid.as_raw().to_string() } else { name };
        Err(Unmapped::NoRanges { user, files: lacking })
    };
    sys::namespace::unshare(UnshareFlags::NEWUSER).map_err(refused)?;
    let mapped = mapper.and_then(|m| m.map().map_err(|error| Unmapped::Refused(error.to_string())));
    let (ids, why) = match mapped {
        Ok(()) => (Ids::Mapped, None),
        // Without the helpers, or with ranges that they refuse, the user's own id is what there is.
        Err(why) => map_single(uid, gid).map(|()| (Ids::Single, Some(why)))?,
    };
    become_root(ids).map_err(Error::io("becoming root of", "the user namespace"))?;
    sys::namespace::unshare(UnshareFlags::NEWNS).map_err(refused)?;
    mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(Error::io("separating mounts from", "those of the host"))?;
    let _ = ENTERED.set(());
    Ok((ids, why))
}

static ENTERED: OnceLock<()> = OnceLock::new();

/// Whether the user namespace is one that this process made, so that nobody else works in it.
pub(crate) fn entered() -> bool {
    ENTERED.get().is_some()
}

/// Whether ids, devices and mounts are restricted as they are in a user namespace, ours or somebody else's.
pub fn in_user_namespace() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| match std::fs::read_to_string("/proc/self/uid_map") {
        Ok(map) => map.split_whitespace().collect::<Vec<_>>() != ["0", "0", "4294967295"],
        // A kernel without user namespaces.
        Err(_) => false,
    })
}

/// Where one id is all there is, the kernel lets nobody change groups.
pub(crate) fn may_set_groups() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|s| s.trim() != "deny"))
}

pub(crate) fn may_mount() -> bool {
    let sets = rustix::thread::capabilities(None);
    sets.is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

fn refused(errno: Errno) -> Error {
    Error::Unsupported(format!(
        "this machine does not let this user make a user namespace ({errno}); as root it works, or see \
         /proc/sys/user/max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"
    ))
}

/// The ranges that a file like `/etc/subuid` gives to a user, by name or number.
fn ranges(path: &'static str, name: &str, uid: u32) -> Result<Vec<(u32, u32)>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(parse_ranges(&text, name, uid)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("reading", path)(error)),
    }
}

fn parse_ranges(text: &str, name: &str, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let line = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ((owner == number || (!name.is_empty() && owner == name)) && count > 0).then_some((start, count))
    };
    text.lines().filter_map(line).collect()
}

/// What newuidmap takes after the process id: inside, outside, count, for each range.
fn arguments(own: u32, ranges: &[(u32, u32)]) -> Vec<String> {
    let mut arguments = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    let mut inside = 1u32;
    for (outside, count) in ranges {
        arguments.extend([inside, *outside, *count].map(|n| n.to_string()));
        inside = inside.saturating_add(*count);
    }
    arguments
}

/// A child that stays outside of the namespace and writes its maps: the helpers have rights there only.
struct Mapper {
    go: OwnedFd,
    answer: OwnedFd,
    process: OwnedFd,
}

impl Mapper {
    fn start(uids: Vec<String>, gids: Vec<String>) -> Result<Mapper> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(Error::io("making a pipe for", "newuidmap"));
        let ((ready, go), (answer, tell)) = (pipe()?, pipe()?);
        let parent = rustix::process::getpid().to_string();
        // This process has one thread, so its copy may do whatever it likes.
        let cloned = sys::process::clone(0, || {
            let mut byte = [0];
            if rustix::io::read(&ready, &mut byte) == Ok(1) {
                // Both at once: an ordinary user's every command waits for them.
                let helpers = [start("newuidmap", &parent, &uids), start("newgidmap", &parent, &gids)];
                let text = helpers.map(end).into_iter().find_map(Result::err).unwrap_or_default();
                let _ = std::fs::File::from(tell).write_all(format!("{text}\n").as_bytes());
            }
        });
        let cloned = cloned.map_err(Error::io("starting", "newuidmap"))?;
        Ok(Mapper { go, answer, process: cloned.pidfd })
    }

    /// To be called in the new namespace.
    fn map(self) -> Result<()> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        use std::os::fd::AsFd;
        rustix::io::write(&self.go, b"+").map_err(Error::io("starting", "newuidmap"))?;
        drop(self.go);
        let mut text = String::new();
        let read = std::fs::File::from(self.answer).read_to_string(&mut text);
        let _ = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
        match (read, text.trim()) {
            (Ok(length), "") if length > 0 => Ok(()),
            (_, reason) => Err(Error::Setup { doing: "mapping ids".into(), reason: reason.to_owned() }),
        }
    }
}

type Helper = (&'static str, std::io::Result<Child>);

fn start(program: &'static str, pid: &str, arguments: &[String]) -> Helper {
    let (nothing, errors) = (Stdio::null, Stdio::piped());
    let command = &mut Command::new(program);
    let child = command.arg(pid).args(arguments).stdin(nothing()).stdout(nothing()).stderr(errors).spawn();
    (program, child)
}

fn end((program, child): Helper) -> Result<(), String> {
    match child.and_then(Child::wait_with_output) {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

fn map_single(uid: Uid, gid: Gid) -> Result<()> {
    let write = |path: &'static str, text: String| {
        let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let written = file.and_then(|file| rustix::io::write(&file, text.as_bytes()));
        written.map(drop).map_err(Error::io("writing", path))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}

/// The process has one thread, so what is set for that is set for all.
fn become_root(ids: Ids) -> Result<(), Errno> {
    if ids == Ids::Mapped {
        rustix::thread::set_thread_groups(&[])?;
    }
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_number() {
        let text = "# comment\nann:100000:65536\nbob:200000:10\n1000:300000:5\nann:bad:1\nann:400000:0\n";
        assert_eq!(parse_ranges(text, "ann", 1000), [(100_000, 65536), (300_000, 5)]);
        assert_eq!(parse_ranges(text, "", 7), []);
        assert_eq!(
            arguments(1000, &[(100_000, 65536), (300_000, 5)]),
            ["0", "1000", "1", "1", "100000", "65536", "65537", "300000", "5"]
        );
    }
}
