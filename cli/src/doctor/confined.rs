//! Rights, namespaces, networks, control groups, and programs of other machines.

use boxwright_executor::idmap::{Ids, Unmapped};
use boxwright_executor::network::BRIDGE;
use boxwright_executor::probe::{Answer, Cgroups, Emulation};

use super::{Line, advice};

/// What is missing where one id is all there is.
const SINGLE: &str = "made one, in which this user's own id is root's and the only one: a step or container that needs \
                      other users fails, as most installations of packages do";

pub(super) fn ids(answer: Answer<(Ids, Option<Unmapped>)>) -> Line {
    let what = "user namespace";
    match answer {
        Ok((Ids::Real, _)) => Line::yes(
            what,
            "not needed: this user mounts without one, and containers have all ids that it has",
        ),
        Ok((Ids::Mapped, _)) => Line::yes(what, "made one, with the ids of /etc/subuid and /etc/subgid"),
        Ok((Ids::Single, Some(Unmapped::NoRanges { user, files }))) => {
            let why = format!("{} no range for {user}", has(&files));
            Line::partly(what, SINGLE, why).with(advice::ranges(&user, &files))
        }
        Ok((Ids::Single, Some(Unmapped::Refused(why)))) => {
            let missing = why.contains("os error 2)");
            let commands = if missing { advice::install(&advice::UIDMAP) } else { None };
            Line::partly(what, SINGLE, why).with(commands)
        }
        Ok((Ids::Single, None)) => Line::partly(what, SINGLE, "the ids could not be mapped"),
        Err(why) => Line::no(what, "only root can build and run here", why).with(advice::user_namespaces()),
    }
    .needed()
}

fn has(files: &[String]) -> String {
    let verb = if files.len() == 1 { "has" } else { "have" };
    format!("{} {verb}", files.join(" and "))
}

pub(super) fn namespaces(answer: Answer) -> Line {
    let what = "namespaces";
    match answer {
        Ok(()) => Line::yes(what, "made those of a container, and mounted its /proc"),
        Err(why) => Line::no(what, "no container can be started, neither for RUN nor for run", why),
    }
    .needed()
}

/// `none` is about a network without anything in it, `refused` tells what rules of the host are against a bridge.
pub(super) fn network(own: Answer<Option<String>>, none: Answer, refused: Option<String>) -> Line {
    let what = "network";
    let line = match (own, refused) {
        (Ok(None), Some(why)) => Line::partly(what, "containers reach this machine alone", why),
        (Ok(None), None) => Line::yes(
            what,
            format!(
                "made a bridge, plugged a container into it and had nf_tables translate its address, all in a network \
                 apart; commands use {BRIDGE} (and set net.ipv4.ip_forward), system prune removes it"
            ),
        ),
        (Ok(Some(helper)), _) => Line::yes(
            what,
            format!("{helper} joined a container to the world; ports that are published go through it"),
        ),
        (Err(why), _) => {
            let says = "containers use the host's by default, and publish no ports";
            let missing = why.contains("slirp4netns is not installed");
            let install = if missing { advice::install(&advice::SLIRP) } else { None };
            Line::partly(what, says, why).with(install).with(advice::tunnels())
        }
    };
    match none {
        Ok(()) => line,
        Err(why) => Line::partly(what, "containers use the host's; --network none does not work", why),
    }
}

pub(super) fn emulation(architecture: &str, answer: Answer<Emulation>) -> Line {
    let what = format!("programs for {architecture}");
    let says = format!("RUN with --platform linux/{architecture}, and run of such images, fail");
    match answer {
        Ok(Emulation::Works) => Line::yes(&what, "ran one in a root of its own"),
        Ok(Emulation::Lacking(lack)) => {
            let why =
                lack.as_ref().map_or_else(|| "the kernel can't start its emulator".to_owned(), advice::lack);
            Line::no(&what, says, why).with(lack.iter().flat_map(advice::emulator))
        }
        Ok(Emulation::Broken) => Line::no(&what, says, "a small program ran, and did not end as it should"),
        Err(why) => Line::no(&what, says, why),
    }
}

/// Only what asks for a limit needs them.
pub(super) fn cgroups(answer: Answer<Cgroups>) -> Line {
    let what = "cgroups";
    let nothing = "limits of memory, processors and processes are refused";
    match answer {
        Ok(found) if found.controllers.is_empty() => {
            let why = found.refused.first().cloned().unwrap_or_else(|| "none are mounted".to_owned());
            Line::no(what, nothing, why)
        }
        Ok(found) => {
            let version = match (found.v1, found.v2) {
                (true, true) => "v1 and v2",
                (true, false) => "v1",
                _ => "v2",
            };
            let mut says = format!("{version}, with limits of {}", found.controllers.join(", "));
            if found.devices == Some(Ok(())) {
                says.push_str("; and containers can be kept to their devices");
            }
            match found.refused.first().or(found.devices.as_ref().and_then(|d| d.as_ref().err())) {
                Some(why) => Line::partly(what, says, why.as_str()),
                None => Line::yes(what, says),
            }
        }
        Err(why) => Line::no(what, nothing, why),
    }
}
