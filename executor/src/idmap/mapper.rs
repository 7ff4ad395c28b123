//! Who maps the ids of a user namespace: a child that stays outside of it, since `newuidmap` and `newgidmap` have rights there
//! only. It waits to be asked.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Signal, WaitId, WaitIdOptions, getpid, getppid, pidfd_send_signal, set_parent_process_death_signal,
    waitid,
};

use crate::error::{Error, Result};
use crate::sys;

/// They may have to ask a server for the user's ranges.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Dropping it ends the child.
#[derive(Debug)]
pub(super) struct Mapper {
    /// None once it was asked.
    go: Option<OwnedFd>,
    answer: OwnedFd,
    process: OwnedFd,
}

impl Mapper {
    /// Each is what is to be 0 and the ranges of what comes after it.
    pub(super) fn start(uids: (u32, &[(u32, u32)]), gids: (u32, &[(u32, u32)])) -> Result<Mapper> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(Error::io("making a pipe for", "newuidmap"));
        let ((ready, go), (answer, tell)) = (pipe()?, pipe()?);
        let parent = getpid();
        // This process has one thread, so its copy may do whatever it likes.
        let cloned = sys::process::clone(0, || {
            // It has the writing end as well, so that doesn't tell of the parent's end.
            let _ = set_parent_process_death_signal(Some(Signal::KILL));
            // What the terminal sends is for the parent, which may yet ask.
            let _ = sys::signal::block(sys::signal::Set::ALL);
            let mut byte = [0];
            if getppid() == Some(parent) && rustix::io::read(&ready, &mut byte) == Ok(1) {
                // Both at once: somebody waits for them.
                let parent = parent.to_string();
                let helpers = [
                    start("newuidmap", &parent, &arguments(uids.0, uids.1)),
                    start("newgidmap", &parent, &arguments(gids.0, gids.1)),
                ];
                let text = helpers.map(end).into_iter().find_map(Result::err).unwrap_or_default();
                let _ = std::fs::File::from(tell).write_all(format!("{text}\n").as_bytes());
            }
        });
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

    /// Asks, if that was not done, and waits; the error is what a helper said.
    pub(super) fn map(mut self) -> Result<(), String> {
        self.ask();
        let mut text = String::new();
        let answer = self.answer.try_clone().map_err(|error| error.to_string())?;
        let mut answered = [PollFd::new(&self.answer, PollFlags::IN)];
        if matches!(retry_on_intr(|| poll(&mut answered, Some(&PATIENCE))), Ok(0)) {
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
            return Err(format!("newuidmap and newgidmap have not ended within {} seconds", PATIENCE.tv_sec));
        }
        match (std::fs::File::from(answer).read_to_string(&mut text), text.trim()) {
            (Ok(length), "") if length > 0 => Ok(()),
            (_, reason) => Err(reason.to_owned()),
        }
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        if self.go.is_some() {
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
        }
        let _ = waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
    }
}

type Helper = (&'static str, std::io::Result<Child>);

fn start(program: &'static str, pid: &str, arguments: &[String]) -> Helper {
    let (nothing, errors) = (Stdio::null, Stdio::piped());
    let command = &mut Command::new(program);
    command.arg(pid).args(arguments).stdin(nothing()).stdout(nothing()).stderr(errors);
    let child = sys::signal::pass_on(command).spawn();
    (program, child)
}

fn end((program, child): Helper) -> Result<(), String> {
    match child.and_then(Child::wait_with_output) {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{program}: {error}")),
    }
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
