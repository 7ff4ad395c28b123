//! Flags of `run` that docker's scripts pass and that have nothing to change here: what they ask for is so anyway, or
//! they are refused.

use super::ContentTrust;
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub(crate) struct DockerRunFlags {
    /// Which of its streams are ours: standard output and error, with --interactive standard input, as they are anyway
    #[arg(short, long, value_name = "STREAM", hide = true)]
    attach: Vec<String>,
    /// `false`: it runs in the foreground
    #[arg(short, long, hide = true)]
    detach: bool,
    /// Accepted for docker's sake: signals are passed on
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = super::boolean, hide = true)]
    sig_proxy: bool,
    #[command(flatten)]
    trust: ContentTrust,
    /// `no`: it is not started again
    #[arg(long, value_name = "POLICY", default_value = "", hide = true)]
    restart: String,
    /// `private`: its own
    #[arg(long, value_name = "MODE", default_value = "", hide = true)]
    ipc: String,
    /// `private`: its own
    #[arg(long, value_name = "MODE", default_value = "", hide = true)]
    cgroupns: String,
    /// Empty: its own
    #[arg(long, value_name = "MODE", default_value = "", hide = true)]
    pid: String,
    /// How containers are kept apart: `default`
    #[arg(long, value_name = "KIND", default_value = "", hide = true)]
    isolation: String,
    /// Accepted for docker's sake: nobody looks at the health of a container
    #[arg(long, hide = true)]
    no_healthcheck: bool,
    /// `false`: it may be killed when memory is short
    #[arg(long, hide = true)]
    oom_kill_disable: bool,
    /// `0`: that of every container
    #[arg(long, value_name = "NUMBER", default_value = "0", hide = true)]
    blkio_weight: String,
    /// `-1`: that of every container
    #[arg(long, value_name = "NUMBER", default_value = "-1", hide = true)]
    memory_swappiness: String,
    /// Of volumes: `local`
    #[arg(long, value_name = "DRIVER", default_value = "", hide = true)]
    volume_driver: String,
    /// `none`: what the container says is kept nowhere
    #[arg(long, value_name = "DRIVER", default_value = "none", hide = true)]
    log_driver: String,
}

impl DockerRunFlags {
    /// Refuses what would change something.
    pub(crate) fn check(&self, interactive: bool) -> Result<()> {
        self.check_streams(interactive)?;
        self.trust.check()?;
        for (flag, changes) in [
            ("--detach", self.detach),
            ("--sig-proxy=false", !self.sig_proxy),
            ("--oom-kill-disable", self.oom_kill_disable),
        ] {
            if changes {
                return Err(Error::Later(flag.to_owned()));
            }
        }
        for (flag, value, usual) in [
            ("--restart", &self.restart, &["", "no"][..]),
            ("--ipc", &self.ipc, &["", "private"]),
            ("--cgroupns", &self.cgroupns, &["", "private"]),
            ("--pid", &self.pid, &[""]),
            ("--blkio-weight", &self.blkio_weight, &["0"]),
            ("--memory-swappiness", &self.memory_swappiness, &["-1"]),
            ("--volume-driver", &self.volume_driver, &["", "local"]),
            ("--log-driver", &self.log_driver, &["none"]),
        ] {
            if !usual.contains(&value.as_str()) {
                return Err(Error::Later(format!("{flag} {value:?}")));
            }
        }
        super::docker::isolation(&self.isolation)
    }

    /// All that a container has are ours: to leave one out, or to have its input closed, would be something else.
    fn check_streams(&self, interactive: bool) -> Result<()> {
        if self.attach.is_empty() {
            return Ok(());
        }
        let streams: Vec<String> = self.attach.iter().map(|name| name.to_ascii_lowercase()).collect();
        let names = ["stdin", "stdout", "stderr"];
        if let Some(odd) = streams.iter().find(|stream| !names.contains(&stream.as_str())) {
            return Err(Error::invalid(format!(
                "invalid argument {odd:?} for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR"
            )));
        }
        let has = |name: &str| streams.iter().any(|stream| stream == name);
        if has("stdout") && has("stderr") && has("stdin") == interactive {
            return Ok(());
        }
        Err(Error::Later("--attach of other streams than the container has".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;
    use crate::commands::Command;

    fn check(flags: &str) -> Result<(), String> {
        let words = format!("boxwright run {flags} x");
        let args: Args = super::super::parse(words.split(' ').map(std::ffi::OsString::from))
            .map_err(|error| format!("{error:?}"))?;
        let Command::Run(run) = args.command else { panic!("a run") };
        run.docker.check(run.interactive).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_so_anyway_is_accepted_and_what_is_not_is_refused() {
        for flags in [
            "-q",
            "--restart no --ipc private --cgroupns private --pid= --volume-driver local --log-driver none",
            "--restart= --ipc= --cgroupns= --isolation default --blkio-weight 0 --memory-swappiness -1",
            "--sig-proxy --sig-proxy=true --detach=false --oom-kill-disable=false --no-healthcheck --disable-content-trust",
            "-d=false",
            "-a stdout -a STDERR",
            "-i -a stdin -a stdout -a stderr",
        ] {
            assert_eq!(check(flags), Ok(()), "{flags}");
        }
        for (flags, words) in [
            ("-d", "--detach is not supported yet"),
            ("--sig-proxy=false", "--sig-proxy=false is not supported yet"),
            ("--disable-content-trust=false", "--disable-content-trust=false is not supported yet"),
            ("--oom-kill-disable", "--oom-kill-disable is not supported yet"),
            ("--restart always", "--restart \"always\" is not supported yet"),
            ("--ipc host", "--ipc \"host\" is not supported yet"),
            ("--cgroupns host", "--cgroupns \"host\" is not supported yet"),
            ("--pid host", "--pid \"host\" is not supported yet"),
            ("--blkio-weight 10", "--blkio-weight \"10\" is not supported yet"),
            ("--memory-swappiness 60", "--memory-swappiness \"60\" is not supported yet"),
            ("--volume-driver nfs", "--volume-driver \"nfs\" is not supported yet"),
            ("--log-driver journald", "--log-driver \"journald\" is not supported yet"),
            ("--isolation hyperv", "on Linux there is only \"default\""),
            ("-a stdout", "--attach of other streams than the container has is not supported yet"),
            ("-a stdout -a stderr -a stdin", "--attach of other streams"),
            ("-i -a stdout -a stderr", "--attach of other streams"),
            ("-a odd", "valid streams are STDIN, STDOUT and STDERR"),
        ] {
            let refused = check(flags).unwrap_err();
            assert!(refused.contains(words), "{flags}: {refused}");
        }
    }
}
