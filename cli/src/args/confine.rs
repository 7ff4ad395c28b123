//! The flags of `run` about what the container may do.

use std::path::{Path, PathBuf};

use boxwright_executor::cgroup::{DeviceAccess, DeviceKind, DeviceRule, device_groups};
use boxwright_executor::{CapabilitySet, Profile, Seccomp, capability, cdi};
use boxwright_frontend::size;

use super::steps::device_files;
use super::{LimitFlags, ulimit};
use crate::engine::{Confinement, Device, clean};
use crate::error::{Error, Result};
use crate::report;

#[derive(Debug, clap::Args)]
pub(crate) struct ConfineFlags {
    /// A capability to have as well, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// A capability not to have, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// All capabilities and devices, no filter, nothing hidden
    #[arg(long)]
    privileged: bool,
    /// no-new-privileges, seccomp=unconfined|FILE, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// A device of the host, a directory of them, or VENDOR/CLASS=NAME, as a file for CDI describes it
    #[arg(long, value_name = "HOST[:CONTAINER[:rwm]]")]
    device: Vec<String>,
    /// A directory with descriptions of devices (CDI), in the place of the usual ones; the last one counts most
    #[arg(long, value_name = "DIR")]
    cdi_spec_dir: Vec<PathBuf>,
    /// Devices that it may use if it comes by a node: KIND MAJOR:MINOR ACCESS, as in 'c 42:* rwm'
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// A limit of each process
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// A setting of the kernel that the container has for itself
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// A first process that passes signals on and waits for orphans
    #[arg(long)]
    init: bool,
    #[command(flatten)]
    limits: LimitFlags,
    /// How soon it is killed when memory is short, from -1000 to 1000
    #[arg(long, value_name = "NUMBER")]
    oom_score_adj: Option<String>,
    /// host: its host name is the machine's
    #[arg(long, value_name = "MODE", default_value = "")]
    uts: String,
}

impl ConfineFlags {
    pub(crate) fn confinement(&self) -> Result<Confinement> {
        let named = self.device.iter().filter(|text| cdi::is_qualified(text));
        let paths = self.device.iter().filter(|text| !cdi::is_qualified(text));
        let mut confinement = Confinement {
            privileged: self.privileged,
            capabilities: capabilities(&self.cap_add, &self.cap_drop)?,
            devices: paths.map(|text| device(text)).collect::<Result<_>>()?,
            named_devices: named.cloned().collect(),
            device_files: device_files(&self.cdi_spec_dir),
            device_rules: self.device_cgroup_rule.iter().map(|text| rule(text)).collect::<Result<_>>()?,
            limits: self.ulimit.iter().map(|text| ulimit::parse(text)).collect::<Result<_>>()?,
            sysctls: self.sysctl.iter().map(|text| sysctl(text)).collect::<Result<_>>()?,
            shm_size: self.shm_size.as_ref().map(|text| shm_size(text)).transpose()?.flatten(),
            init: self.init,
            resources: self.limits.resources()?,
            oom_score: self.oom_score_adj.as_ref().map(|text| oom_score(text)).transpose()?.flatten(),
            host_uts: self.host_uts()?,
            ..Confinement::default()
        };
        if confinement.may_mount() && device_groups().is_err() {
            self.withhold_mknod(&mut confinement.capabilities);
        }
        if self.privileged {
            confinement.capabilities = CapabilitySet::all();
            confinement.seccomp = Seccomp::Unconfined;
        }
        for option in &self.security_opt {
            set_security(option, &mut confinement)?;
        }
        Ok(confinement)
    }

    pub(crate) fn may_mount(&self) -> bool {
        let capabilities = capabilities(&self.cap_add, &self.cap_drop);
        self.privileged || capabilities.is_ok_and(|held| held.contains(CapabilitySet::SYS_ADMIN))
    }

    fn host_uts(&self) -> Result<bool> {
        match self.uts.as_str() {
            "" | "private" => Ok(false),
            "host" => Ok(true),
            _ => Err(Error::invalid(format!("--uts: invalid UTS mode {:?}", self.uts))),
        }
    }

    /// Where there is no device cgroup, who may mount can have a file system whose device nodes can be opened.
    fn withhold_mknod(&self, capabilities: &mut CapabilitySet) {
        let named = self.cap_add.iter().any(|name| capability::by_name(name) == Some(CapabilitySet::MKNOD));
        let mut line = "With SYS_ADMIN a container can reach the devices of the host".to_owned();
        if !named && capabilities.contains(CapabilitySet::MKNOD) {
            capabilities.remove(CapabilitySet::MKNOD);
            line.push_str("; MKNOD is left out, unless --cap-add names it");
        }
        report::remark(&line);
    }
}

/// Which there are, the executor knows.
fn sysctl(text: &str) -> Result<(String, String)> {
    let pair = text.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.to_owned()));
    pair.ok_or_else(|| Error::invalid(format!("sysctl '{text}' is not allowed")))
}

/// None is the usual size.
pub(super) fn shm_size(text: &str) -> Result<Option<u64>> {
    let bytes = size::parse(text);
    let bytes = bytes.ok_or_else(|| Error::invalid(format!("invalid size: {text:?} for --shm-size")))?;
    Ok(Some(bytes).filter(|bytes| *bytes > 0))
}

/// None is that of the command, as 0 is in docker.
fn oom_score(text: &str) -> Result<Option<i32>> {
    match text.parse::<i32>() {
        Ok(score) if (-1000..=1000).contains(&score) => Ok(Some(score).filter(|score| *score != 0)),
        Ok(score) => {
            Err(Error::invalid(format!("invalid value {score}, range for oom score adj is [-1000, 1000]")))
        }
        Err(_) => Err(Error::invalid(format!(
            "invalid argument {text:?} for \"--oom-score-adj\" flag: it is no number"
        ))),
    }
}

/// By docker's rules: with ALL added only what is dropped by name is missing, with ALL dropped there is only what is
/// added by name, and otherwise what is added wins.
fn capabilities(add: &[String], drop: &[String]) -> Result<CapabilitySet> {
    let (add, add_all) = set("CapAdd", add)?;
    let (drop, drop_all) = set("CapDrop", drop)?;
    Ok(match (add_all, drop_all) {
        (true, _) => CapabilitySet::all().difference(drop),
        (false, true) => add,
        (false, false) => capability::DEFAULT.difference(drop).union(add),
    })
}

/// The capabilities of these names, and whether ALL is among them.
fn set(what: &str, names: &[String]) -> Result<(CapabilitySet, bool)> {
    let (mut set, mut all) = (CapabilitySet::empty(), false);
    for name in names {
        if matches!(name.to_ascii_uppercase().as_str(), "ALL" | "CAP_ALL") {
            all = true;
            continue;
        }
        set |= capability::by_name(name)
            .ok_or_else(|| Error::invalid(format!("invalid {what}: unknown capability: {name:?}")))?;
    }
    Ok((set, all))
}

/// There is neither AppArmor nor SELinux about a container of ours, so it can be free of them, and nothing else.
fn set_security(option: &str, confinement: &mut Confinement) -> Result<()> {
    let (name, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
    let invalid = || Error::invalid(format!("invalid --security-opt: {option:?}"));
    match (name, value) {
        ("no-new-privileges", value) => {
            let wanted = if value.is_empty() { Ok(true) } else { super::boolean(value) };
            confinement.no_new_privileges = wanted.map_err(|_| invalid())?;
        }
        ("seccomp", "unconfined") => confinement.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => confinement.seccomp = Seccomp::Default,
        ("seccomp", file) if !file.is_empty() => confinement.seccomp = profile(file)?,
        ("systempaths", "unconfined") => confinement.system_paths = true,
        ("apparmor", "unconfined") | ("label", "disable") => {}
        ("apparmor" | "label" | "writable-cgroups", _) => {
            return Err(Error::Later(format!("the security option {option:?}")));
        }
        _ => return Err(invalid()),
    }
    Ok(())
}

fn profile(file: &str) -> Result<Seccomp> {
    let text = super::file::read(Path::new(file), "reading the seccomp profile")?;
    Profile::parse(&text).map(Seccomp::Profile).map_err(|e| Error::invalid(format!("{file}: {e}")))
}

/// `HOST[:CONTAINER][:PERMISSIONS]`.
fn device(text: &str) -> Result<Device> {
    let invalid = || Error::invalid(format!("invalid device specification: {text}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, target, permissions) = match parts.as_slice() {
        [host] => (*host, *host, "rwm"),
        [host, second] if is_permissions(second) => (*host, *host, *second),
        [host, target] => (*host, *target, "rwm"),
        [host, target, permissions] if is_permissions(permissions) => (*host, *target, *permissions),
        [_, _, permissions] => {
            return Err(Error::invalid(format!("invalid device mode: {permissions}")));
        }
        _ => return Err(invalid()),
    };
    if host.is_empty() || !target.starts_with('/') {
        return Err(invalid());
    }
    let access = DeviceAccess::parse(permissions).ok_or_else(invalid)?;
    let host = std::path::absolute(Path::new(host)).map_err(Error::io("finding", PathBuf::from(host)))?;
    Ok(Device { host, target: clean(target), access })
}

fn is_permissions(text: &str) -> bool {
    DeviceAccess::parse(text).is_some()
}

/// `KIND MAJOR:MINOR ACCESS`: a for any kind, * for any number.
fn rule(text: &str) -> Result<DeviceRule> {
    let number = |text: &str| match text {
        "*" => Some(None),
        text => text.parse().ok().map(Some),
    };
    let read = || {
        let mut words = text.split(' ');
        let (kind, device, access) = (words.next()?, words.next()?, words.next()?);
        let kind = match kind {
            "a" => None,
            "b" => Some(DeviceKind::Block),
            "c" => Some(DeviceKind::Character),
            _ => return None,
        };
        let (major, minor) = device.split_once(':')?;
        let access = DeviceAccess::parse(access).filter(|_| words.next().is_none())?;
        Some(DeviceRule { kind, major: number(major)?, minor: number(minor)?, access })
    };
    read().ok_or_else(|| Error::invalid(format!("invalid device cgroup format '{text}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        let default = capability::DEFAULT;
        let (admin, mknod) = (CapabilitySet::NET_ADMIN, CapabilitySet::MKNOD);
        for (add, drop, expected) in [
            ("", "", default),
            ("net_admin", "", default | admin),
            ("", "CAP_MKNOD", default.difference(mknod)),
            ("mknod", "mknod", default),
            ("net_admin", "ALL", admin),
            ("ALL", "net_admin", CapabilitySet::all().difference(admin)),
            ("all", "all", CapabilitySet::all()),
        ] {
            assert_eq!(capabilities(&words(add), &words(drop)).unwrap(), expected, "+{add} -{drop}");
        }
        let unknown = capabilities(&[], &words("CHPASS")).unwrap_err().to_string();
        assert_eq!(unknown, "invalid CapDrop: unknown capability: \"CHPASS\"");
    }

    #[test]
    fn what_security_options_ask_for_is_done_or_refused() {
        let set = |option: &str| {
            let mut confinement = Confinement::default();
            set_security(option, &mut confinement).map(|()| confinement)
        };
        assert!(set("no-new-privileges").unwrap().no_new_privileges);
        assert!(set("no-new-privileges:true").unwrap().no_new_privileges);
        assert!(set("no-new-privileges:1").unwrap().no_new_privileges);
        assert!(!set("no-new-privileges=false").unwrap().no_new_privileges);
        assert!(!set("no-new-privileges=F").unwrap().no_new_privileges);
        assert!(matches!(set("seccomp=unconfined").unwrap().seccomp, Seccomp::Unconfined));
        assert!(set("systempaths=unconfined").unwrap().system_paths);
        assert!(matches!(set("apparmor=unconfined").unwrap().seccomp, Seccomp::Default));
        for option in [
            "apparmor=docker-default",
            "label=type:x",
            "seccomp=/no/such/file",
            "no-new-privileges=x",
            "nonsense",
        ] {
            assert!(set(option).is_err(), "{option}");
        }
    }

    #[test]
    fn rules_are_dockers() {
        let all = DeviceAccess::ALL;
        let expected =
            DeviceRule { kind: Some(DeviceKind::Character), major: Some(42), minor: None, access: all };
        assert_eq!(rule("c 42:* rwm").unwrap(), expected);
        assert_eq!(rule("a *:* mwr").unwrap(), DeviceRule { kind: None, major: None, ..expected });
        for text in
            ["", "c 42:*", "x 1:2 r", "c 1 r", "c 1:2 x", "c 1:2 r r", "c  1:2 r", "c -1:2 r", "c a:2 r"]
        {
            let error = rule(text).unwrap_err().to_string();
            assert_eq!(error, format!("invalid device cgroup format '{text}'"));
        }
    }

    #[test]
    fn devices_have_two_places_and_permissions() {
        let of = |text: &str| device(text).map(|d| (d.host.display().to_string(), d.target));
        let both = |host: &str, target: &str| (host.to_owned(), target.to_owned());
        assert_eq!(of("/dev/fuse").unwrap(), both("/dev/fuse", "/dev/fuse"));
        assert_eq!(of("/dev/fuse:rw").unwrap(), both("/dev/fuse", "/dev/fuse"));
        assert_eq!(of("/dev/a:/dev//b:rwm").unwrap(), both("/dev/a", "/dev/b"));
        for (text, words) in [
            ("/dev/a:/dev/b:x", "invalid device mode: x"),
            ("/dev/a:/dev/b:rr", "invalid device mode: rr"),
            ("/dev/a:b", "invalid device specification"),
            ("a:b:c:d", "invalid device specification"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
