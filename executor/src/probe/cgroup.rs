//! Which limits containers can be given, by making the groups that they would have.

use serde::{Deserialize, Serialize};

use super::Answer;
use super::child::attempt_in_namespace;
use crate::cgroup::hierarchy::{Hierarchy, hierarchies};
use crate::cgroup::{Resources, device_groups, settable};
use crate::idmap;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups {
    /// Whether there are hierarchies of version 1, and one of version 2.
    pub v1: bool,
    pub v2: bool,
    /// Controllers whose limits can be set.
    pub controllers: Vec<String>,
    /// Why others can't.
    pub refused: Vec<String>,
    /// Whether containers can be kept to their devices; only of interest to root.
    pub devices: Option<Answer>,
}

/// # Errors
/// When it can't be tried.
pub fn cgroups() -> Answer<Cgroups> {
    attempt_in_namespace(0, || {
        let path = "/proc/self/mountinfo";
        let mounts = std::fs::read_to_string(path).map_err(|e| format!("reading {path}: {e}"))?;
        let hierarchies = hierarchies(&mounts);
        let mut found = Cgroups {
            v1: hierarchies.iter().any(Hierarchy::has_controllers),
            v2: hierarchies.iter().any(|h| h.controllers.is_none()),
            devices: (!idmap::in_user_namespace()).then(device_groups),
            ..Cgroups::default()
        };
        let list = || Some("0".to_owned());
        for (name, resources) in [
            ("memory", Resources { memory: Some(1 << 30), ..Resources::default() }),
            ("cpu", Resources { shares: Some(1024), ..Resources::default() }),
            ("cpuset", Resources { mems: list(), ..Resources::default() }),
            ("pids", Resources { pids: Some(1024), ..Resources::default() }),
        ] {
            match settable(&resources) {
                Ok(()) => found.controllers.push(name.to_owned()),
                Err(why) => found.refused.push(why),
            }
        }
        Ok(found)
    })
}
