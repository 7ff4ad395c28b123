//! `--chown`: names are looked up in the passwd and group files of the vertex' base, numbers are taken as they are.

use std::path::Path;

use boxwright_cache::snapshot::passwd::{self, Named};
use boxwright_cache::snapshot::tree::{Kind, Tree};

use super::FileError;
use super::view::Owner;
use crate::ir::OwnerSpec;

/// The owner that `spec` (`user[:group]`) means in `base`. A user given by number has the group of the same number; a
/// user that is not there is root and a group that is not there the user's, as in BuildKit; `root` and nothing are looked up nowhere.
pub(super) fn owner(spec: &OwnerSpec, base: &Tree) -> Result<Owner, FileError> {
    let refuse = |reason: String| FileError::Owner { owner: spec.0.clone(), reason };
    let (user, group) = match spec.0.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec.0.as_str(), None),
    };
    let mut owner = match Named::parse(user).map_err(refuse)? {
        Named::Name("root") => Owner::default(),
        Named::Id(id) => Owner { uid: id, gid: id },
        // `--chown=:group` leaves the user root.
        Named::Name("") => Owner::default(),
        Named::Name(name) => {
            let text = read(base, "/etc/passwd", spec)?;
            let found = passwd::users(&text).find(|u| u.name == name);
            found.map_or_else(Owner::default, |user| Owner { uid: user.uid, gid: user.gid })
        }
    };
    match group.map(Named::parse).transpose().map_err(refuse)? {
        None => {}
        Some(Named::Name("" | "root")) => owner.gid = 0,
        Some(Named::Id(id)) => owner.gid = id,
        Some(Named::Name(name)) => {
            let text = read(base, "/etc/group", spec)?;
            let found = passwd::groups(&text).find(|g| g.name == name);
            owner.gid = found.map_or(owner.gid, |group| group.gid);
        }
    }
    Ok(owner)
}

/// The file's text, empty where there is none. Only a regular file of a sane size is read: a pipe would never end.
fn read(base: &Tree, path: &'static str, spec: &OwnerSpec) -> Result<Vec<u8>, FileError> {
    let refuse = |reason: String| FileError::Owner { owner: spec.0.clone(), reason };
    let Some(node) = base.lookup(Path::new(path), true)? else { return Ok(Vec::new()) };
    if node.kind != Kind::File {
        return Err(refuse(format!("{path} of the image is not a regular file")));
    }
    if node.size > passwd::LIMIT {
        return Err(refuse(format!("{path} of the image is too large ({} bytes)", node.size)));
    }
    Ok(base.read_file(&node.path, passwd::LIMIT)?.unwrap_or_default())
}
