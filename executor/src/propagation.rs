//! Where mounts made later are seen: whether the host's mount lets a bind of it take part in that.

use std::os::fd::{AsFd, AsRawFd};

use crate::error::{Error, Result};
use crate::idmap;
use crate::spec::Propagation;

/// # Errors
/// When what `source` is mounted on does not pass mounts on, as docker has it, or we are cut off from the host's.
pub(crate) fn check(source: impl AsFd, wanted: Propagation) -> Result<()> {
    if wanted == Propagation::Private {
        return Ok(());
    }
    if idmap::in_user_namespace() {
        return Err(Error::Unsupported(
            "the propagation modes shared and slave need root: a user namespace gets no mounts of the host"
                .into(),
        ));
    }
    let read = |path: String| std::fs::read_to_string(&path).map_err(Error::io("reading", &path));
    let about = read(format!("/proc/self/fdinfo/{}", source.as_fd().as_raw_fd()))?;
    let id = about.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default().trim();
    let mounts = read("/proc/self/mountinfo".to_owned())?;
    match group(&mounts, id) {
        (true, _) => Ok(()),
        (false, true) if wanted == Propagation::Slave => Ok(()),
        _ if wanted == Propagation::Slave => Err(refused("it is not a shared or slave mount")),
        _ => Err(refused("it is not a shared mount")),
    }
}

fn refused(reason: &str) -> Error {
    Error::start(125, format!("the source of the bind is on a mount that passes nothing on: {reason}"))
}

/// Whether the mount of this id is shared, and whether it is the slave of another.
fn group(mounts: &str, id: &str) -> (bool, bool) {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let Some(fields) = fields.into_iter().find(|fields| fields.first() == Some(&id)) else {
        return (false, false);
    };
    // Six fields, then any number of optional ones up to a hyphen.
    let optional: Vec<_> = fields.iter().skip(6).take_while(|field| **field != "-").collect();
    let has = |prefix: &str| optional.iter().any(|field| field.starts_with(prefix));
    (has("shared:"), has("master:"))
}

#[cfg(test)]
mod tests {
    use super::group;

    #[test]
    fn groups_are_optional_fields() {
        let mounts = "21 1 8:1 / / rw,noatime shared:1 - ext4 /dev/sda1 rw\n\
            22 21 0:5 / /a rw master:2 propagate_from:1 - tmpfs shared:9 rw\n\
            23 21 0:6 / /b rw - tmpfs none rw\n";
        assert_eq!(group(mounts, "21"), (true, false));
        assert_eq!(group(mounts, "22"), (false, true));
        assert_eq!(group(mounts, "23"), (false, false));
        assert_eq!(group(mounts, "24"), (false, false));
    }
}
