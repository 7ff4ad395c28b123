//! Images by name: docker's rules for what a word on the command line stands for, listing, naming and removing.

use std::collections::BTreeSet;

use boxwright_cache as cache;
use cache::Digest;
use cache::fs::pattern::Glob;
use cache::oci::Reference;
use cache::record::{ImageRecord, NameRecord};
use cache::snapshot::Layer;

use super::Engine;
use crate::error::{Error, Result};

/// An image, and the name it was found by; none when it was found by its id.
#[derive(Clone, Debug)]
pub struct Found {
    pub image: ImageRecord,
    pub name: Option<Reference>,
}

/// A line of the list of images.
#[derive(Clone, Debug)]
pub struct Listed {
    pub image: ImageRecord,
    pub name: Option<NameRecord>,
}

/// What a removal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    Name(String),
    Image(Digest),
}

/// Shown where an image has no name, tag or digest.
const NONE: &str = "<none>";

impl Listed {
    pub fn repository(&self) -> String {
        self.name.as_ref().map_or(NONE.to_owned(), |n| n.name.familiar_name())
    }

    pub fn tag(&self) -> String {
        self.name.as_ref().and_then(|n| n.name.tag()).unwrap_or(NONE).to_owned()
    }

    pub fn digest(&self) -> String {
        self.name.as_ref().and_then(|n| n.digest).map_or(NONE.to_owned(), |d| d.to_string())
    }
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

/// Bytes of all layers.
pub fn size_of(image: &ImageRecord) -> u64 {
    image.layers.iter().map(layer_size).sum()
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
            && let Some(image) = self.image_named(name)?
        {
            return Ok(Some(Found { image, name: Some(name.clone()) }));
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let ids = self.store.image_ids_with_prefix(hex)?;
        match (ids.as_slice(), name) {
            ([id], _) => Ok(self.store.image(id)?.map(|image| Found { image, name: None })),
            ([], Err(error)) if !is_hex(hex) => Err(error),
            ([], _) => Ok(None),
            _ => Err(Error::invalid(format!("several images have an id that begins with {hex}"))),
        }
    }

    /// A name with a digest stands for the image that was pulled as, or has, that digest.
    fn image_named(&self, name: &Reference) -> Result<Option<ImageRecord>> {
        let Some(digest) = name.digest() else { return Ok(self.store.image_named(name)?) };
        if let Some(image) = self.store.image_named(name)? {
            return Ok(Some(image));
        }
        for known in self.store.names(None)? {
            if known.name.registry() != name.registry() || known.name.repository() != name.repository() {
                continue;
            }
            let image = self.store.image(&known.image)?;
            if let Some(image) =
                image.filter(|i| known.digest == Some(*digest) || i.manifest == *digest || i.id == *digest)
            {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// Every name with its image, then images without a name; newest first. With `filter`, only names that match it.
    ///
    /// # Errors
    /// When the store can't be read, or the filter is no pattern.
    pub fn images(&self, filter: Option<&str>) -> Result<Vec<Listed>> {
        let names = self.store.names(None)?;
        let mut rows = Vec::new();
        for id in self.store.image_ids()? {
            let Some(image) = self.store.image(&id)? else { continue };
            let mut own: Vec<Option<NameRecord>> =
                names.iter().filter(|n| n.image == id).cloned().map(Some).collect();
            if own.is_empty() {
                own.push(None);
            }
            rows.extend(own.into_iter().map(|name| Listed { image: image.clone(), name }));
        }
        if let Some(filter) = filter {
            let filter = Glob::new(filter)?;
            rows.retain(|row| row.name.as_ref().is_some_and(|n| matches(&filter, &n.name)));
        }
        Ok(rows)
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
        let image = self.find(source)?.image;
        let named = self.store.set_name(&target, &image.id)?;
        if named { Ok(()) } else { Err(Error::NoSuchImage(source.to_owned())) }
    }

    /// Takes a name away, and the image if it was the last one. By id: all names of the image, when they are of one
    /// repository or `force` is set.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], or when several repositories name the image.
    pub fn remove(&self, text: &str, force: bool) -> Result<Vec<Removed>> {
        let Found { image, name } = self.find(text)?;
        let names = self.store.names(Some(&image.id))?;
        let named: Vec<&NameRecord> = match &name {
            Some(name) => names.iter().filter(|n| n.name == *name || name.digest().is_some()).collect(),
            None => names.iter().collect(),
        };
        let repositories: BTreeSet<String> = names.iter().map(|n| n.name.familiar_name()).collect();
        if name.is_none() && repositories.len() > 1 && !force {
            let id = &image.id.hex()[..12];
            return Err(Error::invalid(format!(
                "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
            )));
        }
        self.forget(&image.id, &named)
    }

    /// Removes names, and the image with the last one that it has.
    pub(super) fn forget(&self, id: &Digest, names: &[&NameRecord]) -> Result<Vec<Removed>> {
        let gone = self.store.remove_names(id, &names.iter().map(|n| &n.name).collect::<Vec<_>>())?;
        let mut removed = Vec::new();
        for record in names {
            removed.push(Removed::Name(record.name.familiar()));
            if let Some(digest) = record.digest.filter(|_| gone) {
                removed.push(Removed::Name(format!("{}@{digest}", record.name.familiar_name())));
            }
        }
        removed.extend(gone.then_some(Removed::Image(*id)));
        Ok(removed)
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Docker matches a pattern with the whole familiar name, or with the repository alone.
fn matches(filter: &Glob, name: &Reference) -> bool {
    filter.matches(name.familiar()) || filter.matches(name.familiar_name())
}
