//! Who maps the ids of a user namespace: a child that stays outside of it, since `newuidmap` and `newgidmap` have rights there
//! only. It waits to be asked.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use boxwright_cache::Cancel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Access;
use rustix::io::{Errno, ioctl_fionbio, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process_group, pidfd_open,
    pidfd_send_signal, set_parent_process_death_signal, waitid,
};

use crate::error::{Error, Result};
use crate::sys;
use crate::sys::signal::{Set, block, set_mask, signalfd};

/// They may have to ask a server for the user's ranges.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
/// Mostly they have ended by then, and nobody has to be watching for a reason to give up.
const SOON: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Sent to the child, by us or by the kernel when we are gone: it ends then, and the helpers with it. Nobody sends it to all
/// processes of a terminal or a service.
const END: Signal = Signal::USR1;

/// Where the helpers are looked for.
pub(super) static PLACES: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// Dropping it ends the child.
#[derive(Debug)]
pub(super) struct Mapper {
    /// None once it was asked.
    go: Option<OwnedFd>,
    answer: OwnedFd,
    process: OwnedFd,
}

/// What is to be 0, and the ranges of what comes after it.
type Wanted<'a> = (u32, &'a [(u32, u32)]);

impl Mapper {
    pub(super) fn start(uids: Wanted<'_>, gids: Wanted<'_>) -> Result<Mapper> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(Error::io("making a pipe for", "newuidmap"));
        let ((ready, go), (answer, tell)) = (pipe()?, pipe()?);
        let parent = getpid();
        // What comes before the child listens must not be lost, and what the terminal sends is for us, who may yet ask.
        let before = block(Set::ALL).map_err(Error::io("blocking", "signals"))?;
        // This process has one thread, so its copy may do whatever it likes.
        let cloned = sys::process::clone(0, || {
            // It has the writing end as well, so that doesn't tell of the parent's end.
            let _ = set_parent_process_death_signal(Some(END));
            let Ok(end) = signalfd(Set::of(&[END.as_raw()])) else { return };
            let mut byte = [0];
            if getppid() == Some(parent)
                && !comes_first(&end, &ready)
                && rustix::io::read(&ready, &mut byte) == Ok(1)
                && let Some(answer) = map(parent, uids, gids, &end)
            {
                let _ = std::fs::File::from(tell).write_all(format!("{answer}\n").as_bytes());
            }
        });
        let _ = set_mask(before);
        let cloned = cloned.map_err(Error::io("starting", "newuidmap"))?;
        Ok(Mapper { go: Some(go), answer, process: cloned.pidfd })
    }

    /// To be called in the new namespace.
    pub(super) fn ask(&mut self) {
        if let Some(go) = self.go.take() {
            // A child that is gone gives no answer either.
            let _ = rustix::io::write(&go, b"+");
        }
    }

    /// Asks, if that was not done, and waits; the error is what a helper said. None where `cancel` was raised before.
    pub(super) fn map(mut self, cancel: Option<&Cancel>) -> Option<Result<(), String>> {
        self.ask();
        if !self.answered(None, &SOON) {
            if let Some(cancel) = cancel {
                cancel.begin_long();
            }
            let answered = self.answered(cancel, &PATIENCE);
            if cancel.is_some_and(Cancel::is_raised) {
                return None;
            }
            if !answered {
                let seconds = PATIENCE.tv_sec;
                return Some(Err(format!("newuidmap and newgidmap have not ended within {seconds} seconds")));
            }
        }
        let mut text = String::new();
        let answer = self.answer.try_clone().map(std::fs::File::from);
        Some(match (answer.and_then(|mut answer| answer.read_to_string(&mut text)), text.trim()) {
            (Ok(length), "") if length > 0 => Ok(()),
            (_, reason) => Err(reason.to_owned()),
        })
    }

    fn answered(&self, cancel: Option<&Cancel>, patience: &Timespec) -> bool {
        let mut fds = vec![PollFd::new(&self.answer, PollFlags::IN)];
        fds.extend(cancel.map(|cancel| PollFd::new(cancel, PollFlags::IN)));
        !matches!(retry_on_intr(|| poll(&mut fds, Some(patience))), Ok(0))
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        // One that has answered is about to end anyway.
        let _ = pidfd_send_signal(&self.process, END);
        let _ = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
    }
}

/// What the first helper that failed says, or nothing; None where it is to end.
fn map(parent: Pid, uids: Wanted<'_>, gids: Wanted<'_>, end: &OwnedFd) -> Option<String> {
    let parent = parent.to_string();
    // Both at once: somebody waits for them.
    let mut helpers = [
        start("newuidmap", &parent, &arguments(uids.0, uids.1)),
        start("newgidmap", &parent, &arguments(gids.0, gids.1)),
    ];
    for n in 0..helpers.len() {
        if let (_, Ok(child)) = &helpers[n]
            && let Ok(child) = pidfd_open(Pid::from_child(child), PidfdFlags::empty())
            && comes_first(end, &child)
        {
            helpers.iter_mut().filter_map(|(_, child)| child.as_mut().ok()).for_each(kill);
            return None;
        }
    }
    Some(helpers.map(outcome).into_iter().find_map(Result::err).unwrap_or_default())
}

/// Whether there is something to be read from the one, whatever is to be had from the other.
fn comes_first(one: &OwnedFd, other: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(one, PollFlags::IN), PollFd::new(other, PollFlags::IN)];
    let _ = retry_on_intr(|| poll(&mut fds, None));
    fds[0].revents().contains(PollFlags::IN)
}

/// A set-user-ID program may be killed by whoever started it; what is not killed is not waited for.
fn kill(child: &mut Child) {
    if kill_process_group(Pid::from_child(child), Signal::KILL).is_ok() {
        let _ = child.wait();
    }
}

type Helper = (&'static str, std::io::Result<Child>);

fn start(program: &'static str, pid: &str, arguments: &[String]) -> Helper {
    let (nothing, errors) = (Stdio::null, Stdio::piped());
    let Some(found) = find(program) else {
        return (program, Err(Errno::NOENT.into()));
    };
    let command = &mut Command::new(found);
    command.arg(pid).args(arguments).stdin(nothing()).stdout(nothing()).stderr(errors);
    // A group of their own, with all that they start.
    let child = sys::signal::pass_on(command.process_group(0)).spawn();
    (program, child)
}

fn find(program: &str) -> Option<PathBuf> {
    let usual = || ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from).to_vec();
    let places = PLACES.get_or_init(usual).iter().map(|directory| directory.join(program));
    let mut programs = places.filter(|path| path.is_file());
    programs.find(|path| rustix::fs::access(path, Access::EXEC_OK).is_ok())
}

/// Of one that has ended. A process of its own that lives on is not waited for.
fn outcome((program, child): Helper) -> Result<(), String> {
    let told = |error: std::io::Error| format!("{program}: {error}");
    let mut child = child.map_err(told)?;
    if child.wait().map_err(told)?.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    if let Some(mut errors) = child.stderr.take()
        && ioctl_fionbio(&errors, true).is_ok()
    {
        let _ = errors.read_to_end(&mut said);
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&said).trim()))
}

/// The ranges that a file like `/etc/subuid` gives to a user, by name or number.
pub(super) fn ranges(path: &'static str, name: &str, uid: u32) -> Result<Vec<(u32, u32)>> {
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
