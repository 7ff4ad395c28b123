//! Images come and go: pull, push, load, save.

use std::io::{Read, Write};

use boxwright_cache as cache;
use cache::export::Saved;
use cache::image::{self, Destination, PullEvent, PushEvent, Resolved, Sources};
use cache::import::Loaded;
use cache::oci::{Descriptor, Platform, Reference};

use super::names::same_repository;
use super::{Engine, Found};
use crate::error::{Error, Result};

impl Engine {
    /// Asks the registry for an image for `platform` and brings it here whole.
    ///
    /// # Errors
    /// When the registry does not have it, or something is not what its digest says.
    pub fn pull(
        &self,
        name: &Reference,
        platform: &Platform,
        tell: &(dyn Fn(PullEvent) + Sync),
    ) -> Result<Resolved> {
        let sources = Sources { store: &self.store, client: &self.client };
        Ok(image::pull(sources, name, platform, tell, &self.cancel)?)
    }

    /// Brings the image or index of this name to its registry; of an index with `platform` only the image for that.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], or when the registry refuses it.
    pub fn push(
        &self,
        name: &Reference,
        platform: Option<&Platform>,
        tell: &(dyn Fn(PushEvent) + Sync),
    ) -> Result<Descriptor> {
        let stored = self.stored_as(name)?.ok_or_else(|| missing(name))?;
        let found = Found { stored, name: Some(name.clone()) }.only(platform)?;
        let sources = Sources { store: &self.store, client: &self.client };
        Ok(image::push(sources, &found.stored, Destination::of(name), tell, &self.cancel)?)
    }

    /// The names of this repository that have a tag, in order.
    ///
    /// # Errors
    /// When there is none.
    pub fn tags_of(&self, repository: &Reference) -> Result<Vec<Reference>> {
        let names = self.store.names(None)?.into_iter().map(|known| known.name);
        let own: Vec<_> = names.filter(|n| n.tag().is_some() && same_repository(n, repository)).collect();
        if own.is_empty() { Err(missing(repository)) } else { Ok(own) }
    }

    /// Reads an archive of images; of each index with `platform` only the image for that.
    ///
    /// # Errors
    /// When it is none, or something in it is not what its digest says; no name has changed then.
    pub fn load(&self, input: impl Read + Send, platform: Option<&Platform>) -> Result<Vec<Loaded>> {
        Ok(cache::import::load(&self.store, input, platform, &self.cancel)?)
    }

    /// The images that words stand for, as one archive will have them. A repository without a tag means all its tags.
    ///
    /// # Errors
    /// As [`Engine::find`].
    pub fn to_save(&self, words: &[String], platform: Option<&Platform>) -> Result<Vec<Saved>> {
        let mut saved: Vec<Saved> = Vec::new();
        for word in words {
            let found = self.find(word)?.only(platform)?;
            match saved.iter_mut().find(|s| s.stored.manifest() == found.stored.manifest()) {
                Some(known) => known.names.extend(found.name.filter(|n| !known.names.contains(n))),
                None => saved.push(Saved { stored: found.stored, names: found.name.into_iter().collect() }),
            }
        }
        Ok(saved)
    }

    /// Writes images as one archive.
    ///
    /// # Errors
    /// When a layer can't be had, or `out` fails.
    pub fn save(&self, images: &[Saved], out: &mut dyn Write) -> Result<()> {
        Ok(cache::export::save(&self.store, images, out, &self.cancel)?)
    }
}

fn missing(name: &Reference) -> Error {
    Error::invalid(format!("An image does not exist locally with the tag: {}", name.familiar_name()))
}
