//! Images by name: docker's rules for what a word on the command line stands for, naming and removing.

use std::collections::BTreeSet;

use boxwright_cache as cache;
use cache::Digest;
use cache::oci::{Platform, Reference};
use cache::record::{ImageRecord, NameRecord, Stored};
use cache::snapshot::Layer;

use super::{Engine, RunningContainer};
use crate::error::{Error, Result};

/// An image or index, and the name it was found by; none when it was found by its id.
#[derive(Clone, Debug)]
pub struct Found {
    pub stored: Stored,
    pub name: Option<Reference>,
}

impl Found {
    /// The image for `platform`, and without that the one for this machine or, if there is none, the first.
    ///
    /// # Errors
    /// When there is none for it; the message names those that there are.
    pub fn image(self, platform: Option<&Platform>) -> Result<ImageRecord> {
        let found =
            platform.map_or_else(|| self.stored.main(), |platform| self.stored.for_platform(platform));
        if let Some(image) = found {
            return Ok(image.clone());
        }
        let text = self.name.map_or_else(|| self.stored.id().to_string(), |name| name.familiar());
        let there: Vec<String> = self.stored.platforms().iter().map(ToString::to_string).collect();
        Err(Error::invalid(format!(
            "image with reference {text} was found but does not provide the specified platform ({}); it has {}",
            platform.map(ToString::to_string).unwrap_or_default(),
            there.join(", ")
        )))
    }

    /// The same, which stays what it is without a platform.
    ///
    /// # Errors
    /// As [`Found::image`].
    pub fn only(self, platform: Option<&Platform>) -> Result<Found> {
        if platform.is_none() {
            return Ok(self);
        }
        let name = self.name.clone();
        Ok(Found { stored: Stored::Image(self.image(platform)?), name })
    }
}

/// What a removal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    Name(String),
    Image(Digest),
}

/// Parses an image name, with docker's words for what is none.
///
/// # Errors
/// [`Error::Invalid`].
pub fn reference(text: &str) -> Result<Reference> {
    text.parse::<Reference>().map_err(|error| match error {
        cache::Error::Invalid { reason, .. } if reason.starts_with("invalid reference format") => {
            Error::invalid(format!("{reason}: {text:?}"))
        }
        error => Error::invalid(format!("invalid reference format: {error}")),
    })
}

/// Bytes of a layer: of its tar, or while that has not been here, of the blob that a registry has.
pub fn layer_size(layer: &Layer) -> u64 {
    let known = |layer: &Layer| layer.blobs().ok()?.iter().map(|b| b.descriptor.size).max();
    layer.tar_size().or_else(|| known(layer)).unwrap_or(0)
}

/// Bytes of all layers, each counted once.
pub fn size_of<'a>(images: impl IntoIterator<Item = &'a ImageRecord>) -> u64 {
    let mut counted = BTreeSet::new();
    let layers = images.into_iter().flat_map(|image| &image.layers);
    layers.filter(|layer| counted.insert(layer.id().number())).map(layer_size).sum()
}

impl Engine {
    /// The image that a word stands for: a name, an id, the beginning of an id, or a name with a digest.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], or when the word can't be a name.
    pub fn find(&self, text: &str) -> Result<Found> {
        self.look_up(text)?.ok_or_else(|| {
            Error::NoSuchImage(reference(text).map_or_else(|_| text.to_owned(), |name| name.familiar()))
        })
    }

    /// As [`Engine::find`]; none when there is no such image.
    ///
    /// # Errors
    /// When the word can't be a name or stands for several images, or the store can't be read.
    pub fn look_up(&self, text: &str) -> Result<Option<Found>> {
        let name = reference(text);
        if let Ok(name) = &name
            && let Some(stored) = self.stored_as(name)?
        {
            return Ok(Some(Found { stored, name: Some(name.clone()) }));
        }
        let hex = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha512:")).unwrap_or(text);
        let ids = self.store.image_ids_with_prefix(text)?;
        match (ids.as_slice(), name) {
            ([id], _) => Ok(self.store.stored(id)?.map(|stored| Found { stored, name: None })),
            ([], Err(error)) if !is_hex(hex) => Err(error),
            ([], _) => Ok(None),
            _ => Err(Error::invalid(format!("several images have an id that begins with {hex}"))),
        }
    }

    /// A name with a digest stands for the image that was pulled as, or has, that digest.
    pub(super) fn stored_as(&self, name: &Reference) -> Result<Option<Stored>> {
        let Some(digest) = name.digest() else { return Ok(self.store.stored_named(name)?) };
        let mut names = self.store.names(None)?;
        names.retain(|known| same_repository(&known.name, name));
        names.sort_by_key(|known| known.name != *name);
        // That a name has this digest in it is nobody's word for what it stands for.
        for known in names {
            let stored = self.store.stored(&known.manifest)?;
            if let Some(stored) =
                stored.filter(|s| known.digest == Some(*digest) || s.manifest() == digest || s.id() == digest)
            {
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }

    /// The manifest or index that a name stands for.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn stands_for(&self, name: &Reference) -> Result<Option<Digest>> {
        Ok(self.stored_as(name)?.map(|stored| *stored.manifest()))
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// When there is no such image, or the new name is none.
    pub fn tag(&self, source: &str, target: &str) -> Result<()> {
        let target = reference(target)?;
        if target.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        let stored = self.find(source)?.stored;
        let named = self.store.set_name(&target, stored.manifest())?;
        if named { Ok(()) } else { Err(Error::NoSuchImage(source.to_owned())) }
    }

    /// Takes a name away, and the image if it was the last one. By id: all names of the image, when there is but one or
    /// `force` is set. By digest: only that the repository has it under this digest, where tags are left. With `platform`
    /// an index loses its image for that, and nothing else while it has others. The image of a container that runs stays,
    /// without a name if `force` takes the last one.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], or when several names stand for an id, or a container runs.
    pub fn remove(&self, text: &str, force: bool, platform: Option<&Platform>) -> Result<Vec<Removed>> {
        self.store.give_reserve()?;
        let found = self.find(text)?;
        if let Some(platform) = platform {
            let image = found.clone().image(Some(platform))?;
            if let Some(user) = self.user_of(&[&image])? {
                return Err(cannot_be_forced(&image.id, &user));
            }
            if let Stored::Index(index) = &found.stored
                && self.store.remove_member(index, &image.manifest)?
            {
                return Ok(vec![Removed::Image(image.id)]);
            }
        }
        let Found { stored, name } = found;
        let (id, user) = (stored.id(), self.user_of(&stored.images())?);
        let names = self.store.names(Some(id))?;
        match (name, user) {
            (None, Some(user)) => Err(cannot_be_forced(id, &user)),
            (None, None) => self.remove_id(id, &names, force),
            (Some(_), Some(user)) if !force && is_single(&names) => Err(Error::invalid(format!(
                "conflict: unable to remove repository reference {text:?} (must force) - container {} is using its \
                 referenced image {}",
                short(&user.id),
                short(&id.hex())
            ))),
            (Some(name), user) => {
                let same = |n: &&NameRecord| match name.digest() {
                    Some(_) => n.manifest == *stored.manifest(),
                    None => n.name == name,
                };
                let names: Vec<&NameRecord> = names.iter().filter(same).collect();
                match name.digest() {
                    Some(digest) => self.remove_digest(id, &name, digest, &names, user.is_some()),
                    None => self.forget(id, &names, user.is_some()),
                }
            }
        }
    }

    fn remove_id(&self, id: &Digest, names: &[NameRecord], force: bool) -> Result<Vec<Removed>> {
        if !force && !is_single(names) {
            return Err(Error::invalid(format!(
                "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
                short(&id.hex())
            )));
        }
        let removed = self.forget(id, &names.iter().collect::<Vec<_>>(), false)?;
        let is_kept = removed.is_empty().then(|| {
            let id = id.hex();
            Error::invalid(format!("conflict: unable to delete {} - it is part of an index", short(&id)))
        });
        is_kept.map_or(Ok(removed), Err)
    }

    /// A container that runs one of these images.
    fn user_of(&self, images: &[&ImageRecord]) -> Result<Option<RunningContainer>> {
        let running = RunningContainer::all(self.store.path())?;
        Ok(running.into_iter().find(|container| container.uses(images)))
    }

    fn remove_digest(
        &self,
        id: &Digest,
        name: &Reference,
        digest: &Digest,
        names: &[&NameRecord],
        stays: bool,
    ) -> Result<Vec<Removed>> {
        let (tagged, bare): (Vec<&NameRecord>, Vec<_>) = names
            .iter()
            .copied()
            .filter(|n| same_repository(&n.name, name))
            .filter(|n| n.digest == Some(*digest) || n.name.digest() == Some(digest))
            .partition(|n| n.name.tag().is_some());
        if tagged.is_empty() && bare.is_empty() {
            // It has the digest here, but no registry ever said so: tags are not meant.
            return Err(Error::NoSuchImage(name.familiar()));
        }
        if tagged.is_empty() {
            return self.forget(id, &bare, stays);
        }
        for known in tagged {
            self.store.forget_digest(&known.name, digest)?;
        }
        self.store.remove_names(id, &bare.iter().map(|n| &n.name).collect::<Vec<_>>())?;
        Ok(vec![Removed::Name(format!("{}@{digest}", name.familiar_name()))])
    }

    /// Removes names, and unless it `stays` the image with the last one that it has. The digest of a repository goes with its
    /// last name.
    pub(super) fn forget(&self, id: &Digest, names: &[&NameRecord], stays: bool) -> Result<Vec<Removed>> {
        let own: Vec<&Reference> = names.iter().map(|n| &n.name).collect();
        let gone = match stays {
            true => self.store.untag(id, &own).map(|()| false)?,
            false => self.store.remove_names(id, &own)?,
        };
        let left = if gone { Vec::new() } else { self.store.names(Some(id))? };
        let mut removed = Vec::new();
        for record in names {
            removed.push(Removed::Name(record.name.familiar()));
        }
        for record in names {
            let Some(digest) = record.digest else { continue };
            let name = Removed::Name(format!("{}@{digest}", record.name.familiar_name()));
            if !left.iter().any(|n| same_repository(&n.name, &record.name)) && !removed.contains(&name) {
                removed.push(name);
            }
        }
        removed.extend(gone.then_some(Removed::Image(*id)));
        Ok(removed)
    }
}

/// Whether no more than one tag of one repository stands for the image that has these names.
fn is_single(names: &[NameRecord]) -> bool {
    let repositories: BTreeSet<String> = names.iter().map(|n| n.name.familiar_name()).collect();
    repositories.len() <= 1 && names.iter().filter(|n| n.name.tag().is_some()).count() <= 1
}

fn cannot_be_forced(id: &Digest, user: &RunningContainer) -> Error {
    Error::invalid(format!(
        "conflict: unable to delete {} (cannot be forced) - image is being used by running container {}",
        short(&id.hex()),
        short(&user.id)
    ))
}

/// As docker shows ids.
fn short(hex: &str) -> &str {
    &hex[..12]
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(super) fn same_repository(one: &Reference, other: &Reference) -> bool {
    one.registry() == other.registry() && one.repository() == other.repository()
}
