//! Flags and commands of docker that are not here yet. Knowing their names lets us say so, instead of "unknown".

/// Whether docker has this flag (as clap names it: `--privileged`, `-d`) for the command of this path.
pub(super) fn is_known(path: &str, flag: &str) -> bool {
    let flags = match path.rsplit(' ').next() {
        _ if path.ends_with("volume create") => VOLUME_CREATE,
        Some("build") => BUILD,
        Some("run") => RUN,
        Some("prune") => PRUNE,
        Some("inspect") => INSPECT,
        _ => &[],
    };
    flags.contains(&flag)
}

/// Whether docker has a command of this name below `path`.
pub(super) fn is_command(path: &str, word: &str) -> bool {
    let commands = match path.rsplit(' ').next() {
        Some("boxwright") => TOP,
        Some("buildx") => BUILDX,
        Some("volume") => &["update"][..],
        Some("system") => &["events", "dial-stdio"],
        Some("container") => CONTAINER,
        _ => &[],
    };
    commands.contains(&word)
}

#[rustfmt::skip]
const TOP: &[&str] = &[
    "attach", "commit", "compose", "config", "container", "context", "cp", "create", "diff", "events", "exec", "export",
    "kill", "logs", "manifest", "network", "pause", "ps", "rename", "restart", "rm",
    "search", "start", "stats", "stop", "top", "unpause", "update", "wait",
];

#[rustfmt::skip]
const CONTAINER: &[&str] = &[
    "attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs", "ls", "pause", 
    "prune", "rename", "restart", "rm", "start", "stats", "stop", "top", "unpause", "update", "wait",
];

#[rustfmt::skip]
const BUILDX: &[&str] = &["bake", "debug", "dial-stdio", "policy"];

#[rustfmt::skip]
const BUILD: &[&str] = &[
    "--debug",
];

#[rustfmt::skip]
const RUN: &[&str] = &[
    "--annotation", "--blkio-weight-device", "--cpu-count", "--cpu-percent", "--cpu-rt-period", "--cpu-rt-runtime",
    "--detach-keys", "--device-read-bps", "--device-read-iops", "--device-write-bps", "--device-write-iops",
    "--gpus", "--health-cmd", "--health-interval", "--health-retries", "--health-start-interval",
    "--health-start-period", "--health-timeout", "--io-maxbandwidth", "--io-maxiops", "--ip", "--ip6",
    "--kernel-memory", "--link", "--link-local-ip", "--log-opt", "--mac-address", "--net-alias", "--network-alias",
    "--runtime", "--stop-timeout", "--storage-opt", "--use-api-socket", "--userns", "--volumes-from",
];

const VOLUME_CREATE: &[&str] = &[
    "--availability",
    "--group",
    "--limit-bytes",
    "--opt",
    "-o",
    "--required-bytes",
    "--scope",
    "--secret",
    "--sharing",
    "--type",
];
const PRUNE: &[&str] = &["--filter", "--volumes", "--min-free-space", "--verbose"];
const INSPECT: &[&str] = &["--size", "-s"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_is_not_announced_for_later() {
        let command = <crate::args::Args as clap::CommandFactory>::command();
        let build = command.find_subcommand("build").unwrap();
        let run = command.find_subcommand("run").unwrap();
        for (command, flags) in [(build, BUILD), (run, RUN)] {
            for arg in command.get_arguments() {
                let long = arg.get_long().map(|l| format!("--{l}"));
                let short = arg.get_short().map(|s| format!("-{s}"));
                for name in [long, short].into_iter().flatten() {
                    assert!(!flags.contains(&name.as_str()), "{name} of {} is here", command.get_name());
                }
            }
        }
        assert!(TOP.iter().all(|name| *name == "container" || command.find_subcommand(name).is_none()));
    }
}
