//! Images come and go: pull, push, load, save.

use std::io::{Read, Write};

use boxwright_cache as cache;
use cache::export::Saved;
use cache::image::{self, PullEvent, PushEvent, Pushed, Resolved, Sources};
use cache::import::Loaded;
use cache::oci::{Platform, Reference};

use super::Engine;
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

    /// Brings the image of this name to its registry.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], or when the registry refuses it.
    pub fn push(&self, name: &Reference, tell: &(dyn Fn(PushEvent) + Sync)) -> Result<Pushed> {
        let missing = || {
            Error::invalid(format!("An image does not exist locally with the tag: {}", name.familiar_name()))
        };
        let image = self.store.image_named(name)?.ok_or_else(missing)?;
        let sources = Sources { store: &self.store, client: &self.client };
        Ok(image::push(sources, &image, name, tell, &self.cancel)?)
    }

    /// Reads an archive of images.
    ///
    /// # Errors
    /// When it is none, or something in it is not what its digest says; no name has changed then.
    pub fn load(&self, input: impl Read + Send) -> Result<Vec<Loaded>> {
        Ok(cache::import::load(&self.store, input, &Platform::host(), &self.cancel)?)
    }

    /// The images that words stand for, as one archive will have them. A repository without a tag means all its tags.
    ///
    /// # Errors
    /// As [`Engine::find`].
    pub fn to_save(&self, words: &[String]) -> Result<Vec<Saved>> {
        let mut saved: Vec<Saved> = Vec::new();
        for word in words {
            let found = self.find(word)?;
            match saved.iter_mut().find(|s| s.image.id == found.image.id) {
                Some(known) => known.names.extend(found.name.filter(|n| !known.names.contains(n))),
                None => saved.push(Saved { image: found.image, names: found.name.into_iter().collect() }),
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
