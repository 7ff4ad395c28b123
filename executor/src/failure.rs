//! What a failure inside the new container means, in the words that docker's users know.

use std::io;

use rustix::io::Errno;

use crate::error::Error;
use crate::init::{Failure, Mounts, Program, Stage};
use crate::spec::{Propagation, Spec};

/// `targets` are those of the attachments.
pub(crate) fn explain(
    failure: Failure,
    program: &Program,
    mounts: &Mounts,
    spec: &Spec,
    targets: &[String],
) -> Error {
    let reason = reason(failure);
    let index = failure.index as usize;
    let target = targets.get(index).map_or("", String::as_str);
    let name = spec.args.first().map_or("", String::as_str);
    let setup = |doing: String| Error::Setup { doing, reason: reason.clone() };
    let path = |n: usize| program.candidates.get(n).map_or(name.into(), |c| c.to_string_lossy());
    match failure.stage {
        Stage::Stat => Error::start(code(failure), format!("exec: {name:?}: stat {}: {reason}", path(index))),
        Stage::Executable => Error::start(126, format!("exec: {name:?}: {reason}")),
        Stage::Search => Error::start(127, format!("exec: {name:?}: executable file not found in $PATH")),
        Stage::Exec => Error::start(code(failure), format!("exec {}: {reason}", path(index))),
        Stage::Cwd => Error::start(code(failure), format!("chdir to cwd ({:?}): {reason}", spec.cwd)),
        Stage::Shared if failure.errno == Errno::PERM => {
            Error::start(125, below_shared(mounts, targets, target))
        }
        Stage::Attach | Stage::Shared => setup(format!("mounting {target}")),
        Stage::Sysctl => setup(sysctl(spec, index)),
        Stage::Mask => setup(format!("masking {}", nth(&mounts.masked, index))),
        Stage::Limits => setup(limit(spec, index)),
        Stage::OomScore => setup(format!("setting the OOM score to {}", spec.oom_score.unwrap_or_default())),
        Stage::ReadOnly => setup(format!("making {} read-only", nth(&mounts.read_only, index))),
        stage => setup(doing(stage).to_owned()),
    }
}

fn below_shared(mounts: &Mounts, targets: &[String], target: &str) -> String {
    let all = mounts.attachments.iter().zip(targets);
    let shared = all.filter(|(attachment, _)| attachment.propagation == Propagation::Shared);
    let names: Vec<_> = shared.map(|(_, name)| name.as_str()).collect();
    let names = names.join(" or ");
    format!("cannot mount {target} below the shared bind {names}: it would stay mounted on the host")
}

/// Not there is 127, everything else about a program 126.
fn code(failure: Failure) -> i32 {
    if failure.errno == Errno::NOENT { 127 } else { 126 }
}

fn nth<T>(paths: &[(T, std::ffi::CString)], n: usize) -> String {
    paths.get(n).map_or_else(|| "the root".to_owned(), |(_, path)| path.to_string_lossy().into_owned())
}

/// In the words of `--ulimit`.
fn limit(spec: &Spec, n: usize) -> String {
    let number = |value: Option<u64>| value.map_or("-1".to_owned(), |value| value.to_string());
    spec.limits.get(n).map_or_else(String::new, |(resource, limit)| {
        let name = format!("{resource:?}").to_lowercase();
        format!("setting the limit {name}={}:{}", number(limit.current), number(limit.maximum))
    })
}

fn sysctl(spec: &Spec, n: usize) -> String {
    spec.sysctls.get(n).map_or_else(String::new, |(name, value)| format!("setting the sysctl {name}={value}"))
}

fn doing(stage: Stage) -> &'static str {
    match stage {
        Stage::Parent => "binding the container to its parent",
        Stage::Session => "starting a session",
        Stage::Group => "entering the control group",
        Stage::Private => "separating the mounts of the host",
        Stage::Root | Stage::Pivot => "entering the root file system",
        Stage::Hidden => "attaching layers to bind from",
        Stage::Hostname => "setting the names of host and domain",
        Stage::Network => "setting up the loopback interface",
        Stage::Stdio => "connecting the standard streams",
        Stage::Capabilities => "setting capabilities",
        Stage::Seccomp => "installing the system call filter",
        _ => "changing to the user",
    }
}

/// As Go prints it, since runc does: lower case, no number.
fn reason(failure: Failure) -> String {
    let text = io::Error::from(failure.errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_worded_as_gos() {
        let reason = |errno| reason(Failure { stage: Stage::Exec, index: 0, errno });
        assert_eq!(reason(Errno::NOENT), "no such file or directory");
        assert_eq!(reason(Errno::ACCESS), "permission denied");
        assert_eq!(reason(Errno::ISDIR), "is a directory");
        assert_eq!(reason(Errno::NOEXEC), "exec format error");
    }
}
