//! One run of git: a small environment, no configuration but ours, no hooks, no helpers, no prompts; it ends when the
//! build does.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boxwright_cache::{Cancel, Error as CacheError};
use boxwright_solver::FetchError;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::url::{Place, Scheme};
use super::{Git, Result, Within, refused};
use crate::sys::signal;

/// The most that is kept of what git says: listings of names are longer than anything else.
const MOST_OUTPUT: u64 = 64 << 20;
const MOST_ERRORS: usize = 16 << 10;
/// A transfer that moves fewer bytes a second for so long has stopped.
const LOW_SPEED: (&str, &str) = ("1000", "60");

/// Settings that no repository can change. What is fetched is data: nothing of it is run.
const SETTINGS: [&str; 10] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.logAllRefUpdates=false",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "tar.umask=0022",
    "init.defaultBranch=master",
    "advice.detachedHead=false",
    "submodule.recurse=false",
];

/// How a run ended that did not succeed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The last of what git said.
    pub(super) errors: String,
}

impl Within<'_> {
    /// What git writes.
    pub(super) fn output(&self, args: &[&str]) -> Result<String> {
        match self.attempt(args)? {
            Ok(output) => Ok(output),
            Err(failure) => Err(self.failed(args, &failure)),
        }
    }

    /// The same, where a failure is one of the answers.
    pub(super) fn attempt(&self, args: &[&str]) -> Result<std::result::Result<String, Failure>> {
        let mut bytes = Vec::new();
        let ended = self.stream(args, |out| {
            let read = out.take(MOST_OUTPUT + 1).read_to_end(&mut bytes).map_err(reading)?;
            if read as u64 > MOST_OUTPUT { Err(refused("git says more than it should")) } else { Ok(()) }
        })?;
        Ok(ended.map(|()| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Hands what git writes to `read` while it is written.
    pub(super) fn stream(
        &self,
        args: &[&str],
        read: impl FnOnce(&mut Output<'_>) -> Result<()>,
    ) -> Result<std::result::Result<(), Failure>> {
        self.cancel.check()?;
        crate::idmap::settle().map_err(|error| refused(error.to_string()))?;
        let mut child = signal::pass_on(&mut self.command(args)).spawn().map_err(|e| match e.kind() {
            ErrorKind::NotFound => refused(
                "git is needed to read repositories, and there is none on PATH: install it (package git)",
            ),
            _ => CacheError::io("starting", "git")(e).into(),
        })?;
        let stderr = child.stderr.take().expect("it was asked for");
        let errors = std::thread::spawn(move || tail(stderr));
        let mut out = Output { stdout: child.stdout.take().expect("it was asked for"), cancel: self.cancel };
        let mut running = Running { child: Some(child), errors: Some(errors) };
        read(&mut out)?;
        drop(out);
        let (success, errors) = running.end()?;
        self.cancel.check()?;
        Ok(if success { Ok(()) } else { Err(Failure { errors }) })
    }

    pub(super) fn failed(&self, args: &[&str], failure: &Failure) -> FetchError {
        let what = match (self.place, args.first()) {
            (Some(place), _) => format!("failed to fetch remote {}", place.url),
            (None, Some(command)) => format!("git {command}"),
            (None, None) => "git".to_owned(),
        };
        refused(format!("{what}: git stderr: {}", failure.errors))
    }

    fn command(&self, args: &[&str]) -> Command {
        let Git { path, ssh_agent, proxies } = self.git;
        let mut command = Command::new("git");
        command.env_clear().env("PATH", path).current_dir(self.dir);
        command.args(["--literal-pathspecs", "--no-replace-objects", "--no-optional-locks"]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(args);
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_NO_LAZY_FETCH", "1"),
            ("HOME", "/dev/null"),
            ("LC_ALL", "C"),
            ("GIT_HTTP_LOW_SPEED_LIMIT", LOW_SPEED.0),
            ("GIT_HTTP_LOW_SPEED_TIME", LOW_SPEED.1),
            ("GIT_SSH_VARIANT", "ssh"),
        ] {
            command.env(name, value);
        }
        // Without a remote there is only what is here.
        command.env("GIT_ALLOW_PROTOCOL", self.place.map_or("file", |place| place.scheme.allowed()));
        if let Some(place) = self.place {
            command.env("GIT_SSH_COMMAND", ssh_command(place.by_user));
            command.envs(proxies.iter().map(|(name, value)| (name, value)));
            if let Some(agent) = ssh_agent.as_ref().filter(|_| place.by_user && place.scheme == Scheme::Ssh) {
                command.env("SSH_AUTH_SOCK", agent);
            }
            log_in(&mut command, place);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }
}

/// A password is in the environment, which is nobody else's to read, never among the arguments.
fn log_in(command: &mut Command, place: &Place) {
    let (Some(login), Some(origin)) = (&place.login, place.origin()) else { return };
    let decoded = percent_decoded(login);
    let pair = if decoded.contains(&b':') { decoded } else { [&decoded[..], b":"].concat() };
    command
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", format!("http.{origin}.extraHeader"))
        .env("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {}", STANDARD.encode(&pair)));
}

/// Without the user's configuration; and without their keys where it was not they who named the repository.
fn ssh_command(by_user: bool) -> &'static str {
    if by_user {
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new"
    } else {
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o IdentitiesOnly=yes \
         -o IdentityFile=none -o IdentityAgent=none"
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = rest.get(1..3).and_then(|d| std::str::from_utf8(d).ok());
        match digits.filter(|_| *first == b'%').and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &rest[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// What git writes; ends with an error once the build is given up.
pub(super) struct Output<'a> {
    stdout: ChildStdout,
    cancel: &'a Cancel,
}

impl Read for Output<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let mut fds = [
                PollFd::from_borrowed_fd(self.stdout.as_fd(), PollFlags::IN),
                PollFd::new(self.cancel, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            self.cancel.check().map_err(std::io::Error::other)?;
            return self.stdout.read(buffer);
        }
    }
}

/// For `map_err` of what reads [`Output`]: an error of ours that had to pass as one of I/O comes out as it was.
pub(super) fn reading(error: std::io::Error) -> FetchError {
    CacheError::io("reading what", "git writes")(error).into()
}

struct Running {
    child: Option<Child>,
    errors: Option<JoinHandle<String>>,
}

impl Running {
    /// Whether it succeeded, and what it complained about.
    fn end(&mut self) -> Result<(bool, String)> {
        let Some(mut child) = self.child.take() else { return Ok((false, String::new())) };
        let status = child.wait().map_err(CacheError::io("waiting for", "git"))?;
        let errors = self.errors.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok((status.success(), errors))
    }
}

impl Drop for Running {
    /// Its helpers are in its group; whoever is left is of no use any more.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let _ = child.wait();
    }
}

/// The end of what git complains about, without what would move a terminal's cursor.
fn tail(mut stderr: ChildStderr) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stderr.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..n]);
        let extra = kept.len().saturating_sub(MOST_ERRORS);
        kept.drain(..extra);
    }
    let text = String::from_utf8_lossy(&kept);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<String> = lines.map(|l| l.chars().filter(|c| !c.is_control()).collect()).collect();
    lines[lines.len().saturating_sub(6)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_code_stays() {
        assert_eq!(percent_decoded("a%40b%zz%"), b"a@b%zz%");
    }
}
