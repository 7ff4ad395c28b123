//! What a container sees besides its image: directories of the host, volumes, tmpfs; and the volumes that its image
//! declares. A volume without a name is the container's own: what the image has there at first, and gone with it.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use boxwright_cache::record::ImageRecord;
use boxwright_cache::snapshot::Snapshot;
use boxwright_cache::snapshot::tree::{Kind, Tree};
use boxwright_cache::store::ActiveLayer;
use boxwright_cache::volume::{VolumeAbout, VolumeDir, VolumeName};
use boxwright_executor::{AccessTimes, Bind, Mount, MountSource, Propagation, Tmpfs, Upper};
use rustix::fs::{Mode, OFlags};

use super::Engine;
use super::run::RunRequest;
use super::settings::clean;
use crate::error::{Error, Result};

/// Something that is mounted in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Absolute and clean.
    pub target: String,
    pub read_only: bool,
    pub source: VolumeSource,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeSource {
    Host(HostPath),
    Named(NamedVolume),
    /// `copy`: what the image has there is in it.
    Anonymous {
        copy: bool,
    },
    Tmpfs(TmpfsVolume),
}

/// A directory or file of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostPath {
    pub path: PathBuf,
    /// A directory, where there is nothing.
    pub create: bool,
    pub recursive: bool,
    pub propagation: Propagation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedVolume {
    pub name: VolumeName,
    /// While it is empty it gets what the image has there.
    pub copy: bool,
    /// What of it is mounted; empty for all.
    pub subpath: String,
    /// For one that is made.
    pub labels: Vec<(String, String)>,
}

/// As [`Tmpfs`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TmpfsVolume {
    pub options: Vec<(&'static CStr, String)>,
    pub exec: bool,
    pub suid: bool,
    pub access_times: AccessTimes,
}

impl HostPath {
    pub fn of(path: PathBuf) -> HostPath {
        HostPath { path, create: false, recursive: true, propagation: Propagation::Private }
    }
}

/// The volumes of one container. What is written to its own ones lasts as long as this, and the others are in use.
#[derive(Default)]
pub(super) struct Volumes {
    pub(super) mounts: Vec<Mount>,
    own: Vec<ActiveLayer>,
    used: Vec<VolumeDir>,
}

/// Where what is in a new volume comes from.
struct Content<'a> {
    snapshot: &'a Snapshot,
    tree: Tree,
}

impl Engine {
    /// Those of `request`, and one for each that `image` declares where `request` mounts nothing.
    pub(super) fn volumes(
        &self,
        image: &ImageRecord,
        request: &RunRequest,
        snapshot: &Snapshot,
    ) -> Result<Volumes> {
        let mut volumes = Volumes::default();
        let declared = &image.config.config.volumes;
        if declared.is_empty() && request.volumes.is_empty() {
            return Ok(volumes);
        }
        let content = Content { snapshot, tree: snapshot.tree(&self.cancel)? };
        for volume in &request.volumes {
            if volumes.mounts.iter().any(|mount| mount.target == volume.target) {
                return Err(Error::invalid(format!("Duplicate mount point: {}", volume.target)));
            }
            let source = self.volume_source(volume, &content, &mut volumes)?;
            let Volume { target, read_only, .. } = volume.clone();
            volumes.mounts.push(Mount { target, source, read_only });
        }
        for target in declared.keys().map(|declared| clean(declared)) {
            if !volumes.mounts.iter().any(|mount| mount.target == target) {
                let source = self.own_volume(&target, true, &content, &mut volumes)?;
                volumes.mounts.push(Mount { target, source, read_only: false });
            }
        }
        Ok(volumes)
    }

    fn volume_source(
        &self,
        volume: &Volume,
        content: &Content<'_>,
        all: &mut Volumes,
    ) -> Result<MountSource> {
        match &volume.source {
            VolumeSource::Host(host) => Ok(MountSource::Bind(Bind {
                recursive: host.recursive,
                propagation: host.propagation,
                ..Bind::from(open_host(host)?)
            })),
            VolumeSource::Named(named) => self.named_volume(&volume.target, named, content, all),
            VolumeSource::Anonymous { copy } => self.own_volume(&volume.target, *copy, content, all),
            VolumeSource::Tmpfs(tmpfs) => {
                let TmpfsVolume { options, exec, suid, access_times } = tmpfs.clone();
                Ok(MountSource::Tmpfs(Tmpfs { options, exec, suid, access_times }))
            }
        }
    }

    fn named_volume(
        &self,
        target: &str,
        named: &NamedVolume,
        content: &Content<'_>,
        all: &mut Volumes,
    ) -> Result<MountSource> {
        let about = VolumeAbout { labels: named.labels.iter().cloned().collect(), ..VolumeAbout::default() };
        let copied = if named.copy { content.at(target)?.map(|_| (content.snapshot, target)) } else { None };
        let volume = self.store.use_volume(&named.name, &about, copied, &self.cancel)?;
        let place =
            if named.subpath.is_empty() { copy(volume.data())? } else { volume.below(&named.subpath)? };
        all.used.push(volume);
        Ok(MountSource::Bind(place.into()))
    }

    /// What the image has there is not copied, but lies below what the container writes.
    fn own_volume(
        &self,
        target: &str,
        copied: bool,
        content: &Content<'_>,
        all: &mut Volumes,
    ) -> Result<MountSource> {
        let written = self.store.new_layer()?;
        let source = if copied && content.at(target)?.is_some() {
            let upper = Upper { dir: copy(written.fs())?, work: copy(written.work())? };
            let lowers = content.snapshot.dirs(&self.cancel)?;
            MountSource::Layers { lowers, path: target.to_owned(), upper: Some(upper) }
        } else {
            MountSource::Bind(copy(written.fs())?.into())
        };
        all.own.push(written);
        Ok(source)
    }
}

impl Content<'_> {
    /// Some where the image has a directory.
    fn at(&self, target: &str) -> Result<Option<()>> {
        match self.tree.lookup(target, true)?.map(|node| node.kind) {
            None => Ok(None),
            Some(Kind::Dir) => Ok(Some(())),
            Some(_) => {
                Err(Error::invalid(format!("cannot mount volume over existing file, file exists {target}")))
            }
        }
    }
}

fn open_host(host: &HostPath) -> Result<OwnedFd> {
    let path = &host.path;
    match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) if host.create => create_host(path),
        Err(rustix::io::Errno::NOENT) => {
            let reason = format!("bind source path does not exist: {}", path.display());
            Err(Error::invalid(format!("invalid mount config for type \"bind\": {reason}")))
        }
        result => result.map_err(Error::io("opening volume", path)),
    }
}

/// Docker makes a directory where nothing is.
fn create_host(path: &Path) -> Result<OwnedFd> {
    std::fs::create_dir_all(path).map_err(Error::io("making volume", path))?;
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io("opening volume", path))
}

pub(super) fn copy(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(Error::io("duplicating", "a directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_made_where_docker_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let host = HostPath::of(dir.path().join("a/b"));
        let missing = open_host(&host).unwrap_err().to_string();
        assert!(missing.contains("bind source path does not exist"), "{missing}");
        open_host(&HostPath { create: true, ..host }).unwrap();
        assert!(dir.path().join("a/b").is_dir());
    }
}
